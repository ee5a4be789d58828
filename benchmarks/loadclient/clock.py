"""
The time in which this process itself ran, and what a pace demands of it.

On a busy machine the client stands still now and then, as does a client that was
stopped.  What goes by meanwhile says nothing about the server, so time-outs,
gaps and the pace are counted in I{net} seconds, in which this is left out.
"""

from __future__ import annotations

from typing import Final

TOLERANCE: Final = 0.02
"""
Seconds by which a turn may come late before that counts as standing still.
"""


class NetClock:
    """
    A clock that leaves out the time in which this process stood still: it knows
    when it should have had its next turn.

    @ivar longest: the longest time of standing still, in seconds.
    @ivar total: all of it.
    """

    def __init__(self, now: float) -> None:
        self.longest = 0.0
        self.total = 0.0
        self._next = now

    def turn(self, now: float, following: float) -> None:
        """
        A turn has come.

        @param following: when the next is to come.
        """
        late = self._late(now)
        self.longest = max(self.longest, late)
        self.total += late
        self._next = following

    def net(self, now: float) -> float:
        """
        Seconds on this clock, by those on the wall.
        """
        return now - self.total - self._late(now)

    def _late(self, now: float) -> float:
        late = now - self._next
        return late if late > TOLERANCE else 0.0


class Pace:
    """
    How many requests are due.

    @ivar sent: how many have been handed out.
    """

    def __init__(self, rate: float, begun: float) -> None:
        """
        @param rate: requests a second.
        """
        self._rate = rate
        self._begun = begun
        self.sent = 0

    def due(self, now: float) -> int:
        """
        Hand out what has become due since the last call.
        """
        owed = int((now - self._begun) * self._rate + 1e-6) + 1 - self.sent
        if owed <= 0:
            return 0
        self.sent += owed
        return owed
