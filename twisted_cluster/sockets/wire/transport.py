"""
Bytes and descriptors over a connected UNIX stream socket.

The rules, which hold on both sides of a connection:

  1. A descriptor is duplicated when it is queued, so its owner may close it at
     once; the duplicate is closed when it was written or when the connection
     ends.  Only C{writeWith()} borrows them instead.
  2. A descriptor travels with the first byte of the next C{write()}, and is
     received right before the bytes that hold that one; bytes that were written
     before may be among these, but no whole read is overtaken.  Those that one
     C{sendmsg} cannot carry travel with the bytes that follow; a write with too
     few bytes for its descriptors ends the connection.
  3. Received descriptors are close-on-exec.  When the kernel had to drop some
     (C{MSG_CTRUNC}: this process is at its limit of open files), the
     connection ends, since from then on every descriptor would be matched to
     the wrong bytes; but for a protocol that takes the descriptors of each read
     at once, and is told.
  4. Too many descriptors under way (C{ETOOMANYREFS}) is a reason to wait, and
     since nothing tells when that has changed, to try again later.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Optional, Union
from typing import Protocol as Shape

from twisted.internet import interfaces, main
from twisted.internet.address import UNIXAddress
from twisted.internet.error import ConnectionLost, FileDescriptorOverrun
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_cluster.sockets.wire.ancillary import (
    MOST_DESCRIPTORS,
    descriptorsLost,
    receiveSome,
    sendDescriptors,
)

_READ = 256 * 1024
_WRITE = 256 * 1024
_PAUSE = 0.05
"""Seconds until descriptors that were too many are tried again."""


class Receiver(Shape):
    """
    What a transport needs of a protocol: L{interfaces.IProtocol} and
    L{interfaces.IFileDescriptorReceiver}.

    One that has C{descriptorsReceived(descriptors, truncated)} gets those of each
    read at once, right before its bytes, and whether the kernel dropped others.
    One that has C{drained()} is told when all that was written has been sent.
    """

    def makeConnection(self, transport: interfaces.ITransport) -> None: ...

    def dataReceived(self, data: bytes) -> None: ...

    def connectionLost(self, reason: Failure) -> None: ...

    def fileDescriptorReceived(self, descriptor: int) -> None: ...


@implementer(
    interfaces.IUNIXTransport, interfaces.IReadDescriptor, interfaces.IWriteDescriptor
)
class UNIXTransport:
    """
    A transport that owns one end of a connected UNIX stream socket.

    It tries to write at once and keeps only what the kernel does not take, so
    that what was written survives the death of this process.  It has no
    producers; whoever writes bounds what is on its way.

    @ivar pending: how many bytes were written and are not yet in the kernel's
        hands.
    """

    def __init__(
        self,
        reactor: interfaces.IReactorFDSet,
        skt: socket.socket,
        protocol: Receiver,
    ) -> None:
        """
        @param reactor: watches the socket; it keeps time, too.
        @param skt: a connected stream socket, which this object owns from now
            on.  It is made non-blocking, for all who share it.
        """
        self._reactor = reactor
        self._socket = skt
        self._protocol = protocol
        self._chunks: deque[tuple[memoryview, list[int], bool]] = deque()
        self._descriptors: list[int] = []
        self._connected = False
        self._disconnecting = False
        self._retry: Optional[interfaces.IDelayedCall] = None
        self._drained: Optional[Callable[[], None]]
        self._drained = getattr(protocol, "drained", None)
        self._received: Optional[Callable[[list[int], bool], None]]
        self._received = getattr(protocol, "descriptorsReceived", None)
        self.pending = 0
        skt.setblocking(False)

    def start(self) -> None:
        """
        Connect the protocol and begin to read.
        """
        self.resume()
        self._protocol.makeConnection(self)

    def resume(self) -> None:
        """
        Begin to read, for a protocol that was connected before.
        """
        self._connected = True
        self._reactor.addReader(self)

    def detach(self) -> tuple[socket.socket, bytes]:
        """
        Take the socket away from the reactor without telling the protocol.

        @return: the socket, which is the caller's, and the bytes that were
            written and not sent.  Unsent descriptors are closed.
        """
        self._leave()
        unsent = b"".join(chunk for chunk, *_ in self._chunks)
        self._closeDescriptors()
        return self._socket, unsent

    def fileno(self) -> int:
        """
        The socket's descriptor, or -1 once the connection has ended.
        """
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """
        The protocol's name.
        """
        return type(self._protocol).__name__

    def getPeer(self) -> interfaces.IAddress:
        """
        An address without a name, as socket pairs have.
        """
        return UNIXAddress(None)

    def getHost(self) -> interfaces.IAddress:
        """
        An address without a name, as socket pairs have.
        """
        return UNIXAddress(None)

    def sendFileDescriptor(self, descriptor: int) -> None:
        """
        Queue a duplicate of a descriptor, to travel with the next write.

        @raise OSError: when the descriptor cannot be duplicated (C{EBADF},
            C{EMFILE}); nothing was queued.
        """
        if self._connected:
            self._descriptors.append(os.dup(descriptor))

    def write(self, data: bytes) -> None:
        """
        Write, at once as far as the kernel takes it.
        """
        if not self._connected or self._disconnecting or not data:
            return
        descriptors, self._descriptors = self._descriptors, []
        self._write(data, descriptors, True)

    def writeWith(self, data: bytes, descriptors: Sequence[int]) -> None:
        """
        Write, with descriptors that go with the first byte.

        @param descriptors: up to L{MOST_DESCRIPTORS}.  They are borrowed: they
            must stay open until they have left, which the other side's word alone
            does not prove, or the connection has ended.
        """
        if self._connected and not self._disconnecting:
            self._write(data, list(descriptors), False)

    def _write(self, data: bytes, descriptors: list[int], ours: bool) -> None:
        idle = not self._chunks
        self._chunks.append((memoryview(data), descriptors, ours))
        self.pending += len(data)
        if not idle or (self._sendSome() is None and not self._chunks):
            return
        if self._retry is None:
            self._reactor.addWriter(self)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """
        Write several pieces as one.
        """
        self.write(b"".join(data))

    def pauseProducing(self) -> None:
        """
        Read no more for now.  The end of the connection is not noticed either.
        """
        self._reactor.removeReader(self)

    def resumeProducing(self) -> None:
        """
        Read again.
        """
        if self._connected and not self._disconnecting:
            self._reactor.addReader(self)

    def loseConnection(self) -> None:
        """
        Close when everything that was written has been sent.
        """
        if self._connected and not self._disconnecting:
            self._disconnecting = True
            self._reactor.removeReader(self)
            if self._retry is None:
                self._reactor.addWriter(self)

    def abortConnection(self) -> None:
        """
        Close now; what was not sent is lost.
        """
        if self._connected:
            self.connectionLost(Failure(ConnectionLost("aborted")))

    def discard(self) -> None:
        """
        Close now, whether the connection was ever started or not.
        """
        if self._connected:
            self.connectionLost(Failure(main.CONNECTION_DONE))
        else:
            self._closeDescriptors()
            self._socket.close()

    def doRead(self) -> Any:
        """
        Read once.

        @return: an exception when the connection has ended, or L{None}: what
            reactors expect, whatever the interface says.
        """
        result = self._receiveSome()
        return result if isinstance(result, Exception) else None

    def drain(self) -> None:
        """
        Read all that has arrived by now, however much; to be called when the
        peer is known to be dead.  Ends the connection if its end is reached.
        """
        while self._connected:
            try:
                result = self._receiveSome()
            except Exception as error:
                result = error
            if isinstance(result, Exception):
                self.connectionLost(Failure(result))
                return
            if not result:
                return

    def doWrite(self) -> Any:
        """
        Send what the kernel takes.

        @return: as L{doRead}.
        """
        error = self._sendSome()
        if error is not None:
            # What the peer wrote before it went is still to be read.
            self.drain()
            return error if self._connected else None
        if self._retry is not None:
            self._reactor.removeWriter(self)
        elif not self._chunks:
            self._reactor.removeWriter(self)
            if self._drained is not None:
                self._drained()
            if self._disconnecting and self._connected and not self._chunks:
                return main.CONNECTION_DONE
        return None

    def connectionLost(self, reason: Failure) -> None:
        """
        Close the socket and every descriptor that is still held, and tell the
        protocol.
        """
        if not self._connected:
            return
        self._leave()
        self._closeDescriptors()
        self._socket.close()
        self._protocol.connectionLost(reason)

    def _leave(self) -> None:
        self._connected = False
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def _closeDescriptors(self) -> None:
        for _, descriptors, ours in self._chunks:
            if ours:
                self._descriptors.extend(descriptors)
        self._chunks.clear()
        self.pending = 0
        while self._descriptors:
            os.close(self._descriptors.pop())

    def _receiveSome(self) -> Union[int, Exception]:
        try:
            data, descriptors, truncated = receiveSome(self._socket, _READ)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            return error
        if self._received is not None:
            if descriptors or truncated:
                self._received(descriptors, truncated)
        elif truncated:
            for descriptor in descriptors:
                os.close(descriptor)
            return descriptorsLost()
        else:
            self._deliver(descriptors)
        if not data:
            return main.CONNECTION_DONE
        if self._connected:
            self._protocol.dataReceived(data)
        return len(data)

    def _deliver(self, descriptors: list[int]) -> None:
        """
        Give descriptors to the protocol; those that it was not given are
        closed, should it close the connection or raise.
        """
        descriptors.reverse()
        try:
            while descriptors and self._connected:
                self._protocol.fileDescriptorReceived(descriptors.pop())
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _sendSome(self) -> Optional[Exception]:
        while self._chunks:
            chunk, descriptors, ours = self._chunks[0]
            try:
                sent = self._sendPart(chunk, descriptors, ours)
            except (BlockingIOError, InterruptedError):
                return None
            except FileDescriptorOverrun as error:
                return error
            except OSError as error:
                if error.errno == errno.ETOOMANYREFS:
                    clock = interfaces.IReactorTime(self._reactor)
                    self._retry = clock.callLater(_PAUSE, self._tryAgain)
                    return None
                return ConnectionLost(str(error))
            self.pending -= sent
            if sent == len(chunk):
                self._chunks.popleft()
            else:
                self._chunks[0] = (chunk[sent:], descriptors, ours)
        return None

    def _sendPart(self, chunk: memoryview, descriptors: list[int], ours: bool) -> int:
        """
        Send some bytes, and as many of the descriptors as may go along; as long
        as there are more than that, one byte.
        """
        if not descriptors:
            return self._socket.send(chunk[:_WRITE])
        now = descriptors[:MOST_DESCRIPTORS]
        if len(descriptors) > len(chunk) * MOST_DESCRIPTORS:
            raise FileDescriptorOverrun()
        size = _WRITE if len(now) == len(descriptors) else 1
        sent = sendDescriptors(self._socket, chunk[:size], now)
        del descriptors[: len(now)]
        if ours:
            for descriptor in now:
                os.close(descriptor)
        return sent

    def _tryAgain(self) -> None:
        self._retry = None
        self._reactor.addWriter(self)
