"""
The worker that this process is, if it is one.
"""

from __future__ import annotations

import signal
from typing import Any, Optional

import attrs
from twisted.internet.defer import Deferred

from twisted_cluster.ipc.settings import WorkerSettings
from twisted_cluster.worker.connections import Connections
from twisted_cluster.worker.drain.drain import Drain
from twisted_cluster.worker.incoming import Incoming
from twisted_cluster.worker.link import Link
from twisted_cluster.worker.startup import Startup


@attrs.define
class Worker:
    """
    This process, as a worker.

    @ivar reactor: the reactor, once it runs.
    @ivar stopping: whether the worker has begun to leave.
    @ivar drain: lets the connections end.
    """

    settings: WorkerSettings
    link: Link
    startup: Startup
    incoming: Optional[Incoming] = None
    connections: Optional[Connections] = None
    reactor: Any = None
    stopping: bool = False
    drain: Optional[Drain] = None
    _others: bool = attrs.field(default=False, init=False)
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

    def stop(self, asked: bool, delay: float = 0.0, others: bool = False) -> None:
        """
        Begin to leave: tell everybody who waits for it, let the connections end, then
        stop the reactor.  Programs that are told to stop mostly stop the reactor by
        themselves, at once; that takes effect when the connections have ended.

        @param asked: whether it was the watcher that asked.
        @param delay: seconds to serve on before that.
        @param others: whether other workers serve on, so that connections can move.
        """
        if self.stopping:
            return
        self.stopping = True
        if not asked:
            self.link.stopping()
        if self.reactor is not None and self.drain is not None:
            self.reactor.stop = _nothing
        waiting, self._whenStopping = self._whenStopping, []
        for waiter in waiting:
            waiter.callback(None)
        self._others = others
        if self.reactor is not None:
            self._leave(delay)

    def orphaned(self) -> None:
        """
        The watcher is gone: leave, and free the addresses for another.
        """
        self.stop(asked=True)
        if self.drain is not None and self.reactor is not None:
            self.drain.closePorts()

    def reactorRuns(self, reactor: Any) -> None:
        """
        The reactor runs; if the worker has begun to leave before, not for long.
        """
        self.reactor = reactor
        if self.stopping:
            self._leave(0.0)
        elif signal.getsignal(signal.SIGTERM) == getattr(reactor, "sigTerm", None):
            signal.signal(signal.SIGTERM, self._terminated)

    def reactorStops(self) -> None:
        """
        The reactor shuts down, for whatever reason: it answers no more.
        """
        self.reactor = None
        if self.stopping:
            self.link.stopping()
        self.stop(asked=False)
        if self.incoming is not None:
            self.incoming.stop()

    def _terminated(self, signum: int, frame: object) -> None:
        """
        This worker alone is to end, by Twisted's own signal.
        """
        if self.reactor is not None:
            self.reactor.callFromThread(self.stop, asked=False, others=True)

    def _leave(self, delay: float) -> None:
        if delay > 0:
            self.reactor.callLater(delay, self._drain)
        else:
            self._drain()

    def _drain(self) -> None:
        if self.reactor is None:
            return
        if self.drain is None:
            self._stopReactor()
        else:
            drained = self.drain.begin(self.reactor, self._others)
            self.link.draining()
            drained.addCallback(lambda _: self._stopReactor())

    def _stopReactor(self) -> None:
        reactor = self.reactor
        if reactor is None:
            return
        vars(reactor).pop("stop", None)
        if reactor.running and not _isStopping(reactor):
            reactor.stop()


def _isStopping(reactor: Any) -> bool:
    """
    Whether C{reactor.stop()} was called already, when a second call raises.
    """
    return bool(getattr(reactor, "_stopped", False))


def _nothing() -> None:
    pass


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
