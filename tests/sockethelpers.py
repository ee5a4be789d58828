"""
What the tests of sockets share: counting descriptors, short paths, and what
was logged.
"""

from __future__ import annotations

import gc
import os
import resource
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

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


def isOpen(descriptor: int) -> bool:
    """
    Tell whether it is.
    """
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


@contextmanager
def room(count: int) -> Iterator[None]:
    """
    Let this process open that many more descriptors and no more.
    """
    used = set(filter(isOpen, map(int, os.listdir("/proc/self/fd"))))
    limit = 0
    free = 0
    while free < count or limit in used:
        free += limit not in used
        limit += 1
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


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
