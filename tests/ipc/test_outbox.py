"""
What waits to be sent.
"""

from __future__ import annotations

import gc
from typing import Any, Optional

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.errors import ChannelClosed, ChannelFull, UnknownWorker
from twisted_cluster.ipc import outbox as module
from twisted_cluster.ipc.codec import encode, pair, splitForwards, splitMessages
from twisted_cluster.ipc.commands import FULL, PIECE, TAKEN, UNKNOWN
from twisted_cluster.ipc.outbox import WINDOW, Outbox


class Peer:
    """
    The other side: collects pieces, and acknowledges when told to.
    """

    def __init__(self, confirmed: bool = True) -> None:
        self.pieces: list[tuple[bytes, bytes, bool]] = []
        self.waiting: list[Deferred[bytes]] = []
        self.schedules = 0
        self.outbox = Outbox(self.sendPiece, self.schedule, confirmed)

    def sendPiece(
        self, kind: bytes, data: bytes, more: bool, confirmed: bool
    ) -> Optional[Deferred[bytes]]:
        self.pieces.append((kind, data, more))
        if not confirmed:
            return None
        answer: Deferred[bytes] = Deferred()
        self.waiting.append(answer)
        return answer

    def schedule(self) -> None:
        self.schedules += 1

    def acknowledge(self, *refused: int) -> None:
        self.waiting.pop(0).callback(bytes(refused))

    def acknowledgeAll(self) -> None:
        self.outbox.flush()
        while self.waiting:
            self.acknowledge()

    def batches(self) -> list[tuple[bytes, bytes]]:
        """
        The batches whose pieces have all arrived.
        """
        found: list[tuple[bytes, bytes]] = []
        parts: list[bytes] = []
        for kind, data, more in self.pieces:
            parts.append(data)
            if not more:
                found.append((kind, b"".join(parts)))
                parts.clear()
        return found

    def messages(self) -> list[Any]:
        return [item for _, batch in self.batches() for item in splitMessages(batch)]


def put(outbox: Outbox, data: object) -> Deferred[None]:
    return outbox.put(b"m", encode(data, 10**9))


