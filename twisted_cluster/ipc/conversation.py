"""
Messages, requests and replies, the same on both sides of a control channel.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import (
    Any,
    Generic,
    Optional,
    TypeVar,
    Union,
    cast,
)

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_cluster.errors import (
    ChannelClosed,
    ChannelError,
    ProtocolError,
    RequestFailed,
    RequestTimeout,
)
from twisted_cluster.interfaces import Data
from twisted_cluster.ipc import codec
from twisted_cluster.ipc.inbox import Inbox
from twisted_cluster.ipc.outbox import Outbox, SendPiece

M = TypeVar("M")
Answer = Callable[[Data], Any]
_SLACK = 1024 * 1024
"""How much longer than the longest message a batch may be."""


class Conversation(Generic[M]):
    """
    One side of a conversation.

    It numbers requests and matches replies, queues what is sent in an
    L{Outbox} and what arrives in an L{Inbox}, and knows nothing of transports
    or of AMP: pieces leave through a callable and come in by L{received}.
    """

    _log = Logger()

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
        @param inbox: where the messages that arrive go.
        @param message: makes an item of C{inbox} from data and the id of the
            worker that sent it (L{None}: the other side of this channel).
        @param limit: the most bytes that one message may take.
        """
        self._clock = clock
        self._inbox = inbox
        self._message = message
        self._limit = limit
        self._answer: Optional[Answer] = None
        self._asked: dict[int, tuple[Deferred[Data], IDelayedCall]] = {}
        self._lastRequest = 0
        self._parts: deque[bytes] = deque()
        self._partsSize = 0
        self.outbox = Outbox(sendPiece, schedule)
        self.forward: Optional[Callable[[int, bytes], bool]] = None

    def send(self, data: Data, to: Optional[int] = None) -> Deferred[None]:
        """
        See L{twisted_cluster.interfaces.IChannel.send}.
        """
        try:
            encoded = codec.encode(data, self._limit)
        except ChannelError:
            return fail(Failure())
        if to is None:
            return self.outbox.put(b"m", encoded)
        return self.outbox.put(b"f", codec.pair(to, encoded))

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
        return self.outbox.putMany(b"m", encoded, sum(map(len, encoded)))

    def sendEncoded(self, kind: bytes, encoded: bytes) -> Deferred[None]:
        """
        Send what L{codec} has encoded already.
        """
        return self.outbox.put(kind, encoded)

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
        self.outbox.put(b"q", codec.pair(number, encoded)).addErrback(forget)
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
    ) -> Union[Sequence[int], Deferred[Sequence[int]]]:
        """
        Take a piece over.

        @return: the positions of the items that reached nobody, for the
            acknowledgement, when it is time to send that.
        @raise ProtocolError: when the piece makes no sense.
        """
        if more or self._parts:
            self._parts.append(data)
            self._partsSize += len(data)
            if self._partsSize > self._limit + _SLACK:
                raise ProtocolError(
                    f"a batch of over {self._partsSize:,} bytes, where one "
                    f"message may have {self._limit:,}"
                )
            if more:
                return ()
            data = b"".join(self._parts)
            self._parts.clear()
            self._partsSize = 0
        room: Optional[Deferred[None]] = None
        if kind == b"m":
            message = self._message
            room = self._inbox.put(
                [message(item, None) for item in codec.splitMessages(data)], len(data)
            )
        elif kind == b"q":
            for number, item in codec.splitNumbered(data):
                self._requested(number, item)
        elif kind == b"r":
            for number, succeeded, item in codec.splitReplies(data):
                self._replied(number, succeeded, item)
        elif kind == b"w":
            room = self._inbox.put(
                [
                    self._message(item, sender)
                    for sender, item in codec.splitNumbered(data)
                ],
                len(data),
            )
        elif kind == b"f" and self.forward is not None:
            forward = self.forward
            return [
                position
                for position, (to, raw) in enumerate(codec.splitForwards(data))
                if not forward(to, bytes(raw))
            ]
        else:
            raise ProtocolError(f"a batch of unknown kind {kind!r}")
        if room is None:
            return ()
        return room.addCallback(lambda _: ())

    def close(self, why: str) -> None:
        """
        The connection has ended: fail all who wait with L{ChannelClosed}.
        """
        asked, self._asked = self._asked, {}
        for reply, timeout in asked.values():
            timeout.cancel()
            reply.errback(ChannelClosed(why))
        self.outbox.close(why)

    def _requested(self, number: int, data: Data) -> None:
        if self._answer is None:
            self._reply(number, False, "the other side has no responder")
            return
        answered = maybeDeferred(_call, self._answer, data)
        answered.addCallbacks(
            lambda result: self._reply(number, True, result),
            lambda reason: self._responderFailed(number, reason),
        )

    def _responderFailed(self, number: int, reason: Failure) -> None:
        self._log.failure("a responder failed", reason)
        name = reason.type.__name__ if reason.type is not None else "error"
        self._reply(number, False, f"{name}: {reason.getErrorMessage()}")

    def _reply(self, number: int, succeeded: bool, data: Data) -> None:
        try:
            encoded = codec.encode(data, self._limit)
        except ChannelError as error:
            self._log.failure("a responder's reply cannot be sent")
            succeeded, encoded = False, codec.encode(str(error), self._limit)
        self.outbox.put(b"r", codec.reply(number, succeeded, encoded)).addErrback(
            lambda reason: reason.trap(ChannelError)
        )

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
