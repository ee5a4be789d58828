"""
Runs a target in a process of its own, as the bootstrap of a worker does, for
the tests of that.

C{python -c STUB SETTINGS TARGET…} with L{STUB}: the last line of standard
error is C{DRIVER} and a JSON list of what was told to the startup and raised.
"""

from __future__ import annotations

import atexit
import json
import sys
from typing import Callable, Final

from zope.interface import implementer

from twisted_cluster.errors import TargetError
from twisted_cluster.interfaces import IStartup
from twisted_cluster.ipc.settings import WorkerSettings

STUB: Final = "from tests.worker.driver import main; main()"
MARK: Final = "DRIVER "


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
