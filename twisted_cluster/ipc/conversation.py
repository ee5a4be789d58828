"""
Messages, requests and replies, the same on both sides of a control channel.

Each of the three leaves through an L{Outbox} of its own.  So a reply gets
through to somebody who reads no message before he has it, and a request to
somebody who answers none of ours before his own is answered.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import (
    Any,
    Final,
    Generic,
    Optional,
    TypeVar,
    Union,
    cast,
)

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.interfaces import (
    IDelayedCall,
    IReactorFromThreads,
    IReactorTime,
)
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_cluster.errors import (
    ChannelClosed,
    ChannelError,
    ChannelFull,
    ProtocolError,
    RequestFailed,
    RequestTimeout,
    UnknownWorker,
)
from twisted_cluster.interfaces import Data
from twisted_cluster.ipc import codec
from twisted_cluster.ipc.commands import FULL, TAKEN, UNKNOWN
from twisted_cluster.ipc.inbox import Inbox
from twisted_cluster.ipc.outbox import Outbox, SendPiece

_log = Logger("twisted_cluster")


M = TypeVar("M")
Answer = Callable[[Data], Any]
Forward = Callable[[int, bytes], Optional[BaseException]]
_SLACK = 1024 * 1024
"""How much longer than the longest message a batch may be."""
_MOST_WORKERS = 2**63
MOST_ANSWERING: Final = 1000
"""Requests being answered from which on the other side has to wait."""


class Conversation(Generic[M]):
    """
    One side of a conversation.

    It numbers requests and matches replies, queues what is sent in an
    L{Outbox} and what arrives in an L{Inbox}, and knows nothing of transports
    or of AMP: pieces leave through a callable and come in by L{received}.

    @ivar forward: passes a message on to the worker with an id, and returns
        L{None} or the error that tells why that worker does not take it;
        L{None} where there are no others.
    """

    def __init__(
        self,
        clock: Callable[[], IReactorTime],
        sendPiece: SendPiece,
        schedule: Callable[[], None],
        inbox: Inbox[M],
        message: Callable[[Data, Optional[int]], M],
        limit: int,
    ) -> None:
        """
        @param clock: gives the reactor that times requests.
        @param sendPiece: as L{Outbox} takes it.
        @param schedule: called when there is something to flush; it is to call
            L{flush} once the current reactor turn is over.
        @param inbox: where the messages that arrive go.
        @param message: makes an item of C{inbox} from data and the id of the
            worker that sent it (L{None}: the other side of this channel).
        @param limit: the most bytes that one message may take.
        """
        self._clock = clock
        self._inbox = inbox
        inbox.soon = self._soon
        self._message = message
        self._limit = limit
        self._answer: Optional[Answer] = None
        self._asked: dict[int, tuple[Deferred[Data], IDelayedCall]] = {}
        self._lastRequest = 0
        self._answering = 0
        self._manyAsk: list[Deferred[None]] = []
        self._parts: dict[bytes, list[bytes]] = {}
        self._partsSize = 0
        self._messages = Outbox(sendPiece, schedule)
        self._requests = Outbox(sendPiece, schedule, confirmed=False)
        self._replies = Outbox(sendPiece, schedule, confirmed=False)
        self.forward: Optional[Forward] = None

    def send(self, data: Data, to: Optional[int] = None) -> Deferred[None]:
        """
        See L{twisted_cluster.interfaces.IChannel.send}.
        """
        try:
            encoded = codec.encode(data, self._limit)
        except ChannelError:
            return fail(Failure())
        if to is None:
            return self._messages.put(b"m", encoded)
        if type(to) is not int or not 0 < to < _MOST_WORKERS:
            return fail(UnknownWorker(f"{to!r} is no worker's id"))
        return self._messages.put(b"f", codec.pair(to, encoded))

    def sendMany(self, items: Iterable[Data]) -> Deferred[None]:
        """
        See L{twisted_cluster.interfaces.IMessageSender.sendMany}.
        """
        encode, limit = codec.encode, self._limit
        try:
            encoded = [encode(item, limit) for item in items]
        except ChannelError:
            return fail(Failure())
        if not encoded:
            return succeed(None)
        return self._messages.putMany(b"m", encoded)

    def sendEncoded(self, kind: bytes, encoded: bytes) -> Deferred[None]:
        """
        Send a message, of kind C{m} or C{w}, that L{codec} has encoded already.
        """
        return self._messages.put(kind, encoded)

    def request(self, data: Data, timeout: float = 30.0) -> Deferred[Data]:
        """
        See L{twisted_cluster.interfaces.IMessageSender.request}.
        """
        try:
            encoded = codec.encode(data, self._limit)
        except ChannelError:
            return fail(Failure())
        self._lastRequest += 1
        number = self._lastRequest

        def expired() -> None:
            del self._asked[number]
            reply.errback(
                RequestTimeout(f"no reply within {timeout:g} s to request {number}")
            )

        def forget(reason: Failure) -> None:
            asked = self._asked.pop(number, None)
            if asked is not None:
                asked[1].cancel()
                reply.errback(reason)

        def cancelled(_: Deferred[Data]) -> None:
            asked = self._asked.pop(number, None)
            if asked is not None:
                asked[1].cancel()

        reply: Deferred[Data] = Deferred(cancelled)
        self._asked[number] = (reply, self._clock().callLater(timeout, expired))
        self._requests.put(b"q", codec.pair(number, encoded)).addErrback(forget)
        return reply

    def responder(self, answer: Optional[Answer]) -> None:
        """
        Set what answers requests.
        """
        self._answer = answer

    def messages(self) -> AsyncIterator[M]:
        """
        Iterate over the messages that arrive.

        @raise AlreadyConsumed: when somebody else does so at the moment.
        """
        return self._inbox.consume()

    def received(
        self, kind: bytes, data: bytes, more: bool
    ) -> Union[bytes, Deferred[bytes]]:
        """
        Take a piece over.

        @return: the acknowledgement, when it is time to send that: which items
            were refused, as L{Messages<twisted_cluster.ipc.commands.Messages>}
            says it.
        @raise ProtocolError: when the piece makes no sense.
        """
        batch = self._joined(kind, data, more)
        if batch is None:
            return b""
        room: Optional[Deferred[None]] = None
        message = self._message
        if kind == b"m":
            items = [message(item, None) for item in codec.splitMessages(batch)]
            room = self._inbox.put(items, len(batch))
        elif kind == b"w":
            items = [message(item, by) for by, item in codec.splitNumbered(batch)]
            room = self._inbox.put(items, len(batch))
        elif kind == b"q":
            for number, item in codec.splitNumbered(batch):
                self._requested(number, item)
            room = self._respite()
        elif kind == b"r":
            for number, succeeded, item in codec.splitReplies(batch):
                self._replied(number, succeeded, item)
        elif kind == b"f" and self.forward is not None:
            return self._forwarded(batch, self.forward)
        else:
            raise ProtocolError(f"a batch of unknown kind {kind!r}")
        return b"" if room is None else room.addCallback(lambda _: b"")

    def flush(self) -> None:
        """
        Send what the windows let through.
        """
        self._replies.flush()
        self._requests.flush()
        self._messages.flush()

    def setWindowed(self, windowed: bool) -> None:
        """
        Say whether acknowledgements are heard: see L{Outbox.windowed}.
        """
        for outbox in (self._messages, self._requests, self._replies):
            outbox.windowed = windowed

    def close(self, why: str) -> None:
        """
        The connection has ended: fail all who wait with L{ChannelClosed}.
        """
        asked, self._asked = self._asked, {}
        for reply, timeout in asked.values():
            timeout.cancel()
            reply.errback(ChannelClosed(why))
        for outbox in (self._messages, self._requests, self._replies):
            outbox.close(why)

    def _soon(self, call: Callable[[], None]) -> None:
        reactor = self._clock()
        if IReactorFromThreads.providedBy(reactor):
            reactor.callFromThread(call)
        else:
            call()

    def _joined(self, kind: bytes, data: bytes, more: bool) -> Optional[bytes]:
        """
        The batch that a piece completes, if it does.
        """
        if not more and not self._parts:
            return data
        parts = self._parts.setdefault(kind, [])
        parts.append(data)
        self._partsSize += len(data)
        if self._partsSize > 3 * (self._limit + _SLACK):
            raise ProtocolError(
                f"batches of {self._partsSize:,} bytes that do not end, where one "
                f"message may have {self._limit:,}"
            )
        if more:
            return None
        batch = b"".join(self._parts.pop(kind))
        self._partsSize -= len(batch)
        return batch

    def _forwarded(self, batch: bytes, forward: Forward) -> bytes:
        refused = bytearray()
        for to, raw in codec.splitForwards(batch):
            why = forward(to, bytes(raw))
            if why is None:
                refused.append(TAKEN)
            else:
                refused.append(FULL if isinstance(why, ChannelFull) else UNKNOWN)
        return bytes(refused) if any(refused) else b""

    def _respite(self) -> Optional[Deferred[None]]:
        if self._answering < MOST_ANSWERING:
            return None
        respite: Deferred[None] = Deferred()
        self._manyAsk.append(respite)
        return respite

    def _requested(self, number: int, data: Data) -> None:
        if self._answer is None:
            self._reply(number, False, "the other side has no responder")
            return
        self._answering += 1
        answered = maybeDeferred(_call, self._answer, data)
        answered.addCallbacks(
            lambda result: self._reply(number, True, result),
            lambda reason: self._responderFailed(number, reason),
        )
        answered.addCallback(lambda _: self._answered())

    def _answered(self) -> None:
        self._answering -= 1
        if self._manyAsk and self._answering < MOST_ANSWERING:
            waiting, self._manyAsk = self._manyAsk, []
            for respite in waiting:
                respite.callback(None)

    def _responderFailed(self, number: int, reason: Failure) -> None:
        _log.failure("a responder failed", reason)
        name = reason.type.__name__ if reason.type is not None else "error"
        self._reply(number, False, f"{name}: {reason.getErrorMessage()}")

    def _reply(self, number: int, succeeded: bool, data: Data) -> None:
        try:
            encoded = codec.encode(data, self._limit)
        except ChannelError as error:
            _log.failure("a responder's reply cannot be sent")
            succeeded, encoded = False, codec.encode(str(error), _SLACK)
        self._replies.put(b"r", codec.reply(number, succeeded, encoded)).addErrback(
            self._unreplied
        )

    def _unreplied(self, reason: Failure) -> None:
        if reason.check(ChannelClosed) is None:
            _log.failure("a reply was not sent", reason)

    def _replied(self, number: int, succeeded: bool, data: Data) -> None:
        asked = self._asked.pop(number, None)
        if asked is None:
            return
        reply, timeout = asked
        timeout.cancel()
        if succeeded:
            reply.callback(data)
        else:
            reply.errback(RequestFailed(str(data)))


def _call(answer: Answer, data: Data) -> Any:
    result = answer(data)
    if hasattr(result, "__await__") and not isinstance(result, Deferred):
        return Deferred.fromCoroutine(cast("Any", _await(result)))
    return result


async def _await(result: Awaitable[Any]) -> Any:
    return await result
