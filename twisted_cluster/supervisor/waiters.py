"""
Several Deferreds for one thing that happens once.
"""

from __future__ import annotations

from typing import Optional, Union

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure


class Waiters:
    """
    Everybody who waits for the same thing.
    """

    def __init__(self) -> None:
        self._waiting: list[Deferred[None]] = []
        self._result: Optional[Union[Failure, bool]] = None

    def wait(self) -> Deferred[None]:
        """
        A Deferred that fires with what L{fire} or L{fail} is, or was, told.
        """
        if self._result is None:
            waiter: Deferred[None] = Deferred()
            self._waiting.append(waiter)
            return waiter
        if isinstance(self._result, Failure):
            return fail(self._result)
        return succeed(None)

    def fire(self) -> None:
        """
        It has happened.
        """
        self._end(True)

    def fail(self, error: Exception) -> None:
        """
        It will not happen.
        """
        self._end(Failure(error))

    def _end(self, result: Union[Failure, bool]) -> None:
        if self._result is not None:
            return
        self._result = result
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if isinstance(result, Failure):
                waiter.errback(result)
            else:
                waiter.callback(None)
