"""
By how much a reactor is late.
"""

from __future__ import annotations

import os

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.worker.delay import INTERVAL, Delay


class DelayTests(SynchronousTestCase):
    """
    L{Delay}.
    """

    def setUp(self) -> None:
        """
        Begin to measure a reactor that has nothing else to do.
        """
        self.clock = Clock()
        self.delay = Delay(self.clock.seconds)
        self.delay.start(self.clock)

    def block(self, seconds: float) -> None:
        """
        Let time pass in which the reactor does not turn.
        """
        self.clock.rightNow += seconds

    def test_onTime(self) -> None:
        """
        A reactor that turns all the time is not late.
        """
        self.clock.pump([INTERVAL] * 10)
        self.assertEqual(0.0, self.delay.take())

    def test_late(self) -> None:
        """
        The longest delay since the last time counts, and is told once.
        """
        for late in (0.5, 3.0, 0.25):
            self.block(INTERVAL + late)
            self.clock.advance(0)
        self.assertEqual(3.0, self.delay.take())
        self.clock.pump([INTERVAL] * 3)
        self.assertEqual(0.0, self.delay.take())

    def test_overdue(self) -> None:
        """
        A delay that lasts is told while it lasts, and again when it is over and has
        grown.
        """
        self.block(INTERVAL + 2.0)
        self.assertEqual(2.0, self.delay.take())
        self.block(3.0)
        self.clock.advance(0)
        self.assertEqual(5.0, self.delay.take())

    def test_longer(self) -> None:
        """
        A block of more than a second is always seen, whenever it begins.
        """
        for tenth in range(10):
            self.clock.pump([0.1] * tenth)
            self.block(INTERVAL + 0.5)
            self.clock.advance(0)
            self.assertGreater(self.delay.take(), 0.4, tenth)

    def test_stop(self) -> None:
        """
        After the stop nothing is scheduled, and nothing is measured; what was late
        before is still told.
        """
        self.block(INTERVAL + 2.0)
        self.delay.stop()
        self.assertEqual([], self.clock.getDelayedCalls())
        self.clock.advance(INTERVAL * 10)
        self.assertEqual([2.0, 0.0], [self.delay.take(), self.delay.take()])
        self.delay.stop()

    def test_startAgain(self) -> None:
        """
        It can be started once more, and a second start meanwhile does nothing.
        """
        self.delay.stop()
        self.clock.advance(INTERVAL * 10)
        self.delay.start(self.clock)
        self.delay.start(self.clock)
        self.assertEqual(1, len(self.clock.getDelayedCalls()))
        self.block(INTERVAL + 1.0)
        self.assertEqual(1.0, self.delay.take())

    def test_neverStarted(self) -> None:
        """
        What was never started has nothing to tell, and can be stopped.
        """
        delay = Delay()
        delay.stop()
        self.assertEqual(0.0, delay.take())

    def test_timeOfDay(self) -> None:
        """
        A clock that is set forward, or runs on while the machine is suspended, makes
        no reactor late, nor does one that is set back.
        """
        for jump in (3600.0, -3600.0):
            clock, monotonic = Clock(), Clock()
            delay = Delay(monotonic.seconds)
            delay.start(clock)
            clock.rightNow += jump
            for _ in range(10):
                monotonic.advance(INTERVAL)
                clock.advance(INTERVAL)
            self.assertEqual(0.0, delay.take(), jump)
            delay.stop()

    def test_copy(self) -> None:
        """
        A process that was forked from the worker, and runs the reactor on, does not
        measure.
        """
        self.patch(os, "getpid", lambda: -1)
        self.clock.pump([INTERVAL] * 2)
        self.assertEqual([], self.clock.getDelayedCalls())
        self.delay.stop()
