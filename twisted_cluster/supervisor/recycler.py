"""
Looks after the age and the memory of workers, and says which are due to be
replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from twisted_cluster.policy.recycling import Due, RecycleLimits, Recycling
from twisted_cluster.supervisor.memory import memoryOf


class Recycler:
    """
    The looks at all workers.
    """

    def __init__(
        self,
        clock: IReactorTime,
        limits: RecycleLimits,
        due: Callable[[int, str], None],
    ) -> None:
        """
        @param due: called with the id of a worker and why it is due.
        """
        self._clock = clock
        self._due = due
        self._looks: dict[int, IDelayedCall] = {}
        self.limits = limits

    def watch(self, worker: int, pid: int) -> None:
        """
        A worker serves: look after it until L{forget}, or until it is due.
        """
        measure = partial(memoryOf, pid, self.limits.memory or 0)
        recycling = Recycling(self.limits, self._clock.seconds(), measure)
        self._look(worker, recycling)

    def forget(self, worker: int) -> None:
        """
        A worker leaves, or is dead.
        """
        look = self._looks.pop(worker, None)
        if look is not None:
            look.cancel()

    def _look(self, worker: int, recycling: Recycling) -> None:
        self._looks.pop(worker, None)
        decision = recycling.look(self._clock.seconds())
        if isinstance(decision, Due):
            self._due(worker, decision.why)
        elif decision.delay is not None:
            self._looks[worker] = self._clock.callLater(
                decision.delay, self._look, worker, recycling
            )
