"""
What has arrived on a channel and was not consumed yet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final, Generic, Optional, TypeVar
from weakref import ref

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from twisted_cluster.errors import AlreadyConsumed

_log = Logger("twisted_cluster")


T = TypeVar("T")

LIMIT: Final = 1024 * 1024
"""Bytes of queued messages from which on senders have to wait."""
_OVERHEAD: Final = 64
"""What a queued message counts beside the bytes that it had on the wire."""


class Inbox(Generic[T]):
    """
    A queue for one consumer, with back-pressure to those who fill it.

    Where nobody consumes, not yet or no longer, nobody waits either: up to the
    limit, what arrives is kept for the next consumer; past it, it is counted
    and dropped, and the log says so once until somebody consumes again.

    @ivar soon: has something called by the reactor, soon; it may be called
        from any thread, since the garbage collector may find in any that the
        consumer is gone.
    """

    def __init__(self, remedy: str, limit: int = LIMIT) -> None:
        """
        @param remedy: what to do about messages that nobody consumes, for the
            log.
        """
        self._remedy = remedy
        self._limit = limit
        self._batches: deque[tuple[list[T], int]] = deque()
        self._size = 0
        self._full: list[Deferred[None]] = []
        self._waiting: Optional[Deferred[None]] = None
        self._consumer: Optional[ref[AsyncIterator[T]]] = None
        self._turn = 0
        self._complained = False
        self._closed = False
        self.soon: Callable[[Callable[[], None]], object] = lambda call: call()
        self.dropped = 0

    def put(self, items: list[T], size: int) -> Optional[Deferred[None]]:
        """
        Take items over, and the list that they come in with them.

        @param size: the bytes that they had on the wire.
        @return: L{None}, or, past the limit, a Deferred that fires when there
            is room again, or nobody any more who makes some; the items have
            been taken all the same.
        """
        if self._closed or not items:
            return None
        if self._size >= self._limit and self._consumer is None:
            self._drop(len(items))
            return None
        weight = size + _OVERHEAD * len(items)
        items.reverse()
        self._batches.append((items, weight))
        self._size += weight
        self._wake()
        if self._size < self._limit or self._consumer is None:
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
        self._wake()

    def consume(self) -> AsyncIterator[T]:
        """
        Iterate over what arrives, until L{close}.  Who leaves a loop over it
        leaves what is queued to the next; an iterator that is kept for later
        counts as a consumer, if a slow one.

        @raise AlreadyConsumed: when somebody else does so at the moment.
        """
        if self._consumer is not None:
            raise AlreadyConsumed(
                "these messages have a consumer already: share what it receives"
            )
        self._complained = False
        self._turn += 1
        turn = self._turn
        consumer = self._iterate(turn)
        self._consumer = ref(consumer, lambda _: self._left(turn))
        return consumer

    async def _iterate(self, turn: int) -> AsyncIterator[T]:
        batches = self._batches
        try:
            while True:
                while batches:
                    items, weight = batches[0]
                    while items:
                        item = items.pop()
                        if not items:
                            batches.popleft()
                            self._shrink(weight)
                        yield item
                if self._closed:
                    return
                self._waiting = Deferred()
                await self._waiting
        finally:
            self._left(turn)

    def _left(self, turn: int) -> None:
        """
        A consumer has gone.  One that asyncio ends may do so when there is
        another already.
        """
        if turn == self._turn and self._consumer is not None:
            self._consumer = self._waiting = None
            if self._full:
                self.soon(self._releaseUnlessConsumed)

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    def _shrink(self, weight: int) -> None:
        self._size -= weight
        if self._full and self._size < self._limit:
            self._release()

    def _releaseUnlessConsumed(self) -> None:
        if self._consumer is None:
            self._release()

    def _release(self) -> None:
        full, self._full = self._full, []
        for room in full:
            room.callback(None)

    def _drop(self, count: int) -> None:
        if not self._complained:
            self._complained = True
            _log.warn(
                "nobody reads the messages that arrive, and {limit} bytes of them "
                "are waiting: from now on they are counted and dropped; {remedy}",
                limit=self._limit,
                remedy=self._remedy,
            )
        self.dropped += count
