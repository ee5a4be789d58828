"""
One run of a watcher by C{twisted-cluster run}, from the reactor's start to the
exit status.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Optional

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.python.failure import Failure

from twisted_cluster.errors import (
    ClusterError,
    CrashLooping,
    InvalidEndpoint,
    InvalidWorkerCount,
    StartFailed,
    Stopped,
    TargetError,
    TargetStartError,
    TargetUsageError,
)
from twisted_cluster.supervisor.actions import (
    Watcher,
    WatcherActions,
    stopReactor,
    summary,
)
from twisted_cluster.supervisor.commandline import table
from twisted_cluster.supervisor.mail import logMessages
from twisted_cluster.supervisor.signals import SignalHandlers

STOPPED: Final = 0
CONFIGURATION: Final = 1
USAGE: Final = 2
NEVER_READY: Final = 3
NOT_LOADED: Final = 4
CRASH_LOOP: Final = 5
INTERNAL: Final = 70

STATUSES: Final = "Exit status:\n" + table(
    [
        ("0", "stopped as asked"),
        ("1", "configuration: an address of --bind that cannot be bound, say"),
        ("2", "usage, the target's own options included"),
        ("3", "the first worker never became ready"),
        ("4", "the target could not be loaded"),
        ("5", "crash loop, with --exit-on-crash-loop"),
        ("70", "internal error"),
    ]
)

_STATUSES: Final[Sequence[tuple[type[BaseException], int]]] = (
    (CrashLooping, CRASH_LOOP),
    (Stopped, STOPPED),
    (InvalidEndpoint, USAGE),
    (InvalidWorkerCount, USAGE),
    (TargetUsageError, USAGE),
    (TargetStartError, NEVER_READY),
    (TargetError, NOT_LOADED),
    (ClusterError, CONFIGURATION),
    (CannotListenError, CONFIGURATION),
)


def statusOf(reason: BaseException) -> int:
    """
    Say which exit status tells what went wrong.
    """
    if isinstance(reason, StartFailed):
        return reason.status
    for kind, status in _STATUSES:
        if isinstance(reason, kind):
            return status
    return INTERNAL


class ClusterRun:
    """
    One run of a cluster, or one check of a target.  The reactor is stopped
    when it is over, for whatever reason.

    @ivar status: the exit status, once the reactor has stopped.
    """

    def __init__(
        self,
        reactor: Any,
        complain: Callable[[str], None],
        describe: Callable[[BaseException], str] = summary,
    ) -> None:
        """
        @param reactor: the reactor of this process, which calls L{start} or
            L{check} once it runs.
        @param complain: tells the user what went wrong.
        @param describe: makes the text that the user is told.
        """
        self.status = STOPPED
        self._reactor = reactor
        self._complain = complain
        self._describe = describe
        self._over = False

    def start(self, makeWatcher: Callable[[], Watcher]) -> None:
        """
        Start a cluster, and take the signals.  To be called by the running
        reactor.
        """
        try:
            watcher = makeWatcher()
            self._stopWith(watcher.stopService)
            self._takeSignals(watcher)
            watcher.privilegedStartService()
            watcher.startService()
        except Exception:
            self._failed(Failure())
            return
        logMessages(watcher.messages())
        watcher.whenStopped().addCallbacks(self._ended, self._failed)

    def _takeSignals(self, watcher: Watcher) -> None:
        actions = WatcherActions(watcher, lambda: stopReactor(self._reactor))
        handlers = SignalHandlers(self._reactor, actions)
        handlers.install()
        self._reactor.addSystemEventTrigger("after", "shutdown", handlers.uninstall)

    def check(
        self, check: Callable[[], Deferred[None]], success: Callable[[], str]
    ) -> None:
        """
        Check a target.  To be called by the running reactor.

        @param check: begins the check; what it returns is cancelled when the
            process is told to stop.
        @param success: says what to print when nothing was wrong.
        """
        self.status = NOT_LOADED
        checking = maybeDeferred(check)
        self._stopWith(checking.cancel)

        def passed(result: None) -> None:
            print(success(), flush=True)
            self._ended(None)

        checking.addCallbacks(passed, self._failed)

    def _stopWith(self, stop: Callable[[], Optional[Deferred[None]]]) -> None:
        def shutDown() -> Optional[Deferred[None]]:
            if self._over:
                return None
            stopped = stop()
            return None if stopped is None else stopped.addErrback(self._failed)

        self._reactor.addSystemEventTrigger("before", "shutdown", shutDown)

    def _ended(self, result: None) -> None:
        if not self._over:
            self._over = True
            self.status = STOPPED
        stopReactor(self._reactor)

    def _failed(self, failure: Failure) -> None:
        if not self._over:
            self._over = True
            self._tell(failure)
        stopReactor(self._reactor)

    def _tell(self, failure: Failure) -> None:
        reason = failure.value
        if reason is None or failure.check(CancelledError):
            return
        self.status = statusOf(reason)
        if self.status == INTERNAL:
            self._complain(f"internal error\n{failure.getTraceback().rstrip()}")
        elif self.status != STOPPED:
            self._complain(self._describe(reason))
