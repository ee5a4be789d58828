"""
What becomes of connections: how many a program accepts, answers and closes,
alone and in each of the modes of balancing, and which of its workers do that.
"""

from __future__ import annotations

import inspect
import json
import socket
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
from twisted.internet.error import ProcessTerminated
from twisted.internet.task import deferLater

from benchmarks.processes import (
    PROGRAMS,
    CountingObserver,
    report,
    spawn,
)
from benchmarks.tables import Table
from twisted_cluster.watcher import ClusterWatcher

MODES: Final = ("kernel", "round-robin", "least-connections", "sticky")
WORKERS: Final = (2, 4, 8)
STEADY: Final = 2_000
FAST: Final = 10_000
LONG: Final = 1_000
MOST: Final = 64
SOURCES: Final = 1_000
TRAFFIC: Final[dict[str, dict[str, Any]]] = {
    "500/s": {"count": STEADY, "most": 500, "pause": 1 / 500},
    "as fast as possible": {"count": FAST, "most": MOST},
    "long, in bursts": {
        "count": LONG,
        "most": LONG,
        "burst": 50,
        "pause": 0.05,
        "hold": True,
    },
}
"""How connections come: what L{Caller<benchmarks.programs.caller>} is told."""


def modes() -> Sequence[str]:
    """
    The modes of balancing that there are.
    """
    known = "balance" in inspect.signature(ClusterWatcher).parameters
    return MODES if known else MODES[:1]


@attrs.frozen
class Servers:
    """
    Processes that answer connections.

    @ivar ports: where short connections and long ones go.
    @ivar pids: of the processes that answer.
    @ivar stop: ends them.
    """

    ports: Sequence[int]
    pids: Sequence[int]
    stop: Callable[[], Awaitable[None]]


def _freePorts() -> Sequence[int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


async def alone(reactor: Any) -> Servers:
    """
    Run the program without a cluster.
    """
    ports = _freePorts()
    child, process = spawn(reactor, "answerer.py", *map(str, ports))
    # It listens on the second port last.
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", ports[1])) == 0:
                break
        if process.pid is None:
            await child.whenEnded()
        await deferLater(reactor, 0.02)

    async def stop() -> None:
        process.signalProcess("TERM")
        try:
            await child.whenEnded()
        except ProcessTerminated:
            pass

    return Servers(ports, [process.pid], stop)


async def clustered(
    reactor: Any, workers: int, mode: str, program: str = str(PROGRAMS / "answerer.py")
) -> Servers:
    """
    Run the program in a cluster, whose watcher is this process.
    """
    ports = _freePorts()
    options: dict[str, Any] = {} if mode == "kernel" else {"balance": mode}
    watcher = ClusterWatcher(
        reactor,
        [program, *map(str, ports)],
        workers,
        publisher=CountingObserver(),
        waitReady=True,
        **options,
    )
    watcher.startService()
    await watcher.whenReady()

    async def stop() -> None:
        stopped = watcher.stopService()
        if stopped is not None:
            await stopped

    pids = [each.pid for each in watcher.workers if each.pid is not None]
    return Servers(ports, pids, stop)


@attrs.frozen
class Answered:
    """
    What one run took.

    @ivar wall: seconds.
    @ivar workers: CPU seconds of the processes that answer.
    @ivar watcher: CPU seconds of the watcher; of what waits, when there is none.
    @ivar client: CPU seconds of the process that connects.
    @ivar answers: how many connections each process answered.
    @ivar middle: the median of the seconds from connecting until the answer is
        complete.
    @ivar worst: as much for all but the slowest hundredth.
    """

    count: int
    wall: float
    workers: float
    watcher: float
    client: float
    answers: Sequence[int]
    middle: float
    worst: float

    @property
    def shares(self) -> tuple[float, float]:
        """
        What the busiest process answered and what the least busy one did, as
        parts of all.
        """
        return max(self.answers) / self.count, min(self.answers) / self.count


def _processTime(pid: int) -> float:
    """
    The CPU seconds that a process has used so far; a connection takes so few
    that clock ticks do not tell them.
    """
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(each.read_text().split()[0]) for each in threads) / 1e9


async def call(reactor: Any, servers: Servers, traffic: dict[str, Any]) -> Answered:
    """
    Open connections in a process of their own.
    """
    port = servers.ports[1 if traffic.get("hold") else 0]
    workers = sum(map(_processTime, servers.pids))
    watcher = time.process_time()
    found: dict[str, Any] = await report(
        reactor, "caller.py", json.dumps({"port": port, **traffic})
    )
    watcher = time.process_time() - watcher
    workers = sum(map(_processTime, servers.pids)) - workers
    return Answered(
        traffic["count"],
        found["wall"],
        workers,
        watcher,
        found["cpu"],
        [found["answers"].get(str(pid), 0) for pid in servers.pids],
        found["middle"],
        found["worst"],
    )


