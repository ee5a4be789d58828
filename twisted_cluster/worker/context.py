"""
The worker that this process is, if it is one.
"""

from __future__ import annotations

from typing import Any, Optional

import attrs
from twisted.internet.defer import Deferred

from twisted_cluster.ipc.settings import WorkerSettings
from twisted_cluster.worker.incoming import Incoming
from twisted_cluster.worker.link import Link
from twisted_cluster.worker.startup import Startup


@attrs.define
class Worker:
    """
    This process, as a worker.

    @ivar reactor: the reactor, once it runs.
    @ivar stopping: whether the worker has begun to leave.
    """

    settings: WorkerSettings
    link: Link
    startup: Startup
    incoming: Optional[Incoming] = None
    reactor: Any = None
    stopping: bool = False
    _whenStopping: list[Deferred[None]] = attrs.field(factory=list, init=False)

    def whenStopping(self) -> Deferred[None]:
        """
        A Deferred that fires when the worker begins to leave.
        """
        waiter: Deferred[None] = Deferred()
        if self.stopping:
            waiter.callback(None)
        else:
            self._whenStopping.append(waiter)
        return waiter

    def stop(self, asked: bool) -> None:
        """
        Begin to leave: tell everybody who waits for it, then stop the reactor.

        @param asked: whether it was the watcher that asked.
        """
        if not self.stopping:
            self.stopping = True
            if self.incoming is not None:
                self.incoming.stop()
            if not asked:
                self.link.stopping()
            waiting, self._whenStopping = self._whenStopping, []
            for waiter in waiting:
                waiter.callback(None)
        reactor = self.reactor
        if reactor is not None and reactor.running and not _isStopping(reactor):
            reactor.stop()

    def reactorRuns(self, reactor: Any) -> None:
        """
        The reactor runs; if the worker has begun to leave before, not for long.
        """
        self.reactor = reactor
        if self.stopping:
            self.stop(asked=True)

    def reactorStops(self) -> None:
        """
        The reactor shuts down, for whatever reason.
        """
        self.reactor = None
        self.stop(asked=False)


def _isStopping(reactor: Any) -> bool:
    """
    Whether C{reactor.stop()} was called already, when a second call raises.
    """
    return bool(getattr(reactor, "_stopped", False))


_current: Optional[Worker] = None


def current() -> Optional[Worker]:
    """
    This process's worker, or L{None} when it is none.
    """
    return _current


def become(worker: Optional[Worker]) -> None:
    """
    Make this process a worker.
    """
    global _current
    _current = worker
