"""
The worker's end of the control channel.

It lives through three times.  Before the program's reactor runs, and after it
has stopped, what is said is written at once, waiting if need be, and nothing
is read; in between, it is a connection of the reactor like any other, and what
is said during one turn leaves together at its end.  Errors leave at once,
whichever thread logs them.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, Optional

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.protocols import amp
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_cluster import __version__
from twisted_cluster.errors import NotRunning
from twisted_cluster.interfaces import Data, IChannel, ILogSink, Message, Responder
from twisted_cluster.ipc import commands
from twisted_cluster.ipc.conversation import Conversation
from twisted_cluster.ipc.inbox import Inbox
from twisted_cluster.ipc.logqueue import LogQueue
from twisted_cluster.ipc.outbox import WINDOW
from twisted_cluster.sockets.wire.blocking import BlockingTransport, identify, isStill
from twisted_cluster.worker.delay import Delay
from twisted_cluster.worker.linkprotocol import WorkerProtocol
from twisted_cluster.worker.linktransport import LinkTransport

_log = Logger("twisted_cluster")
_URGENT = 40
_DEADLINE = 30.0
"""Seconds that one write waits for a watcher that stands still."""


@implementer(IChannel, ILogSink)
class Link:
    """
    What a worker says to its watcher, and hears from it.

    @ivar terminated: called when the watcher wants the worker to leave: after how
        many seconds, and whether others serve on.
    @ivar orphaned: called when the connection has ended.
    @ivar delay: measures how late the reactor is.
    """

    def __init__(self, skt: socket.socket, maxMessageSize: int) -> None:
        """
        @param skt: the control channel, owned by this object from now on.
        """
        self._socket = skt
        self._identity = identify(skt)
        self._lock = threading.RLock()
        self._events = LogQueue(lock=self._lock)
        self._reactor: Any = None
        self._thread = 0
        self._transport: Optional[LinkTransport] = None
        self._eventsOnTheirWay = 0
        self._scheduled = False
        self._called = False
        self._writing = False
        self._again = False
        self._closed = False
        self.terminated: Callable[[float, bool], None] = lambda delay, others: None
        self.orphaned: Callable[[], None] = lambda: None
        self.delay = Delay()
        self._protocol = WorkerProtocol()
        inbox: Inbox[Message] = Inbox(
            "iterate over cluster.channel(), or have the watcher send nothing"
        )
        self.inbox = inbox
        self.conversation: Conversation[Message] = Conversation(
            self._clock,
            self._protocol.sendPiece,
            self._schedule,
            inbox,
            Message,
            maxMessageSize,
        )
        self.conversation.setWindowed(False)
        self._protocol.conversation = self.conversation
        self._protocol.terminated = lambda *how: self.terminated(*how)
        self._protocol.takeDelay = self.delay.take
        self._protocol.nonsense = self._nonsense
        self._protocol.lost = self._lost
        self._protocol.makeConnection(self._blocking())
        os.register_at_fork(after_in_child=self._forked)

    # What is said.

    def hello(self) -> None:
        """
        Say that the bootstrap runs.
        """
        with self._lock:
            self._protocol.call(commands.Hello, pid=os.getpid(), version=__version__)

    def ready(self) -> None:
        """
        Say that the worker serves.
        """
        with self._lock:
            self.flush()
            self._protocol.call(commands.Ready)

    def failed(self, stage: str, reason: str, traceback: str) -> None:
        """
        Say that the target cannot be run.
        """
        with self._lock:
            self.flush()
            self._protocol.call(
                commands.Failed,
                stage=stage,
                reason=_last(reason),
                traceback=_last(traceback),
            )

    def stopping(self) -> None:
        """
        Say that the worker ends by itself.
        """
        with self._lock:
            if not self._closed:
                self._protocol.call(commands.Stopping)

    def draining(self) -> None:
        """
        Say that the worker accepts no more connections.
        """
        with self._lock:
            if not self._closed:
                self._protocol.call(commands.Draining)

    def recycle(self, why: str) -> None:
        """
        Say that the worker wants to be replaced, and serves on until it is.
        """
        with self._lock:
            if not self._closed:
                self._protocol.call(commands.Recycle, why=why)

    def put(self, level: int, data: bytes) -> None:
        """
        See L{ILogSink.put}.
        """
        if self._closed:
            return
        self._events.put(level, data)
        if self._transport is None:
            self.flush()
        elif threading.get_ident() != self._thread:
            if level < _URGENT or not self._flushFromThread():
                self._callFlush()
        elif level >= _URGENT:
            self.flush()
        else:
            self._schedule()

    def send(self, data: Data, to: Optional[int] = None) -> Deferred[None]:
        """
        See L{IChannel.send}.
        """
        return self.conversation.send(data, to)

    def sendMany(self, items: Iterable[Data]) -> Deferred[None]:
        """
        See L{IChannel.sendMany}.
        """
        return self.conversation.sendMany(items)

    def request(self, data: Data, timeout: float = 30.0) -> Deferred[Data]:
        """
        See L{IChannel.request}.
        """
        if self._reactor is None:
            return fail(
                NotRunning(
                    "a request needs the reactor to run: make it from "
                    "reactor.callWhenRunning() or later"
                )
            )
        return self.conversation.request(data, timeout)

    def responder(self, callable: Optional[Responder]) -> None:
        """
        See L{IChannel.responder}.
        """
        self.conversation.responder(callable)

    def __aiter__(self) -> AsyncIterator[Message]:
        """
        See L{IChannel.__aiter__}.
        """
        return self.conversation.messages()

    # The three times.

    def attach(self, reactor: Any) -> None:
        """
        The reactor runs: let it carry the channel.
        """
        with self._lock:
            if self._transport is not None or self._closed:
                return
            if not isStill(self._socket, self._identity):
                self._socket.detach()
                self._lost(Failure(ConnectionLost("the program closed the channel")))
                return
            self._reactor = reactor
            self._thread = threading.get_ident()
            self._transport = LinkTransport(
                reactor,
                self._socket,
                self._protocol,
                self._identity,
                self._lock,
                self.detach,
            )
            self._protocol.transport = self._transport
            self.conversation.setWindowed(True)
            self._transport.resume()
        self.delay.start(reactor)

    def detach(self) -> None:
        """
        The reactor has stopped: write what is left, and from now on at once.
        """
        with self._lock:
            if self._transport is None or self._closed:
                return
            _, unsent = self._transport.detach()
            self._transport = None
            self._protocol.transport = blocking = self._blocking()
            blocking.write(unsent)
            self.conversation.setWindowed(False)
            self.flush()

    def _blocking(self) -> BlockingTransport:
        return BlockingTransport(self._socket, _DEADLINE, self._identity)

    def _nonsense(self, failure: Failure) -> None:
        _log.failure("the control channel carried nonsense", failure)

    def _lost(self, reason: Failure) -> None:
        self._closed = True
        self.conversation.close("the watcher is gone")
        self.inbox.close()
        self.orphaned()

    def flush(self) -> None:
        """
        Send what has been said, as far as the window lets it through.

        A garbage collection or a signal handler may log while this writes;
        that is then sent by the call that was interrupted.
        """
        with self._lock:
            self._scheduled = self._called = False
            self._again = True
            if self._writing:
                return
            if self._transport is not None and not self._transport.isOurs():
                return
            self._writing = True
            try:
                while self._again and not self._closed:
                    self._again = False
                    self.conversation.flush()
                    self._flushEvents()
            finally:
                self._writing = False

    def _callFlush(self) -> None:
        """
        Have the reactor's thread flush; one call is enough for all that is said
        until then.
        """
        if not self._called:
            self._called = True
            self._reactor.callFromThread(self.flush)

    def _flushFromThread(self) -> bool:
        """
        Send all events from another thread than the reactor's, as far as the
        kernel takes them at once: without windows, so without answers.

        @return: whether that was possible.
        """
        with self._lock:
            transport = self._transport
            if transport is None or self._writing:
                return False
            self._writing = True
            try:
                while transport.isIdle():
                    batch, dropped = self._events.take(commands.PIECE)
                    if batch is None and not dropped:
                        return True
                    transport.writeFromThread(_unanswered(batch or b"", dropped))
            finally:
                self._writing = False
        return False

    def _flushEvents(self) -> None:
        windowed = self._transport is not None
        while not windowed or self._eventsOnTheirWay < WINDOW:
            batch, dropped = self._events.take(commands.PIECE)
            if batch is None and not dropped:
                return
            self._sendEvents(batch or b"", dropped)

    def _sendEvents(self, batch: bytes, dropped: int) -> None:
        for arguments in _pieces(batch, dropped):
            self._eventsOnTheirWay += 1
            self._protocol.call(commands.LogEvents, **arguments).addCallbacks(
                self._eventsTaken, lambda _: None
            )

    def _eventsTaken(self, _: object) -> None:
        self._eventsOnTheirWay -= 1
        if len(self._events):
            self._schedule()

    def _schedule(self) -> None:
        if self._transport is None:
            self.flush()
        elif not self._scheduled:
            self._scheduled = True
            self._reactor.callLater(0, self.flush)

    def _clock(self) -> IReactorTime:
        clock: IReactorTime = self._reactor
        return clock

    def _forked(self) -> None:
        """
        This is a copy of the worker: keep out of its conversation.
        """
        self._closed = True
        self._lock = threading.RLock()
        self._events = LogQueue(lock=self._lock)
        self._transport = None
        self._protocol.transport = self._blocking()
        self._protocol.transport.loseConnection()
        if isStill(self._socket, self._identity):
            self._socket.close()
        else:
            self._socket.detach()


def _pieces(batch: bytes, dropped: int) -> Iterator[dict[str, Any]]:
    """
    Give the arguments of the commands that carry a batch of events.
    """
    starts = range(0, max(len(batch), 1), commands.PIECE)
    for start in starts:
        yield {
            "data": batch[start : start + commands.PIECE],
            "more": start != starts[-1],
            "dropped": dropped if start == 0 else 0,
        }


def _unanswered(batch: bytes, dropped: int) -> bytes:
    """
    Give the bytes of these commands, as such that ask for no answer.
    """
    result = b""
    for arguments in _pieces(batch, dropped):
        box = commands.LogEvents.makeArguments(arguments, None)
        box[amp.COMMAND] = commands.LogEvents.commandName
        result += box.serialize()
    return result


def _last(text: str) -> str:
    """
    Cut a text to what fits into one value, keeping its end.
    """
    encoded = text.encode("utf-8", "backslashreplace")[-commands.PIECE :]
    return encoded.decode("utf-8", "ignore")
