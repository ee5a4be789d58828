"""
What the load client of the benchmarks says of what it saw.
"""

from __future__ import annotations

import errno
import json
import ssl
from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from benchmarks.load import Offer, readReport
from benchmarks.loadclient.clock import TOLERANCE, NetClock, Pace
from benchmarks.loadclient.outcomes import Outcome, Verdict, idleEnd, judge
from benchmarks.loadclient.specs import Plan, readPlan
from benchmarks.loadclient.tally import Tally, percentile


class Judging(SynchronousTestCase):
    """
    How requests ended.
    """

    def verdict(self, number: int, received: int = 0) -> Verdict:
        """
        Judge a connection that ended with an errno.
        """
        return judge(OSError(number, "no"), received).verdict

    def test_endOfFile(self) -> None:
        """
        An orderly end before the answer, and one within it, are told apart.
        """
        self.assertIs(judge(None, 0).verdict, Verdict.CLOSED)
        self.assertIs(judge(None, 1).verdict, Verdict.TRUNCATED)

    def test_errors(self) -> None:
        """
        Errors are told apart, wherever in the answer they come.
        """
        self.assertIs(self.verdict(errno.ECONNREFUSED), Verdict.REFUSED)
        self.assertIs(self.verdict(errno.ETIMEDOUT), Verdict.TIMED_OUT)
        for number in (errno.ECONNRESET, errno.EPIPE):
            self.assertIs(self.verdict(number), Verdict.RESET)
            self.assertIs(self.verdict(number, 17), Verdict.RESET)

    def test_own(self) -> None:
        """
        What this machine has no more of is nobody else's fault.
        """
        for number in (errno.EADDRNOTAVAIL, errno.EMFILE):
            self.assertIs(self.verdict(number), Verdict.UNABLE)

    def test_tls(self) -> None:
        """
        An end of file below TLS is one; other errors of TLS are wrong answers.
        """
        ended = ssl.SSLEOFError(8, "EOF occurred in violation of protocol")
        self.assertIs(judge(ended, 0).verdict, Verdict.CLOSED)
        self.assertIs(judge(ssl.SSLError(1, "no"), 0).verdict, Verdict.WRONG)

    def test_idle(self) -> None:
        """
        The end of an idle connection is orderly or not.
        """
        self.assertEqual(idleEnd(None), "closed")
        self.assertEqual(idleEnd(OSError(errno.ECONNRESET, "no")), "reset")


class Clocks(SynchronousTestCase):
    """
    The time in which the client itself ran.
    """

    def test_standingStill(self) -> None:
        """
        A turn that comes late is left out of the net time, before and after it
        is known.
        """
        clock = NetClock(100.0)
        clock.turn(100.0, 100.01)
        self.assertEqual(clock.net(100.005), 100.005)
        self.assertAlmostEqual(clock.net(103.01), 100.01)
        clock.turn(103.01, 103.02)
        self.assertAlmostEqual(clock.net(103.02), 100.02)
        self.assertAlmostEqual(clock.longest, 3.0)
        self.assertAlmostEqual(clock.total, 3.0)

    def test_tolerance(self) -> None:
        """
        A turn that is a little late is none.
        """
        clock = NetClock(0.0)
        clock.turn(0.0, 0.01)
        clock.turn(0.01 + TOLERANCE / 2, 1.0)
        self.assertEqual(clock.total, 0.0)

    @given(
        st.floats(0.5, 2000),
        st.lists(st.floats(0, 0.5), min_size=1, max_size=50),
    )
    def test_pace(self, rate: float, steps: list[float]) -> None:
        """
        However turns come, as many have been sent as the rate says, and one.
        """
        pace = Pace(rate, 10.0)
        now = 10.0
        sent = pace.due(now)
        self.assertEqual(sent, 1)
        for step in steps:
            now += step
            due = pace.due(now)
            self.assertGreaterEqual(due, 0)
            sent += due
            self.assertLessEqual(abs(sent - 1 - (now - 10.0) * rate), 1.001)
        self.assertEqual(pace.sent, sent)


