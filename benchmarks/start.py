"""
From the spawning of a worker until it serves, beside the same program alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from benchmarks.measuring import Contender, Result, Taken, compete
from benchmarks.processes import CountingObserver, spawn, startCluster


async def start(
    reactor: Any, rounds: int, progress: Callable[[str], None]
) -> list[Result]:
    """
    A program that listens on a port.
    """

    async def ours(count: int) -> Taken:
        wall = cpu = 0.0
        for _ in range(count):
            begun, used = time.perf_counter(), _used()
            watcher = await startCluster(reactor, "starter.py", CountingObserver())
            wall += time.perf_counter() - begun
            await watcher.stopService()
            cpu += _used() - used
        return Taken(count, wall, cpu)

    async def alone(count: int) -> Taken:
        wall = cpu = 0.0
        for _ in range(count):
            begun, used = time.perf_counter(), _used()
            child, _process = spawn(reactor, "starter.py")
            await child.whenEnded()
            wall += time.perf_counter() - begun
            cpu += _used() - used
        return Taken(count, wall, cpu)

    contenders = [
        Contender("alone, from start to end", 3, alone, True),
        Contender("a worker, until it serves", 3, ours),
    ]
    return [await compete("start", "starts", contenders, rounds, progress)]


def _used() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
