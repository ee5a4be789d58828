"""
What operators do to a cluster, under load, beside the servers that one would use
instead: what fails, for how long nobody answers, and what comes of it.

The environment variable C{OPERATIONS} leaves only some of both: a list, separated
by semicolons, of beginnings of the names of servers and of what happens to them.

    OPERATIONS='twisted.web;gunicorn;restart' python -m benchmarks operations
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Optional, TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from benchmarks.load import LoadReport, startLoad
from benchmarks.peers import INSTALLED, Peer, install, ours
from benchmarks.scenarios import SCENARIOS, Result, Scenario, Stage
from benchmarks.serving import DidNotStart, Server
from benchmarks.tables import Table

LIMIT: Final = 3600
SETTLE: Final = 0.3
T = TypeVar("T", Peer, Scenario)


@attrs.define
class Found:
    """
    What became of one server in one scenario.
    """

    scenario: Scenario
    peer: Peer
    results: list[Result] = attrs.Factory(list)
    reports: list[LoadReport] = attrs.Factory(list)
    coldStart: float = 0.0

    def row(self) -> Sequence[str]:
        """
        A line of the table.
        """
        cells = [f"{self.scenario.name}: {self.peer.name}", str(len(self.results))]
        for number in range(2):
            offers = [each.offers[number] for each in self.reports]
            failed = sum(each.failed for each in offers)
            cells.append(f"{failed} of {sum(each.offered for each in offers):,}")
            gap = max((each.gap for each in offers), default=0.0)
            cells.append(f"{gap * 1000:,.0f} ms")
        seconds = [each.seconds for each in self.results if each.seconds is not None]
        cells.append(f"{statistics.median(seconds):.2f} s" if seconds else "never")
        outcomes = Counter(each.outcome for each in self.results)
        cells.append("; ".join(outcomes) or "did not start")
        cells.append(", ".join(f"{n} {how}" for how, n in self._failures().items()))
        return cells

    def figure(self) -> dict[str, Any]:
        """
        The same for programs.
        """
        return {
            "scenario": self.scenario.name,
            "server": self.peer.name,
            "coldStart": self.coldStart,
            "results": [attrs.asdict(each) for each in self.results],
            "loads": [attrs.asdict(each) for each in self.reports],
        }

    def _failures(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for report in self.reports:
            for offer in report.offers:
                found.update(offer.failures)
        return found


HEAD: Final = (
    *("operations", "rounds", "new: failed", "longest gap"),
    *("kept: failed", "longest gap", "took", "outcome", "failures"),
)


async def operations(
    reactor: Any, rounds: int, progress: Callable[[str], None]
) -> list[Table]:
    """
    Each server in each scenario, which is repeated.
    """
    scenarios = _chosen(SCENARIOS, [each.name for each in SCENARIOS])
    own = ours()
    names = [*(each.name for each in own), *INSTALLED]
    peers = _chosen(own, names)
    if any(each in INSTALLED for each in _wanted(names)):
        peers = [*peers, *_chosen(await install(), names)]
    found: list[Found] = []
    for scenario in scenarios:
        for peer in peers:
            if scenario.needs <= peer.signals:
                progress(f"operations: {scenario.name}: {peer.name}")
                found.append(await play(reactor, scenario, peer, rounds))
    rows = [each.row() for each in found]
    return [Table(HEAD, rows, [each.figure() for each in found])]


def _wanted(names: Sequence[str]) -> Sequence[str]:
    """
    The names that the environment leaves: all, if it mentions none of them.
    """
    words = os.environ.get("OPERATIONS", "").split(";")
    given = [each.strip() for each in words if each.strip()]
    wanted = [name for name in names if any(map(name.startswith, given))]
    return wanted or names


def _chosen(among: Sequence[T], names: Sequence[str]) -> Sequence[T]:
    wanted = _wanted(names)
    return [each for each in among if each.name in wanted]


async def play(reactor: Any, scenario: Scenario, peer: Peer, rounds: int) -> Found:
    """
    Let a server go through a scenario.
    """
    found = Found(scenario, peer)
    while len(found.results) < rounds:
        before = len(found.results)
        left = 1 if scenario.ends else rounds - before
        try:
            await _playOnce(reactor, found, left)
        except DidNotStart as error:
            sys.stderr.write(f"{peer.name} did not start: {error}\n")
        if len(found.results) == before:
            break
    return found


async def _playOnce(reactor: Any, found: Found, rounds: int) -> None:
    """
    Start a server, and act on it until it is no longer what it was.
    """
    with tempfile.TemporaryDirectory(prefix="operations-") as directory:
        app = Path(directory) / "app.py"
        app.write_text(found.scenario.app)
        server = Server(reactor, found.peer, app)
        load = None
        try:
            workers = await server.whenServing()
            found.coldStart = server.coldStart
            load = startLoad(reactor, found.scenario.offers(server.port), LIMIT)
            await load.whenFlowing()
            stage = Stage(reactor, server, load, app, workers)
            await deferLater(reactor, SETTLE)
            for _ in range(rounds):
                result = await found.scenario.act(stage)
                found.results.append(result)
                if result.over:
                    break
            await deferLater(reactor, SETTLE)
            found.reports.append(await load.stop())
        finally:
            if load is not None:
                await _ended(load.stop())
            await server.end()


def _ended(stopped: Deferred[LoadReport]) -> Deferred[Optional[LoadReport]]:
    return stopped.addErrback(lambda _: None)
