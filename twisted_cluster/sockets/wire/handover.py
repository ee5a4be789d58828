"""
Hands sockets over to another process, and takes those that it hands over.

The rules:

  1. Nothing that is handed over is forgotten by its sender until the receiver
     has said that it took it.  What it gives back, and what it has not answered
     when the connection ends, is the sender's.  An answer to what has not left is
     nonsense: believed, it would close what may then leave as another file.
  2. The receiver's word is in the kernel's hands before it gets the socket, and
     the sender reads all words, and lets no more be said, before it takes what is
     left for its own.  So a socket is served at most once, however and whenever
     the connection ends; and one whose word has left is given to the receiver.
  3. What is sent during one turn of the reactor leaves together at its end.
  4. A receiver at its limit of open files gives back what it cannot hold.
  5. What was read is told in order, one thing at a time, whatever those who are
     told do meanwhile; the end is told last.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Optional

from twisted.internet.interfaces import IDelayedCall, IReactorFDSet, ITransport
from twisted.internet.main import CONNECTION_DONE
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_cluster.errors import (
    ChannelClosed,
    FrameIncomplete,
    MessageTooLarge,
    ProtocolError,
)
from twisted_cluster.sockets.wire.arrivals import Arrivals, anyArrival
from twisted_cluster.sockets.wire.frames import (
    LARGEST,
    MOST,
    Arrival,
    Event,
    FrameParser,
    Note,
    Taken,
    encodeBatch,
    encodeNote,
)
from twisted_cluster.sockets.wire.lastwords import LastWords

_log = Logger("twisted_cluster")

_BYTES = 256 * 1024
"""Bytes of data at which a batch leaves before the turn ends."""


class Handover:
    """
    One end of a connection that carries sockets, with data, both ways.

    Those who are called may call everything here.  When C{arrived}, C{answered}
    or C{noted} raises L{ProtocolError} the connection ends with it; other errors
    are logged.

    @ivar arrived: called when something may be taken.
    @ivar answered: called with the token of a socket that was sent, in the order
        in which they were sent, and L{None} if it was taken, or why not.
    @ivar noted: called with what the other side has to say besides.
    @ivar lost: called once, when the connection has ended, with why and with the
        tokens of what was not answered, in order.  It was not taken, and will not be;
        but after a L{ProtocolError} other than L{FrameIncomplete} nobody knows.
    """

    def __init__(
        self,
        reactor: IReactorFDSet,
        skt: socket.socket,
        largest: int = LARGEST,
        transport: Callable[..., LastWords] = LastWords,
    ) -> None:
        """
        @param reactor: watches the socket; it keeps time, too.
        @param skt: a connected UNIX stream socket, which this object owns from
            now on.
        @param largest: the most bytes of data that may belong to one socket.
        """
        self._reactor: Any = reactor
        self._transport = transport(reactor, skt, self)
        self._largest = largest
        self._parser = FrameParser(largest)
        self._events: deque[Event] = deque()
        self._arrivals = Arrivals(self._transport)
        self._tokens: deque[Any] = deque()
        self._items: list[bytes] = []
        self._descriptors: list[int] = []
        self._size = 0
        self._later: Optional[IDelayedCall] = None
        self._started = False
        self._open = False
        self._telling = False
        self._error: Optional[Failure] = None
        self._reason: Optional[Failure] = None
        self._ended = False
        self.arrived: Callable[[], object] = lambda: None
        self.answered: Callable[[Any, Optional[str]], object] = lambda token, why: None
        self.noted: Callable[[bytes], object] = lambda data: None
        self.lost: Callable[[Failure, list[Any]], object] = lambda why, tokens: None

    def start(self) -> None:
        """
        Begin to read.  Nothing can be sent before.
        """
        if not self._ended:
            self._started = self._open = self._arrivals.open = True
            self._transport.start()

    # What others call.

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
        Hand a socket over.  What is sent between the call that ends the connection
        and its end is lost.

        @param descriptor: it is borrowed: it must stay open until the token was
            answered or lost.
        @param data: what belongs to it.
        @param token: names it, for C{answered} and C{lost}.
        @raise ChannelClosed: before the start, and when C{lost} has been called.
        @raise MessageTooLarge: for more data than what may come from the other
            side.
        """
        if self._ended or not self._started:
            raise ChannelClosed("the connection that hands sockets over is not open")
        if len(data) > self._largest:
            raise MessageTooLarge(f"data of {len(data)} bytes, over {self._largest}")
        self._items.append(data)
        self._descriptors.append(descriptor)
        self._tokens.append(token)
        self._size += len(data)
        if len(self._items) == MOST or self._size >= _BYTES:
            self.flush()
        elif self._later is None:
            self._later = self._reactor.callLater(0, self._flushLater)

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
        Say something else, if the connection is open.

        @raise ValueError: for more than 64 KiB.
        """
        self.flush()
        self._transport.write(encodeNote(data))

    @property
    def waiting(self) -> int:
        """
        How many sockets arrived and are not answered.
        """
        return len(self._arrivals)

    @property
    def waitingBytes(self) -> int:
        """
        How many bytes of data these have.
        """
        return self._arrivals.size

    def peek(self) -> Optional[Arrival]:
        """
        Look at the oldest socket that waits to be answered.  Its descriptor is
        not the caller's.
        """
        return self._arrivals.peek()

    def take(
        self, most: int = MOST, wanted: Callable[[Arrival], bool] = anyArrival
    ) -> list[Arrival]:
        """
        Take the oldest sockets that wait.

        @param wanted: says of each whether it is to be taken; none is beyond the
            first that is not.
        @return: up to C{most} of them.  The descriptors are the caller's, and
            close-on-exec.  None, when none waits or when the word could not leave
            yet: then C{arrived} is called when it has.  So take until there is
            none: C{arrived} is not called again for those that were left.
        """
        return self._arrivals.take(most, wanted)

    def giveBack(self, count: int, why: str) -> None:
        """
        Answer the oldest sockets that wait with a refusal, and close them here.

        @param why: for the sender.
        """
        self._arrivals.giveBack(count, why)

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
        Give back what waits, and end the connection when all has left, however
        long the other side does not read.  What was sent and is not answered by
        then is lost to its sender, and will not be taken: to let it be taken, wait
        for L{unanswered} to be 0 before.

        Those for which the word is on its way are still to be taken, C{arrived}
        will be called.
        """
        if not self._started:
            self.abort()
        elif self._open:
            self._arrivals.giveBack(len(self._arrivals), why)
            self.flush()
            self._shut()
            self._transport.loseConnection()

    def abort(self) -> None:
        """
        End the connection now.  What was not answered is lost to its sender,
        and will not be taken: answers that have arrived are told first.
        """
        self._shut()
        self._transport.discard()
        if not self._started:
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
        self._events.extend(self._parser.data(data))
        self._tellEvents()
        if self._parser.error is not None:
            self._fail(Failure(self._parser.error))

    def drained(self) -> None:
        """
        All words have left.
        """
        if self._arrivals.wanted:
            self._arrivals.wanted = False
            self._tell(self.arrived)

    def connectionLost(self, reason: Failure) -> None:
        """
        Close what was not taken, and tell what was not answered.
        """
        if self._ended or self._reason is not None:
            return
        if self._open and self._parser.unfinished and self._error is None:
            self._error = Failure(FrameIncomplete("the stream ended within a frame"))
        self._shut()
        self._reason = reason
        if not self._telling:
            self._end(reason)

    def _tellEvents(self) -> None:
        """
        Tell what was read.  When this is called by one who is told, it is the
        outer call that goes on.
        """
        if self._telling:
            return
        new = False
        self._telling = True
        try:
            while self._events:
                event = self._events.popleft()
                if isinstance(event, Arrival):
                    self._arrivals.add(event)
                    new = True
                elif isinstance(event, Note):
                    if self._open:
                        self._tell(self.noted, event.data)
                elif isinstance(event, Taken):
                    self._answers(event.count, None)
                else:
                    self._answers(event.count, event.why)
        finally:
            self._telling = False
        if self._reason is not None:
            self._end(self._reason)
        elif new and self._arrivals.peek() is not None:
            self._tell(self.arrived)

    def _answers(self, count: int, why: Optional[str]) -> None:
        if count > len(self._tokens) - len(self._items) - self._transport.borrowed:
            self._fail(Failure(ProtocolError("answers to what was never sent")))
            return
        tell, tokens = self._tell, self._tokens
        for _ in range(count):
            tell(self.answered, tokens.popleft(), why)

    def _tell(self, whom: Callable[..., object], *what: object) -> None:
        try:
            whom(*what)
        except Exception as error:
            if isinstance(error, ProtocolError) and not self._ended:
                self._fail(Failure())
            else:
                _log.failure("whoever hands sockets over or takes them failed")

    def _fail(self, error: Failure) -> None:
        """
        End, since the other side broke the rules.
        """
        if self._error is None:
            self._error = error
            self._shut()
            self._transport.abortConnection()

    def _shut(self) -> None:
        """
        Let nothing be sent or taken any more.
        """
        self._open = False
        self._arrivals.closeWaiting()

    def _end(self, reason: Failure) -> None:
        self._ended = True
        self._reason = None
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if self._arrivals.givable:
            self._tell(self.arrived)
        self._arrivals.closeSaid()
        for descriptor in self._parser.close():
            os.close(descriptor)
        tokens, self._tokens = list(self._tokens), deque()
        self._items, self._descriptors = [], []
        self._size = 0
        self._tell(self.lost, self._error or reason, tokens)

    def _flushLater(self) -> None:
        self._later = None
        self.flush()
