"""
Tests for L{twisted_cluster.ipc.logqueue}.
"""

from __future__ import annotations

import threading
from typing import Any, Optional

import msgspec
from hypothesis import given
from hypothesis import strategies as some
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.ipc.logqueue import LogQueue

_LEVELS = (10, 20, 30, 40, 50)


class Model:
    """
    The queue's rule, as plainly as it can be written.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.events: list[tuple[int, bytes]] = []
        self.dropped = 0

    def put(self, level: int, data: bytes) -> None:
        lower = sum(len(each) for below, each in self.events if below < level)
        free = self.limit - sum(len(each) for _, each in self.events)
        if free + lower < len(data):
            self.dropped += 1
            return
        while free < len(data):
            lowest = min(below for below, _ in self.events)
            index = max(
                n for n, (below, _) in enumerate(self.events) if below == lowest
            )
            free += len(self.events.pop(index)[1])
            self.dropped += 1
        self.events.append((level, data))

    def take(self, room: int) -> tuple[Optional[list[bytes]], int]:
        taken: list[bytes] = []
        room -= 5
        while self.events and (not taken or len(self.events[0][1]) <= room):
            room -= len(self.events[0][1])
            taken.append(self.events.pop(0)[1])
        dropped, self.dropped = self.dropped, 0
        return taken or None, dropped


def _event(number: int, size: int) -> bytes:
    encoded: bytes = msgspec.msgpack.encode(f"{number:04}" + "." * size)
    return encoded


class LogQueueTests(SynchronousTestCase):
    """
    Events wait in order, bounded.
    """

    @given(
        some.lists(
            some.tuples(some.sampled_from(_LEVELS), some.integers(0, 60))
            | some.integers(1, 150),
            max_size=80,
        )
    )
    def test_rule(self, steps: list[Any]) -> None:
        """
        Whatever is put and taken: never over the limit, in order, the newest of
        the lowest level dropped first, each drop counted.
        """
        queue, model = LogQueue(200), Model(200)
        for number, step in enumerate(steps):
            if isinstance(step, int):
                batch, dropped = queue.take(step)
                decoded = None
                if batch is not None:
                    decoded = [
                        msgspec.msgpack.encode(each)
                        for each in msgspec.msgpack.decode(batch)
                    ]
                    self.assertTrue(len(batch) <= step or len(decoded) == 1)
                self.assertEqual((decoded, dropped), model.take(step))
            else:
                level, size = step
                queue.put(level, _event(number, size))
                model.put(level, _event(number, size))
            self.assertEqual(queue.size, sum(len(data) for _, data in model.events))
            self.assertLessEqual(queue.size, queue.limit)
            self.assertEqual(len(queue), len(model.events))

    def test_empty(self) -> None:
        """
        An empty queue has nothing to hand over.
        """
        self.assertEqual(LogQueue().take(1000), (None, 0))

    def test_tooLong(self) -> None:
        """
        An event over the limit is dropped and counted, and displaces nobody.
        """
        queue = LogQueue(10)
        queue.put(10, b"small")
        queue.put(50, b"x" * 11)
        self.assertEqual(len(queue), 1)
        self.assertEqual(queue.take(1000)[1], 1)

    def test_threads(self) -> None:
        """
        Threads that put at the same time lose nothing.
        """
        queue = LogQueue()
        data = msgspec.msgpack.encode("event")

        def work() -> None:
            for _ in range(2000):
                queue.put(20, data)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        batch, dropped = queue.take(10**9)
        assert batch is not None
        self.assertEqual((len(msgspec.msgpack.decode(batch)), dropped), (8000, 0))
        self.assertEqual((len(queue), queue.size), (0, 0))

    def test_interrupted(self) -> None:
        """
        A C{put} that interrupts another one in the same thread neither blocks nor
        is lost.
        """
        queue = LogQueue()

        class Interrupting(bytes):
            def __len__(self) -> int:
                if not queue_was_interrupted:
                    queue_was_interrupted.append(True)
                    queue.put(20, msgspec.msgpack.encode("inner"))
                return super().__len__()

        queue_was_interrupted: list[bool] = []
        queue.put(20, Interrupting(msgspec.msgpack.encode("outer")))
        batch, _ = queue.take(1000)
        assert batch is not None
        self.assertEqual(msgspec.msgpack.decode(batch), ["outer", "inner"])
