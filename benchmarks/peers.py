"""
The servers whose operation is compared: a cluster of ours, and what one would use
instead, which is installed into an environment of its own for that.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Optional

import attrs
from twisted.internet.threads import deferToThread

from benchmarks.processes import PROGRAMS, ROOT

INSTALLED: Final = ("gunicorn", "uvicorn", "hypercorn", "granian")
PATIENCE: Final = 300
HEARTBEAT: Final = 3
"""
Seconds after which a server that can be told so gives a hung worker up.
"""

SCALES: Final = {signal.SIGTTIN, signal.SIGTTOU}


@attrs.frozen
class Peer:
    """
    A kind of server.

    @ivar name: in the table.
    @ivar command: its command line, by the port that it listens on and the file
        that holds the application's changing part.
    @ivar signals: what it has signals for besides HUP, which reloads in all.
    """

    name: str
    command: Callable[[int, Path], Sequence[str]]
    signals: frozenset[int] = frozenset()


def environment(app: Path) -> Mapping[str, str]:
    """
    The environment of a server.
    """
    path = f"{ROOT}{os.pathsep}{PROGRAMS}"
    made = dict(os.environ, PYTHONPATH=path, LOAD_APP=str(app))
    made["PYTHONDONTWRITEBYTECODE"] = "1"
    made.pop("PYTHONUNBUFFERED", None)
    made.pop("WEB_CONCURRENCY", None)
    return made


def _ours(*options: str) -> Sequence[str]:
    limits = ("--heartbeat-timeout", f"{HEARTBEAT}s", "--start-timeout", "5s")
    return (
        *(sys.executable, "-m", "twisted_cluster.cli", "run", "-w", "2"),
        *("--log-format", "text", *limits, *options),
    )


def _site(*options: str) -> Callable[[int, Path], Sequence[str]]:
    program = str(PROGRAMS / "loadserver.py")
    return lambda port, app: (
        *_ours(*options),
        *(program, str(port), "--app", str(app)),
    )


def _daphne(port: int, app: Path) -> Sequence[str]:
    return (
        *_ours(),
        *("-m", "daphne", "-v", "0", "-b", "127.0.0.1", "-p", str(port)),
        "loadapp:application",
    )


def ours() -> Sequence[Peer]:
    """
    Clusters of ours.
    """
    signals = frozenset(SCALES)
    return (
        Peer("twisted.web", _site(), signals),
        Peer("twisted.web, round-robin", _site("--balance", "round-robin"), signals),
        Peer("Daphne", _daphne, signals),
    )


def others(programs: Path) -> Sequence[Peer]:
    """
    What others have, with the settings under which they did best.

    @param programs: the folder with their commands.
    """

    def gunicorn(port: int, app: Path) -> Sequence[str]:
        return (
            *(str(programs / "gunicorn"), "-w", "2", "-b", f"127.0.0.1:{port}"),
            *("-k", "gthread", "--threads", "40", "--timeout", str(HEARTBEAT)),
            "loadapp:wsgi",
        )

    def uvicorn(port: int, app: Path) -> Sequence[str]:
        return (
            *(str(programs / "uvicorn"), "--workers", "2", "--port", str(port)),
            *("--no-access-log", "--timeout-worker-healthcheck", str(HEARTBEAT)),
            "loadapp:application",
        )

    def hypercorn(port: int, app: Path) -> Sequence[str]:
        return (
            *(str(programs / "hypercorn"), "-w", "2", "-b", f"127.0.0.1:{port}"),
            "loadapp:application",
        )

    def granian(port: int, app: Path) -> Sequence[str]:
        return (
            *(str(programs / "granian"), "--interface", "asgi", "--workers", "2"),
            *("--port", str(port), "--respawn-failed-workers"),
            "loadapp:application",
        )

    return (
        Peer("gunicorn", gunicorn, frozenset(SCALES)),
        Peer("uvicorn", uvicorn, frozenset(SCALES)),
        Peer("hypercorn", hypercorn),
        Peer("granian", granian),
    )


def _folder() -> Path:
    version = "{}.{}".format(*sys.version_info)
    name = f"twisted_cluster-peers-{version}-{os.getuid()}"
    return Path(tempfile.gettempdir()) / name


def _install(folder: Path) -> Optional[str]:
    """
    Install what is not there yet.

    @return: why that failed.
    """
    programs = folder / "bin"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.lstat().st_uid != os.getuid():
        return f"{folder} belongs to somebody else"
    if all((programs / each).exists() for each in INSTALLED):
        return None
    sys.stderr.write(f"installing {', '.join(INSTALLED)} into {folder}\n")
    steps = (
        [sys.executable, "-m", "venv", str(folder)],
        [str(programs / "python"), "-m", "pip", "install", "--quiet", *INSTALLED],
    )
    for step in steps:
        try:
            done = subprocess.run(
                step,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=PATIENCE,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        if done.returncode:
            lines = done.stdout.decode("utf-8", "replace").strip().splitlines()
            return lines[-1] if lines else f"status {done.returncode}"
    return None


async def install() -> Sequence[Peer]:
    """
    Install what others have, and keep it for the next time.

    @return: nothing, if that failed; the standard error says why.
    """
    folder = _folder()
    failure: Any = await deferToThread(_install, folder)
    if failure is not None:
        sys.stderr.write(f"without {', '.join(INSTALLED)}: {failure}\n")
        return ()
    return others(folder / "bin")
