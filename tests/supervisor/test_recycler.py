"""
The looks at the age and the memory of workers.
"""

from __future__ import annotations

import os

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.policy.recycling import SAMPLE_EVERY, SAMPLES, RecycleLimits
from twisted_cluster.supervisor.recycler import Recycler


class RecyclerTests(SynchronousTestCase):
    """
    Workers that serve while the clock runs.
    """

    def make(self, limits: RecycleLimits) -> Recycler:
        self.clock = Clock()
        self.due: list[tuple[int, str]] = []
        return Recycler(self.clock, limits, lambda *what: self.due.append(what))

    def test_age(self) -> None:
        """
        Each worker is due once, when it has served for as long as it may.
        """
        recycler = self.make(RecycleLimits(age=100.0, jitter=0.0))
        recycler.watch(1, os.getpid())
        self.clock.advance(60)
        recycler.watch(2, os.getpid())
        self.clock.advance(39)
        self.assertEqual(self.due, [])
        self.clock.advance(1)
        self.assertEqual(self.due, [(1, "it has served for 100 s (--recycle-age)")])
        self.clock.advance(60)
        self.assertEqual([worker for worker, _ in self.due], [1, 2])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_memory(self) -> None:
        """
        A worker is due that takes too much memory for several looks in a row.
        """
        recycler = self.make(RecycleLimits(memory=1))
        recycler.watch(1, os.getpid())
        for _ in range(SAMPLES):
            self.assertEqual(self.due, [])
            self.clock.advance(SAMPLE_EVERY)
        [(worker, why)] = self.due
        self.assertEqual(worker, 1)
        self.assertIn("(--recycle-memory)", why)

    def test_forget(self) -> None:
        """
        One that leaves or dies before is looked at no more; that may be said twice.
        """
        recycler = self.make(RecycleLimits(age=100.0, memory=1))
        recycler.watch(1, os.getpid())
        recycler.forget(1)
        recycler.forget(1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(200)
        self.assertEqual(self.due, [])

    def test_noLimits(self) -> None:
        """
        Without limits, there are no looks.
        """
        recycler = self.make(RecycleLimits())
        recycler.watch(1, os.getpid())
        self.assertEqual(self.clock.getDelayedCalls(), [])
