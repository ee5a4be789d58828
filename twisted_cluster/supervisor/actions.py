"""
What the commands do with a watcher when a signal asks for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Optional, Protocol

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_cluster.errors import RestartFailed, Stopped
from twisted_cluster.interfaces import WorkerMessage

_log = Logger("twisted_cluster")


class Watcher(Protocol):
    """
    What the commands need of L{ClusterWatcher
    <twisted_cluster.watcher.ClusterWatcher>}.
    """

    @property
    def desired(self) -> int: ...

    def privilegedStartService(self) -> object: ...

    def startService(self) -> object: ...

    def stopService(self) -> Optional[Deferred[None]]: ...

    def whenStopped(self) -> Deferred[None]: ...

    def messages(self) -> AsyncIterator[WorkerMessage]: ...

    def stopNow(self) -> object: ...

    def restart(self) -> Deferred[None]: ...

    def scale(self, workers: int) -> Deferred[None]: ...


def stopReactor(reactor: Any) -> None:
    """
    Stop a reactor that may be stopping already.
    """
    try:
        reactor.stop()
    except ReactorNotRunning:
        pass


def summary(reason: BaseException) -> str:
    """
    Say in one line what went wrong: the traceback of a target that failed
    follows in later lines, and the watcher has logged it already.  Where the
    first line announces others, the last one, which names the exception, is
    told with it.
    """
    first, *rest = str(reason).strip().splitlines() or [type(reason).__name__]
    return f"{first} {rest[-1].strip()}" if rest and first.endswith(":") else first


class WatcherActions:
    """
    Carries out what signals ask of a watcher.  What goes wrong is logged, here
    or, where it is a restart, by the watcher.

    @param watcher: the watcher.
    @param stop: begins a graceful stop of the whole process.
    """

    def __init__(self, watcher: Watcher, stop: Callable[[], None]) -> None:
        self._watcher = watcher
        self._stop = stop

    def stop(self) -> None:
        """
        Stop gracefully.
        """
        self._stop()

    def stopNow(self) -> None:
        """
        Stop without waiting for anybody.
        """
        self._watcher.stopNow()
        self._stop()

    def restart(self) -> None:
        """
        Replace all workers.
        """
        self._do("restart", self._watcher.restart)

    def more(self) -> None:
        """
        Add one worker.
        """
        self._resize(+1)

    def fewer(self) -> None:
        """
        Take one worker away, unless it is the last.
        """
        self._resize(-1)

    def _resize(self, difference: int) -> None:
        wanted = self._watcher.desired + difference
        if wanted < 1:
            _log.warn("One worker is the least there can be: it stays.")
        else:
            self._do(f"scale to {wanted}", lambda: self._watcher.scale(wanted))

    def _do(self, what: str, action: Callable[[], Deferred[None]]) -> None:
        def failed(failure: Failure) -> None:
            if failure.check(RestartFailed, Stopped) is None:
                _log.error(
                    "Could not {what}: {reason}",
                    what=what,
                    reason=failure.getErrorMessage(),
                )

        maybeDeferred(action).addErrback(failed)
