"""
Sends client connections, with data, to another process.

The rules:

  1. A socket is the sender's until the receiver has taken it for its consumer;
     what is not taken goes on here as if nothing had happened.
  2. Sockets are taken in the order in which they were sent; but a live
     transport takes its place once its client has been sent what was written.
  3. So many sockets and bytes may be on their way; what is beyond waits in a
     queue here, whose length is limited, too.
"""

from __future__ import annotations

import os
import socket
import sys
from collections import deque
from typing import Any, Final, Optional, Union

import msgspec
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import ITransport
from twisted.python.failure import Failure

from twisted_cluster.errors import (
    ChannelClosed,
    ChannelFull,
    ClusterError,
    MessageNotSerializable,
    MessageTooLarge,
    NotTransferable,
    ProtocolError,
    TransferFailed,
)
from twisted_cluster.interfaces import Data
from twisted_cluster.sockets.clients.detach import FLUSH_TIMEOUT, Detached, detach
from twisted_cluster.sockets.clients.pipe import CLOSE_TIMEOUT, Pipe
from twisted_cluster.sockets.wire.frames import LARGEST

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

_encode = msgspec.msgpack.Encoder().encode


class _Sending(msgspec.Struct, eq=False, gc=False):
    """
    A socket that was given to C{send()} and is not answered.

    @ivar descriptor: a duplicate that is ours, or what C{detached} lends.
    @ivar frame: what goes along.
    @ivar detached: the live connection that it is.
    @ivar result: what C{send()} returned.
    """

    descriptor: int
    frame: bytes
    result: Deferred[None]
    detached: Optional[Detached] = None

    def settle(self, error: Optional[TransferFailed]) -> None:
        """
        Let the socket go, and say what became of it.

        @param error: why it was not taken.
        """
        detached = self.detached
        if detached is None:
            os.close(self.descriptor)
        elif error is None:
            detached.complete()
        else:
            detached.resume()
        if error is None:
            self.result.callback(None)
        else:
            self.result.errback(error)


class ClientSocketSendPipe(Pipe):
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
        @raise UsageError: when the socket is none of that kind; it has been closed.
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
        self._handover.arrived = _misdirected
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
            <twisted_cluster.sockets.clients.detach.ConnectionTransferred>}; if not, it
            goes on.
        @param data: what MessagePack can express; it is encoded before this
            returns.
        @param unread: what was read from the connection and belongs to the
            receiver's protocol.
        @return: a Deferred that fires when the other side has taken the socket for
            its consumer.  It fails with L{NotTransferable}, L{MessageNotSerializable},
            L{MessageTooLarge}, L{ChannelFull} (too much is waiting: await the
            earlier ones), L{ChannelClosed}, C{OSError} (this process cannot
            duplicate the descriptor: C{EMFILE}, C{EBADF}); at once, and nothing
            was sent; or later with L{TransferFailed}, saying why the other side
            did not take it, or what became of the live transport meanwhile.
            Cancelling it does not bring the socket back.
        """
        try:
            waiting = len(self._queue) + len(self._flushing)
            if self._closing or waiting >= self._maxQueued:
                raise self._refusal()
            frame = self._frame(data, unread)
            if type(socket) is int:
                sending = _Sending(os.dup(socket), frame, Deferred())
            else:
                descriptor = _descriptorOf(socket)
                if descriptor is None:
                    return self._sendTransport(socket, frame)
                sending = _Sending(os.dup(descriptor), frame, Deferred())
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

    def _refusal(self) -> ClusterError:
        if self._closing:
            return ChannelClosed("this pipe is closed")
        return ChannelFull(
            f"{self.waiting} sockets wait to be sent already: await what send() "
            "returned for them"
        )

    def _frame(self, data: Data, unread: bytes) -> bytes:
        try:
            frame = _encode((data, unread))
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
        if self._queuedBytes and self._queuedBytes + len(frame) > self._maxDataSize:
            raise self._refusal()
        return frame

    def _sendTransport(self, transport: Any, frame: bytes) -> Deferred[None]:
        sending = _Sending(-1, frame, Deferred())
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
        size = len(sending.frame)
        if self._queue or (
            self._sent
            and (
                self._sent >= self._window or self._sentBytes + size > self._windowBytes
            )
        ):
            self._queue.append(sending)
            self._queuedBytes += size
        else:
            self._sent += 1
            self._sentBytes += size
            self._handover.send(sending.descriptor, sending.frame, sending)

    def _answered(self, sending: _Sending, why: Optional[str]) -> None:
        self._sent -= 1
        self._sentBytes -= len(sending.frame)
        if self._queue:
            self._goOn()
        if why is None and sending.detached is None:
            os.close(sending.descriptor)
            sending.result.callback(None)
        else:
            sending.settle(None if why is None else TransferFailed(why))
        if self._closing:
            self._closeIfIdle()

    def _goOn(self) -> None:
        """
        Send what waits and has room now.
        """
        queue, send = self._queue, self._handover.send
        while queue and self._sent < self._window:
            sending = queue[0]
            size = len(sending.frame)
            if self._sent and self._sentBytes + size > self._windowBytes:
                return
            del queue[0]
            self._queuedBytes -= size
            self._sent += 1
            self._sentBytes += size
            send(sending.descriptor, sending.frame, sending)

    def _closeIfIdle(self) -> None:
        if self._closing and not (self._sent or self.waiting) and self._ended is None:
            self._handover.close()

    def _lost(self, reason: Failure, tokens: list[Any]) -> None:
        super()._lost(reason, tokens)
        self._sent = self._sentBytes = 0
        unsent, self._queue = self._queue, deque()
        self._queuedBytes -= sum(len(sending.frame) for sending in unsent)
        for sending in (*tokens, *unsent):
            sending.settle(_gone(reason))
        for flushed in list(self._flushing):
            flushed.cancel()


def _misdirected() -> None:
    raise ProtocolError("the receiver sent a socket itself")


def _descriptorOf(skt: Any) -> Optional[int]:
    """
    The descriptor of a socket, or L{None} for something else.
    """
    if not isinstance(skt, socket.socket):
        isNumber = isinstance(skt, int) and not isinstance(skt, bool)
        return int(skt) if isNumber else None
    if type(skt) is not socket.socket:
        ssl = sys.modules.get("ssl")
        if ssl is not None and isinstance(skt, ssl.SSLSocket):
            raise NotTransferable(
                f"cannot send {skt!r} to another process: it speaks TLS, whose keys "
                "cannot be sent; send the connection before TLS begins"
            )
    descriptor = skt.fileno()
    if descriptor < 0:
        raise NotTransferable("cannot send a closed socket to another process")
    return descriptor


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
