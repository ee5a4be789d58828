"""
What is waiting to be sent on a channel, and how much of it may be on its way.

What is put in during one reactor turn leaves as batches of about a piece each;
an item that is longer leaves in several pieces.  At most L{WINDOW} pieces are
unacknowledged at any time: that bounds the memory of a connection whose other
side does not read, and what a heartbeat may have to wait behind.

Where nobody wants to know when an item has arrived, an acknowledgement is asked
for only with every so many bytes: it stands for what was sent before it, too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Final, Optional

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from twisted_cluster.errors import ChannelClosed, ChannelFull, UnknownWorker
from twisted_cluster.ipc.codec import joinBatch
from twisted_cluster.ipc.commands import FULL, PIECE, UNKNOWN

WINDOW: Final = 8
LIMIT: Final = 64 * 1024 * 1024
"""Queued bytes from which on nothing more is taken."""
_OVERHEAD: Final = 256
"""What a queued item takes beside its bytes, at most: a Deferred, mostly."""

# Private since Twisted 25.5, and deprecated by the public name.
_callbacksOf = attrgetter(
    "_callbacks" if hasattr(Deferred(), "_callbacks") else "callbacks"
)

SendPiece = Callable[[bytes, bytes, bool, bool], Optional["Deferred[bytes]"]]


class _Batch:
    """
    Consecutive items of one kind, and who waits for them.

    Of forwards, which may be undelivered one by one, each has a waiter.

    @ivar size: the bytes of all items.
    @ivar weight: what it counts in the queue, once it is being sent.
    """

    __slots__ = ("items", "kind", "size", "waiters", "weight")

    def __init__(self, kind: bytes) -> None:
        self.kind = kind
        self.items: list[bytes] = []
        self.waiters: list[Deferred[None]] = []
        self.size = 0
        self.weight = 0


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


def _fire(waiters: list[Deferred[None]]) -> None:
    """
    Fire Deferreds, in order as far as anybody can tell: those that nobody waits
    for yet go first.  A coroutine that awaits one after the other is then
    resumed once, not once for each.
    """
    awaited = []
    for waiter in waiters:
        if _callbacksOf(waiter):
            awaited.append(waiter)
        else:
            waiter.callback(None)
    for waiter in awaited:
        waiter.callback(None)


def _fireSome(waiters: list[Deferred[None]], refused: bytes) -> None:
    """
    Fire Deferreds, and fail those of messages that were refused.
    """
    for waiter, why in zip(waiters, refused, strict=False):
        if why == UNKNOWN:
            waiter.errback(UnknownWorker("there is no such worker"))
        elif why == FULL:
            waiter.errback(
                ChannelFull(
                    "too much is waiting for that worker already: send less, or later"
                )
            )
        else:
            waiter.callback(None)


class Outbox:
    """
    A queue of encoded items that leave in order, batched, within a window.

    @ivar windowed: whether the window holds; not while nobody could hear the
        acknowledgements, when each write blocks instead.
    @ivar queued: the bytes that wait to be sent or acknowledged, with what
        they cost beside.
    """

    def __init__(
        self,
        sendPiece: SendPiece,
        schedule: Callable[[], None],
        confirmed: bool = True,
    ) -> None:
        """
        @param sendPiece: called with a kind, bytes, whether more pieces of
            the batch follow, and whether to ask for an acknowledgement.  If
            so, its Deferred is that, and tells which items were refused, as
            L{Messages<twisted_cluster.ipc.commands.Messages>} does.
        @param schedule: called when there is something to flush; it is to call
            L{flush} once the current reactor turn is over.
        @param confirmed: whether the Deferreds of L{put} are to fire only when
            the other side has taken the items over; else, when they were sent.
        """
        self._sendPiece = sendPiece
        self._schedule = schedule
        self._confirmed = confirmed
        self._unconfirmed = 0
        self._batches: deque[_Batch] = deque()
        self._sending: Optional[_Batch] = None
        self._data = b""
        self._sent = 0
        self._unanswered: dict[_Batch, None] = {}
        self._onTheirWay = 0
        self._scheduled = False
        self._closed: Optional[Failure] = None
        self.windowed = True
        self.queued = 0

    def put(self, kind: bytes, item: bytes) -> Deferred[None]:
        """
        Queue one item.

        @return: a Deferred that fires when the item has been acknowledged.  It
            fails with L{ChannelFull}, L{ChannelClosed}, L{UnknownWorker}.
            Cancelling it does not take the item back.
        """
        if self._closed is not None or self.queued >= LIMIT:
            return self._refuse()
        waiter: Deferred[None] = Deferred()
        self._append(kind, item).waiters.append(waiter)
        if not self._scheduled:
            self._scheduled = True
            self._schedule()
        return waiter

    def putMany(self, kind: bytes, items: Sequence[bytes]) -> Deferred[None]:
        """
        Queue one or more items.

        @return: a Deferred that fires when all have been acknowledged, and
            fails as that of L{put} does; when that is L{ChannelFull}, none has
            been queued.
        """
        if self._closed is not None or self.queued >= LIMIT:
            return self._refuse()
        for item in items:
            batch = self._append(kind, item)
        waiter: Deferred[None] = Deferred()
        batch.waiters.append(waiter)
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
            batch = self._sending or self._next()
            if batch is None:
                return
            end = self._sent + PIECE
            piece = self._data[self._sent : end]
            more = end < len(self._data)
            if more:
                self._sent = end
            else:
                self._sending = None
                self._data = b""
            last = None if more else batch
            answer = self._sendPiece(batch.kind, piece, more, self._asks(batch))
            if answer is None:
                self._taken(batch, b"")
            else:
                self._onTheirWay += 1
                answer.addCallbacks(
                    self._acknowledged, self._lost, callbackArgs=(last,)
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
        self._sending = None
        self._data = b""
        self.queued = 0
        for batch in batches:
            for waiter in batch.waiters:
                _failQuietly(waiter, self._closed)

    def _refuse(self) -> Deferred[None]:
        if self._closed is not None:
            refused: Deferred[None] = Deferred()
            _failQuietly(refused, self._closed)
            return refused
        return fail(
            ChannelFull(
                f"{self.queued:,} bytes of messages are waiting to be sent "
                f"already: await what send() returns"
            )
        )

    def _append(self, kind: bytes, item: bytes) -> _Batch:
        """
        Add an item to the last batch, or to a new one.
        """
        size = len(item)
        batch = self._batches[-1] if self._batches else None
        if batch is None or batch.size + size > PIECE or batch.kind != kind:
            batch = _Batch(kind)
            self._batches.append(batch)
        batch.items.append(item)
        batch.size += size
        self.queued += size + _OVERHEAD
        return batch

    def _next(self) -> Optional[_Batch]:
        if not self._batches:
            return None
        batch = self._batches.popleft()
        self._data = joinBatch(batch.items)
        self._sent = 0
        batch.weight = batch.size + _OVERHEAD * len(batch.items)
        batch.items.clear()
        self._sending = batch
        self._unanswered[batch] = None
        return batch

    def _asks(self, batch: _Batch) -> bool:
        """
        Whether to ask for an acknowledgement of a batch's next piece.
        """
        self._unconfirmed += batch.weight
        if self._confirmed or self._unconfirmed > PIECE:
            self._unconfirmed = 0
            return True
        return False

    def _taken(self, batch: _Batch, refused: bytes) -> None:
        if batch in self._unanswered:
            del self._unanswered[batch]
            self.queued -= batch.weight
            if refused:
                _fireSome(batch.waiters, refused)
            else:
                _fire(batch.waiters)

    def _acknowledged(self, refused: bytes, batch: Optional[_Batch]) -> None:
        self._onTheirWay -= 1
        if batch is not None:
            self._taken(batch, refused)
        if not self._scheduled:
            self.flush()

    def _lost(self, reason: Failure) -> None:
        self._onTheirWay -= 1
        self.close(reason.getErrorMessage())
