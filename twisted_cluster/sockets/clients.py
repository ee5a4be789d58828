"""
Moves client connections, with data, from one process to another.

The rules:

  1. A socket is the sender's until the receiver's consumer has got it; what is
     not taken goes on at the sender as if nothing had happened.
  2. Sockets are taken in the order in which they were sent; but a live
     transport takes its place once its client has been sent what was written.
  3. So many sockets and bytes may be on their way; what is beyond waits in a
     queue of the sender's, whose length is limited, too.
"""

from __future__ import annotations

import os
import socket
import sys
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Final, Optional, Union
from weakref import ref

import msgspec
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, ITransport
from twisted.python.failure import Failure

from twisted_cluster.errors import (
    AlreadyConsumed,
    ChannelClosed,
    ChannelFull,
    ClusterError,
    MessageNotSerializable,
    MessageTooLarge,
    NotTransferable,
    ProtocolError,
    TransferFailed,
    UsageError,
)
from twisted_cluster.interfaces import Data
from twisted_cluster.sockets.detach import FLUSH_TIMEOUT, Detached, detach
from twisted_cluster.sockets.frames import LARGEST
from twisted_cluster.sockets.handover import Handover
from twisted_cluster.sockets.transferred import TransferredSocket

WINDOW: Final = 256
"""
Sockets on their way, unless told otherwise.
"""

WINDOW_BYTES: Final = 1024 * 1024
"""
Bytes of data on their way, unless told otherwise; one socket may have more.
"""

QUEUE: Final = 1024
"""
Sockets that wait at the sender, unless told otherwise.
"""

CLOSE_TIMEOUT: Final = 30.0
"""
Seconds that the other side has to answer when a pipe is closed.
"""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(tuple[Any, bytes])


class _Pipe:
    """
    What both ends have in common.
    """

    def __init__(self, reactor: Any, connection: socket.socket, largest: int) -> None:
        if (connection.family, connection.type) != (socket.AF_UNIX, socket.SOCK_STREAM):
            raise UsageError(f"{connection!r} is no UNIX stream socket")
        self._reactor = reactor
        self._handover = Handover(reactor, connection, largest)
        self._handover.lost = self._lost
        self._ended: Optional[Failure] = None
        self._closing = False
        self._limit: Optional[IDelayedCall] = None
        self._whenClosed: list[Deferred[None]] = []

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
        self.abort()

    def _lost(self, reason: Failure, tokens: list[Any]) -> None:
        self._closing = True
        self._ended = reason
        limit, self._limit = self._limit, None
        if limit is not None:
            limit.cancel()
        waiters, self._whenClosed = self._whenClosed, []
        for waiter in waiters:
            waiter.callback(None)


class _Sending:
    """
    A socket that was given to C{send()} and is not answered.

    @ivar descriptor: a duplicate that is ours, or what C{detached} lends.
    """

    __slots__ = ("descriptor", "detached", "frame", "result")

    def __init__(
        self, descriptor: int, frame: bytes, detached: Optional[Detached] = None
    ) -> None:
        self.descriptor = descriptor
        self.frame = frame
        self.detached = detached
        self.result: Deferred[None] = Deferred()


