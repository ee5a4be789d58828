"""
Remembers of each slot whether its last worker served, so that the next one is given
time to open its ports: its program may do so late.
"""

from __future__ import annotations

from typing import Final

import attrs

from twisted_cluster.policy.readiness import PORTLESS
from twisted_cluster.supervisor.listeners import Listeners

_LATE_PORT: Final = 30.0
"""Seconds in which a worker is expected to open a port, as the one before did."""


@attrs.define
class _Former:
    """
    The last worker of a slot that was ready.

    @ivar served: whether it had opened a server by its end.
    """

    worker: int
    served: bool = False


class Formers:
    """
    The last workers of all slots.
    """

    def __init__(self, listeners: Listeners, most: float) -> None:
        """
        @param most: the most seconds that a worker may be given.
        """
        self._listeners = listeners
        self._most = most
        self._formers: dict[int, _Former] = {}

    def workerReady(self, slot: int, worker: int) -> None:
        """
        A worker serves.
        """
        self._formers[slot] = _Former(worker)

    def workerDied(self, slot: int, worker: int) -> None:
        """
        A worker has died, and what it had opened is still known.
        """
        former = self._formers.get(slot)
        if former is not None and former.worker == worker:
            former.served = self._listeners.hasServed(worker)

    def portless(self, slot: int) -> float:
        """
        How many seconds the next worker of a slot may run without a port and not be
        ready.
        """
        former = self._formers.get(slot)
        if former is None or not (
            former.served or self._listeners.hasServed(former.worker)
        ):
            return PORTLESS
        return max(PORTLESS, min(_LATE_PORT, self._most))
