"""
What follows the death of a worker: its replacement, and when.
"""

from __future__ import annotations

from typing import Union

import attrs

from twisted_cluster.policy.backoff import Backoff


@attrs.frozen
class Respawn:
    """
    Start a replacement.

    @ivar delay: seconds to wait before that.
    """

    delay: float


@attrs.frozen
class CrashLoop:
    """
    Start a replacement, and say that this goes on and on.

    @ivar delay: seconds to wait before that.
    @ivar deaths: how many early deaths there were in a row.
    """

    delay: float
    deaths: int


@attrs.define
class RestartPolicy:
    """
    The memory of one slot: how often its workers died early, in a row.

    @ivar healthyAfter: seconds of life after which a death is no early one.
    @ivar maxDeaths: how many early deaths in a row make a crash loop.
    @ivar backoff: the pause after so many early deaths.
    """

    healthyAfter: float
    maxDeaths: int
    backoff: Backoff
    _deaths: int = attrs.field(default=0, init=False)

    def workerDied(self, lifetime: float) -> Union[Respawn, CrashLoop]:
        """
        Decide what follows the death of this slot's worker.

        @param lifetime: seconds from its start to its death.
        """
        if lifetime >= self.healthyAfter:
            self._deaths = 0
            return Respawn(0.0)
        self._deaths += 1
        delay = self.backoff(self._deaths)
        if self._deaths >= self.maxDeaths:
            return CrashLoop(delay, self._deaths)
        return Respawn(delay)
