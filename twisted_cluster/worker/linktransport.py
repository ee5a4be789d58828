"""
The control channel while the reactor carries it: a connection that survives the
reactor, and that other threads can write to.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

from twisted.internet import main
from twisted.python.failure import Failure

from twisted_cluster.sockets.wire.blocking import Identity, isStill
from twisted_cluster.sockets.wire.transport import Receiver
from twisted_cluster.worker.guardedtransport import GuardedTransport


class LinkTransport(GuardedTransport):
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
        @param lock: is held by whoever writes.
        @param abandoned: called when the reactor stops, which ends every
            connection that it still carries; this one is needed for the last
            words.
        """
        super().__init__(reactor, skt, protocol, identity)
        self._lock: Any = lock
        self._abandoned = abandoned

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
        See L{UNIXTransport.write}.
        """
        with self._lock:
            super().write(data)

    def doWrite(self) -> Any:
        """
        See L{UNIXTransport.doWrite}.
        """
        with self._lock:
            return super().doWrite()

    def connectionLost(self, reason: Failure) -> None:
        """
        End, or go on without the reactor.
        """
        if reason.value is main.CONNECTION_LOST and isStill(
            self._socket, self._identity
        ):
            self._abandoned()
            return
        with self._lock:
            super().connectionLost(reason)
