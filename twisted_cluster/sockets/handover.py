"""
Hands sockets over to another process, and takes those that it hands over.

The rules:

  1. Nothing that is handed over is forgotten by its sender until the receiver
     has said that it took it.  What the receiver gives back, and what it has not
     answered when the connection ends, is the sender's.
  2. The receiver's word is in the kernel's hands before it gets the socket.  So a
     socket is served at most once: when a receiver dies, all of its words are
     still read before the connection ends.
  3. What is sent during one turn of the reactor leaves together at its end.
  4. A receiver at its limit of open files gives back what it cannot hold.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Optional

from twisted.internet.interfaces import IReactorFDSet, ITransport
from twisted.internet.main import CONNECTION_DONE
from twisted.python.failure import Failure

from twisted_cluster.errors import ChannelClosed, ProtocolError
from twisted_cluster.sockets.frames import (
    LARGEST,
    LOST,
    MOST,
    Arrival,
    FrameParser,
    GivenBack,
    Note,
    Taken,
    encodeBatch,
    encodeGivenBack,
    encodeNote,
    encodeTaken,
)
from twisted_cluster.sockets.transport import UNIXTransport

_BYTES = 256 * 1024
"""Bytes of data at which a batch leaves before the turn ends."""
_TOO_MANY = f"the receiver is at its limit: {os.strerror(errno.EMFILE)}"


def _any(arrival: Arrival) -> bool:
    return True


class Handover:
    """
    One end of a connection that carries sockets, with data, both ways.

    @ivar arrived: called when something may be taken.
    @ivar answered: called with the token of a socket that was sent, in the order
        in which they were sent, and L{None} if it was taken, or why not.
    @ivar noted: called with what the other side has to say besides.
    @ivar lost: called once, when the connection has ended, with why and with the
        tokens of what was not answered, in order.
    """

    def __init__(
        self,
        reactor: IReactorFDSet,
        skt: socket.socket,
        largest: int = LARGEST,
        transport: Callable[..., UNIXTransport] = UNIXTransport,
    ) -> None:
        """
        @param reactor: watches the socket; it keeps time, too.
        @param skt: a connected UNIX stream socket, which this object owns from
            now on.
        @param largest: the most bytes of data that may belong to one socket.
        """
        self._reactor: Any = reactor
        self._transport = transport(reactor, skt, self)
        self._parser = FrameParser(largest)
        self._waiting: deque[Arrival] = deque()
        self._said: deque[Arrival] = deque()
        self._tokens: deque[Any] = deque()
        self._items: list[bytes] = []
        self._descriptors: list[int] = []
        self._size = 0
        self._scheduled = False
        self._wanted = False
        self._error: Optional[Failure] = None
        self._open = True
        self.arrived: Callable[[], object] = lambda: None
        self.answered: Callable[[Any, Optional[str]], object] = lambda token, why: None
        self.noted: Callable[[bytes], object] = lambda data: None
        self.lost: Callable[[Failure, list[Any]], object] = lambda why, tokens: None

    def start(self) -> None:
        """
        Begin to read.
        """
        self._transport.start()

    # What is sent.

    @property
    def unanswered(self) -> int:
        """
        How many sockets were sent and are not answered.
        """
        return len(self._tokens)

    @property
    def pending(self) -> int:
        """
        How many bytes were sent that the kernel has not taken yet.
        """
        return self._transport.pending + self._size

    def send(self, descriptor: int, data: bytes, token: object) -> None:
        """
        Hand a socket over.

        @param descriptor: it is borrowed: it must stay open until the token was
            answered or lost.
        @param data: what belongs to it.
        @param token: names it, for C{answered} and C{lost}.
        @raise ChannelClosed: when the connection has ended.
        """
        if not self._open:
            raise ChannelClosed("the connection that hands sockets over has ended")
        self._items.append(data)
        self._descriptors.append(descriptor)
        self._tokens.append(token)
        self._size += len(data)
        if len(self._items) == MOST or self._size >= _BYTES:
            self.flush()
        elif not self._scheduled:
            self._scheduled = True
            self._reactor.callLater(0, self._flushLater)

    def flush(self) -> None:
        """
        Let what was sent leave now.
        """
        if self._items and self._open:
            data = encodeBatch(self._items)
            descriptors, self._descriptors = self._descriptors, []
            self._items.clear()
            self._size = 0
            self._transport.writeWith(data, descriptors)

    def note(self, data: bytes) -> None:
        """
        Say something else.

        @raise ValueError: for more than 64 KiB.
        """
        self.flush()
        self._transport.write(encodeNote(data))

    # What is received.

    def peek(self) -> Optional[Arrival]:
        """
        Look at the oldest socket that waits to be answered.  Its descriptor is
        not the caller's.
        """
        return self._waiting[0] if self._waiting else None

    def take(
        self, most: int = MOST, wanted: Callable[[Arrival], bool] = _any
    ) -> list[Arrival]:
        """
        Take the oldest sockets that wait.

        @param wanted: says of each whether it is to be taken; none is beyond the
            first that is not.
        @return: up to C{most} of them.  The descriptors are the caller's, and
            close-on-exec.  None, when none waits or when the word could not leave
            yet: then C{arrived} is called when it has.
        """
        if self._transport.pending:
            self._wanted = True
            return []
        if not self._said:
            count = 0
            while count < most and self._waiting:
                if self._waiting[0].descriptor == LOST or not wanted(self._waiting[0]):
                    break
                self._said.append(self._waiting.popleft())
                count += 1
            if not count:
                return []
            self._transport.write(encodeTaken(count))
            self._refuseLost()
            if self._transport.pending or not self._open:
                self._wanted = True
                return []
        return [self._said.popleft() for _ in range(min(most, len(self._said)))]

    def giveBack(self, count: int, why: str) -> None:
        """
        Answer the oldest sockets that wait with a refusal, and close them here.

        @param why: for the sender.
        """
        count = min(count, len(self._waiting))
        for _ in range(count):
            arrival = self._waiting.popleft()
            if arrival.descriptor != LOST:
                os.close(arrival.descriptor)
        while count > 0 and self._open:
            self._transport.write(encodeGivenBack(min(count, 65535), why))
            count -= 65535
        self._refuseLost()

    # How it ends.

    def pauseProducing(self) -> None:
        """
        Read no more for now: what is sent waits in the kernel and at the sender.
        """
        self._transport.pauseProducing()

    def resumeProducing(self) -> None:
        """
        Read again.
        """
        self._transport.resumeProducing()

    def close(self, why: str = "the receiver was closed") -> None:
        """
        Give back what waits, and end the connection when all has left.  What was
        sent and is not answered is lost to its sender, who cannot know any more
        whether it was taken: wait for L{unanswered} to be 0 before.
        """
        self.giveBack(len(self._waiting), why)
        self.flush()
        self._transport.loseConnection()

    def abort(self) -> None:
        """
        End the connection now.
        """
        self._transport.discard()
        if self._open:
            self.connectionLost(Failure(CONNECTION_DONE))

    def drain(self) -> None:
        """
        Read all that has arrived, when the other side is known to be dead.
        """
        self._transport.drain()

    # What the transport calls.

    def makeConnection(self, transport: ITransport) -> None:
        """
        The connection is there from the start.
        """

    def fileDescriptorReceived(self, descriptor: int) -> None:
        """
        Never called: see L{descriptorsReceived}.
        """
        raise NotImplementedError

    def descriptorsReceived(self, descriptors: list[int], truncated: bool) -> None:
        """
        Take over the descriptors of the bytes that follow.
        """
        self._parser.descriptors(descriptors, truncated)

    def dataReceived(self, data: bytes) -> None:
        """
        Do what the other side says; what makes no sense ends the connection.
        """
        try:
            events = self._parser.data(data)
            new = 0
            for event in events:
                if isinstance(event, Arrival):
                    self._waiting.append(event)
                    new += 1
            for event in events:
                if isinstance(event, Taken):
                    self._answers(event.count, None)
                elif isinstance(event, GivenBack):
                    self._answers(event.count, event.why)
                elif isinstance(event, Note):
                    self.noted(event.data)
            if new and self._open:
                self._refuseLost()
                self.arrived()
        except ProtocolError:
            self._error = Failure()
            self._transport.abortConnection()

    def drained(self) -> None:
        """
        All words have left.
        """
        if self._wanted:
            self._wanted = False
            self.arrived()

    def connectionLost(self, reason: Failure) -> None:
        """
        Close what was not taken, and tell what was not answered.
        """
        self._open = False
        for arrival in (*self._waiting, *self._said):
            if arrival.descriptor != LOST:
                os.close(arrival.descriptor)
        self._waiting.clear()
        self._said.clear()
        unfinished = self._parser.unfinished
        for descriptor in self._parser.close():
            os.close(descriptor)
        if self._error is None and unfinished:
            reason = Failure(ProtocolError("the stream ended within a frame"))
        tokens = list(self._tokens)
        self._tokens.clear()
        self._items.clear()
        self._descriptors.clear()
        self.lost(self._error or reason, tokens)

    def _answers(self, count: int, why: Optional[str]) -> None:
        if count > len(self._tokens) - len(self._items):
            raise ProtocolError("answers to sockets that were never sent")
        for _ in range(count):
            if self._open:
                self.answered(self._tokens.popleft(), why)

    def _refuseLost(self) -> None:
        """
        Give back those that did not arrive, as soon as it is their turn.
        """
        count = 0
        while self._waiting and self._waiting[0].descriptor == LOST:
            self._waiting.popleft()
            count += 1
        if count and self._open:
            self._transport.write(encodeGivenBack(count, _TOO_MANY))

    def _flushLater(self) -> None:
        self._scheduled = False
        self.flush()
