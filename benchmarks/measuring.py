"""
Runs contenders alternately, and says what they took.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Optional

import attrs

_TICKS = os.sysconf("SC_CLK_TCK")


def processTime(pid: int) -> float:
    """
    The CPU seconds that a process has used so far.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


@attrs.frozen
class Taken:
    """
    What one run took.

    @ivar count: how many things were done.
    @ivar wall: seconds.
    @ivar cpu: CPU seconds of all processes.
    """

    count: int
    wall: float
    cpu: float

    @property
    def rate(self) -> float:
        """
        Things per second.
        """
        return self.count / self.wall


@attrs.define
class Contender:
    """
    One way of doing something.

    @ivar name: what it is called in the table.
    @ivar count: how many things a run does.
    @ivar run: does so many, and returns what it took.
    @ivar baseline: whether the other contenders are compared with this one.
    """

    name: str
    count: int
    run: Callable[[int], Awaitable[Taken]]
    baseline: bool = False
    taken: list[Taken] = attrs.Factory(list)

    @property
    def rate(self) -> float:
        """
        The median of the rates.
        """
        return statistics.median(each.rate for each in self.taken)

    @property
    def spread(self) -> tuple[float, float]:
        """
        The lowest rate and the highest.
        """
        rates = [each.rate for each in self.taken]
        return min(rates), max(rates)

    @property
    def cpu(self) -> float:
        """
        The median of the CPU seconds for one thing.
        """
        return statistics.median(each.cpu / each.count for each in self.taken)


@attrs.frozen
class Result:
    """
    What a benchmark found.

    @ivar unit: what is counted.
    """

    title: str
    unit: str
    contenders: Sequence[Contender]

    @property
    def baseline(self) -> Optional[Contender]:
        """
        What the others are compared with.
        """
        return next((each for each in self.contenders if each.baseline), None)


async def measure(
    work: Callable[[], Awaitable[object]], count: int, pids: Callable[[], Sequence[int]]
) -> Taken:
    """
    Do something once, and say what it took this process and some others.

    @param pids: the others, which live before and after.
    """
    others = pids()
    cpu = time.process_time() + sum(map(processTime, others))
    wall = time.perf_counter()
    await work()
    wall = time.perf_counter() - wall
    cpu = time.process_time() + sum(map(processTime, others)) - cpu
    return Taken(count, wall, max(cpu, 1e-9))


async def compete(
    title: str,
    unit: str,
    contenders: Sequence[Contender],
    rounds: int,
    progress: Callable[[str], None],
) -> Result:
    """
    Let contenders run in turns, after a short run of each to warm up.
    """
    for each in contenders:
        progress(f"{title}: {each.name}, warming up")
        await each.run(max(each.count // 10, 1))
    for number in range(rounds):
        for each in contenders:
            progress(f"{title}: {each.name}, round {number + 1} of {rounds}")
            each.taken.append(await each.run(each.count))
    return Result(title, unit, contenders)
