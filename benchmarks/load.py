"""
Starts the load client (L{benchmarks.loadclient}) in a process of its own, and
reads what it found.

    load = startLoad(reactor, [Offer(kind="new", port=8080, rate=500)], seconds=5)
    await load.whenFlowing()
    … restart, kill, stop …
    report = await load.stop()
    assert not report.failed, report.summary()
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from benchmarks.loadclient.specs import Offer, Plan
from benchmarks.processes import ROOT

__all__ = ["Load", "LoadFailed", "LoadReport", "Offer", "OfferReport", "startLoad"]


class LoadFailed(Exception):
    """
    The load client itself failed, or ended before its first answers came; what
    it printed is the message.
    """


@attrs.frozen
class OfferReport:
    """
    What became of one kind of load.  All times are in seconds; points in time
    are those of L{time.monotonic}, which all processes of a machine share.

    @ivar offered: requests sent; as many as succeeded and failed together.
    @ivar failures: how many ended how: "refused", "reset", "closed without an
        answer", "truncated", "timed out", "wrong answer".
    @ivar details: the same, told apart further.
    @ivar examples: the first failures: "at", "after", "verdict", "detail".
    @ivar idle: the ends of connections while nothing was asked on them, which are
        no failures: "closed", "reset", "GOAWAY 0", "close 1001", …
    @ivar unable: requests that this machine had no port or descriptor for.
    @ivar withheld: requests that were not sent because too many were unanswered.
    @ivar inHand: requests that were under way when the last had been sent.
    @ivar moved: requests that the server refused to begin, as HTTP/2 allows, and
        that were sent again.
    @ivar opened: how many connections there were.
    @ivar gap: the longest time without a success while requests were sent; time
        in which the client itself stood still is left out.
    @ivar gapOnTheWall: as much, with that time.
    @ivar gapBegun: when the longest gap began.
    @ivar latency: of what succeeded: "median", "p90", "p99", "p999", "worst".
    @ivar answeredBy: for each that said who it is: "count", "first", "last".
    """

    kind: str
    offered: int
    succeeded: int
    failed: int
    failures: Mapping[str, int]
    details: Mapping[str, int]
    examples: Sequence[Mapping[str, Any]]
    idle: Mapping[str, int]
    unable: int
    withheld: int
    inHand: int
    moved: int
    opened: int
    gap: float
    gapOnTheWall: float
    gapBegun: float
    latency: Mapping[str, float]
    answeredBy: Mapping[str, Mapping[str, Any]]

    def summary(self) -> str:
        """
        A line for people.
        """
        failures = ", ".join(f"{count} {how}" for how, count in self.details.items())
        idle = ", ".join(f"{count} {how}" for how, count in self.idle.items())
        return (
            f"{self.kind}: {self.failed} of {self.offered} failed"
            f"{f' ({failures})' if failures else ''}, "
            f"longest gap {self.gap * 1000:.0f} ms, "
            f"median {self.latency['median'] * 1000:.1f} ms, "
            f"worst {self.latency['worst'] * 1000:.0f} ms"
            f"{f', idle: {idle}' if idle else ''}"
        )


_FLOWING = b'{"flowing"'
_FIELDS = {each.name for each in attrs.fields(OfferReport)}


@attrs.frozen
class LoadReport:
    """
    What a run found.

    @ivar offers: in the order in which they were asked for.
    @ivar seconds: for how long requests were sent.
    @ivar stoodStill: the longest time for which the client itself stood still.
    """

    offers: Sequence[OfferReport]
    seconds: float
    stoodStill: float

    @property
    def failed(self) -> int:
        """
        Failures of all kinds.
        """
        return sum(each.failed for each in self.offers)

    @property
    def offered(self) -> int:
        """
        Requests of all kinds.
        """
        return sum(each.offered for each in self.offers)

    @property
    def gap(self) -> float:
        """
        The longest time for which any kind had no success.
        """
        return max(each.gap for each in self.offers)

    def summary(self) -> str:
        """
        A line for each kind.
        """
        return "\n".join(each.summary() for each in self.offers)


def readReport(data: Mapping[str, Any]) -> LoadReport:
    """
    Read what the client printed.
    """
    offers = [
        OfferReport(**{name: each[name] for name in _FIELDS}) for each in data["offers"]
    ]
    return LoadReport(offers, data["seconds"], data["stoodStill"]["longest"])


class Load(ProcessProtocol):
    """
    A load client that runs.

    @ivar pid: of its process.
    """

    pid: int

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._flows = False
        self._rest = b""
        self._errors = b""
        self._flowing: list[Deferred[None]] = []
        self._done: list[Deferred[LoadReport]] = []
        self._result: LoadReport | LoadFailed | None = None

    def whenFlowing(self) -> Deferred[None]:
        """
        A Deferred that fires once every kind has had a right answer.

        @return: fails with L{LoadFailed} when the client ends before.
        """
        waiter: Deferred[None] = Deferred()
        if self._flows:
            waiter.callback(None)
        elif self._result is not None:
            waiter.errback(LoadFailed(f"no answers: {self._told()}"))
        else:
            self._flowing.append(waiter)
        return waiter

    def whenDone(self) -> Deferred[LoadReport]:
        """
        A Deferred of what was found, when the time is over and every request has
        ended.

        @return: fails with L{LoadFailed}.
        """
        waiter: Deferred[LoadReport] = Deferred()
        if self._result is None:
            self._done.append(waiter)
        else:
            self._fire(waiter, self._result)
        return waiter

    def stop(self) -> Deferred[LoadReport]:
        """
        Send no more.

        @return: as L{whenDone}.
        """
        if self._result is None and self.transport is not None:
            try:
                self.transport.signalProcess("TERM")
            except ProcessExitedAlready:
                pass
        return self.whenDone()

    def outReceived(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._lines.extend(lines)
        if not self._flows and any(each.startswith(_FLOWING) for each in lines):
            self._flows = True
            waiting, self._flowing = self._flowing, []
            for each in waiting:
                each.callback(None)

    def errReceived(self, data: bytes) -> None:
        self._errors += data

    def processEnded(self, reason: Failure) -> None:
        self._result = self._read(reason)
        flowing, self._flowing = self._flowing, []
        for each in flowing:
            each.errback(LoadFailed(f"no answers: {self._told()}"))
        done, self._done = self._done, []
        for waiter in done:
            self._fire(waiter, self._result)

    def _read(self, reason: Failure) -> LoadReport | LoadFailed:
        if reason.check(ProcessDone) is None:
            reason.trap(ProcessTerminated)
            return LoadFailed(f"{reason.value}: {self._told()}")
        try:
            return readReport(json.loads(self._lines[-1]))
        except (IndexError, KeyError, TypeError, ValueError) as error:
            return LoadFailed(f"{error!r}: {self._told()}")

    def _told(self) -> str:
        if isinstance(self._result, LoadReport):
            return self._result.summary()
        return (b"\n".join(self._lines) + self._errors).decode("utf-8", "replace")

    def _fire(
        self, waiter: Deferred[LoadReport], result: LoadReport | LoadFailed
    ) -> None:
        if isinstance(result, LoadFailed):
            waiter.errback(result)
        else:
            waiter.callback(result)


def startLoad(reactor: Any, offers: Sequence[Offer], seconds: float) -> Load:
    """
    Start the load client.  It ends by itself when the time is over and every
    request has ended, at the latest its time-out later.

    @param seconds: for how long requests are sent, at most an hour; see
        L{Load.stop}.
    """
    plan = json.dumps(attrs.asdict(Plan(offers=offers, seconds=seconds)))
    load = Load()
    process = reactor.spawnProcess(
        load,
        sys.executable,
        [sys.executable, "-m", "benchmarks.loadclient", plan],
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        childFDs={0: "w", 1: "r", 2: "r"},
    )
    load.pid = process.pid
    return load
