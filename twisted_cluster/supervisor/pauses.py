"""
The slots that wait for their next worker, since the last ones died early.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from twisted_cluster.policy.backoff import exponentialBackoff
from twisted_cluster.policy.restarts import RestartPolicy

_log = Logger("twisted_cluster")

HEALTHY_AFTER: Final = 5.0
"""Seconds of life after which a death is no early one."""
_MOST_DEATHS: Final = 5
"""Early deaths in a row that make a crash loop."""


class Pauses:
    """
    What the slots remember of their dead, and how long they wait.
    """

    def __init__(self, clock: IReactorTime, over: Callable[[int], None]) -> None:
        """
        @param over: called with the slot whose pause is over.
        """
        self._clock = clock
        self._over = over
        self._policies: dict[int, RestartPolicy] = {}
        self._calls: dict[int, IDelayedCall] = {}

    def policyOf(self, slot: int) -> RestartPolicy:
        """
        Find what a slot remembers.
        """
        policy = self._policies.get(slot)
        if policy is None:
            policy = RestartPolicy(HEALTHY_AFTER, _MOST_DEATHS, exponentialBackoff())
            self._policies[slot] = policy
        return policy

    def begin(self, slot: int, delay: float) -> None:
        """
        Have a slot wait.
        """
        _log.info(
            "slot {slot} gets its next worker in {delay:.1f} s", slot=slot, delay=delay
        )
        self._calls[slot] = self._clock.callLater(delay, self._end, slot)

    def drop(self, lowest: int = 0) -> None:
        """
        Have no slot wait any longer, from one on.
        """
        for slot in [slot for slot in self._calls if slot >= lowest]:
            self._calls.pop(slot).cancel()

    def _end(self, slot: int) -> None:
        del self._calls[slot]
        self._over(slot)