class Batching(SynchronousTestCase):
    """
    How items leave.
    """

    def test_oneTurn(self) -> None:
        """
        What is put in during one turn leaves as one batch, at its end, and is
        scheduled once.
        """
        peer = Peer()
        for number in range(3):
            put(peer.outbox, number)
        self.assertEqual((peer.pieces, peer.schedules), ([], 1))
        peer.outbox.flush()
        self.assertEqual(len(peer.pieces), 1)
        self.assertEqual(peer.messages(), [0, 1, 2])
        put(peer.outbox, 3)
        self.assertEqual(peer.schedules, 2)

    def test_pieces(self) -> None:
        """
        A long item leaves in pieces of at most the size that a command carries,
        all but the last saying that more follow.
        """
        peer = Peer()
        put(peer.outbox, b"x" * (3 * PIECE))
        peer.acknowledgeAll()
        self.assertEqual([more for *_, more in peer.pieces], [True, True, True, False])
        self.assertTrue(all(0 < len(data) <= PIECE for _, data, _ in peer.pieces))
        self.assertEqual(peer.messages(), [b"x" * (3 * PIECE)])

    def test_kinds(self) -> None:
        """
        A batch has items of one kind; order is kept across kinds.
        """
        peer = Peer()
        for kind in (b"m", b"w", b"w", b"m"):
            peer.outbox.put(kind, encode(1, 100))
        peer.acknowledgeAll()
        self.assertEqual([kind for kind, *_ in peer.pieces], [b"m", b"w", b"m"])

    def test_manyAreBounded(self) -> None:
        """
        Many items at once leave in batches of about a piece, so that the
        receiver can take them over one by one, whatever they have together.
        """
        peer = Peer()
        items = [encode(b"x" * 1000, 2000)] * 500
        sent = peer.outbox.putMany(b"m", items)
        peer.outbox.flush()
        while len(peer.waiting) > 1:
            peer.acknowledge()
            self.assertNoResult(sent)
        peer.acknowledge()
        self.successResultOf(sent)
        self.assertTrue(all(not more for *_, more in peer.pieces))
        self.assertEqual(len(peer.messages()), 500)

    @given(
        st.lists(
            st.one_of(
                st.integers(0, 3 * PIECE).map(lambda n: [n]),
                st.lists(st.integers(0, 2000), min_size=1),
            ),
            max_size=30,
        ),
        st.randoms(use_true_random=False),
    )
    def test_order(self, puts: list[list[int]], random: Any) -> None:
        """
        Whatever is put, whenever it is flushed and acknowledged: all arrives,
        once and in order, no more than the window is on its way, and every
        Deferred fires.
        """
        peer = Peer()
        sent = []
        expected: list[bytes] = []
        for sizes in puts:
            items = [bytes([len(expected) % 256]) * size for size in sizes]
            expected.extend(items)
            encoded = [encode(item, 10**9) for item in items]
            if len(encoded) == 1:
                sent.append(peer.outbox.put(b"m", encoded[0]))
            else:
                sent.append(peer.outbox.putMany(b"m", encoded))
            if random.random() < 0.3:
                peer.outbox.flush()
            if peer.waiting and random.random() < 0.3:
                peer.acknowledge()
            self.assertTrue(len(peer.waiting) <= WINDOW)
        peer.outbox.flush()
        while peer.waiting:
            self.assertTrue(len(peer.waiting) <= WINDOW)
            peer.acknowledge()
            peer.outbox.flush()
        self.assertEqual(peer.messages(), expected)
        self.assertTrue(all(each.called for each in sent))
        self.assertEqual(peer.outbox.queued, 0)

    def test_flushAtOnce(self) -> None:
        """
        Where the schedule flushes at once, as without a reactor, each item has
        left when put() returns.
        """
        peer = Peer()
        peer.outbox = Outbox(peer.sendPiece, lambda: peer.outbox.flush())
        for number in range(3):
            put(peer.outbox, number)
            self.assertEqual(peer.messages()[-1], number)


class Windows(SynchronousTestCase):
    """
    A peer that does not acknowledge.
    """

    def test_window(self) -> None:
        """
        No more pieces than the window are on their way; each acknowledgement
        lets one more through.
        """
        peer = Peer()
        put(peer.outbox, b"x" * (20 * PIECE))
        peer.outbox.flush()
        peer.outbox.flush()
        self.assertEqual(len(peer.pieces), WINDOW)
        peer.acknowledge()
        self.assertEqual(len(peer.pieces), WINDOW + 1)

    def test_noWindow(self) -> None:
        """
        Where nobody would hear acknowledgements, everything leaves at once.
        """
        peer = Peer()
        peer.outbox.windowed = False
        put(peer.outbox, b"x" * (20 * PIECE))
        peer.outbox.flush()
        self.assertEqual(len(peer.messages()), 1)

    def test_full(self) -> None:
        """
        A peer that never reads does not grow our memory: from the limit on,
        put() fails with ChannelFull; when the peer reads, there is room again.
        """
        self.patch(module, "LIMIT", 1_000_000)
        peer = Peer()
        put_ = 0
        while True:
            sent = put(peer.outbox, b"x" * 1000)
            peer.outbox.flush()
            if sent.called:
                break
            put_ += 1
        self.failureResultOf(sent, ChannelFull)
        self.assertTrue(700 < put_ < 1000)
        self.assertTrue(peer.outbox.queued < 1_002_000)
        many = peer.outbox.putMany(b"m", [b"\xc0"] * 10)
        self.failureResultOf(many, ChannelFull)
        peer.acknowledge()
        self.assertNoResult(put(peer.outbox, b"x"))
        peer.acknowledgeAll()
        self.assertEqual(len(peer.messages()), put_ + 1)

    def test_smallItemsCount(self) -> None:
        """
        The limit holds for many tiny items as well: each counts with what it
        costs beside its bytes.
        """
        self.patch(module, "LIMIT", 10_000)
        peer = Peer()
        sent = [put(peer.outbox, 1) for _ in range(100)]
        full = [each for each in sent if each.called]
        self.assertTrue(len(full) > 50)
        for each in full:
            self.failureResultOf(each, ChannelFull)


