"""
Runs a target in a process of its own, as the bootstrap of a worker does, for
the tests of that.

C{python -c STUB SETTINGS TARGET…} with L{STUB}: the last line of standard
error is C{DRIVER} and a JSON list of what was told to the startup and raised.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import attrs
from zope.interface import implementer

import twisted_cluster
from twisted_cluster.errors import TargetError
from twisted_cluster.interfaces import IStartup
from twisted_cluster.ipc.settings import WorkerSettings

STUB: Final = "from tests.worker.driver import main; main()"
MARK: Final = "DRIVER "
DEADLINE: Final = 60.0


@attrs.frozen
class Result:
    """
    How a process ended.

    @ivar status: its exit status, negative for a signal.
    @ivar out: its standard output.
    @ivar err: its standard error, without what the driver wrote.
    @ivar told: what the startup was told, and the error that was raised.
    """

    status: int
    out: str
    err: str
    told: list[list[str]]


def runInWorker(
    *words: str,
    cwd: Path,
    python: tuple[str, ...] = (),
    check: bool = False,
    uid: int | None = None,
    gid: int | None = None,
) -> Result:
    """
    Run a target by the driver.

    @param python: flags for the interpreter.
    """
    settings = WorkerSettings(
        worker=1,
        slot=0,
        generation=1,
        watcher=os.getpid(),
        control=3,
        sockets=4,
        clients=5,
        check=check,
        uid=uid,
        gid=gid,
    )
    return _run([*python, "-c", STUB, settings.toArgument(), *words], cwd)


def runAlone(*words: str, cwd: Path) -> Result:
    """
    Run C{python} with these words.
    """
    return _run(list(words), cwd)


def _run(words: list[str], cwd: Path) -> Result:
    root = Path(twisted_cluster.__file__).parent.parent
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path}
    environment.pop("PYTHONUNBUFFERED", None)
    done = subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    err, mark, told = done.stderr.rpartition("\n" + MARK)
    if not mark:
        err, told = done.stderr, "[]"
    return Result(done.returncode, done.stdout, err, json.loads(told))


@implementer(IStartup)
class RecordingStartup:
    """
    Remembers what it is told, and is never ready.
    """

    def __init__(self) -> None:
        self.ready = False
        self.told: list[list[str]] = []

    def portOpened(self) -> None:
        """
        See L{IStartup.portOpened}.
        """
        self.told.append(["port"])

    def serviceStarted(self) -> None:
        """
        See L{IStartup.serviceStarted}.
        """
        self.told.append(["started"])

    def failed(self, stage: str, reason: str, traceback: str) -> None:
        """
        See L{IStartup.failed}.
        """
        self.told.append(["failed", stage, reason, traceback])

    def whenReady(self, callable: Callable[[], object]) -> None:
        """
        See L{IStartup.whenReady}.
        """


def main() -> None:
    """
    Run the target of the command line, or check it.
    """
    settings = WorkerSettings.fromArgument(sys.argv[1])
    words = sys.argv[2:]
    startup = RecordingStartup()
    errors = sys.stderr

    def tell() -> None:
        errors.write(f"\n{MARK}{json.dumps(startup.told)}\n")
        errors.flush()

    atexit.register(tell)

    from twisted_cluster.worker.launch import checkTarget, runTarget
    from twisted_cluster.worker.target import parseTarget

    try:
        target = parseTarget(words)
        if settings.check:
            checkTarget(target)
        else:
            runTarget(target, settings, startup)
    except TargetError as error:
        startup.told.append([type(error).__name__, error.reason, error.traceback])
        sys.exit(1)
