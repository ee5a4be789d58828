"""
How long to wait before the next try.
"""

from __future__ import annotations

import random
from collections.abc import Callable

Backoff = Callable[[int], float]
"""Takes how many tries failed in a row, from 1, and returns seconds."""


def exponentialBackoff(
    initial: float = 0.1,
    maximum: float = 30.0,
    jitter: Callable[[], float] = random.random,
) -> Backoff:
    """
    Double the pause with each failure, up to a limit, and spread it, so that
    what failed together is not tried again together.

    @param initial: seconds after the first failure.
    @param maximum: the most seconds, before they are spread.
    @param jitter: gives a number from 0 to 1; the pause is lengthened by up to
        a fifth.
    """

    def backoff(failures: int) -> float:
        pause = min(maximum, initial * 2.0 ** min(failures - 1, 60))
        return pause * (1 + 0.2 * jitter())

    return backoff