class Unconfirmed(SynchronousTestCase):
    """
    Items of which nobody wants to know whether they have arrived.
    """

    def setUp(self) -> None:
        self.peer = Peer(confirmed=False)

    def put(self, size: int) -> Deferred[None]:
        """
        Put in an item, and send what can be sent.
        """
        sent = put(self.peer.outbox, b"x" * size)
        self.peer.outbox.flush()
        return sent

    def test_sent(self) -> None:
        """
        Their Deferreds fire when they were sent.
        """
        for _ in range(3):
            self.successResultOf(self.put(10))
        self.assertEqual(self.peer.waiting, [])
        self.assertEqual(self.peer.outbox.queued, 0)

    def test_someAreAcknowledged(self) -> None:
        """
        After so many bytes one is acknowledged, for all before it.
        """
        for _ in range(2):
            before = len(self.peer.pieces)
            while not self.peer.waiting:
                sent = self.put(1000)
            self.assertTrue(len(self.peer.pieces) - before <= PIECE / 1000)
            self.assertNoResult(sent)
            self.peer.acknowledge()
            self.successResultOf(sent)

    def test_longOnesAre(self) -> None:
        """
        One that takes several pieces is acknowledged as ever.
        """
        sent = self.put(2 * PIECE)
        self.assertEqual(len(self.peer.waiting), 3)
        self.peer.acknowledgeAll()
        self.successResultOf(sent)

    @given(st.lists(st.integers(0, 2 * PIECE), max_size=100), st.booleans())
    def test_bounded(self, sizes: list[int], tiny: bool) -> None:
        """
        When the other side acknowledges nothing, no more than two windows of
        bytes are on their way.
        """
        peer = Peer(confirmed=False)
        for size in sizes * 10:
            put(peer.outbox, b"x" * (size % 100 if tiny else size))
            peer.outbox.flush()
        onTheirWay = sum(len(data) for _, data, _ in peer.pieces)
        self.assertTrue(onTheirWay <= (2 * WINDOW + 1) * PIECE, onTheirWay)
        self.assertTrue(len(peer.waiting) <= WINDOW)

    def test_closed(self) -> None:
        """
        What was not sent fails when the connection ends.
        """
        waiting = [self.put(PIECE) for _ in range(WINDOW)]
        waiting.append(self.put(1))
        self.peer.outbox.close("gone")
        for each in waiting:
            self.failureResultOf(each, ChannelClosed)


