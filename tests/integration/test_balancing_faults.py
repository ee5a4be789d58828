"""
Faults while the watcher accepts: what no worker has taken is lost by none of
them, and served once.
"""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from tests.integration.balancing import TOKENS, Storm
from tests.integration.faults import FaultTestCase, portOf
from twisted_cluster.watcher import ClusterWatcher

TCP = "tcp:0:interface=127.0.0.1"


class StormTestCase(FaultTestCase):
    """
    A test of clients of which each one is accounted for.
    """

    def setUp(self) -> Any:
        done = super().setUp()
        self._files |= {"made.log", "served.log"}
        self.storm = Storm(self, self.directory)
        return done

    async def tokens(
        self,
        workers: int,
        description: str = TCP,
        pause: float = 0.0,
        balance: str = "round-robin",
        **options: Any,
    ) -> ClusterWatcher:
        """
        Start a cluster that notes and answers tokens.
        """
        words = [self.storm.made, self.storm.served, description, pause]
        return await self.serving(
            [self.program(TOKENS), *map(str, words)],
            workers,
            balance=balance,
            **options,
        )


class Kills(StormTestCase):
    """
    Workers that are killed while connections come.
    """

    async def _kill(self, times: int, rate: int) -> None:
        """
        Kill one worker after another, always the oldest, every second one after it
        has stood still for some time.
        """
        watcher = await self.tokens(4, pause=0.01)
        gone: dict[int, int] = {}
        self.storm.start(portOf(watcher), rate)
        for time in range(times):
            await self.full(watcher, 60)
            await self.storm.more(50)
            victim = min(watcher.workers, key=lambda worker: worker.id)
            assert victim.pid is not None
            gone[victim.id] = victim.pid
            if time % 2:
                os.kill(victim.pid, signal.SIGSTOP)
                await self.storm.more(40)
            os.kill(victim.pid, signal.SIGKILL)
            await self.replaced(watcher, victim.pid, 60)
        await self.storm.end()
        failures = self.storm.check(self, gone)
        made = self.storm.pidsThatMade()
        print(
            f"{len(self.storm.accounts)} connections in {self.storm.seconds:.1f} s, "
            f"{self.storm.returned} came back, {len(failures)} failed, of which "
            f"{sum(each.peer not in made for each in failures)} were taken and had "
            f"not reached the program"
        )
        self.assertGreater(self.storm.returned, times // 2)
        self.assertLess(len(failures), times * 25)

    async def test_three(self) -> None:
        """
        When workers are killed at 500 connections per second, only connections fail
        that a killed worker had taken; every other is answered exactly once.
        """
        await self._kill(4, 500)

    @pytest.mark.slow
    @pytest.mark.timeout(500)
    async def test_thirty(self) -> None:
        """
        The same, thirty times in a row.
        """
        await self._kill(30, 500)

    test_thirty.timeout = 400  # type: ignore[attr-defined]  # trial's
