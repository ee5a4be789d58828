"""
Log events of one worker, beside those of a lone process that writes its own
file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measuring import Contender, Result, Taken, compete, measure
from benchmarks.processes import CountingObserver, report, startCluster
from twisted_cluster.supervisor.console import plainObserver
from twisted_cluster.watcher import ClusterWatcher

COUNT = 30_000


async def logs(
    reactor: Any, rounds: int, progress: Callable[[str], None]
) -> list[Result]:
    """
    Events with three values.
    """
    watchers: list[ClusterWatcher] = []

    async def through(observer: CountingObserver, count: int) -> Taken:
        if observer not in clusters:
            watcher = await startCluster(reactor, "talker.py", observer)
            watcher.responder(lambda data, worker: None)
            watchers.append(watcher)
            clusters[observer] = watcher
        [worker] = clusters[observer].workers

        async def work() -> None:
            seen = observer.expect(count)
            await worker.request({"do": "log", "count": count}, 120)
            await seen

        return await measure(work, count, lambda: [worker.pid or 0])

    async def alone(count: int) -> Taken:
        path = str(Path(directory) / "alone.log")
        found = await report(reactor, "lonelogger.py", str(count), path)
        return Taken(count, found["wall"], found["cpu"])

    clusters: dict[CountingObserver, ClusterWatcher] = {}
    with (
        tempfile.TemporaryDirectory() as directory,
        open(Path(directory) / "cluster.log", "w") as file,
    ):
        toFile = CountingObserver(plainObserver(file))
        toNothing = CountingObserver()
        contenders = [
            Contender("a lone process, to a file", COUNT, alone, True),
            Contender(
                "a worker, to the watcher's file", COUNT, lambda n: through(toFile, n)
            ),
            Contender("a worker, to a counter", COUNT, lambda n: through(toNothing, n)),
        ]
        try:
            return [await compete("log events", "events", contenders, rounds, progress)]
        finally:
            for watcher in watchers:
                await watcher.stopService()
