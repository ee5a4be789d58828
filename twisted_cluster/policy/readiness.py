"""
When a worker may be called ready.

A service says so itself: it has started, and what it began to listen on is
open.  A program (a script, a module) cannot, so it is watched: its reactor
runs, it has opened a port and for L{QUIET} seconds no other, or it has run for
some seconds (L{PORTLESS}, if nobody knows better) without opening any.  With
C{--wait-ready} neither counts, and the program calls C{cluster.ready()}.
"""

from __future__ import annotations

from typing import Final, Optional, Union

import attrs

QUIET: Final = 0.1
PORTLESS: Final = 1.0


@attrs.frozen
class Now:
    """
    The worker is ready.
    """


@attrs.frozen
class LookAgain:
    """
    Not yet; ask again when so many seconds have passed.
    """

    seconds: float


@attrs.frozen
class NotYet:
    """
    Not yet; something else has to happen first.
    """


@attrs.define
class Readiness:
    """
    What is known of one worker's start.

    @ivar waitReady: whether only L{saysReady} counts.
    @ivar portless: seconds without a port after which a program is ready.
    @ivar isService: whether the target is a service, which reports that it
        has started.
    """

    waitReady: bool
    isService: bool
    portless: float = PORTLESS
    _running: Optional[float] = attrs.field(default=None, init=False)
    _opened: Optional[float] = attrs.field(default=None, init=False)
    _started: bool = attrs.field(default=False, init=False)
    _said: bool = attrs.field(default=False, init=False)

    def reactorRuns(self, now: float) -> None:
        """
        The program's reactor has started to run.
        """
        self._running = now

    def portOpened(self, now: float) -> None:
        """
        The program has opened a port.
        """
        self._opened = now

    def serviceStarted(self) -> None:
        """
        The target's service has started.
        """
        self._started = True

    def saysReady(self) -> None:
        """
        The program said that it is ready.
        """
        self._said = True

    def decide(self, now: float) -> Union[Now, LookAgain, NotYet]:
        """
        Is the worker ready?

        @param now: seconds, on the clock that the events were told with.
        """
        if self._running is None:
            return NotYet()
        if self.waitReady:
            return Now() if self._said else NotYet()
        if self.isService:
            return Now() if self._started else NotYet()
        if self._opened is None:
            left = self._running + self.portless - now
        else:
            left = max(self._opened, self._running) + QUIET - now
        return Now() if left <= 0 else LookAgain(left)
