"""
Decides which log events are kept when more are logged than the watcher takes.

At the limit the newest event of the lowest level goes: what led to the trouble
is kept, and so is what matters.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, Final, Optional

LIMIT: Final = 4 * 1024 * 1024
"""
The most bytes of events that wait, unless told otherwise.
"""


class LogQueue:
    """
    Events on their way to the watcher, in order, bounded.

    Any thread may call any method, a signal handler or a C{__del__} method that
    interrupts another call in the same thread included.

    @ivar limit: the most bytes that wait.
    @ivar size: the bytes that wait.
    """

    def __init__(
        self, limit: int = LIMIT, lock: Optional[threading.RLock] = None
    ) -> None:
        """
        @param lock: is held during each call; by default, one of its own.
            Whoever holds another lock around calls passes that one: an event may
            be put from within any call, even of another queue's.
        """
        self.limit = limit
        self.size = 0
        self._length = 0
        self._dropped = 0
        self._next = 0
        self._levels: dict[int, deque[tuple[int, bytes]]] = {}
        self._sizes: dict[int, int] = {}
        self._lock: Any = lock or threading.RLock()
        self._busy = False
        self._interrupting: deque[tuple[int, bytes]] = deque()

    def __len__(self) -> int:
        """
        Count the events that wait.
        """
        return self._length + len(self._interrupting)

    def put(self, level: int, data: bytes) -> None:
        """
        Take an event over.  When there is no room for it, the newest events of
        the lowest levels below its own make some; failing that, it is dropped
        itself.

        @param level: the higher, the longer it is kept.
        @param data: the event, encoded.
        """
        with self._lock:
            self._interrupting.append((level, data))
            if not self._busy:
                self._settle()

    def take(self, maxBytes: int) -> tuple[Optional[bytes], int]:
        """
        Hand over the oldest events as one batch, at least one if there is any.

        @param maxBytes: the most bytes to hand over, unless the first event
            alone takes more.
        @return: the batch, or L{None} when no event waits; and how many events
            were dropped since the last call.
        """
        with self._lock:
            if self._busy:
                return None, 0
            self._settle()
            self._busy = True
            try:
                return self._take(maxBytes - 5)
            finally:
                self._busy = False

    def _settle(self) -> None:
        """
        Queue what was put, also by those who interrupt this very call.
        """
        while self._interrupting:
            self._busy = True
            try:
                self._put(*self._interrupting.popleft())
            finally:
                self._busy = False

    def _put(self, level: int, data: bytes) -> None:
        excess = self.size + len(data) - self.limit
        if excess > 0:
            lower = [each for each in self._sizes if each < level]
            if sum(self._sizes[each] for each in lower) < excess:
                self._dropped += 1
                return
            self._makeRoom(sorted(lower), excess)
        if level not in self._levels:
            self._levels[level] = deque()
            self._sizes[level] = 0
        self._levels[level].append((self._next, data))
        self._next += 1
        self._account(level, data, 1)

    def _makeRoom(self, levels: list[int], excess: int) -> None:
        for level in levels:
            events = self._levels[level]
            while events and excess > 0:
                _, data = events.pop()
                excess -= len(data)
                self._dropped += 1
                self._account(level, data, -1)

    def _take(self, room: int) -> tuple[Optional[bytes], int]:
        taken: list[bytes] = []
        while self._length:
            level = self._oldest()
            events = self._levels[level]
            data = events[0][1]
            room -= len(data)
            if taken and room < 0:
                break
            events.popleft()
            self._account(level, data, -1)
            taken.append(data)
        dropped, self._dropped = self._dropped, 0
        if not taken:
            return None, dropped
        return joinRecords(taken), dropped

    def _oldest(self) -> int:
        """
        Find the level of the event that was put first of all that wait.
        """
        oldest, first = 0, self._next
        for level, events in self._levels.items():
            if events and events[0][0] < first:
                oldest, first = level, events[0][0]
        return oldest

    def _account(self, level: int, data: bytes, sign: int) -> None:
        self._length += sign
        self.size += sign * len(data)
        self._sizes[level] += sign * len(data)


def joinRecords(records: list[bytes]) -> bytes:
    """
    Put a batch together: a MessagePack array of records that are encoded.
    """
    return b"".join((b"\xdd", len(records).to_bytes(4, "big"), *records))