class Waiters(SynchronousTestCase):
    """
    Those who wait for what they sent.
    """

    def test_acknowledged(self) -> None:
        """
        Deferreds fire with None when their batch has been acknowledged, in
        order.
        """
        peer = Peer()
        order: list[int] = []
        for number in range(5):
            sent = put(peer.outbox, number)
            sent.addCallback(lambda _, n: order.append(n), number)
        peer.outbox.flush()
        self.assertEqual(order, [])
        peer.acknowledge()
        self.assertEqual(order, [0, 1, 2, 3, 4])

    def test_awaitedInOrder(self) -> None:
        """
        A coroutine that awaits one after the other finds all of the batch done
        when the first is.
        """
        peer = Peer()
        sent = [put(peer.outbox, number) for number in range(5)]
        done: list[list[bool]] = []

        async def wait() -> None:
            await sent[0]
            done.append([bool(each.called) for each in sent])

        Deferred.fromCoroutine(wait())
        peer.acknowledgeAll()
        self.assertEqual(done, [[True] * 5])

    def test_lastPieceCounts(self) -> None:
        """
        Only the acknowledgement of the last piece is that of the item.
        """
        peer = Peer()
        sent = put(peer.outbox, b"x" * (2 * PIECE))
        peer.outbox.flush()
        peer.acknowledge()
        peer.acknowledge()
        self.assertNoResult(sent)
        peer.acknowledge()
        self.assertIsNone(self.successResultOf(sent))

    def test_refused(self) -> None:
        """
        Forwards that reached nobody fail, each with its reason, and the others
        of the batch do not.
        """
        peer = Peer()
        sent = [peer.outbox.put(b"f", pair(to, encode("hi", 100))) for to in (7, 8, 9)]
        peer.outbox.flush()
        [(_, batch)] = peer.batches()
        self.assertEqual([to for to, _ in splitForwards(batch)], [7, 8, 9])
        peer.acknowledge(UNKNOWN, TAKEN, FULL)
        self.failureResultOf(sent[0], UnknownWorker)
        self.successResultOf(sent[1])
        self.failureResultOf(sent[2], ChannelFull)

    def test_cancelled(self) -> None:
        """
        A waiter that was cancelled does not keep the others from firing, and
        its item is sent all the same.
        """
        peer = Peer()
        sent = [put(peer.outbox, number) for number in range(3)]
        sent[1].cancel()
        sent[1].addErrback(lambda _: None)
        peer.acknowledgeAll()
        self.successResultOf(sent[0])
        self.successResultOf(sent[2])
        self.assertEqual(peer.messages(), [0, 1, 2])

    def test_sendsWhenFired(self) -> None:
        """
        Who sends on when a message was taken over is served next turn.
        """
        peer = Peer()
        sent = put(peer.outbox, 1).addCallback(lambda _: put(peer.outbox, 2))
        peer.acknowledgeAll()
        self.assertNoResult(sent)
        peer.acknowledgeAll()
        self.successResultOf(sent)
        self.assertEqual(peer.messages(), [1, 2])


class Closing(SynchronousTestCase):
    """
    The end of the connection.
    """

    def test_failsAll(self) -> None:
        """
        Everybody who waits fails with ChannelClosed and the reason: whose item
        was sent, whose was not, and who comes later.
        """
        peer = Peer()
        sent = [put(peer.outbox, b"x" * (5 * PIECE)) for _ in range(3)]
        peer.outbox.flush()
        peer.outbox.close("the watcher is gone")
        peer.outbox.close("again")
        sent.append(put(peer.outbox, 1))
        sent.append(peer.outbox.putMany(b"m", [b"\xc0"]))
        for each in sent:
            failure = self.failureResultOf(each, ChannelClosed)
            self.assertEqual(str(failure.value), "the watcher is gone")
        self.assertEqual(peer.outbox.queued, 0)
        pieces = len(peer.pieces)
        peer.acknowledgeAll()
        self.assertEqual(len(peer.pieces), pieces)

    def test_quietly(self) -> None:
        """
        That nobody looks at a failure is no error of its own; whoever looks
        later sees it.
        """
        peer = Peer()
        put(peer.outbox, 1)
        late = put(peer.outbox, 2)
        peer.outbox.flush()
        put(peer.outbox, 3)
        peer.outbox.close("gone")
        put(peer.outbox, 4)
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])
        self.failureResultOf(late, ChannelClosed)

    def test_gathered(self) -> None:
        """
        The failure passes through what one usually does with Deferreds.
        """
        peer = Peer()
        both = gatherResults([put(peer.outbox, 1), put(peer.outbox, 2)], True)
        peer.outbox.close("gone")
        failure = self.failureResultOf(both, FirstError)
        self.assertTrue(failure.value.subFailure.check(ChannelClosed))

    def test_lostPiece(self) -> None:
        """
        A piece whose acknowledgement fails closes the outbox.
        """
        peer = Peer()
        sent = [put(peer.outbox, 1)]
        peer.outbox.flush()
        sent.append(put(peer.outbox, 2))
        peer.waiting.pop().errback(Failure(ConnectionError("reset")))
        for each in sent:
            self.failureResultOf(each, ChannelClosed)
