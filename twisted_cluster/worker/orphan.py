"""
What a worker does when its watcher dies: it leaves, at once and for certain.

Three things tell of that death.  The control channel ends, unless some other
process holds its other end; a descriptor of the watcher's process becomes
readable, unless the reactor is busy; and the kernel sends a signal, unless the
program has changed its user.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Optional

from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

_log = Logger("twisted_cluster")


_PR_SET_PDEATHSIG = 1
_SIGNAL = signal.SIGRTMAX - 3


@implementer(IReadDescriptor)
class _ProcessDescriptor:
    """
    A pidfd, see pidfd_open(2): readable when the process has ended.
    """

    def __init__(self, reactor: Any, descriptor: int, ended: Callable[[], None]):
        self._reactor = reactor
        self._descriptor = descriptor
        self._ended = ended

    def fileno(self) -> int:
        return self._descriptor

    def logPrefix(self) -> str:
        return "watcher's process"

    def doRead(self) -> None:
        self.connectionLost(Failure(ConnectionError()))
        self._ended()

    def connectionLost(self, reason: Failure) -> None:
        if self._descriptor >= 0:
            self._reactor.removeReader(self)
            os.close(self._descriptor)
            self._descriptor = -1


class Orphanage:
    """
    Watches the watcher.
    """

    def __init__(self, watcher: int, limit: float, leave: Callable[[], None]) -> None:
        """
        @param watcher: the watcher's process id.
        @param limit: seconds that leaving may take.
        @param leave: begins to leave, gracefully.
        """
        self._watcher = watcher
        self._limit = limit
        self._leave = leave
        self._orphaned = False
        self._reactor: Any = None

    def prepare(self) -> None:
        """
        Have the kernel tell, before there is a reactor.  Ends this process if
        the watcher is gone already.
        """
        signal.signal(_SIGNAL, lambda signum, frame: self._signalled())
        if sys.platform == "linux":
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, _SIGNAL)
        if os.getppid() != self._watcher:
            os._exit(1)

    def attach(self, reactor: Any) -> None:
        """
        The reactor runs: watch the watcher's process with it.
        """
        self._reactor = reactor
        descriptor = _openProcess(self._watcher)
        if descriptor is not None:
            reactor.addReader(_ProcessDescriptor(reactor, descriptor, self.orphaned))
        if os.getppid() != self._watcher:
            self.orphaned()

    def orphaned(self) -> None:
        """
        The watcher is gone.
        """
        if self._orphaned:
            return
        self._orphaned = True
        self._limitLeaving()
        _log.error(
            "the watcher (pid {watcher}) is gone: leaving within {limit} s",
            watcher=self._watcher,
            limit=self._limit,
        )
        self._leave()

    def _signalled(self) -> None:
        if os.getppid() == self._watcher:
            return
        if self._reactor is None:
            os._exit(1)
        self._reactor.callFromThread(self.orphaned)
        self._limitLeaving()

    def _limitLeaving(self) -> None:
        """
        End this process in time, even if its reactor turns no more.
        """
        devnull = open(os.devnull, "w")  # noqa: SIM115 - open until the process ends
        faulthandler.dump_traceback_later(self._limit, exit=True, file=devnull)


def _openProcess(pid: int) -> Optional[int]:
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None
