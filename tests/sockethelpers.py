"""
What the tests of sockets share: counting descriptors, short paths, and what
was logged.
"""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections.abc import Sequence

from twisted.logger import ILogObserver, LogEvent, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer


def descriptors() -> int:
    """
    How many descriptors this process has open, without those that only await
    the garbage collector.
    """
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def shortDirectory(case: SynchronousTestCase) -> str:
    """
    Make a directory for the length of a test, with a path short enough for a
    UNIX socket, wherever the tests are run.
    """
    path = tempfile.mkdtemp(prefix="tc")
    case.addCleanup(shutil.rmtree, path, True)
    return path


@implementer(ILogObserver)
class Events(list[LogEvent]):
    """
    An observer that keeps what it sees.
    """

    def __call__(self, event: LogEvent) -> None:
        self.append(event)

    @property
    def texts(self) -> Sequence[str]:
        return [formatEvent(event) for event in self]
