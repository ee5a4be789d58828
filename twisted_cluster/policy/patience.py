"""
A limit that counts only the time in which the watcher itself ran.

A watcher that stood still (SIGSTOP, a suspended machine) has heard nobody
meanwhile, and blames nobody for that: between two looks at the clock, which
come about every L{TICK} seconds, no more passes than twice that.
"""

from __future__ import annotations

from typing import Final

import attrs

TICK: Final = 1.0
_LEAST: Final = 1e-6
"""Seconds that are too few to be waited for: a clock may not even show them."""


@attrs.define
class Patience:
    """
    What is left of a limit.

    @ivar left: seconds.
    """

    left: float
    _last: float

    def look(self, now: float) -> float:
        """
        Look at the clock.

        @param now: seconds on a monotonic clock.
        @return: seconds until the next look, or 0 when the limit is passed.
        """
        self.left -= min(now - self._last, 2 * TICK)
        self._last = now
        return min(self.left, TICK) if self.left > _LEAST else 0.0