class ClientSocketSendPipe(_Pipe):
    """
    The end of a connection between two processes that sends sockets.
    """

    def __init__(
        self,
        reactor: Any,
        connection: socket.socket,
        *,
        maxDataSize: int = LARGEST,
        window: int = WINDOW,
        windowBytes: int = WINDOW_BYTES,
        maxQueued: int = QUEUE,
        flushTimeout: float = FLUSH_TIMEOUT,
    ) -> None:
        """
        @param reactor: watches the connection, and keeps time.
        @param connection: a connected UNIX stream socket, which is the pipe's
            from now on.  At its other end is a L{ClientSocketReceivePipe}.
        @param maxDataSize: the most bytes that the data of one socket may take,
            with what is unread; the receiver has a limit of its own.
        @param window: how many sockets may be on their way.
        @param windowBytes: how many bytes of data may; one socket's may be more.
        @param maxQueued: how many sockets may wait in this process.
        @param flushTimeout: seconds in which the client of a live transport must
            read what was written to it.
        @raise UsageError: when the socket is none of that kind.
        """
        super().__init__(reactor, connection, maxDataSize)
        self._maxDataSize = maxDataSize
        self._window = window
        self._windowBytes = windowBytes
        self._maxQueued = maxQueued
        self._flushTimeout = flushTimeout
        self._queue: deque[_Sending] = deque()
        self._flushing: dict[Deferred[Detached], None] = {}
        self._queuedBytes = 0
        self._sent = 0
        self._sentBytes = 0
        self._handover.answered = self._answered
        self._handover.start()

    @property
    def waiting(self) -> int:
        """
        How many sockets wait in this process to be sent.
        """
        return len(self._queue) + len(self._flushing)

    def send(
        self,
        socket: Union[int, socket.socket, ITransport],
        data: Data = None,
        unread: bytes = b"",
    ) -> Deferred[None]:
        """
        Send a socket, with data.

        @param socket: a descriptor or a socket, which is duplicated at once: the
            caller keeps its own, and may close it as soon as this returns.  Or a
            live transport of a TCP or UNIX connection: it stops reading at once,
            and goes when what was written to it has left.  If it is taken, its
            protocol's C{connectionLost} is called with L{ConnectionTransferred
            <twisted_cluster.sockets.detach.ConnectionTransferred>}; if not, it
            goes on.
        @param data: what MessagePack can express; it is encoded before this
            returns.
        @param unread: what was read from the connection and belongs to the
            receiver's protocol.
        @return: a Deferred that fires when the other side's consumer has got the
            socket.  It fails with L{NotTransferable}, L{MessageNotSerializable},
            L{MessageTooLarge}, L{ChannelFull} (too much is waiting: await the
            earlier ones), L{ChannelClosed}, C{OSError} (this process cannot
            duplicate the descriptor: C{EMFILE}, C{EBADF}); at once, and nothing
            was sent; or later with L{TransferFailed}, saying why the other side
            did not take it, or what became of the live transport meanwhile.
            Cancelling it does not bring the socket back.
        """
        try:
            if self._closing:
                raise ChannelClosed("this pipe is closed")
            if self.waiting >= self._maxQueued or self._queuedBytes > self._maxDataSize:
                raise ChannelFull(
                    f"{self.waiting} sockets wait to be sent already: await what "
                    "send() returned for them"
                )
            frame = self._encode(data, unread)
            if type(socket) is int:
                sending = _Sending(os.dup(socket), frame)
            else:
                descriptor = _descriptorOf(socket)
                if descriptor is None:
                    return self._sendTransport(socket, frame)
                sending = _Sending(os.dup(descriptor), frame)
        except OSError as error:
            return fail(_explained(error, socket))
        except ClusterError as error:
            return fail(error)
        self._put(sending)
        return sending.result

    def close(self, timeout: float = CLOSE_TIMEOUT) -> Deferred[None]:
        """
        Send nothing more, and close when what is on its way or waits has been
        answered.

        @param timeout: seconds, after which the rest fails.
        @return: a Deferred that fires when the connection has been closed.
        """
        closed = self._closeWithin(timeout)
        self._closeIfIdle()
        return closed

    def _encode(self, data: Data, unread: bytes) -> bytes:
        try:
            frame = _encoder.encode((data, unread))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise MessageNotSerializable(
                f"cannot send a {type(data).__name__} with a socket: {error}; send "
                "plain data or a msgspec.Struct"
            ) from error
        if len(frame) > self._maxDataSize:
            raise MessageTooLarge(
                f"data of {len(frame):,} bytes is over the limit of "
                f"{self._maxDataSize:,} (maxDataSize)"
            )
        return frame

    def _sendTransport(self, transport: Any, frame: bytes) -> Deferred[None]:
        sending = _Sending(-1, frame)
        flushed = detach(transport, self._flushTimeout)
        self._flushing[flushed] = None
        self._queuedBytes += len(frame)

        def leave() -> None:
            del self._flushing[flushed]
            self._queuedBytes -= len(frame)

        def go(detached: Detached) -> None:
            leave()
            sending.detached = detached
            sending.descriptor = detached.descriptor
            self._put(sending)

        def stay(failure: Failure) -> None:
            leave()
            if not failure.check(ClusterError):
                failure = Failure(_gone(self._ended))
            sending.result.errback(failure)
            self._closeIfIdle()

        flushed.addCallbacks(go, stay)
        return sending.result

    def _put(self, sending: _Sending) -> None:
        if self._queue or not self._hasRoom(sending):
            self._queue.append(sending)
            self._queuedBytes += len(sending.frame)
        else:
            self._go(sending)

    def _hasRoom(self, sending: _Sending) -> bool:
        if self._sent >= self._window:
            return False
        bytes = self._sentBytes + len(sending.frame)
        return not self._sent or bytes <= self._windowBytes

    def _go(self, sending: _Sending) -> None:
        self._sent += 1
        self._sentBytes += len(sending.frame)
        self._handover.send(sending.descriptor, sending.frame, sending)

    def _answered(self, sending: _Sending, why: Optional[str]) -> None:
        self._sent -= 1
        self._sentBytes -= len(sending.frame)
        while self._queue and self._hasRoom(self._queue[0]):
            following = self._queue.popleft()
            self._queuedBytes -= len(following.frame)
            self._go(following)
        _settle(sending, None if why is None else TransferFailed(why))
        if self._closing:
            self._closeIfIdle()

    def _closeIfIdle(self) -> None:
        if self._closing and not (self._sent or self.waiting) and self._ended is None:
            self._handover.close()

    def _lost(self, reason: Failure, tokens: list[Any]) -> None:
        super()._lost(reason, tokens)
        self._sent = self._sentBytes = self._queuedBytes = 0
        unsent, self._queue = self._queue, deque()
        for sending in (*tokens, *unsent):
            _settle(sending, _gone(reason))
        for flushed in list(self._flushing):
            flushed.cancel()


