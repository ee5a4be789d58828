"""
Two sides of a conversation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Optional

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from twisted_cluster.errors import (
    ChannelClosed,
    ChannelFull,
    MessageNotSerializable,
    MessageTooLarge,
    ProtocolError,
    RequestFailed,
    RequestTimeout,
    UnknownWorker,
)
from twisted_cluster.interfaces import Message
from twisted_cluster.ipc import conversation as module
from twisted_cluster.ipc import outbox
from twisted_cluster.ipc.codec import encode, joinBatch, pair
from twisted_cluster.ipc.commands import PIECE
from twisted_cluster.ipc.conversation import Conversation
from twisted_cluster.ipc.inbox import Inbox

LIMIT = 1_000_000


class Side:
    """
    One side: a conversation whose pieces wait until they are carried over.
    """

    def __init__(self, clock: Clock, limit: int = LIMIT) -> None:
        self.waiting: list[tuple[bytes, bytes, bool, Deferred[bytes]]] = []
        self.inbox: Inbox[Message] = Inbox("")
        self.conversation: Conversation[Message] = Conversation(
            lambda: clock, self.sendPiece, lambda: None, self.inbox, Message, limit
        )
        self.messages: list[Any] = []
        self.gate: Optional[Deferred[None]] = None

    def sendPiece(
        self, kind: bytes, data: bytes, more: bool, confirmed: bool
    ) -> Optional[Deferred[bytes]]:
        acknowledgement: Deferred[bytes] = Deferred()
        self.waiting.append((kind, data, more, acknowledgement))
        return acknowledgement if confirmed else None

    def consume(self) -> None:
        """
        Collect messages; while there is a gate, wait for it after each.
        """

        async def run() -> None:
            async for message in self.conversation.messages():
                self.messages.append(message)
                if self.gate is not None:
                    await self.gate

        Deferred.fromCoroutine(run())


def carry(one: Side, other: Side) -> bool:
    """
    Carry what waits on one side to the other.
    """
    one.conversation.flush()
    waiting, one.waiting = one.waiting, []
    for kind, data, more, acknowledgement in waiting:
        taken = maybeDeferred(other.conversation.received, kind, data, more)
        taken.addCallbacks(acknowledgement.callback, acknowledgement.errback)
    return bool(waiting)


def settle(one: Side, other: Side) -> None:
    """
    Carry until nothing waits.
    """
    while carry(one, other) or carry(other, one):
        pass


class ConversationTestCase(SynchronousTestCase):
    """
    A conversation between two sides, C{a} and C{b}.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.a = Side(self.clock)
        self.b = Side(self.clock)

    def settle(self) -> None:
        settle(self.a, self.b)


