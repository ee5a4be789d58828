"""
What C{cluster.whenStopping()} means in a program that runs without a cluster.
"""

from __future__ import annotations

import signal
from typing import Any

from twisted.internet.defer import Deferred

_SIGNALS = (signal.SIGQUIT, signal.SIGHUP)
"""Those at which a reactor does not stop by itself."""

_waiting: list[Deferred[None]] = []
_reactors: list[Any] = []


def whenAloneStops() -> Deferred[None]:
    """
    A Deferred that fires when the reactor is about to stop.

    From the first call on, SIGQUIT and SIGHUP stop it too, unless the program
    has handlers of its own.
    """
    from twisted.internet import reactor

    waiter: Deferred[None] = Deferred()
    _waiting.append(waiter)
    if not any(known is reactor for known in _reactors):
        _reactors.append(reactor)
        _follow(reactor)
    return waiter


def _follow(reactor: Any) -> None:
    def stops() -> None:
        waiting = _waiting[:]
        _waiting.clear()
        for waiter in waiting:
            waiter.callback(None)

    def stop(signum: int, frame: object) -> None:
        reactor.callFromThread(reactor.stop)

    def install() -> None:
        for number in _SIGNALS:
            if signal.getsignal(number) == signal.SIG_DFL:
                signal.signal(number, stop)

    reactor.addSystemEventTrigger("before", "shutdown", stops)
    reactor.callWhenRunning(install)
