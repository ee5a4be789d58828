"""
What became of the requests of one kind: counts, the longest time without a
success, and latencies.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from benchmarks.loadclient.clock import NetClock
from benchmarks.loadclient.outcomes import Outcome, Verdict

EXAMPLES: Final = 20
TAGS: Final = 10_000


def percentile(ordered: Sequence[float], part: float) -> float:
    """
    The least value that so many of all do not exceed.

    @param part: from 0 to 1.
    """
    if not ordered:
        return 0.0
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)]


class Tally:
    """
    Counts.  Times are those of the wall, seconds of L{time.monotonic}, which all
    processes of a machine share.

    @ivar moved: requests that the server refused to begin, which HTTP/2 allows
        to be sent again, and were.
    @ivar withheld: requests that were not sent because too many were unanswered.
    @ivar inHand: requests that were under way when the last had been sent.
    @ivar opened: how many connections there were.
    @ivar idle: the ends of connections on which nothing was asked, by kind.
    """

    def __init__(self, clock: NetClock, now: float) -> None:
        self._clock = clock
        self.offered = 0
        self.succeeded = 0
        self.moved = 0
        self.withheld = 0
        self.inHand = 0
        self.opened = 0
        self.idle: Counter[str] = Counter()
        self._failures: Counter[Verdict] = Counter()
        self._details: Counter[str] = Counter()
        self._examples: list[dict[str, Any]] = []
        self._latencies = array("d")
        self._tags: dict[str, list[float]] = {}
        self._last = now
        self._lastNet = clock.net(now)
        self._gap = 0.0
        self._netGap = 0.0
        self._gapBegun = now

    def success(self, begun: float, now: float, tag: str = "") -> None:
        """
        A request was answered as it should be.

        @param tag: who answered, when the answer says that.
        """
        self.succeeded += 1
        self._latencies.append(now - begun)
        self._close(now)
        if tag:
            seen = self._tags.get(tag)
            if seen is not None:
                seen[0] += 1
                seen[2] = now
            elif len(self._tags) < TAGS:
                self._tags[tag] = [1, now, now]

    def failure(self, outcome: Outcome, begun: float, now: float) -> None:
        """
        A request ended in another way.
        """
        self._failures[outcome.verdict] += 1
        self._details[f"{outcome.verdict.value}: {outcome.detail}"] += 1
        if len(self._examples) < EXAMPLES:
            self._examples.append(
                {
                    "at": now,
                    "after": now - begun,
                    "verdict": outcome.verdict.value,
                    "detail": outcome.detail,
                }
            )

    def endOffering(self, now: float) -> None:
        """
        No more is asked: what comes from here on ends no gap.
        """
        self._close(now)
        self._last = float("inf")

    def _close(self, now: float) -> None:
        if now < self._last:
            return
        net = self._clock.net(now)
        if net - self._lastNet > self._netGap:
            self._netGap = net - self._lastNet
            self._gapBegun = self._last
        self._gap = max(self._gap, now - self._last)
        self._last, self._lastNet = now, net

    def report(self) -> dict[str, Any]:
        """
        All of it, as JSON can tell it.
        """
        ordered = sorted(self._latencies)
        failures = {
            each.value: count
            for each, count in self._failures.items()
            if each is not Verdict.UNABLE
        }
        unable = self._failures[Verdict.UNABLE]
        return {
            "offered": self.offered - unable,
            "succeeded": self.succeeded,
            "failed": sum(failures.values()),
            "failures": failures,
            "details": dict(self._details),
            "examples": self._examples,
            "unable": unable,
            "withheld": self.withheld,
            "inHand": self.inHand,
            "moved": self.moved,
            "opened": self.opened,
            "idle": dict(self.idle),
            "gap": self._netGap,
            "gapOnTheWall": self._gap,
            "gapBegun": self._gapBegun,
            "latency": {
                "median": percentile(ordered, 0.5),
                "p90": percentile(ordered, 0.9),
                "p99": percentile(ordered, 0.99),
                "p999": percentile(ordered, 0.999),
                "worst": ordered[-1] if ordered else 0.0,
            },
            "answeredBy": {
                tag: {"count": int(count), "first": first, "last": last}
                for tag, (count, first, last) in self._tags.items()
            },
        }