class Messages(ConversationTestCase):
    """
    Messages.
    """

    def test_send(self) -> None:
        """
        Messages arrive in the order of the calls, from the other side of the
        channel, and their Deferreds fire.
        """
        self.b.consume()
        sent = [self.a.conversation.send({"n": 1})]
        sent.append(self.a.conversation.sendMany([{"n": 2}, {"n": 3}]))
        sent.append(self.a.conversation.send(b"x" * (3 * PIECE)))
        self.settle()
        self.assertEqual(
            self.b.messages,
            [
                *(Message({"n": number}, None) for number in (1, 2, 3)),
                Message(b"x" * (3 * PIECE), None),
            ],
        )
        for each in sent:
            self.assertIsNone(self.successResultOf(each))

    def test_encodedAtOnce(self) -> None:
        """
        What is changed after send() arrives as it was.
        """
        self.b.consume()
        data = [1]
        self.a.conversation.send(data)
        data.append(2)
        self.settle()
        self.assertEqual(self.b.messages, [Message([1])])

    def test_noMessages(self) -> None:
        """
        No items are sent at once.
        """
        self.assertIsNone(self.successResultOf(self.a.conversation.sendMany([])))

    def test_cannotBeSent(self) -> None:
        """
        What cannot be sent fails at the sender; of many, none is sent then.
        """
        send, sendMany = self.a.conversation.send, self.a.conversation.sendMany
        self.failureResultOf(send(object()), MessageNotSerializable)
        self.failureResultOf(send("x" * LIMIT), MessageTooLarge)
        self.failureResultOf(sendMany([1, object()]), MessageNotSerializable)
        self.assertFalse(carry(self.a, self.b))

    def test_largest(self) -> None:
        """
        A message at the limit arrives, and so do more than that in one call.
        """
        self.b.consume()
        largest = b"x" * (LIMIT - 5)
        self.a.conversation.send(largest)
        self.a.conversation.sendMany([b"y" * 100_000] * 30)
        self.settle()
        self.assertEqual(len(self.b.messages), 31)

    def test_backPressure(self) -> None:
        """
        A receiver that does not read lets the sender wait: its Deferreds do
        not fire, and no more than a window is on its way.
        """
        self.b.gate = Deferred()
        self.b.consume()
        sent = [self.a.conversation.send(b"x" * 50_000) for _ in range(100)]
        self.settle()
        taken = sum(each.called for each in sent)
        self.assertTrue(20 <= taken <= 22, taken)
        self.assertEqual(len(self.b.messages), 1)
        gate, self.b.gate = self.b.gate, None
        gate.callback(None)
        self.settle()
        self.assertEqual(len(self.b.messages), 100)
        self.assertTrue(all(each.called for each in sent))

    def test_readsNoLonger(self) -> None:
        """
        The sender waits no longer when the receiver leaves its loop, whatever
        thread the garbage collector finds that in: the reactor is told.
        """

        @implementer(IReactorFromThreads)
        class Threaded(Clock):
            def callFromThread(
                self, callable: Callable[..., Any], *args: object, **kwargs: object
            ) -> None:
                calls.append(callable)

        calls: list[Callable[..., Any]] = []
        self.b = Side(Threaded())
        messages = self.b.conversation.messages()
        sent = [self.a.conversation.send(b"x" * 50_000) for _ in range(100)]
        self.settle()
        del messages
        self.assertEqual(len(calls), 1)
        self.assertFalse(all(each.called for each in sent))
        calls.pop()()
        self.settle()
        self.assertTrue(all(each.called for each in sent))

    def test_repliesPass(self) -> None:
        """
        A receiver that asks before it reads on is answered, however many
        messages wait for it.
        """
        self.a.conversation.responder(lambda data: data * 2)
        answers: list[int] = []

        async def run() -> None:
            async for _ in self.b.conversation.messages():
                answers.append(await self.b.conversation.request(len(answers)))

        Deferred.fromCoroutine(run())
        for _ in range(100):
            self.a.conversation.send(b"x" * 50_000)
        self.settle()
        self.assertEqual(answers, [2 * number for number in range(100)])

    def test_interleaved(self) -> None:
        """
        A request gets through while a long message is being sent.
        """
        self.a.conversation.responder(lambda data: data)
        self.b.conversation.responder(lambda data: data)
        self.b.consume()
        self.a.conversation.send(b"x" * (10 * PIECE))
        asked = self.a.conversation.request(b"y" * (2 * PIECE))
        carry(self.a, self.b)
        carry(self.b, self.a)
        self.assertEqual(self.successResultOf(asked), b"y" * (2 * PIECE))
        self.assertEqual(self.b.messages, [])
        self.settle()
        self.assertEqual(self.b.messages, [Message(b"x" * (10 * PIECE))])


class Forwards(ConversationTestCase):
    """
    Messages to other workers, through the watcher: C{b}.
    """

    def test_forward(self) -> None:
        """
        The watcher gets the id and the data, still encoded; where it says that
        there is no such worker, or that its queue is full, the sender is told
        which, and the others are not.
        """
        refusals = {2: UnknownWorker("gone"), 4: ChannelFull("full")}
        forwarded: list[tuple[int, bytes]] = []

        def forward(to: int, encoded: bytes) -> Optional[BaseException]:
            forwarded.append((to, encoded))
            return refusals.get(to)

        self.b.conversation.forward = forward
        sent = [self.a.conversation.send("hi", to) for to in (1, 2, 3, 4)]
        self.settle()
        encoded = encode("hi", LIMIT)
        self.assertEqual(forwarded, [(to, encoded) for to in (1, 2, 3, 4)])
        self.successResultOf(sent[0])
        self.failureResultOf(sent[1], UnknownWorker)
        self.successResultOf(sent[2])
        self.failureResultOf(sent[3], ChannelFull)

    def test_noID(self) -> None:
        """
        What cannot be a worker's id fails at once, and not at the other end.
        """
        ids: list[Any] = ["1", True, 0, -1, 2**64, 1.0]
        for to in ids:
            self.failureResultOf(self.a.conversation.send("hi", to), UnknownWorker)
        self.assertFalse(carry(self.a, self.b))

    def test_fromWorker(self) -> None:
        """
        A message from another worker says whose it is, and keeps its place
        among the watcher's.
        """
        self.b.consume()
        self.a.conversation.send(1)
        encoded = pair(7, encode("hi", LIMIT))
        self.a.conversation.sendEncoded(b"w", encoded)
        self.a.conversation.send(2)
        self.settle()
        self.assertEqual(self.b.messages, [Message(1), Message("hi", 7), Message(2)])

    def test_notForUs(self) -> None:
        """
        A worker is asked to forward nothing.
        """
        batch = joinBatch([pair(1, encode(1, LIMIT))])
        self.assertRaises(
            ProtocolError, self.b.conversation.received, b"f", batch, False
        )


