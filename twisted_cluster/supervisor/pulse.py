"""
Asks a worker from time to time whether it lives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from twisted_cluster.policy.heartbeat import Ask, Heartbeat, Hung, Late
from twisted_cluster.supervisor.timers import Timers


class Pulse:
    """
    The pings of one worker, and what is known from their answers.

    @ivar delay: by how many seconds, at most, its reactor was late before the
        last answer.
    """

    def __init__(
        self,
        clock: IReactorTime,
        timeout: float,
        ask: Callable[[], Deferred[dict[str, Any]]],
        late: Callable[[float], None],
        hung: Callable[[float], None],
    ) -> None:
        """
        @param timeout: seconds without an answer after which the worker is hung.
        @param ask: sends a ping.
        @param late: called when the worker has not answered for half of that
            time, with for how many seconds.
        @param hung: likewise, at the end of the time; then nothing is asked any
            more.
        """
        self._clock = clock
        self._ask = ask
        self._late = late
        self._hung = hung
        self._heartbeat = Heartbeat(timeout, min(5.0, timeout / 6))
        self._timers = Timers(clock)
        self.delay = 0.0

    def start(self) -> None:
        """
        Begin to ask.
        """
        decision = self._heartbeat.tick(self._clock.seconds())
        if isinstance(decision, Hung):
            self._hung(decision.seconds)
            return
        self._timers.later(self._heartbeat.interval, self.start)
        if isinstance(decision, Ask):
            self._ask().addCallbacks(self._answered, lambda reason: None)
        elif isinstance(decision, Late):
            self._late(decision.seconds)

    def stop(self) -> None:
        """
        Ask no more.
        """
        self._timers.cancel()

    def _answered(self, answer: dict[str, Any]) -> None:
        self.delay = answer["delay"]
        self._heartbeat.answered()