def _descriptorOf(skt: Any) -> Optional[int]:
    """
    The descriptor of a socket, or L{None} for something else.
    """
    if isinstance(skt, int):
        return skt
    if not isinstance(skt, socket.socket):
        return None
    ssl = sys.modules.get("ssl")
    if ssl is not None and isinstance(skt, ssl.SSLSocket):
        raise NotTransferable(
            f"cannot send {skt!r} to another process: it speaks TLS, whose keys cannot "
            "be sent; send the connection before TLS begins"
        )
    if skt.fileno() < 0:
        raise NotTransferable("cannot send a closed socket to another process")
    return skt.fileno()


def _explained(error: OSError, skt: object) -> OSError:
    return OSError(
        error.errno,
        f"cannot duplicate {skt!r} to send it: {error.strerror} (see RLIMIT_NOFILE)",
    )


def _gone(reason: Optional[Failure]) -> TransferFailed:
    why = "" if reason is None else f": {reason.getErrorMessage()}"
    return TransferFailed(
        f"the connection to the other side ended before it took the socket{why}"
    )


def _settle(sending: _Sending, error: Optional[TransferFailed]) -> None:
    detached, sending.detached = sending.detached, None
    if detached is None:
        os.close(sending.descriptor)
    elif error is None:
        detached.complete()
    else:
        detached.resume()
    if error is None:
        sending.result.callback(None)
    else:
        sending.result.errback(error)


class ClientSocketReceivePipe(_Pipe):
    """
    The end of a connection between two processes that receives sockets.

    Iterate over it by C{async for}: a socket is taken, and only then no longer
    the sender's, when the iteration yields it.  While nobody iterates nothing is
    taken, and the sender has to wait.
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
            from now on.  At its other end is a L{ClientSocketSendPipe}.
        @param maxDataSize: the most bytes that the data of one socket may take;
            more ends the connection.
        @raise UsageError: when the socket is none of that kind.
        """
        super().__init__(reactor, connection, maxDataSize)
        self._consumer: Optional[ref[AsyncIterator[TransferredSocket]]] = None
        self._turn = 0
        self._waiter: Optional[Deferred[None]] = None
        self._decoded: Optional[tuple[Any, bytes]] = None
        self._handover.arrived = self._wake
        self._handover.start()

    def __aiter__(self) -> AsyncIterator[TransferredSocket]:
        """
        Iterate over the sockets that arrive, each the consumer's when it is
        yielded, in the order in which they were sent, until the connection
        ends.  Who leaves the loop leaves what waits to the next.

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
        yielded stays the consumer's.

        @param why: for those who wait at the other side.
        @param timeout: seconds in which the other side must read that.
        @return: a Deferred that fires when the connection has been closed.
        """
        closed = self._closeWithin(timeout)
        if self._ended is None:
            self._handover.close(why)
        self._wake()
        return closed

    async def _iterate(self, turn: int) -> AsyncIterator[TransferredSocket]:
        peek, take = self._handover.peek, self._handover.take
        reactor = self._reactor
        try:
            while True:
                if self._decoded is None:
                    first = peek()
                    if first is not None:
                        self._decode(first.data)
                        continue
                elif not self._closing:
                    taken = take(1)
                    if taken:
                        data, unread = self._decoded
                        self._decoded = None
                        yield TransferredSocket(
                            reactor, taken[0].descriptor, data, unread
                        )
                        continue
                if self._closing:
                    break
                self._waiter = Deferred()
                await self._waiter
        finally:
            self._left(turn)
        if self._ended is not None and self._ended.check(ProtocolError):
            raise self._ended.value

    def _decode(self, data: bytes) -> None:
        try:
            self._decoded = _decoder.decode(data)
        except (msgspec.MsgspecError, RecursionError, ValueError) as error:
            self._handover.giveBack(1, f"its data cannot be decoded: {error}")

    def _left(self, turn: int) -> None:
        if turn == self._turn:
            self._consumer = self._waiter = None

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.callback(None)

    def _lost(self, reason: Failure, tokens: list[Any]) -> None:
        super()._lost(reason, tokens)
        self._decoded = None
        self._wake()
