"""
What the two ends of a pipe for client sockets have in common: how it ends.
"""

from __future__ import annotations

import socket
from typing import Any, Final, Optional

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from twisted_cluster.sockets.wire.connections import checkConnection
from twisted_cluster.sockets.wire.handover import Handover

CLOSE_TIMEOUT: Final = 30.0
"""
Seconds that the other side has to answer when a pipe is closed.
"""


class Pipe:
    """
    What both ends have in common.
    """

    def __init__(self, reactor: Any, connection: socket.socket, largest: int) -> None:
        checkConnection(connection)
        self._reactor = reactor
        self._handover = Handover(reactor, connection, largest)
        self._handover.lost = self._lost
        self._ended: Optional[Failure] = None
        self._closing = False
        self._limit: Optional[IDelayedCall] = None
        self._whenClosed: list[Deferred[None]] = []

    @property
    def closed(self) -> bool:
        """
        Whether nothing is sent or taken any more: C{close()} or L{abort} was
        called, or the connection has ended.  L{whenClosed} tells when it has.
        """
        return self._closing

    def whenClosed(self) -> Deferred[None]:
        """
        A Deferred that fires when the connection has ended, for whatever reason.
        """
        if self._ended is not None:
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        self._whenClosed.append(waiter)
        return waiter

    def abort(self) -> None:
        """
        Close now.
        """
        self._closing = True
        if self._ended is None:
            self._handover.abort()

    def _closeWithin(self, timeout: float) -> Deferred[None]:
        self._closing = True
        if self._ended is None and self._limit is None:
            self._limit = self._reactor.callLater(timeout, self._late)
        return self.whenClosed()

    def _late(self) -> None:
        self._limit = None
        self._handover.abort()

    def _lost(self, reason: Failure, tokens: list[Any]) -> None:
        self._closing = True
        self._ended = reason
        limit, self._limit = self._limit, None
        if limit is not None:
            limit.cancel()
        waiters, self._whenClosed = self._whenClosed, []
        for waiter in waiters:
            waiter.callback(None)
