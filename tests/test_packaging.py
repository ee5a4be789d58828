"""
What a user installs, built from this checkout and installed for real.

These tests need a package index, and take a minute or two.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

import attrs
import pytest
from twisted.trial.unittest import SynchronousTestCase

CHECKOUT: Final = Path(__file__).resolve().parents[1]
PLUGIN: Final = "twisted/plugins/twisted_cluster_plugin.py"
BUILD_DEADLINE: Final = 240.0
INSTALL_DEADLINE: Final = 240.0
RUN_DEADLINE: Final = 60.0

NOT_SOURCE: Final = shutil.ignore_patterns(
    *(".?*_cache", ".git", ".hypothesis", ".venv", "venv", "build", "dist"),
    *("__pycache__", "_trial_temp*"),
)

WHOLE: Final = """
import base64, hashlib, importlib.metadata
import twisted.plugins, twisted.web

for file in importlib.metadata.files("twisted"):
    if file.hash is not None:
        digest = hashlib.new(file.hash.mode, file.read_binary()).digest()
        value = base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")
        assert value == file.hash.value, file
print("whole")
"""
"""
A program that checks every file of the installed Twisted.
"""

CLUSTER_LISTED: Final = re.compile(r"^ +cluster +\S", re.MULTILINE)
"""
The line of C{twistd --help} that names our plugin.
"""


def cleanEnvironment() -> dict[str, str]:
    """
    Make an environment in which Python finds nothing but what is installed.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PYTHON") and name != "VIRTUAL_ENV"
    }


