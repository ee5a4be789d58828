"""
Receives client connections, with data, from another process.

The rules:

  1. A socket is the sender's until it is taken, and it is taken for a consumer
     that iterates; while nobody does, or the consumer is busy, the sender has to
     wait.
  2. The word that a socket was taken leaves before the consumer gets it.  For a
     consumer that has got all that arrived before without ever being busy,
     several are taken by one word.  What is left of those when it pauses is
     next, also for another consumer; C{abort()} closes it once there is none.
  3. So many sockets and bytes may wait here; a sender that keeps to no window is
     then held up by the kernel.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Final, Optional
from weakref import ref

import msgspec
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twisted_cluster.errors import AlreadyConsumed, ProtocolError
from twisted_cluster.sockets.clients.pipe import CLOSE_TIMEOUT, Pipe
from twisted_cluster.sockets.clients.transferred import TransferredSocket
from twisted_cluster.sockets.wire.frames import LARGEST, MOST, Arrival

MOST_WAITING: Final = 512
"""
Sockets that wait here, from which on nothing more is read: more than what a
sender's window lets pass, unless it was made larger.
"""

MOST_BYTES_WAITING: Final = 4 * 1024 * 1024
"""
Bytes of their data, likewise; one socket may have more.
"""

_decode = msgspec.msgpack.Decoder(tuple[Any, bytes]).decode


class ClientSocketReceivePipe(Pipe):
    """
    The end of a connection between two processes that receives sockets.

    Iterate over it by C{async for}.  While nobody iterates, or the consumer is
    busy, nothing is taken, and the sender has to wait; when much waits here
    already, the end of the connection is noticed only after some was taken.

    For a consumer that keeps up with many, up to 63 are taken ahead.  It may leave
    then: they wait for the next one, in this process.
    """

    def __init__(
        self,
        reactor: Any,
        connection: socket.socket,
        *,
        maxDataSize: int = LARGEST,
    ) -> None:
        """
        @param reactor: watches the connection; sockets are adopted on it.
        @param connection: a connected UNIX stream socket, which is the pipe's
            from now on.  At its other end is a L{ClientSocketSendPipe
            <twisted_cluster.sockets.clients.sender.ClientSocketSendPipe>}.
        @param maxDataSize: the most bytes that the data of one socket may take;
            more ends the connection.
        @raise UsageError: when the socket is none of that kind; it has been closed.
        """
        super().__init__(reactor, connection, maxDataSize)
        self._consumer: Optional[ref[AsyncIterator[TransferredSocket]]] = None
        self._turn = 0
        self._waiter: Optional[Deferred[None]] = None
        self._awake = False
        self._aborted = False
        self._pace = 1
        self._paused = False
        self._decoded: deque[tuple[Any, bytes]] = deque()
        self._taken: deque[TransferredSocket] = deque()
        self._undecodable: Optional[str] = None
        self._handover.arrived = self._arrived
        self._handover.start()

    def __aiter__(self) -> AsyncIterator[TransferredSocket]:
        """
        Iterate over the sockets that arrive, in the order in which they were
        sent, until the connection ends.  What is yielded is the consumer's.  Who
        leaves the loop leaves what waits to the next, even after the end.

        @raise AlreadyConsumed: when somebody else does so at the moment.
        @raise ProtocolError: from the iteration, when the other side broke the
            rules, or died within a frame.
        """
        if self._consumer is not None:
            raise AlreadyConsumed(
                "this pipe has a consumer already: share what it receives"
            )
        self._turn += 1
        turn = self._turn
        consumer = self._iterate(turn)
        self._consumer = ref(consumer, lambda _: self._left(turn))
        return consumer

    def close(
        self, why: str = "the receiver was closed", timeout: float = CLOSE_TIMEOUT
    ) -> Deferred[None]:
        """
        Give back what was not taken, and close.  The iteration ends; what it
        yielded stays the consumer's, and what was taken for it is yielded still.

        @param why: for those who wait at the other side.
        @param timeout: seconds in which the other side must read that.
        @return: a Deferred that fires when the connection has been closed.
        """
        closed = self._closeWithin(timeout)
        if self._ended is None:
            self._handover.close(why)
        self._wake()
        return closed

    def abort(self) -> None:
        """
        Close now.  A consumer still gets what was taken for it; if there is none,
        what was taken for one that left is closed.
        """
        self._aborted = True
        super().abort()
        self._closeLeft()

    async def _iterate(self, turn: int) -> AsyncIterator[TransferredSocket]:
        taken = self._taken
        try:
            while True:
                while taken:
                    yield taken.popleft()
                if self._take():
                    continue
                if self._ended is not None or (self._closing and not self._decoded):
                    break
                self._waiter = Deferred()
                await self._waiter
        finally:
            self._left(turn)
        if self._ended is not None and self._ended.check(ProtocolError):
            raise self._ended.value or ProtocolError()

    def _take(self) -> bool:
        """
        Take what waits, as much as the consumer's pace allows.

        @return: whether there was something to take.
        """
        handover = self._handover
        while True:
            arrivals = handover.take(self._pace if self._awake else 1, self._decode)
            if self._undecodable is not None:
                why, self._undecodable = self._undecodable, None
                handover.giveBack(1, f"its data cannot be decoded: {why}")
                if not arrivals and not self._decoded:
                    continue
            break
        reactor, decoded = self._reactor, self._decoded
        for arrival in arrivals:
            data, unread = decoded.popleft()
            self._taken.append(
                TransferredSocket(reactor, arrival.descriptor, data, unread)
            )
        if arrivals and self._pace < MOST:
            self._pace += self._pace
        if self._paused and not self._full:
            self._paused = False
            handover.resumeProducing()
        return bool(arrivals)

    @property
    def _full(self) -> bool:
        count = self._handover.waiting
        return count >= MOST_WAITING or (
            count > 1 and self._handover.waitingBytes >= MOST_BYTES_WAITING
        )

    def _decode(self, arrival: Arrival) -> bool:
        try:
            self._decoded.append(_decode(arrival.data))
        except (msgspec.MsgspecError, RecursionError, ValueError) as error:
            self._undecodable = str(error)
            return False
        return True

    def _arrived(self) -> None:
        if self._waiter is None and self._decoded:
            # Their sender was told that they are taken: keep them.
            while self._decoded and self._take():
                pass
        else:
            self._awake = True
            self._wake()
            self._awake = False
            if self._waiter is None:
                self._pace = 1
        if not self._paused and self._full:
            self._paused = True
            self._handover.pauseProducing()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.callback(None)

    def _left(self, turn: int) -> None:
        if turn == self._turn:
            self._consumer = self._waiter = None
            self._closeLeft()

    def _closeLeft(self) -> None:
        if self._aborted and self._consumer is None:
            while self._taken:
                self._taken.popleft().close()

    def _lost(self, reason: Failure, tokens: list[Any]) -> None:
        super()._lost(reason, tokens)
        self._decoded.clear()
        self._wake()
        self._closeLeft()