async def connections(
    reactor: Any, rounds: int, progress: Callable[[str], None]
) -> list[Table]:
    """
    A program alone, and two workers in two of the modes.
    """
    contenders: dict[str, Callable[[], Awaitable[Servers]]] = {
        "one process alone": partial(alone, reactor)
    }
    for mode in modes()[:2]:
        contenders[f"2 workers, {mode}"] = partial(clustered, reactor, 2, mode)
    servers: dict[str, Servers] = {}
    taken: dict[str, list[Answered]] = {name: [] for name in contenders}
    try:
        for name, start in contenders.items():
            progress(f"connections: {name}, warming up")
            servers[name] = await start()
            await call(reactor, servers[name], {"count": FAST // 10, "most": MOST})
        for number in range(rounds):
            for name, runs in taken.items():
                progress(f"connections: {name}, round {number + 1} of {rounds}")
                traffic = {"count": 2 * FAST, "most": MOST}
                runs.append(await call(reactor, servers[name], traffic))
    finally:
        for each in servers.values():
            await each.stop()
    return [_rates(taken)]


def _rates(taken: dict[str, list[Answered]]) -> Table:
    rows: list[Sequence[str]] = []
    figures: list[dict[str, Any]] = []
    for name, runs in taken.items():
        rates = [each.count / each.wall for each in runs]
        figure: dict[str, Any] = {
            "name": name,
            "rate": statistics.median(rates),
            "lowest": min(rates),
            "highest": max(rates),
        }
        for part in ("workers", "watcher", "client"):
            cpu = statistics.median(getattr(each, part) / each.count for each in runs)
            figure[part] = cpu
        figure["cpu"] = figure["workers"] + figure["watcher"]
        figure["runs"] = [attrs.asdict(each) for each in runs]
        figures.append(figure)
        rows.append(
            (
                name,
                *(f"{figure[each]:,.0f}" for each in ("rate", "lowest", "highest")),
                f"{figure['rate'] / figures[0]['rate']:.2f}",
                *(f"{figure[each] * 1e6:,.1f} µs" for each in _PARTS),
                f"{figure['cpu'] / figures[0]['cpu']:.2f}",
            )
        )
    head = ("connections", "per second", "lowest", "highest", "ratio")
    return Table(
        (*head, "CPU workers", "watcher", "client", "CPU ratio"), rows, figures
    )


_PARTS: Final = ("workers", "watcher", "client")


async def balance(
    reactor: Any, rounds: int, progress: Callable[[str], None]
) -> list[Table]:
    """
    The shares of the workers, in each mode, with each number of them.  The
    shares of short connections are those of all rounds together, of which five
    make 10,000 steady ones; of long ones, those of a round in the middle.  The
    difference is that between the busiest and the least busy, in connections.
    """
    rows: list[Sequence[str]] = []
    figures: list[dict[str, Any]] = []
    for mode in modes():
        for workers in WORKERS:
            progress(f"balance: {mode}, {workers} workers")
            taken = await _shares(reactor, rounds, progress, mode, workers)
            for name, runs in taken.items():
                figure = _share(mode, workers, name, runs)
                figures.append(figure)
                rows.append(
                    (
                        f"{mode}, {workers} workers, {name}",
                        f"{figure['busiest'] * 100:.2f} %",
                        f"{figure['idlest'] * 100:.2f} %",
                        f"{figure['busiest'] * workers:.2f}",
                        f"{figure['idlest'] * workers:.2f}",
                        f"{figure['difference']:,.0f}",
                        f"{figure['middle'] * 1000:,.2f} ms",
                        f"{figure['worst'] * 1000:,.2f} ms",
                        f"{figure['workers CPU'] * 1e6:,.1f} µs",
                    )
                )
    head = ("balance", "busiest", "least busy", "of even", "of even", "difference")
    return [Table((*head, "median", "99 %", "CPU workers"), rows, figures)]


async def _shares(
    reactor: Any, rounds: int, progress: Callable[[str], None], mode: str, workers: int
) -> dict[str, list[Answered]]:
    servers = await clustered(reactor, workers, mode)
    taken: dict[str, list[Answered]] = {name: [] for name in TRAFFIC}
    sources = SOURCES if mode == "sticky" else 1
    try:
        await call(reactor, servers, {"count": FAST // 10, "most": MOST})
        for number in range(rounds):
            for name, runs in taken.items():
                progress(
                    f"balance: {mode}, {workers} workers, {name}, "
                    f"round {number + 1} of {rounds}"
                )
                traffic = {**TRAFFIC[name], "sources": sources}
                runs.append(await call(reactor, servers, traffic))
    finally:
        await servers.stop()
    return taken


def _share(
    mode: str, workers: int, name: str, runs: Sequence[Answered]
) -> dict[str, Any]:
    if TRAFFIC[name].get("hold"):
        busiest = statistics.median(each.shares[0] for each in runs)
        idlest = statistics.median(each.shares[1] for each in runs)
        difference = statistics.median(
            max(each.answers) - min(each.answers) for each in runs
        )
    else:
        total: Counter[int] = Counter()
        for each in runs:
            total.update(dict(enumerate(each.answers)))
        count = sum(each.count for each in runs)
        most, fewest = max(total.values()), min(total.values())
        busiest, idlest, difference = most / count, fewest / count, most - fewest
    return {
        "mode": mode,
        "workers": workers,
        "traffic": name,
        "busiest": busiest,
        "idlest": idlest,
        "difference": difference,
        "middle": statistics.median(each.middle for each in runs),
        "worst": statistics.median(each.worst for each in runs),
        "workers CPU": statistics.median(each.workers / each.count for each in runs),
        "runs": [attrs.asdict(each) for each in runs],
    }
