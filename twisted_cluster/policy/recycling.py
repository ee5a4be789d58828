"""
When a worker that works is to be replaced by a fresh one.

The rules:

  1. A limit is a promise: what the operator set is the most.  Each worker's own
     limit is drawn once, from a little under that (C{--recycle-jitter}) up to it,
     so that workers which started together do not fall due together.
  2. Memory comes and goes: several samples in a row must be over the limit.  That
     limit is not drawn, since a figure of memory spreads by itself, and the operator
     compares it with other tools.
  3. That a worker is due is all that is said here, and once.  When it is its turn is
     for the plan to say, so that a worker lives longer while others are replaced.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, Optional, Union

import attrs

SAMPLE_EVERY: Final = 5.0
"""Seconds between two samples of a worker's memory."""

SAMPLES: Final = 3
"""How many samples in a row have to be over the limit."""


@attrs.frozen
class Due:
    """
    Replace the worker, when it is its turn.

    @ivar why: for the log: C{it has served for 3600 s (--recycle-age)}.
    """

    why: str


@attrs.frozen
class LookAgain:
    """
    Nothing to do now.

    @ivar delay: seconds until the next look, or L{None} when none is needed, ever.
    """

    delay: Optional[float]


@attrs.frozen
class RecycleLimits:
    """
    What the operator lets a worker reach before it is replaced.

    @ivar age: seconds that it serves, or L{None} for any number.
    @ivar connections: how many it takes, or L{None} for any number.
    @ivar memory: the bytes that it may take, or L{None} for any number.
    @ivar jitter: by which part of it the age and the number of connections are
        lowered at most: from 0 to less than 1.
    """

    age: Optional[float] = None
    connections: Optional[int] = None
    memory: Optional[int] = None
    jitter: float = 0.1

    def drawConnections(self, draw: Callable[[], float] = random.random) -> int:
        """
        Draw how many connections one worker takes.

        @param draw: gives a number from 0 to 1.
        @return: one or more, or 0 for any number.
        """
        if self.connections is None:
            return 0
        return max(1, round(self._lowered(self.connections, draw)))

    def drawAge(self, draw: Callable[[], float] = random.random) -> Optional[float]:
        """
        Draw for how many seconds one worker serves.

        @param draw: gives a number from 0 to 1.
        """
        return None if self.age is None else self._lowered(self.age, draw)

    def _lowered(self, limit: float, draw: Callable[[], float]) -> float:
        return limit * (1 - self.jitter * draw())


NEVER: Final = RecycleLimits()
"""No limits: workers serve until they die."""


class Recycling:
    """
    Whether one worker has reached what it may in age and in memory; its connections
    it counts itself.
    """

    def __init__(
        self,
        limits: RecycleLimits,
        now: float,
        measure: Callable[[], Optional[int]],
        draw: Callable[[], float] = random.random,
    ) -> None:
        """
        @param now: when the worker became ready, in seconds on a monotonic clock.
        @param measure: tells how many bytes the worker takes now, or L{None} when
            that cannot be known.  Only asked where there is a limit.
        @param draw: gives a number from 0 to 1.
        """
        self._memory = limits.memory
        self._measure = measure
        age = limits.drawAge(draw)
        self._born = now
        self._dueAt = None if age is None else now + age
        self._sampleAt = now + SAMPLE_EVERY
        self._over = 0

    def look(self, now: float) -> Union[Due, LookAgain]:
        """
        Look at the worker.  A look that comes too early or too late does no harm.

        @param now: seconds on the clock that the worker's readiness was told by.
        """
        delays = []
        if self._dueAt is not None:
            if now >= self._dueAt:
                served = now - self._born
                return Due(f"it has served for {served:.0f} s (--recycle-age)")
            delays.append(self._dueAt - now)
        if self._memory is not None:
            if now >= self._sampleAt:
                self._sampleAt = now + SAMPLE_EVERY
                size = self._measure()
                if size is not None:
                    self._over = self._over + 1 if size > self._memory else 0
                if size is not None and self._over >= SAMPLES:
                    return Due(
                        f"it takes {_mebibytes(size)} of memory (--recycle-memory)"
                    )
            delays.append(self._sampleAt - now)
        return LookAgain(min(delays, default=None))


def _mebibytes(size: int) -> str:
    return f"{size / 1024**2:.0f} MiB"
