"""
The connection to the watcher while the reactor carries it: one that survives
the reactor, that other threads can write to, and that leaves a descriptor alone
which is not its own any more.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet import main
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from twisted_cluster.sockets.blocking import Identity, isStill
from twisted_cluster.sockets.transport import Receiver, UNIXTransport


class LinkTransport(UNIXTransport):
    """
    A transport of which the reactor's thread may use everything, and others,
    while they hold the lock, L{isIdle} and L{writeFromThread}.
    """

    def __init__(
        self,
        reactor: Any,
        skt: socket.socket,
        protocol: Receiver,
        identity: Identity,
        lock: threading.RLock,
        abandoned: Callable[[], None],
    ) -> None:
        """
        @param identity: what the socket's descriptor was when it was ours.
        @param lock: is held by whoever writes.
        @param abandoned: called when the reactor stops, which ends every
            connection that it still carries; this one is needed for the last
            words.
        """
        super().__init__(reactor, skt, protocol)
        self._identity = identity
        self._lock: Any = lock
        self._abandoned = abandoned

    def isOurs(self) -> bool:
        """
        Tell whether the descriptor is still the one that it was.  When the
        program has closed it, the connection ends.
        """
        if isStill(self._socket, self._identity):
            return True
        if self._connected:
            self.connectionLost(
                Failure(ConnectionLost("the program closed the control channel"))
            )
        return False

    def isIdle(self) -> bool:
        """
        Tell whether what is written now would go at once.
        """
        return (
            self._connected
            and not self._disconnecting
            and not self._chunks
            and isStill(self._socket, self._identity)
        )

    def writeFromThread(self, data: bytes) -> None:
        """
        Write, while this is idle; the reactor gets what the kernel does not
        take.
        """
        left = memoryview(data)
        try:
            while left:
                left = left[self._socket.send(left, socket.MSG_DONTWAIT) :]
        except (BlockingIOError, InterruptedError):
            self._chunks.append((left, [], True))
            self.pending += len(left)
            self._reactor.callFromThread(self._writeOn)  # type: ignore[attr-defined]
        except OSError:
            return  # The reactor will notice, too.

    def _writeOn(self) -> None:
        if self._connected and self._chunks:
            self._reactor.addWriter(self)

    def write(self, data: bytes) -> None:
        """
        See L{UNIXTransport.write}.  That the descriptor is not ours is noticed
        soon after, since AMP takes no end of its connection while it writes.
        """
        with self._lock:
            if isStill(self._socket, self._identity):
                super().write(data)
            else:
                self._reactor.callFromThread(self.isOurs)  # type: ignore[attr-defined]

    def doRead(self) -> Any:
        """
        See L{UNIXTransport.doRead}.
        """
        return super().doRead() if self.isOurs() else None

    def doWrite(self) -> Any:
        """
        See L{UNIXTransport.doWrite}.
        """
        with self._lock:
            return super().doWrite() if self.isOurs() else None

    def connectionLost(self, reason: Failure) -> None:
        """
        End, or go on without the reactor.
        """
        if not isStill(self._socket, self._identity):
            self._forget()
        elif reason.value is main.CONNECTION_LOST:
            self._abandoned()
            return
        with self._lock:
            super().connectionLost(reason)

    def _forget(self) -> None:
        """
        Close nothing: the number belongs to somebody else.  What the kernel no
        longer watches, some reactors cannot remove.
        """
        self._socket.detach()
        for remove in (self._reactor.removeReader, self._reactor.removeWriter):
            with suppress(OSError, KeyError):
                remove(self)