class Tallies(SynchronousTestCase):
    """
    Counts, gaps and latencies.
    """

    def setUp(self) -> None:
        self.clock = NetClock(1e9)
        self.tally = Tally(self.clock, 0.0)

    def gap(self) -> float:
        """
        The longest gap so far.
        """
        found: float = self.tally.report()["gap"]
        return found

    def test_gapBetween(self) -> None:
        """
        The longest time between two successes counts; failures end no gap.
        """
        self.tally.success(0.9, 1.0)
        self.tally.failure(Outcome(Verdict.RESET, "no"), 2.0, 2.1)
        self.tally.success(3.0, 3.5)
        self.tally.success(3.0, 3.6)
        self.assertEqual(self.gap(), 2.5)
        self.assertEqual(self.tally.report()["gapBegun"], 1.0)

    def test_gapAtTheEdges(self) -> None:
        """
        The time until the first success counts, and that from the last until
        the last request was sent, but not what follows.
        """
        self.tally.success(0.0, 2.0)
        self.assertEqual(self.gap(), 2.0)
        self.tally.endOffering(7.0)
        self.tally.success(6.0, 70.0)
        self.assertEqual(self.gap(), 5.0)

    def test_nothing(self) -> None:
        """
        Without a success, all the time is one gap.
        """
        self.tally.endOffering(4.0)
        self.assertEqual(self.gap(), 4.0)

    def test_ownGap(self) -> None:
        """
        Time in which the client stood still is no gap, but is reported.
        """
        clock = NetClock(0.0)
        tally = Tally(clock, 0.0)
        clock.turn(0.0, 0.01)
        tally.success(0.0, 5.01)
        report = tally.report()
        self.assertAlmostEqual(report["gap"], 0.01)
        self.assertAlmostEqual(report["gapOnTheWall"], 5.01)

    def test_counts(self) -> None:
        """
        What was offered has succeeded or failed; what could not be sent was not
        offered.
        """
        self.tally.offered = 4
        self.tally.success(0.0, 1.0, "17")
        self.tally.success(0.0, 2.0, "17")
        self.tally.failure(Outcome(Verdict.REFUSED, "why"), 1.0, 2.0)
        self.tally.failure(Outcome(Verdict.UNABLE, "no port"), 1.0, 2.0)
        report = self.tally.report()
        self.assertEqual((report["offered"], report["succeeded"]), (3, 2))
        self.assertEqual(report["failures"], {"refused": 1})
        self.assertEqual((report["failed"], report["unable"]), (1, 1))
        self.assertEqual(report["details"]["refused: why"], 1)
        [answered] = report["answeredBy"].values()
        self.assertEqual(answered, {"count": 2, "first": 1.0, "last": 2.0})

    def test_percentiles(self) -> None:
        """
        A percentile is a value that occurred.
        """
        values = [float(each) for each in range(100)]
        self.assertEqual(percentile(values, 0.5), 50.0)
        self.assertEqual(percentile(values, 0.99), 99.0)
        self.assertEqual(percentile(values, 1.0), 99.0)
        self.assertEqual(percentile([], 0.5), 0.0)

    def test_report(self) -> None:
        """
        A report survives JSON.
        """
        self.tally.success(0.0, 1.0, "17")
        offer = attrs.asdict(Offer(kind="new", port=80, rate=5))
        data: dict[str, Any] = {
            "seconds": 1.0,
            "stoodStill": {"longest": 0.5, "total": 1.0},
            "offers": [{**offer, **self.tally.report()}],
        }
        report = readReport(json.loads(json.dumps(data)))
        self.assertEqual((report.failed, report.offered), (0, 0))
        self.assertEqual((report.gap, report.stoodStill), (1.0, 0.5))
        self.assertIn("new: 0 of 0 failed", report.summary())


class Plans(SynchronousTestCase):
    """
    What can be asked for.
    """

    def test_read(self) -> None:
        """
        A plan is read as it was written.
        """
        plan = Plan(offers=[Offer(kind="kept", port=80, rate=500)], seconds=3.0)
        self.assertEqual(readPlan(json.loads(json.dumps(attrs.asdict(plan)))), plan)

    def test_refused(self) -> None:
        """
        An unknown kind, no rate, no end and nothing to do are refused.
        """
        good: dict[str, Any] = {"kind": "new", "port": 80, "rate": 5}
        plans: tuple[dict[str, Any], ...] = (
            {"offers": [{**good, "kind": "old"}]},
            {"offers": [{**good, "rate": 0}]},
            {"offers": [good], "seconds": 1e9},
            {"offers": []},
        )
        for data in plans:
            with self.assertRaises(ValueError):
                readPlan(data)
        with self.assertRaises(TypeError):
            readPlan({"offers": [{**good, "host": "192.0.2.1"}]})
