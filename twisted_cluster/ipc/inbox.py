"""
What has arrived on a channel and was not consumed yet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import Final, Generic, Optional, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from twisted_cluster.errors import AlreadyConsumed

T = TypeVar("T")

LIMIT: Final = 1024 * 1024
"""Bytes, as they were on the wire, from which on senders have to wait."""


class Inbox(Generic[T]):
    """
    A queue for one consumer, with back-pressure to those who fill it.

    Where nobody ever began to consume, nobody waits either: past the limit,
    what arrives is counted and dropped, and the log says so once.
    """

    _log = Logger()

    def __init__(self, remedy: str, limit: int = LIMIT) -> None:
        """
        @param remedy: what to do about messages that nobody consumes, for the
            log.
        """
        self._remedy = remedy
        self._limit = limit
        self._items: deque[T] = deque()
        self._sizes: deque[list[int]] = deque()
        self._size = 0
        self._full: list[Deferred[None]] = []
        self._waiting: Optional[Deferred[None]] = None
        self._consumed = False
        self._everConsumed = False
        self._closed = False
        self.dropped = 0

    def put(self, items: Iterable[T], size: int) -> Optional[Deferred[None]]:
        """
        Take items over.

        @param size: the bytes that they had on the wire.
        @return: L{None}, or, past the limit, a Deferred that fires when there
            is room again; the items have been taken all the same.
        """
        if self._closed:
            return None
        if self._size >= self._limit and not self._everConsumed:
            self._drop(sum(1 for _ in items))
            return None
        before = len(self._items)
        self._items.extend(items)
        added = len(self._items) - before
        if not added:
            return None
        self._sizes.append([added, size])
        self._size += size
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            waiting.callback(None)
        if self._size < self._limit or not self._everConsumed:
            return None
        room: Deferred[None] = Deferred()
        self._full.append(room)
        return room

    def close(self) -> None:
        """
        End the iteration once what is queued has been consumed.
        """
        self._closed = True
        self._release()
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            waiting.callback(None)

    def consume(self) -> AsyncIterator[T]:
        """
        Iterate over what arrives, until L{close}.

        @raise AlreadyConsumed: when somebody else does so at the moment.
        """
        if self._consumed:
            raise AlreadyConsumed(
                "these messages have a consumer already: share what it receives"
            )
        self._consumed = self._everConsumed = True
        return self._iterate()

    async def _iterate(self) -> AsyncIterator[T]:
        try:
            while True:
                while self._items:
                    yield self._take()
                if self._closed:
                    return
                self._waiting = Deferred()
                await self._waiting
        finally:
            self._consumed = False

    def _take(self) -> T:
        oldest = self._sizes[0]
        oldest[0] -= 1
        if not oldest[0]:
            self._size -= oldest[1]
            self._sizes.popleft()
            if self._full and self._size < self._limit:
                self._release()
        return self._items.popleft()

    def _release(self) -> None:
        full, self._full = self._full, []
        for room in full:
            room.callback(None)

    def _drop(self, count: int) -> None:
        if not self.dropped:
            self._log.warn(
                "nobody reads the messages that arrive, and {limit} bytes of them "
                "are waiting: from now on they are counted and dropped; {remedy}",
                limit=self._limit,
                remedy=self._remedy,
            )
        self.dropped += count
