"""
By how much a worker's reactor is late.

A call is scheduled every second; that it comes late means that something blocked the
reactor, or that the machine has too much to do.  Of a block, the part is seen that
lies after the moment at which a call was due: all but a second of it at least, and
nothing of a short one that falls between two calls.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final, Optional

from twisted.internet.interfaces import IDelayedCall, IReactorTime

INTERVAL: Final = 1.0
"""Seconds between two calls."""


class Delay:
    """
    The delay of one reactor.

    Reactors go by the time of day, which may be set, and runs on while the machine is
    suspended.  Late is what is late by a monotonic clock, too.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        """
        @param monotonic: tells the seconds of a clock that nobody sets.
        """
        self._monotonic = monotonic
        self._clock: Optional[IReactorTime] = None
        self._call: Optional[IDelayedCall] = None
        self._due = (0.0, 0.0)
        self._most = 0.0
        self._pid = 0

    def start(self, clock: IReactorTime) -> None:
        """
        Begin to measure.  Does nothing when it has begun.

        @param clock: the reactor, which runs.
        """
        if self._call is None:
            self._clock = clock
            self._pid = os.getpid()
            self._schedule(clock)

    def stop(self) -> None:
        """
        Measure no more, and leave nothing scheduled.
        """
        self._late()
        call, self._call = self._call, None
        if call is not None and call.active():
            call.cancel()

    def take(self) -> float:
        """
        Tell by how many seconds the reactor was late at most since the last time
        that this was asked, or is at this moment.
        """
        self._late()
        most, self._most = self._most, 0.0
        return most

    def _schedule(self, clock: IReactorTime) -> None:
        self._due = (clock.seconds() + INTERVAL, self._monotonic() + INTERVAL)
        self._call = clock.callLater(INTERVAL, self._called, clock)

    def _called(self, clock: IReactorTime) -> None:
        """
        In a process that was forked from the worker, this is the last time.
        """
        if os.getpid() == self._pid:
            self._late()
            self._schedule(clock)

    def _late(self) -> None:
        if self._call is not None and self._clock is not None:
            clock, monotonic = self._due
            late = min(self._clock.seconds() - clock, self._monotonic() - monotonic)
            self._most = max(self._most, late)
