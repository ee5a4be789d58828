"""
The delayed calls of one worker, which end with what they were made for.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from twisted_cluster.policy.patience import Patience


class Timers:
    """
    Delayed calls that are cancelled together.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._calls: list[IDelayedCall] = []

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """
        Call after some seconds.
        """
        self._calls = [each for each in self._calls if each.active()]
        self._calls.append(self._clock.callLater(seconds, call))

    def limit(self, seconds: float, expired: Callable[[], None]) -> None:
        """
        Call after some seconds in which this process ran.
        """
        patience = Patience(seconds, self._clock.seconds())

        def look() -> None:
            left = patience.look(self._clock.seconds())
            if left > 0:
                self.later(left, look)
            else:
                expired()

        look()

    def cancel(self) -> None:
        """
        Call nothing of all that.
        """
        calls, self._calls = self._calls, []
        for call in calls:
            if call.active():
                call.cancel()
