"""
When a worker is due to be replaced.
"""

from __future__ import annotations

import itertools
from typing import Optional, Union

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.policy.recycling import (
    SAMPLE_EVERY,
    SAMPLES,
    Due,
    LookAgain,
    RecycleLimits,
    Recycling,
)

MEBIBYTE = 1024**2


class LimitsTests(SynchronousTestCase):
    """
    What each worker is given of the operator's limits.
    """

    def test_drawn(self) -> None:
        """
        A worker's limits lie between the operator's, which is the most, and so
        much less.
        """
        limits = RecycleLimits(age=100.0, connections=1000, jitter=0.2)
        for part, age, connections in [
            (0.0, 100, 1000),
            (0.5, 90, 900),
            (1.0, 80, 800),
        ]:
            draw = itertools.repeat(part).__next__
            self.assertAlmostEqual(limits.drawAge(draw), age)
            self.assertEqual(limits.drawConnections(draw), connections)

    def test_spread(self) -> None:
        """
        Workers draw different limits, unless the operator wants none.
        """
        limits = RecycleLimits(age=1000.0, connections=10**9, jitter=0.1)
        self.assertLess(1, len({limits.drawAge() for _ in range(20)}))
        self.assertLess(1, len({limits.drawConnections() for _ in range(20)}))
        exact = RecycleLimits(age=1000.0, connections=77, jitter=0.0)
        self.assertEqual({1000.0}, {exact.drawAge() for _ in range(20)})
        self.assertEqual({77}, {exact.drawConnections() for _ in range(20)})

    def test_unlimited(self) -> None:
        """
        What has no limit draws none.
        """
        self.assertIsNone(RecycleLimits().drawAge())
        self.assertEqual(0, RecycleLimits().drawConnections())

    @given(
        st.integers(1, 10**9),
        st.floats(0, 1, exclude_max=True),
        st.floats(0, 1, exclude_max=True),
    )
    def test_promise(self, connections: int, jitter: float, draw: float) -> None:
        """
        However they are drawn, there is one connection at least, since none would
        mean any number, and never more than the operator set.
        """
        limits = RecycleLimits(connections=connections, jitter=jitter)
        drawn = limits.drawConnections(lambda: draw)
        self.assertTrue(1 <= drawn <= connections, drawn)


class RecyclingTests(SynchronousTestCase):
    """
    L{Recycling}.
    """

    def sampled(self, *sizes: Optional[int]) -> Recycling:
        """
        Make a worker that may take 100 MiB, and whose samples will be these.
        """
        samples = iter(sizes)
        limits = RecycleLimits(memory=100 * MEBIBYTE)
        return Recycling(limits, 0.0, lambda: next(samples))

    def looks(self, worker: Recycling, times: int) -> list[Union[Due, LookAgain]]:
        """
        Look so many times, just when it is asked for.
        """
        now, decisions = 0.0, list[Union[Due, LookAgain]]()
        for _ in range(times):
            decision = worker.look(now)
            decisions.append(decision)
            if isinstance(decision, LookAgain):
                assert decision.delay is not None
                now += decision.delay
        return decisions

    def test_unlimited(self) -> None:
        """
        Without limits nobody has to look, and nothing is measured.
        """
        worker = Recycling(RecycleLimits(connections=5), 0.0, self.fail)
        self.assertEqual(LookAgain(None), worker.look(0.0))
        self.assertEqual(LookAgain(None), worker.look(1e9))

    def test_age(self) -> None:
        """
        A worker is due when it has served for its time, by its own drawn limit,
        and the next look is then.
        """
        worker = Recycling(
            RecycleLimits(age=100.0, jitter=0.1), 7.0, self.fail, lambda: 0.5
        )
        self.assertEqual(LookAgain(95.0), worker.look(7.0))
        self.assertEqual(LookAgain(1.0), worker.look(101.0))
        self.assertEqual(
            Due("it has served for 95 s (--recycle-age)"), worker.look(102.0)
        )

    def test_drawnOnce(self) -> None:
        """
        A worker's limit stays what it was, however often it is looked at.
        """
        draws = iter([0.0, 1.0, 1.0])
        worker = Recycling(
            RecycleLimits(age=10.0, jitter=0.5), 0.0, self.fail, draws.__next__
        )
        self.assertEqual(LookAgain(4.0), worker.look(6.0))
        self.assertEqual(LookAgain(1.0), worker.look(9.0))

    def test_memory(self) -> None:
        """
        A worker is due when several samples in a row are over the limit.
        """
        worker = self.sampled(*[MEBIBYTE * size for size in (90, 101, 130, 140)])
        decisions = self.looks(worker, 5)
        self.assertEqual([LookAgain(SAMPLE_EVERY)] * 4, decisions[:4])
        self.assertEqual(
            Due("it takes 140 MiB of memory (--recycle-memory)"), decisions[4]
        )

    def test_peaks(self) -> None:
        """
        Memory that is given back in between makes nobody due, and neither does
        just reaching the limit.
        """
        for peaceful in ([200, 200, 100], [100]):
            sizes = [MEBIBYTE * size for size in peaceful * 5]
            worker = self.sampled(*sizes)
            self.assertEqual(
                [LookAgain(SAMPLE_EVERY)] * 6, self.looks(worker, 6), peaceful
            )

    def test_unmeasured(self) -> None:
        """
        A sample that could not be taken says neither that a worker is due nor that
        it is not.
        """
        big = 200 * MEBIBYTE
        worker = self.sampled(None, None, None, big, None, big, big)
        decisions = self.looks(worker, 8)
        self.assertEqual({LookAgain}, {type(each) for each in decisions[:7]})
        self.assertIsInstance(decisions[7], Due)

    def test_early(self) -> None:
        """
        Samples are so far apart as they should be, however often somebody looks.
        """
        taken: list[int] = []

        def measure() -> int:
            taken.append(1)
            return 200 * MEBIBYTE

        worker = Recycling(RecycleLimits(memory=MEBIBYTE), 0.0, measure)
        for tenth in range(int(SAMPLE_EVERY * 10) * (SAMPLES - 1) + 5):
            self.assertIsInstance(worker.look(tenth / 10), LookAgain)
        self.assertEqual(SAMPLES - 1, len(taken))

    def test_both(self) -> None:
        """
        With several limits, the next look is when the first of them needs one.
        """
        limits = RecycleLimits(age=SAMPLE_EVERY * 1.5, memory=MEBIBYTE, jitter=0.0)
        worker = Recycling(limits, 0.0, lambda: 0)
        self.assertEqual(LookAgain(SAMPLE_EVERY), worker.look(0.0))
        self.assertEqual(LookAgain(SAMPLE_EVERY / 2), worker.look(SAMPLE_EVERY))
        self.assertIsInstance(worker.look(SAMPLE_EVERY * 1.5), Due)

    @given(
        st.floats(0.001, 1e7),
        st.floats(0, 1, exclude_max=True),
        st.floats(0, 1),
        st.floats(0, 1e7),
    )
    def test_ends(self, age: float, jitter: float, draw: float, born: float) -> None:
        """
        Who looks when it is asked to finds a worker due, after a few looks, and no
        later than the operator said.
        """
        worker = Recycling(
            RecycleLimits(age=age, jitter=jitter), born, self.fail, lambda: draw
        )
        now = born
        for _ in range(5):
            decision = worker.look(now)
            if isinstance(decision, Due):
                break
            assert decision.delay is not None and decision.delay > 0
            now += decision.delay
        self.assertIsInstance(decision, Due)
        self.assertLessEqual(now - born, age * 1.001 + 1e-6)
