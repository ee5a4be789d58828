"""
What one connection's protocol may do with it when it is to be drained.
"""

from __future__ import annotations

import socket
import termios
from collections.abc import Callable
from fcntl import ioctl
from typing import Any, Final, Optional

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from twisted_cluster.errors import TransferFailed
from twisted_cluster.interfaces import IDrain
from twisted_cluster.sockets.clients.detach import Detached, detach

Move = Callable[[Any, int, bytes], Deferred[None]]
"""
Hands a socket to the watcher: called with the transport's port, the descriptor,
which must stay open until the outcome, and what was read from it and not used.
"""


GOODBYE: Final = 1.0
"""Seconds that a client has to say good-bye in TLS; many that are idle never do."""


@implementer(IDrain)
class ConnectionDrain:
    """
    See L{IDrain}.

    @ivar moved: whether another worker has the connection.
    """

    def __init__(
        self, transport: Any, clock: IReactorTime, idle: float, move: Optional[Move]
    ) -> None:
        """
        @param move: L{None} when no other worker serves.
        """
        self.transport = transport
        self.clock = clock
        self.idle = idle
        self.moved = False
        self._move = move
        self._saidGoodbye: Optional[float] = None

    def move(self, unread: bytes = b"") -> Deferred[None]:
        """
        See L{IDrain.move}.
        """
        if self._move is None:
            return fail(TransferFailed("no other worker serves"))
        return Deferred.fromCoroutine(self._moveTo(self._move, unread))

    async def _moveTo(self, move: Move, unread: bytes) -> None:
        detached: Detached = await detach(self.transport, mayProduce=True)
        try:
            await move(self.transport.server, detached.descriptor, unread)
        except BaseException:
            detached.resume()
            raise
        self.moved = True
        detached.complete()

    def close(self) -> bool:
        """
        See L{IDrain.close}.
        """
        transport = self.transport
        if transport.disconnected or transport.disconnecting:
            return True
        try:
            if transport.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                return False
        except BlockingIOError:
            pass
        except OSError:
            return False
        secure = self._secure()
        if secure is not None:
            secure.loseConnection()
            self._saidGoodbye = self.clock.seconds()
            return True
        try:
            transport.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        transport.loseConnection()
        return True

    def look(self) -> None:
        """
        Hang up on a client that was said good-bye to in TLS, has read that, and has not
        answered.  Called from time to time.
        """
        since, transport = self._saidGoodbye, self.transport
        if since is None or transport.disconnected or transport.disconnecting:
            return
        if self.clock.seconds() - since >= GOODBYE and not any(
            ioctl(transport.fileno(), termios.TIOCOUTQ, bytes(4))
        ):
            transport.loseConnection()

    def _secure(self) -> Any:
        """
        Find what says good-bye in TLS, if the connection speaks it.
        """
        protocol = self.transport.protocol
        return protocol if hasattr(protocol, "wrappedProtocol") else None
