"""
What the commands do with a watcher when a signal asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Optional, Protocol

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger
from twisted.python.failure import Failure


class Watcher(Protocol):
    """
    What the commands need of L{ClusterWatcher
    <twisted_cluster.watcher.ClusterWatcher>}.
    """

    @property
    def workers(self) -> Sequence[Any]: ...

    def privilegedStartService(self) -> object: ...

    def startService(self) -> object: ...

    def stopService(self) -> Optional[Deferred[None]]: ...

    def whenStopped(self) -> Deferred[None]: ...

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


class WatcherActions:
    """
    Carries out what signals ask of a watcher.  What goes wrong is logged.

    @param watcher: the watcher.
    @param stop: begins a graceful stop of the whole process.
    """

    _log = Logger()

    def __init__(self, watcher: Watcher, stop: Callable[[], None]) -> None:
        self._watcher = watcher
        self._stop = stop
        self._wanted = 0
        self._resizing = 0

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
        if not self._resizing:
            self._wanted = self._count()
        if self._wanted + difference < 1:
            self._log.warn("One worker is the least there can be: none was stopped.")
            return
        self._wanted += difference
        self._resizing += 1

        def over(result: object) -> object:
            self._resizing -= 1
            return result

        wanted = self._wanted
        self._do(
            f"scale to {wanted}",
            lambda: self._watcher.scale(wanted).addBoth(over),
        )

    def _count(self) -> int:
        """
        Count the places that workers take; during a restart, two workers share
        one.
        """
        return len({each.slot for each in self._watcher.workers})

    def _do(self, what: str, action: Callable[[], Deferred[Any]]) -> None:
        def failed(failure: Failure) -> None:
            self._log.error(
                "Could not {what}: {reason}",
                what=what,
                reason=failure.getErrorMessage(),
            )

        maybeDeferred(action).addErrback(failed)
