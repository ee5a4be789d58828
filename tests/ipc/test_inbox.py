"""
What has arrived and waits for its consumer.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import AsyncGenerator, Callable
from typing import Any, Optional

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.sockethelpers import Events
from twisted_cluster.errors import AlreadyConsumed
from twisted_cluster.ipc.inbox import Inbox


class Consumer:
    """
    Iterates over an inbox, as far as it is allowed to.
    """

    def __init__(self, inbox: Inbox[Any], pause: bool = False) -> None:
        self.items: list[Any] = []
        self.pause = pause
        self.pausing: Deferred[None] = Deferred()
        self.done: Deferred[None] = Deferred.fromCoroutine(self.run(inbox))

    async def run(self, inbox: Inbox[Any]) -> None:
        async for item in inbox.consume():
            self.items.append(item)
            if self.pause:
                await self.pausing

    def goOn(self) -> None:
        pausing, self.pausing = self.pausing, Deferred()
        pausing.callback(None)


class Consuming(SynchronousTestCase):
    """
    One consumer.
    """

    def test_order(self) -> None:
        """
        Items come in order, those from before the consumer too, at once.
        """
        inbox: Inbox[int] = Inbox("")
        self.assertIsNone(inbox.put([1, 2], 2))
        consumer = Consumer(inbox)
        self.assertEqual(consumer.items, [1, 2])
        inbox.put([], 0)
        inbox.put([3, 4], 2)
        self.assertEqual(consumer.items, [1, 2, 3, 4])
        self.assertNoResult(consumer.done)

    def test_one(self) -> None:
        """
        A second consumer is refused while there is a first, and welcome after.
        """
        inbox: Inbox[int] = Inbox("")
        iterator = inbox.consume()
        self.assertRaises(AlreadyConsumed, inbox.consume)
        del iterator
        gc.collect()
        consumer = Consumer(inbox)
        self.assertRaises(AlreadyConsumed, inbox.consume)
        consumer.done.cancel()
        self.failureResultOf(consumer.done, CancelledError)
        inbox.put([1], 1)
        self.assertEqual(Consumer(inbox).items, [1])

    def test_leavesTheRest(self) -> None:
        """
        Who leaves the loop leaves the rest to the next.
        """
        inbox: Inbox[int] = Inbox("")
        inbox.put([1, 2, 3], 3)
        found: list[int] = []

        async def first() -> None:
            async for item in inbox.consume():
                found.append(item)
                break

        for _ in range(2):
            self.successResultOf(Deferred.fromCoroutine(first()))
            gc.collect()
        self.assertEqual(found, [1, 2])
        self.assertEqual(Consumer(inbox).items, [3])

    def test_putsWhileConsuming(self) -> None:
        """
        What arrives while an item is being worked on comes after it.
        """
        inbox: Inbox[int] = Inbox("")
        consumer = Consumer(inbox, pause=True)
        inbox.put([1, 2], 2)
        inbox.put([3], 1)
        self.assertEqual(consumer.items, [1])
        consumer.goOn()
        consumer.goOn()
        self.assertEqual(consumer.items, [1, 2, 3])

    def test_close(self) -> None:
        """
        The iteration ends when the inbox is closed, after what was queued;
        nothing is taken after that, and a new one ends at once.
        """
        inbox: Inbox[int] = Inbox("")
        consumer = Consumer(inbox, pause=True)
        inbox.put([1, 2], 2)
        inbox.close()
        inbox.close()
        self.assertIsNone(inbox.put([3], 1))
        consumer.goOn()
        self.assertEqual(consumer.items, [1, 2])
        self.assertNoResult(consumer.done)
        consumer.goOn()
        self.successResultOf(consumer.done)
        self.successResultOf(Consumer(inbox).done)

    def test_closeWhileWaiting(self) -> None:
        """
        A consumer that waits is told of the end.
        """
        inbox: Inbox[int] = Inbox("")
        consumer = Consumer(inbox)
        inbox.close()
        self.successResultOf(consumer.done)

    @given(st.lists(st.lists(st.integers(), max_size=5), max_size=20), st.data())
    def test_always(self, batches: list[list[int]], data: st.DataObject) -> None:
        """
        However consumption and arrival interleave, everything comes once, in
        order, and everybody who had to wait is released.
        """
        inbox: Inbox[int] = Inbox("", limit=200)
        consumer = Consumer(inbox, pause=True)
        rooms: list[Optional[Deferred[None]]] = []
        expected = [item for batch in batches for item in batch]
        for batch in batches:
            rooms.append(inbox.put(list(batch), len(batch)))
            for _ in range(data.draw(st.integers(0, 4))):
                if len(consumer.items) < sum(map(len, batches)) and consumer.items:
                    consumer.goOn()
        while len(consumer.items) < len(expected):
            consumer.goOn()
        self.assertEqual(consumer.items, expected)
        self.assertTrue(all(room is None or room.called for room in rooms))


class Limits(SynchronousTestCase):
    """
    More arrives than is consumed.
    """

    def setUp(self) -> None:
        self.events = Events()
        globalLogPublisher.addObserver(self.events)
        self.addCleanup(globalLogPublisher.removeObserver, self.events)

    def said(self) -> list[str]:
        return [text for text in self.events.texts if "nobody reads" in text]

    def test_backPressure(self) -> None:
        """
        Past the limit, what was put in is taken, and whoever put it in has to
        wait until there is room.
        """
        inbox: Inbox[int] = Inbox("", limit=1000)
        consumer = Consumer(inbox, pause=True)
        self.assertIsNone(inbox.put([1], 100))
        rooms = [inbox.put([number], 900) for number in (2, 3)]
        self.assertIsNone(rooms[0])
        assert rooms[1] is not None
        self.assertNoResult(rooms[1])
        consumer.goOn()
        self.successResultOf(rooms[1])
        consumer.goOn()
        self.assertEqual(consumer.items, [1, 2, 3])
        self.assertEqual(inbox.dropped, 0)

    def test_releasedByClose(self) -> None:
        """
        Nobody waits for a closed inbox.
        """
        inbox: Inbox[int] = Inbox("", limit=10)
        Consumer(inbox, pause=True)
        inbox.put([1], 100)
        room = inbox.put([2], 100)
        assert room is not None
        inbox.close()
        self.successResultOf(room)

    def test_nobodyEverReads(self) -> None:
        """
        Where nobody ever began to read, nobody waits: past the limit, messages
        are counted and dropped, and the log says so once, with the remedy.
        """
        inbox: Inbox[int] = Inbox("read them", limit=1000)
        self.assertIsNone(inbox.put([1, 2], 1000))
        self.assertEqual(self.said(), [])
        for _ in range(3):
            self.assertIsNone(inbox.put([3, 4], 100))
        self.assertEqual(inbox.dropped, 6)
        [said] = self.said()
        self.assertIn("read them", said)
        self.assertIn("1000 bytes", said)

    def test_lateReader(self) -> None:
        """
        Who begins to read late gets what was kept, and then what comes.
        """
        inbox: Inbox[int] = Inbox("", limit=100)
        inbox.put([1], 100)
        inbox.put([2], 100)
        consumer = Consumer(inbox)
        inbox.put([3], 100)
        self.assertEqual(consumer.items, [1, 3])

    def test_smallItemsCount(self) -> None:
        """
        Many tiny messages count with what they cost beside their bytes.
        """
        inbox: Inbox[int] = Inbox("", limit=1000)
        inbox.put([1] * 100, 100)
        inbox.put([1], 1)
        self.assertEqual(inbox.dropped, 1)


class Leaving(SynchronousTestCase):
    """
    The consumer leaves while more arrives than it consumed.
    """

    def setUp(self) -> None:
        self.events = Events()
        globalLogPublisher.addObserver(self.events)
        self.addCleanup(globalLogPublisher.removeObserver, self.events)
        self.inbox: Inbox[int] = Inbox("read them", limit=1000)

    def said(self) -> int:
        return len([text for text in self.events.texts if "nobody reads" in text])

    def waits(self) -> Deferred[None]:
        """
        Have a consumer take one item and somebody wait for room; then let the
        consumer leave the loop.
        """

        async def takeOne() -> None:
            async for item in self.inbox.consume():
                self.found.append(item)
                await self.goOn
                if item < 0:
                    raise ValueError(item)
                break

        self.found: list[int] = []
        self.goOn: Deferred[None] = Deferred()
        self.left = Deferred.fromCoroutine(takeOne())
        rooms = [self.inbox.put([number], 900) for number in (1, 2, 3)]
        assert rooms[2] is not None
        self.assertNoResult(rooms[2])
        return rooms[2]

    def test_break(self) -> None:
        """
        When the consumer leaves its loop, those who wait for it are released.
        """
        room = self.waits()
        self.goOn.callback(None)
        self.successResultOf(self.left)
        self.successResultOf(room)

    def test_exception(self) -> None:
        """
        So they are when its loop fails.
        """
        self.inbox.put([-1], 0)
        room = self.waits()
        self.goOn.callback(None)
        self.failureResultOf(self.left, ValueError)
        self.successResultOf(room)

    def test_abandoned(self) -> None:
        """
        So they are when an iterator that never began is forgotten.
        """
        iterator = self.inbox.consume()
        self.inbox.put([1], 1000)
        room = self.inbox.put([2], 1000)
        assert room is not None
        self.assertNoResult(room)
        del iterator
        gc.collect()
        self.successResultOf(room)

    def test_soon(self) -> None:
        """
        They are released by the reactor, whichever thread finds that the
        consumer is gone; not if there is another by then, who makes room
        itself.
        """
        calls: list[Callable[[], None]] = []
        self.inbox.soon = calls.append
        room = self.waits()
        self.goOn.callback(None)
        self.assertNoResult(room)
        iterator = self.inbox.consume()
        calls.pop()()
        self.assertNoResult(room)
        del iterator
        gc.collect()
        calls.pop()()
        self.successResultOf(room)

    def test_kept(self) -> None:
        """
        What arrived is kept for the next consumer; past the limit it is
        counted and dropped, and the log says so once for each time that
        nobody reads.
        """
        for episode in (1, 2):
            self.waits()
            self.goOn.callback(None)
            for _ in range(3):
                self.assertIsNone(self.inbox.put([4], 900))
            self.assertEqual(self.inbox.dropped, 3 * episode)
            self.assertEqual(self.said(), episode)
            consumer = Consumer(self.inbox)
            self.assertEqual(self.found + consumer.items, [1, 2, 3])
            self.assertIsNone(self.inbox.put([5], 900))
            self.assertEqual(consumer.items[-1], 5)
            consumer.done.cancel()
            self.failureResultOf(consumer.done, CancelledError)

    def test_endedLate(self) -> None:
        """
        A consumer that asyncio ends after another has begun leaves that one
        alone.
        """
        forgotten: list[AsyncGenerator[int, None]] = []
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(None, forgotten.append)
        self.addCleanup(sys.set_asyncgen_hooks, *hooks)
        self.waits()
        self.goOn.callback(None)
        consumer = Consumer(self.inbox)
        [generator] = forgotten
        self.successResultOf(Deferred.fromCoroutine(generator.aclose()))
        self.assertRaises(AlreadyConsumed, self.inbox.consume)
        self.inbox.put([4], 1)
        self.assertEqual(consumer.items, [2, 3, 4])
