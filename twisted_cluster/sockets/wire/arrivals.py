"""
The sockets that arrived at one end of a connection, and the words with which
they are answered, in the order in which they came.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Optional

from twisted_cluster.sockets.wire.frames import (
    LOST,
    Arrival,
    encodeGivenBack,
    encodeTaken,
)
from twisted_cluster.sockets.wire.lastwords import LastWords

_TOO_MANY = f"the receiver is at its limit: {os.strerror(errno.EMFILE)}"
_MOST_GIVEN_BACK = 65535


class Arrivals:
    """
    Sockets that wait, and those of which it was said that they are taken, while
    that word has not left.

    @ivar size: the bytes of data of those that wait.
    @ivar open: whether anything may be said; nothing waits when it may not.
    @ivar wanted: whether somebody waits for the word to leave.
    """

    def __init__(self, transport: LastWords) -> None:
        self._transport = transport
        self._waiting: deque[Arrival] = deque()
        self._said: deque[Arrival] = deque()
        self._word = 0
        self.size = 0
        self.open = False
        self.wanted = False

    def __len__(self) -> int:
        """
        How many wait.
        """
        return len(self._waiting)

    @property
    def givable(self) -> bool:
        """
        Whether there are sockets for which the word has left.
        """
        return bool(self._said) and self._transport.sent >= self._word

    def add(self, arrival: Arrival) -> None:
        """
        Let a socket wait; it is closed when nothing can be said any more.
        """
        if self.open:
            self._waiting.append(arrival)
            self.size += len(arrival.data)
        else:
            _close(arrival)

    def peek(self) -> Optional[Arrival]:
        """
        Look at the oldest that waits.
        """
        self.refuseLost()
        return self._waiting[0] if self._waiting else None

    def take(self, most: int, wanted: Callable[[Arrival], bool]) -> list[Arrival]:
        """
        Take the oldest that wait, once the word has left.
        """
        self.refuseLost()
        if not self._said and not self._say(most, wanted):
            return []
        if not self.givable:
            self.wanted = True
            return []
        return _first(self._said, most)

    def giveBack(self, count: int, why: str) -> None:
        """
        Refuse the oldest that wait, and close them.
        """
        self.refuseLost()
        count = min(count, len(self._waiting))
        for arrival in _first(self._waiting, count):
            self.size -= len(arrival.data)
            _close(arrival)
        while count > 0:
            self._refuse(min(count, _MOST_GIVEN_BACK), why)
            count -= _MOST_GIVEN_BACK
        self.refuseLost()

    def refuseLost(self) -> None:
        """
        Give back those that did not arrive, as soon as it is their turn and the
        other side has read the words before.
        """
        waiting = self._waiting
        if not waiting or waiting[0].descriptor != LOST:
            return
        if self._transport.pending:
            self.wanted = True
            return
        count = 0
        while waiting and waiting[0].descriptor == LOST:
            self.size -= len(waiting.popleft().data)
            count += 1
        self._refuse(count, _TOO_MANY)

    def closeWaiting(self) -> None:
        """
        Close those that wait; nothing more can be said.
        """
        self.open = False
        self.size = 0
        while self._waiting:
            _close(self._waiting.popleft())

    def closeSaid(self) -> None:
        """
        Close those that nobody took, although it was said.
        """
        while self._said:
            _close(self._said.popleft())

    def _say(self, most: int, wanted: Callable[[Arrival], bool]) -> bool:
        if self._transport.pending:
            self.wanted = bool(self._waiting) or self.wanted
            return False
        count = size = 0
        for arrival in islice(self._waiting, max(most, 0)):
            if arrival.descriptor == LOST or not wanted(arrival):
                break
            count += 1
            size += len(arrival.data)
        if not count:
            return False
        self.size -= size
        self._said.extend(_first(self._waiting, count))
        self._transport.write(encodeTaken(count))
        self._word = self._transport.sent + self._transport.pending
        self.refuseLost()
        return True

    def _refuse(self, count: int, why: str) -> None:
        if self.open:
            self._transport.write(encodeGivenBack(count, why))


def anyArrival(arrival: Arrival) -> bool:
    """
    Want each.
    """
    return True


def _first(queue: deque[Arrival], most: int) -> list[Arrival]:
    if most >= len(queue):
        everything = list(queue)
        queue.clear()
        return everything
    return [queue.popleft() for _ in range(most)]


def _close(arrival: Arrival) -> None:
    if arrival.descriptor != LOST:
        os.close(arrival.descriptor)
