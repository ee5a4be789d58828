"""
When a worker that does not answer is to be called hung.

Time is discounted in which the watcher itself stood still (SIGSTOP, a
suspended machine): between two looks at the clock no more passes than
L{Heartbeat.longestGap} allows.
"""

from __future__ import annotations

from typing import Union

import attrs


@attrs.frozen
class Ask:
    """
    Send a ping now.
    """


@attrs.frozen
class Late:
    """
    Warn: a ping has been unanswered for long.

    @ivar seconds: for how long.
    """

    seconds: float


@attrs.frozen
class Hung:
    """
    Replace the worker.

    @ivar seconds: for how long it has not answered.
    """

    seconds: float


@attrs.frozen
class Wait:
    """
    Nothing to do.
    """


@attrs.define
class Heartbeat:
    """
    The pings of one worker.

    @ivar timeout: seconds without an answer after which a worker is hung.
    @ivar interval: seconds between two looks, and between an answer and the
        next ping.
    """

    timeout: float
    interval: float
    _asked: bool = attrs.field(default=False, init=False)
    _waited: float = attrs.field(default=0.0, init=False)
    _last: float = attrs.field(default=-1.0, init=False)
    _warned: bool = attrs.field(default=False, init=False)

    @property
    def longestGap(self) -> float:
        """
        The most seconds that may pass for the worker between two looks.
        """
        return self.interval * 2

    def tick(self, now: float) -> Union[Ask, Late, Hung, Wait]:
        """
        Look at the clock, about every C{interval} seconds.

        @param now: seconds on a monotonic clock.
        """
        passed = 0.0 if self._last < 0 else now - self._last
        self._last = now
        if not self._asked:
            self._asked, self._waited, self._warned = True, 0.0, False
            return Ask()
        self._waited += min(passed, self.longestGap)
        if self._waited >= self.timeout:
            return Hung(self._waited)
        if self._waited >= self.timeout / 2 and not self._warned:
            self._warned = True
            return Late(self._waited)
        return Wait()

    def answered(self) -> None:
        """
        The worker answered the last ping.
        """
        self._asked = False
