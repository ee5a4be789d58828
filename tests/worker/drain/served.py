"""
Stand-ins for what drains a connection.
"""

from __future__ import annotations

from typing import Any, Optional

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_cluster.errors import NotTransferable
from twisted_cluster.interfaces import IDrain


class Transport(StringTransport):
    """
    A transport that knows its protocol, and may have something to send.

    @ivar dataBuffer: what was written and not sent.
    """

    protocol: Any = None
    dataBuffer = b""
    offset = 0

    def unregisterProducer(self) -> None:
        """
        Let there be no producer; as with real ones, there may be none already.
        """
        if self.producer is not None:
            super().unregisterProducer()


@implementer(IDrain)
class FakeDrain:
    """
    Records what a protocol wants to be done with its connection.

    @ivar moves: for each move, what was not used.
    @ivar moving: the outcome of the last move.
    @ivar closes: how often it was to be closed.
    @ivar closable: whether nothing has come from the client at that moment.
    """

    def __init__(self, transport: Any, clock: Clock, movable: bool = True) -> None:
        self.transport = transport
        self.clock = clock
        self.idle = 5.0
        self.moves: list[bytes] = []
        self.moving: Optional[Deferred[None]] = None
        self.closes = 0
        self.closable = True
        self._movable = movable

    def move(self, unread: bytes = b"") -> Deferred[None]:
        """
        See L{IDrain.move}.  Call L{moved} for it to happen.
        """
        self.moves.append(unread)
        if not self._movable:
            return fail(NotTransferable("it speaks TLS"))
        self.moving = Deferred()
        return self.moving

    def moved(self) -> None:
        """
        The connection has moved.
        """
        moving, self.moving = self.moving, None
        assert moving is not None
        lose(self.transport)
        moving.callback(None)

    def notMoved(self, why: Exception) -> None:
        """
        The connection stays here.
        """
        moving, self.moving = self.moving, None
        assert moving is not None
        moving.errback(why)

    def close(self) -> bool:
        """
        See L{IDrain.close}.
        """
        self.closes += 1
        if self.closable:
            self.transport.loseConnection()
        return self.closable


def lose(transport: Any) -> None:
    """
    Tell a transport's protocol that the connection has ended.
    """
    transport.connected = False
    transport.protocol.connectionLost(Failure(ConnectionDone()))
