"""
What C{cluster.whenStopping()} means in a program that runs without a cluster.
"""

from __future__ import annotations

import signal
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ReactorNotRunning

_SIGNALS = (signal.SIGQUIT, signal.SIGHUP)
"""Those at which a reactor does not stop by itself."""


class _Follower:
    """
    Knows whether a reactor is stopping, and tells those who wait for that.
    """

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self._waiting: list[Deferred[None]] = []
        self._stopping = False
        for phase in ("before", "during", "after"):
            reactor.addSystemEventTrigger(phase, "shutdown", self._stops)
        reactor.callWhenRunning(self._takeSignals)

    def wait(self) -> Deferred[None]:
        if self._stopping:
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        self._waiting.append(waiter)
        return waiter

    def _stops(self) -> None:
        """
        The shutdown begins; or has begun, if nobody asked before.
        """
        self._stopping = True
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(None)

    def _takeSignals(self) -> None:
        for number in _SIGNALS:
            if signal.getsignal(number) == signal.SIG_DFL:
                signal.signal(number, self._signalled)

    def _signalled(self, signum: int, frame: object) -> None:
        self.reactor.callFromThread(self._stop)

    def _stop(self) -> None:
        try:
            self.reactor.stop()
        except ReactorNotRunning:
            pass


_followers: list[_Follower] = []


def whenAloneStops() -> Deferred[None]:
    """
    A Deferred that fires when the reactor is about to stop; at once when it is
    stopping.

    From the first call on, SIGQUIT and SIGHUP stop it too, unless the program
    has handlers of its own.
    """
    from twisted.internet import reactor

    for follower in _followers:
        if follower.reactor is reactor:
            return follower.wait()
    follower = _Follower(reactor)
    _followers.append(follower)
    return follower.wait()