class Requests(ConversationTestCase):
    """
    Questions and answers.
    """

    def ask(
        self, answer: Optional[Callable[[Any], Any]], data: Any = 1
    ) -> Deferred[Any]:
        """
        Ask C{b}, who answers so.
        """
        self.b.conversation.responder(answer)
        asked = self.a.conversation.request(data, 5.0)
        self.settle()
        return asked

    def nothingLeft(self) -> None:
        """
        No timer and no question is left.
        """
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.a.conversation._asked, {})

    def test_reply(self) -> None:
        """
        A plain function's result is the reply.
        """
        asked = self.ask(lambda data: {"got": data}, [1, 2])
        self.assertEqual(self.successResultOf(asked), {"got": [1, 2]})
        self.nothingLeft()

    def test_deferred(self) -> None:
        """
        So is a Deferred's result, when there is one.
        """
        answer: Deferred[str] = Deferred()
        asked = self.ask(lambda data: answer)
        self.assertNoResult(asked)
        answer.callback("late")
        self.settle()
        self.assertEqual(self.successResultOf(asked), "late")

    def test_coroutine(self) -> None:
        """
        And a coroutine's.
        """
        gate: Deferred[int] = Deferred()

        async def answer(data: Any) -> Any:
            return data + await gate

        asked = self.ask(answer)
        gate.callback(41)
        self.settle()
        self.assertEqual(self.successResultOf(asked), 42)

    def test_ownOrder(self) -> None:
        """
        Replies find their questions in whatever order they come.
        """
        waiting: list[Deferred[Any]] = []

        def answer(data: Any) -> Deferred[Any]:
            waiting.append(Deferred())
            return waiting[-1]

        self.b.conversation.responder(answer)
        asked = [self.a.conversation.request(number) for number in range(3)]
        self.settle()
        for number in (1, 2, 0):
            waiting[number].callback(number)
            self.settle()
        self.assertEqual([self.successResultOf(each) for each in asked], [0, 1, 2])

    def test_raises(self) -> None:
        """
        What the responder raises fails the question, with its name and text,
        and is logged where it was raised.
        """

        def answer(data: Any) -> Any:
            raise ValueError("no such key")

        async def later(data: Any) -> Any:
            raise ValueError("no such key")

        for responder in (answer, later):
            failure = self.failureResultOf(self.ask(responder), RequestFailed)
            self.assertEqual(str(failure.value), "ValueError: no such key")
            self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.nothingLeft()

    def test_noResponder(self) -> None:
        """
        Where nobody answers, the question fails and says so.
        """
        failure = self.failureResultOf(self.ask(None), RequestFailed)
        self.assertIn("no responder", str(failure.value))

    def test_unsendableReply(self) -> None:
        """
        A reply that cannot be sent fails the question with the reason.
        """
        replies: list[Any] = [object(), "x" * LIMIT]
        for reply in replies:
            self.failureResultOf(self.ask([reply].__getitem__, 0), RequestFailed)
            self.assertEqual(len(self.flushLoggedErrors()), 1)

    def test_unsendable(self) -> None:
        """
        A question that cannot be sent fails at once.
        """
        self.failureResultOf(
            self.a.conversation.request(object()), MessageNotSerializable
        )
        self.nothingLeft()

    def test_timeout(self) -> None:
        """
        No reply within the time fails the question; a later one is ignored.
        """
        answer: Deferred[str] = Deferred()
        asked = self.ask(lambda data: answer)
        self.clock.advance(4.9)
        self.assertNoResult(asked)
        self.clock.advance(0.1)
        self.failureResultOf(asked, RequestTimeout)
        answer.callback("too late")
        self.settle()
        self.nothingLeft()

    def test_cancel(self) -> None:
        """
        A question may be cancelled; a later reply is ignored.
        """
        answer: Deferred[str] = Deferred()
        asked = self.ask(lambda data: answer)
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        self.nothingLeft()
        answer.callback("too late")
        self.settle()

    def test_unasked(self) -> None:
        """
        A reply to no question is ignored.
        """
        from twisted_cluster.ipc.codec import reply

        batch = joinBatch([reply(99, True, encode(1, LIMIT))])
        self.assertEqual(self.a.conversation.received(b"r", batch, False), b"")

    def test_close(self) -> None:
        """
        When the connection ends, whoever waits for a reply fails, and whoever
        asks later.
        """
        asked = self.ask(lambda data: Deferred())
        self.a.conversation.close("the watcher is gone")
        late = self.a.conversation.request(2)
        for each in (asked, late):
            failure = self.failureResultOf(each, ChannelClosed)
            self.assertEqual(str(failure.value), "the watcher is gone")
        self.nothingLeft()

    def test_replyAfterClose(self) -> None:
        """
        A reply for which there is no connection any more is nobody's error.
        """
        answer: Deferred[str] = Deferred()
        self.ask(lambda data: answer).addErrback(lambda _: None)
        self.b.conversation.close("gone")
        answer.callback("too late")
        self.a.conversation.close("gone")
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_manyRequests(self) -> None:
        """
        A responder that does not keep up lets the askers wait: so many are
        being answered, and a window more.
        """
        self.patch(module, "MOST_ANSWERING", 100)
        answers: list[Deferred[int]] = []

        def answer(data: Any) -> Deferred[int]:
            answers.append(Deferred())
            return answers[-1]

        self.b.conversation.responder(answer)
        asked = [
            self.a.conversation.request(b"x" * 10_000, 1000.0) for _ in range(1000)
        ]
        self.settle()
        self.assertTrue(100 <= len(answers) < 200, len(answers))
        done = 0
        while done < 1000:
            waiting, answers[:] = answers[:], []
            for each in waiting:
                each.callback(1)
            done += len(waiting)
            self.settle()
        self.assertTrue(all(self.successResultOf(each) == 1 for each in asked))

    def test_full(self) -> None:
        """
        More questions than the queue takes fail with ChannelFull, and leave
        nothing behind.
        """
        self.patch(outbox, "LIMIT", 1000)
        asked = [self.a.conversation.request("x" * 100) for _ in range(10)]
        full = [each for each in asked if each.called]
        self.assertEqual(len(full), 7)
        for each in full:
            self.failureResultOf(each, ChannelFull)
        self.assertEqual(len(self.a.conversation._asked), 3)
        self.a.conversation.close("over")
        for each in asked[:3]:
            self.failureResultOf(each, ChannelClosed)
        self.nothingLeft()

    def test_bothWays(self) -> None:
        """
        Two responders that ask each other are answered.
        """
        self.a.conversation.responder(lambda data: data + 1)

        async def answer(data: Any) -> Any:
            return await self.b.conversation.request(data) * 2

        self.assertEqual(self.successResultOf(self.ask(answer, 20)), 42)


class Nonsense(ConversationTestCase):
    """
    A side that breaks the rules.
    """

    def test_kinds(self) -> None:
        """
        An unknown kind, and what cannot be decoded, are refused.
        """
        received = self.a.conversation.received
        self.assertRaises(ProtocolError, received, b"z", joinBatch([]), False)
        for kind in (b"m", b"q", b"r", b"w"):
            self.assertRaises(ProtocolError, received, kind, b"garbage", False)

    def test_endless(self) -> None:
        """
        A batch that does not end is refused when it is longer than messages
        may be.
        """
        piece = b"x" * PIECE
        taken = 0

        def endless() -> None:
            nonlocal taken
            while taken < 1000:
                self.a.conversation.received(b"m", piece, True)
                taken += 1

        self.assertRaises(ProtocolError, endless)
        self.assertTrue(taken * PIECE < 3 * (LIMIT + 2 * 1024 * 1024))
