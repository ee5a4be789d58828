"""
Lets the connections of a worker end before it leaves.

The rules:

  1. First, nothing is accepted any more.  What the kernel may have woken this worker
     for is accepted before that; when no other worker serves, all that waits is, and
     what the watcher has sent is taken.  Ports that are this worker's own, as FTP
     opens them for transfers, accept on, as nobody else would.
  2. Then each connection is asked to end, by its protocol's L{IDrainable}; one
     without is left alone.  What begins later, by the program's own doing, is asked
     likewise.
  3. When none is left, or the time is over, the worker may leave.
"""

from __future__ import annotations

import select
from collections import Counter
from functools import partial
from typing import Any, Final, Optional

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from twisted_cluster.interfaces import IDrainable
from twisted_cluster.sockets.clients.detach import isReading
from twisted_cluster.worker.connections import Connections
from twisted_cluster.worker.drain.adapters import registerAdapters
from twisted_cluster.worker.drain.connection import GOODBYE, ConnectionDrain, Move
from twisted_cluster.worker.incoming import Incoming

_log = Logger("twisted_cluster")

_BRIEFLY = 0.5
"""Seconds that idle clients are given at most when no other worker serves: what they
have asked may be on its way."""

_MOST: Final = 2_000
"""
How often a port accepts, a few connections at a time, when no other worker serves.
"""


class Drain:
    """
    The end of all connections.
    """

    def __init__(
        self, connections: Connections, incoming: Incoming, idle: float, limit: float
    ) -> None:
        """
        @param idle: seconds that clients are given which have asked for nothing.
        @param limit: seconds that all of it may take.
        """
        self._connections = connections
        self._incoming = incoming
        self._idle = idle
        self._limit = limit
        self._reactor: Any = None
        self._move: Optional[Move] = None
        self._over: Optional[Deferred[None]] = None
        self._timeout: Optional[IDelayedCall] = None
        self._next: Optional[IDelayedCall] = None
        self._asked: list[ConnectionDrain] = []
        self._began = 0.0

    def begin(self, reactor: Any, others: bool) -> Deferred[None]:
        """
        Begin; called once, while the reactor runs.

        @param others: whether other workers serve on, so that idle connections can
            move to them.  Otherwise they are closed soon.
        @return: a Deferred that fires when no connection is left, or the time is
            over.
        """
        self._reactor = reactor
        self._began = reactor.seconds()
        over: Deferred[None] = Deferred()
        self._over = over
        registerAdapters()
        if others:
            self._move = self._incoming.sendBack
        else:
            self._idle = min(self._idle, _BRIEFLY)
            self._incoming.takeAll()
        for port in list(self._connections.ports):
            self._close(port, others)
        self._incoming.stop()
        self._connections.made = partial(reactor.callLater, 0, self._ask)
        for transport in list(self._connections.live):
            self._ask(transport)
        self._timeout = reactor.callLater(self._limit, self._late)
        self._next = reactor.callLater(GOODBYE, self._lookAtEach)
        self._connections.ended = self._look
        self._look()
        return over

    def closePorts(self) -> None:
        """
        Have nothing of the listening sockets left here, so that a new watcher can
        bind their addresses; called after L{begin}.  Their factories are stopped when
        the drain is over, since what they have open may be needed by then.
        """
        for port in list(self._connections.ports):
            if port.connected and not port.disconnecting:
                self._keep(port.factory)
                port.stopListening()

    def _keep(self, factory: Any) -> None:
        if self._over is not None:
            factory.doStart()
            self._over.addCallback(lambda _: factory.doStop())

    def _close(self, port: Any, others: bool) -> None:
        if not port.connected or port.disconnecting:
            return
        if isReading(port):
            port.doRead()
            for _ in range(0 if others else _MOST):
                if not (port.connected and _anyWaits(port)):
                    break
                port.doRead()
        port.stopReading()

    def _ask(self, transport: Any) -> None:
        if transport not in self._connections.live:
            return
        drain = ConnectionDrain(transport, self._reactor, self._idle, self._move)
        self._asked.append(drain)
        try:
            drainable = _drainableOf(transport)
            if drainable is not None:
                drainable.drain(drain)
        except Exception:
            _log.failure(
                "The connection of {protocol} cannot be drained, and is left alone",
                protocol=transport.protocol,
            )

    def _lookAtEach(self) -> None:
        self._next = self._reactor.callLater(GOODBYE, self._lookAtEach)
        for each in self._asked:
            each.look()

    def _look(self) -> None:
        if not self._connections.live:
            self._end()

    def _late(self) -> None:
        self._timeout = None
        names = Counter(_nameOf(each) for each in self._connections.live)
        _log.warn(
            "{count} of this worker's connections are still open after {limit:g} s, "
            "and are cut: {names}",
            count=len(self._connections.live),
            limit=self._limit,
            names=", ".join(f"{n} of {name}" for name, n in names.most_common(5)),
        )
        self._end()

    def _end(self) -> None:
        over, self._over = self._over, None
        if over is None:
            return
        for call in (self._timeout, self._next):
            if call is not None:
                call.cancel()
        self._timeout = self._next = None
        if self._asked:
            _log.info(
                "{count} connections have ended in {seconds:.2f} s; {moved} of them "
                "moved to other workers",
                count=len(self._asked) - len(self._connections.live),
                seconds=self._reactor.seconds() - self._began,
                moved=sum(each.moved for each in self._asked),
            )
        over.callback(None)


def _anyWaits(port: Any) -> bool:
    """
    Whether a port has connections to accept.
    """
    poll = select.poll()
    poll.register(port.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _drainableOf(transport: Any) -> Any:
    """
    Find how a connection is drained: by the outermost protocol that knows, TLS
    being wrapped around others.
    """
    protocol: Any = transport.protocol
    while protocol is not None:
        # mypy-zope takes what is adapted for the interface itself.
        drainable: Any = IDrainable(protocol, None)
        if drainable is not None:
            return drainable
        protocol = getattr(protocol, "wrappedProtocol", None)
    return None


def _nameOf(transport: Any) -> str:
    protocol = transport.protocol
    while hasattr(protocol, "wrappedProtocol"):
        protocol = protocol.wrappedProtocol
    return type(protocol).__name__
