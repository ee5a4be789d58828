"""
What is waiting to be sent on a channel, and how much of it may be on its way.

What is put in during one reactor turn leaves as one batch; a batch that is
longer than a piece leaves in several.  At most L{WINDOW} pieces are
unacknowledged at any time: that bounds the memory of a connection whose other
side does not read, and what a heartbeat may have to wait behind.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Optional

import attrs
from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from twisted_cluster.errors import ChannelClosed, ChannelFull, UnknownWorker
from twisted_cluster.ipc.codec import joinBatch
from twisted_cluster.ipc.commands import PIECE

WINDOW: Final = 8
LIMIT: Final = 64 * 1024 * 1024
"""Queued bytes from which on nothing more is taken."""
_OVERHEAD: Final = 256
"""What a queued message takes beside its bytes: a Deferred, mostly."""

Waiter = tuple[int, "Deferred[None]"]
SendPiece = Callable[[bytes, bytes, bool], "Deferred[Sequence[int]]"]


@attrs.define(eq=False)
class _Batch:
    """
    Consecutive items of one kind, and who waits for how many of them.
    """

    kind: bytes
    items: list[bytes] = attrs.Factory(list)
    waiters: list[Waiter] = attrs.Factory(list)
    size: int = 0


def _failQuietly(waiter: Deferred[None], why: Failure) -> None:
    """
    Fail a Deferred; whoever looks at it, now or later, sees the failure, but
    that nobody does is no "Unhandled error in Deferred": a program that sends
    and does not wait has said that it does not care.
    """
    waiter.errback(why)
    debugInfo = getattr(waiter, "_debugInfo", None)
    if debugInfo is not None:
        debugInfo.failResult = None


class Outbox:
    """
    A queue of encoded items that leave in order, batched, within a window.
    """

    def __init__(self, sendPiece: SendPiece, schedule: Callable[[], None]) -> None:
        """
        @param sendPiece: called with a kind, bytes and whether more pieces of
            the batch follow; its Deferred is the acknowledgement, with the
            positions of the items that reached nobody.
        @param schedule: called when there is something to flush; it is to call
            L{flush} once the current reactor turn is over.
        """
        self._sendPiece = sendPiece
        self._schedule = schedule
        self._batches: deque[_Batch] = deque()
        self._unanswered: set[_Batch] = set()
        self._onTheirWay = 0
        self._scheduled = False
        self._closed: Optional[Failure] = None
        self._pieces: deque[tuple[bytes, bytes, Optional[_Batch]]] = deque()
        self.windowed = True
        self.queued = 0

    def put(self, kind: bytes, item: bytes) -> Deferred[None]:
        """
        Queue one item.

        @return: a Deferred that fires when the item has been acknowledged.  It
            fails with L{ChannelFull}, L{ChannelClosed}, L{UnknownWorker}.
        """
        return self.putMany(kind, (item,), len(item))

    def putMany(self, kind: bytes, items: Sequence[bytes], size: int) -> Deferred[None]:
        """
        Queue several items.

        @param size: how many bytes they have together.
        @return: a Deferred that fires when all have been acknowledged, and
            fails as that of L{put} does; then none has been queued.
        """
        if self._closed is not None:
            return fail(self._closed)
        if self.queued >= LIMIT:
            return fail(
                ChannelFull(
                    f"{self.queued:,} bytes of messages are waiting to be sent "
                    f"already: await what send() returns"
                )
            )
        waiter: Deferred[None] = Deferred()
        self.queued += size + _OVERHEAD
        batch = self._batches[-1] if self._batches else None
        if batch is None or batch.kind != kind or batch.size + size > PIECE:
            batch = _Batch(kind)
            self._batches.append(batch)
        batch.size += size
        if len(items) == 1:
            batch.items.append(items[0])
        else:
            batch.items.extend(items)
        batch.waiters.append((len(items), waiter))
        if not self._scheduled:
            self._scheduled = True
            self._schedule()
        return waiter

    def flush(self) -> None:
        """
        Send what the window lets through.
        """
        self._scheduled = False
        while not self.windowed or self._onTheirWay < WINDOW:
            if not self._pieces:
                if not self._batches:
                    return
                self._cut(self._batches.popleft())
            kind, data, ended = self._pieces.popleft()
            self._onTheirWay += 1
            self._sendPiece(kind, data, ended is None).addCallbacks(
                self._acknowledged,
                self._lost,
                callbackArgs=(ended,),
            )

    def close(self, why: str) -> None:
        """
        Fail everybody who waits, now and from now on, with L{ChannelClosed}.
        """
        if self._closed is not None:
            return
        self._closed = Failure(ChannelClosed(why))
        batches = [*self._unanswered, *self._batches]
        self._unanswered.clear()
        self._batches.clear()
        self._pieces.clear()
        self.queued = 0
        for batch in batches:
            for _, waiter in batch.waiters:
                _failQuietly(waiter, self._closed)

    def _cut(self, batch: _Batch) -> None:
        """
        Cut a batch into pieces; the last of them carries the batch itself.
        """
        data = joinBatch(batch.items)
        batch.items.clear()
        self._unanswered.add(batch)
        last = len(data) - 1
        for start in range(0, len(data), PIECE):
            ended = batch if start + PIECE > last else None
            self._pieces.append((batch.kind, data[start : start + PIECE], ended))

    def _acknowledged(
        self, undelivered: Sequence[int], ended: Optional[_Batch]
    ) -> None:
        self._onTheirWay -= 1
        if ended is not None and ended in self._unanswered:
            self._unanswered.discard(ended)
            self.queued -= ended.size + _OVERHEAD * len(ended.waiters)
            position = 0
            for count, waiter in ended.waiters:
                position += count
                if undelivered and not set(undelivered).isdisjoint(
                    range(position - count, position)
                ):
                    waiter.errback(UnknownWorker("no such worker, or it is full"))
                else:
                    waiter.callback(None)
        if not self._scheduled:
            self.flush()

    def _lost(self, reason: Failure) -> None:
        self._onTheirWay -= 1
        self.close(reason.getErrorMessage())
