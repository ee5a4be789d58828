"""
A connection to the watcher that leaves its descriptor alone when the program
has closed it, and the number may be somebody else's.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from twisted_cluster.sockets.wire.blocking import Identity, isStill
from twisted_cluster.sockets.wire.transport import Receiver, UNIXTransport


class GuardedTransport(UNIXTransport):
    """
    A transport that looks before it touches its descriptor: that of another
    socket, which has the number now, is neither read, written nor closed.
    """

    def __init__(
        self, reactor: Any, skt: socket.socket, protocol: Receiver, identity: Identity
    ) -> None:
        """
        @param identity: what the socket's descriptor was when it was ours.
        """
        super().__init__(reactor, skt, protocol)
        self._identity = identity

    def isOurs(self) -> bool:
        """
        Tell whether the descriptor is still the one that it was.  When the
        program has closed it, the connection ends.
        """
        if isStill(self._socket, self._identity):
            return True
        if self._connected:
            self.connectionLost(
                Failure(ConnectionLost("the program closed the channel's descriptor"))
            )
        return False

    def doRead(self) -> Any:
        """
        See L{UNIXTransport.doRead}.
        """
        return super().doRead() if self.isOurs() else None

    def doWrite(self) -> Any:
        """
        See L{UNIXTransport.doWrite}.
        """
        return super().doWrite() if self.isOurs() else None

    def connectionLost(self, reason: Failure) -> None:
        """
        See L{UNIXTransport.connectionLost}.
        """
        if not isStill(self._socket, self._identity):
            self._forget()
        super().connectionLost(reason)

    def _write(self, data: bytes, descriptors: list[int], ours: bool) -> None:
        """
        Write, or keep what cannot be written until the connection ends for that,
        soon: whoever writes takes no end meanwhile.
        """
        if isStill(self._socket, self._identity):
            super()._write(data, descriptors, ours)
            return
        self._chunks.append((memoryview(data), descriptors, ours))
        self.pending += len(data)
        self._reactor.callLater(0, self.isOurs)  # type: ignore[attr-defined]

    def _forget(self) -> None:
        """
        Close nothing: the number belongs to somebody else.  What the kernel no
        longer watches, some reactors cannot remove.
        """
        self._socket.detach()
        for remove in (self._reactor.removeReader, self._reactor.removeWriter):
            with suppress(OSError, KeyError):
                remove(self)