def run(command: Sequence[str | Path], cwd: Path, deadline: float) -> str:
    """
    Run a command to its end, and report it and its time on stdout.

    @param deadline: seconds after which it is killed.
    @return: what it wrote to its stdout.
    @raise AssertionError: it ended with an error, or too late; the text holds
        all that it wrote.
    """
    words = [str(word) for word in command]
    shown = " ".join(word for word in words if "\n" not in word)
    print(f"[packaging] {shown} …", flush=True)
    started = time.monotonic()
    try:
        done = subprocess.run(
            words,
            cwd=cwd,
            env=cleanEnvironment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=deadline,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        raise AssertionError(
            f"{shown}: not done after {deadline} s\n{late.stdout!r}\n{late.stderr!r}"
        ) from late
    print(f"[packaging]   took {time.monotonic() - started:.1f} s", flush=True)
    if done.returncode:
        raise AssertionError(
            f"{shown}: exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
    return done.stdout


@attrs.frozen
class Artifacts:
    """
    What was built, once for all tests.

    @ivar wheel: built from the sdist.
    @ivar sdist: built from a copy of the checkout.
    @ivar directory: holds both; removed when the interpreter exits.
    """

    wheel: Path
    sdist: Path
    directory: tempfile.TemporaryDirectory[str]

    def contents(self) -> tuple[set[str], set[str]]:
        """
        List the files in the wheel, and those in the sdist without the folder
        that it wraps them in.
        """
        with zipfile.ZipFile(self.wheel) as wheel, tarfile.open(self.sdist) as sdist:
            return set(wheel.namelist()), {
                name.partition("/")[2] for name in sdist.getnames()
            }


@cache
def build() -> Artifacts:
    """
    Build the sdist from a copy of the checkout in which twistd and Python have
    left their caches, and the wheel from the sdist.
    """
    directory = tempfile.TemporaryDirectory(prefix="twisted_cluster-packaging-")
    source, target = Path(directory.name, "source"), Path(directory.name, "dist")
    shutil.copytree(CHECKOUT, source, ignore=NOT_SOURCE)
    (source / ".gitignore").unlink()
    for folder in ("twisted/plugins", "twisted_cluster"):
        (source / folder / "dropin.cache").write_bytes(b"stale")
    run(
        [sys.executable, "-m", "build", "--outdir", target, source],
        source.parent,
        BUILD_DEADLINE,
    )
    (wheel,), (sdist,) = target.glob("*.whl"), target.glob("*.tar.gz")
    return Artifacts(wheel, sdist, directory)


@pytest.mark.slow
@pytest.mark.timeout(BUILD_DEADLINE + 30)
class ContentsTests(SynchronousTestCase):
    """
    The artifacts hold what they should, and nothing else.
    """

    def test_wheel(self) -> None:
        """
        The wheel holds the package, its type marker, its licence and one
        plugin inside Twisted's package, of which it overwrites no file.
        """
        wheel, _ = build().contents()
        outside = {
            name
            for name in wheel
            if not re.match(r"twisted_cluster(-[^/]*\.dist-info)?/", name)
        }
        self.assertEqual({PLUGIN}, outside)
        self.assertIn("twisted_cluster/__init__.py", wheel)
        self.assertIn("twisted_cluster/py.typed", wheel)
        self.assertTrue(any(name.endswith("/LICENSE") for name in wheel), wheel)

    def test_sdist(self) -> None:
        """
        The sdist holds what is needed to build, to test and to read it.
        """
        _, sdist = build().contents()
        self.assertEqual(
            set(),
            {
                ".ci/run",
                "CHANGELOG.md",
                "LICENSE",
                "README.md",
                "SECURITY.md",
                "pyproject.toml",
                "tests/test_packaging.py",
                "twisted_cluster/__init__.py",
                "twisted_cluster/py.typed",
                PLUGIN,
            }
            - sdist,
        )
        self.assertEqual(
            [], [name for name in sdist if re.match(r"twisted/(.*/)?__init__", name)]
        )

    def test_nothingStale(self) -> None:
        """
        What running leaves in a checkout, twistd's cache of plugins above all,
        is in neither.
        """
        wheel, sdist = build().contents()
        self.assertEqual(
            [],
            [
                name
                for name in wheel | sdist
                if re.search(r"dropin\.cache|\.pyc$|/twistd\.(pid|log)", name)
            ],
        )


@pytest.mark.slow
@pytest.mark.timeout(2 * INSTALL_DEADLINE + 5 * RUN_DEADLINE)
class InstallationTests(SynchronousTestCase):
    """
    Each kind of installation works in an empty environment, and leaves it as
    it was.
    """

    def assertInstalls(self, *arguments: str | Path) -> None:
        """
        Install into a new virtual environment, use what was installed, and
        uninstall it again.

        @param arguments: what C{pip install} is told to install.
        """
        directory = tempfile.mkdtemp(prefix="twisted_cluster-install-")
        self.addCleanup(shutil.rmtree, directory)
        away = Path(directory)
        scripts = away / "venv" / "bin"
        run([sys.executable, "-m", "venv", "venv"], away, INSTALL_DEADLINE)
        pip: list[str | Path] = [scripts / "python", "-m", "pip"]
        run([*pip, "install", *arguments], away, INSTALL_DEADLINE)

        listing = run([scripts / "twistd", "--help"], away, RUN_DEADLINE)
        self.assertRegex(listing, CLUSTER_LISTED)
        for command in (["twistd", "cluster", "--help"], ["twisted-cluster", "--help"]):
            usage = run([scripts / command[0], *command[1:]], away, RUN_DEADLINE)
            self.assertIn("usage:", usage.lower())

        run([*pip, "uninstall", "--yes", "twisted_cluster"], away, RUN_DEADLINE)
        self.assertFalse((scripts / "twisted-cluster").exists())
        listing = run([scripts / "twistd", "--help"], away, RUN_DEADLINE)
        self.assertRegex(listing, r"(?m)^ +web +\S")
        self.assertNotRegex(listing, CLUSTER_LISTED)
        whole = run([scripts / "python", "-c", WHOLE], away, RUN_DEADLINE)
        self.assertEqual("whole\n", whole)

    def test_wheel(self) -> None:
        """
        From the wheel, C{twistd --help} lists C{cluster} and the command line
        works; uninstalled, Twisted is whole and knows of it no more.
        """
        self.assertInstalls(build().wheel)

    def test_sdist(self) -> None:
        """
        From the sdist: the same.
        """
        self.assertInstalls(build().sdist)

    def test_editable(self) -> None:
        """
        From a source tree, with C{pip install -e}: the same.
        """
        directory = tempfile.mkdtemp(prefix="twisted_cluster-source-")
        self.addCleanup(shutil.rmtree, directory)
        with tarfile.open(build().sdist) as sdist:
            sdist.extractall(directory)
        (source,) = Path(directory).iterdir()
        self.assertInstalls("--editable", source)


class PromisesTests(SynchronousTestCase):
    """
    What the README promises is what is run.
    """

    def test_testsCommand(self) -> None:
        """
        The README's line that passes the tests is, letter by letter, the one
        that C{.ci/run} runs.
        """
        script = (CHECKOUT / ".ci" / "run").read_text()
        (line,) = re.findall(r'^readme="(.*)"$', script, re.MULTILINE)
        readme = (CHECKOUT / "README.md").read_text().splitlines()
        self.assertIn(line, [each.strip() for each in readme])
