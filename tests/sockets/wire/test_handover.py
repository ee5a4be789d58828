"""
Handing sockets over and taking them.
"""

from __future__ import annotations

import os
import select
import socket
from typing import Any

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.trial.unittest import SynchronousTestCase

from tests.sockethelpers import descriptors, room
from tests.sockets.wire.handovers import End, HandoverTestCase
from twisted_cluster.errors import ChannelClosed, MessageTooLarge, ProtocolError
from twisted_cluster.sockets.wire.ancillary import receiveSome, sendDescriptors
from twisted_cluster.sockets.wire.frames import (
    encodeBatch,
    encodeGivenBack,
    encodeNote,
    encodeTaken,
)
from twisted_cluster.sockets.wire.handover import Handover
from twisted_cluster.testing import DescriptorReactor


class Sending(HandoverTestCase):
    """
    What is handed over arrives.
    """

    def test_order(self) -> None:
        """
        Sockets arrive in order, each with its own data, and each is answered.
        """
        files = [self.file() for _ in range(200)]
        for descriptor in files:
            self.one.send(descriptor)
        self.assertEqual(self.one.handover.unanswered, 200)
        self.reactor.settle()
        self.assertEqual(self.other.numbers, [*range(200)])
        for descriptor, arrival in zip(files, self.other.taken, strict=True):
            self.assertTrue(os.path.sameopenfile(descriptor, arrival.descriptor))
        self.assertEqual(self.one.answers, [(n, None) for n in range(200)])
        self.assertEqual(self.one.handover.unanswered, 0)

    def test_bothWays(self) -> None:
        """
        Both ends may hand over at the same time.
        """
        for _ in range(100):
            self.one.send(self.file(), 3000)
            self.other.send(self.file(), 3000)
        self.reactor.settle()
        self.assertEqual(self.one.numbers, [*range(100)])
        self.assertEqual(self.other.numbers, [*range(100)])

    def test_batches(self) -> None:
        """
        What is sent in one turn leaves together, up to 64 in one C{sendmsg}.
        """
        calls: list[int] = []
        real = self.one.transport._socket

        class Counting:
            fileno = real.fileno
            recvmsg = real.recvmsg
            shutdown = real.shutdown
            close = real.close
            send = real.send

            def sendmsg(self, data: Any, ancillary: Any) -> Any:
                calls.append(len(ancillary[0][2]))
                return real.sendmsg(data, ancillary)

        self.one.transport._socket = Counting()
        descriptor = self.file()
        for _ in range(130):
            self.one.send(descriptor)
        self.assertEqual(calls, [64, 64])
        self.reactor.settle()
        self.assertEqual(calls, [64, 64, 2])
        self.assertEqual(self.other.numbers, [*range(130)])

    def test_flush(self) -> None:
        """
        flush() lets what was sent leave at once, and a note does so, too, since
        it comes after what was sent before.
        """
        self.one.send(self.file())
        self.one.handover.flush()
        self.serve(self.other)
        self.assertEqual(self.other.numbers, [0])
        self.one.send(self.file())
        self.one.handover.note(b"after")
        self.serve(self.other)
        self.serve(self.other)
        self.assertEqual((self.other.numbers, self.other.notes), ([0, 1], [b"after"]))

    def test_large(self) -> None:
        """
        Ten megabytes among small ones: nothing is mixed up.
        """
        files = [self.file() for _ in range(9)]
        for number, descriptor in enumerate(files):
            self.one.send(descriptor, 10_000_000 if number in (3, 4) else number)
        self.assertTrue(self.one.handover.pending > 19_000_000)
        self.reactor.settle()
        self.assertEqual(self.one.handover.pending, 0)
        self.assertEqual(self.other.numbers, [*range(9)])
        self.assertEqual(len(self.other.taken[4].data), 10_000_008)
        self.assertEqual(len(self.other.taken[5].data), 13)
        for descriptor, arrival in zip(files, self.other.taken, strict=True):
            self.assertTrue(os.path.sameopenfile(descriptor, arrival.descriptor))

    def test_borrowed(self) -> None:
        """
        A socket that is handed over stays the sender's.
        """
        descriptor = self.file()
        self.one.send(descriptor)
        self.reactor.settle()
        os.fstat(descriptor)
        self.one.handover.abort()
        os.fstat(descriptor)

    def test_neverTakes(self) -> None:
        """
        When the receiver takes nothing, the sender sees how many it has not.
        """
        self.other.greedy = False
        for _ in range(100):
            self.one.send(self.file())
        self.reactor.settle()
        self.assertEqual((self.one.handover.unanswered, self.one.answers), (100, []))
        self.assertEqual(self.other.heard, ["arrived"] * len(self.other.heard))

    def test_tooLarge(self) -> None:
        """
        More data than the limit is refused at once; the connection goes on.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            handover = Handover(self.reactor, ours, largest=10)
            handover.start()
            error = self.assertRaises(MessageTooLarge, handover.send, 0, b"x" * 11, 0)
            self.assertEqual(str(error), "data of 11 bytes, over 10")
            self.assertEqual(handover.unanswered, 0)
            handover.send(0, b"x" * 10, 0)
            handover.abort()

    def test_notOpen(self) -> None:
        """
        Before the start and after the end nothing can be sent; what is sent
        between close() and the end is lost.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            handover = Handover(self.reactor, ours)
            self.assertRaises(ChannelClosed, handover.send, 0, b"", 0)
            handover.start()
            handover.abort()
            self.assertRaises(ChannelClosed, handover.send, 0, b"", 0)
            handover.note(b"unheard")
            handover.flush()
        self.one.handover.close()
        for _ in range(70):
            self.one.send(0)
        self.reactor.settle()
        self.assertEqual((self.one.lost, self.other.taken), ([*range(70)], []))
        self.assertRaises(ChannelClosed, self.one.handover.send, 0, b"", 0)

    def test_neverStarted(self) -> None:
        """
        What was never started can be closed and aborted, and starts no more.
        """
        for end in (Handover.close, Handover.abort):
            ours, theirs = socket.socketpair()
            with theirs:
                lost: list[Any] = []
                handover = Handover(self.reactor, ours)
                handover.lost = lambda why, tokens: lost.append(tokens)  # noqa: B023
                end(handover)
                handover.abort()
                handover.close()
                handover.start()
                self.assertEqual((lost, theirs.recv(1)), ([[]], b""))

    def test_closedTooEarly(self) -> None:
        """
        A sender that closes what it lent, before it has left, loses the
        connection and nothing else.
        """
        closed = os.dup(0)
        self.one.send(self.file())
        self.one.send(closed)
        os.close(closed)
        self.reactor.settle()
        self.assertEqual(self.one.lost, [0, 1])
        self.assertIn("Bad file descriptor", str(self.one.reason))

    def test_paused(self) -> None:
        """
        An end that was paused reads nothing until it is resumed.
        """
        self.other.handover.pauseProducing()
        self.one.send(self.file())
        self.reactor.settle()
        self.assertEqual((self.other.heard, self.one.handover.unanswered), ([], 1))
        self.other.handover.resumeProducing()
        self.reactor.settle()
        self.assertEqual(self.other.numbers, [0])


class Answering(HandoverTestCase):
    """
    What arrived is taken or given back.
    """

    def setUp(self) -> None:
        super().setUp()
        self.other.greedy = False

    def send(self, count: int) -> None:
        """
        Hand over that many.
        """
        for _ in range(count):
            self.one.send(self.file())
        self.reactor.settle()

    def test_mixed(self) -> None:
        """
        Some are taken and some given back, in the order in which they came.
        """
        self.send(10)
        self.assertEqual(self.other.take(2), 2)
        before = descriptors()
        self.other.handover.giveBack(3, "busy")
        self.assertEqual(descriptors(), before - 3)
        self.assertEqual(self.other.take(1), 1)
        self.other.handover.giveBack(1, "full")
        self.assertEqual(self.other.take(64), 3)
        self.assertEqual(self.other.take(64), 0)
        self.reactor.settle()
        self.assertEqual(
            self.one.answers,
            list(enumerate([None] * 2 + ["busy"] * 3 + [None, "full"] + [None] * 3)),
        )

    def test_most(self) -> None:
        """
        Not more are taken than were asked for; the others wait.
        """
        self.send(3)
        self.assertEqual(
            [self.other.take(n) for n in (0, -1, 2, 2, 2)], [0, 0, 2, 1, 0]
        )

    def test_wanted(self) -> None:
        """
        What is not wanted ends a take, and waits.
        """
        self.send(4)
        taken = self.other.handover.take(wanted=lambda each: int(each.data) != 2)
        self.other.taken += taken
        self.assertEqual(self.other.numbers, [0, 1])
        refused = self.other.handover.take(wanted=lambda each: False)
        self.assertEqual(refused, [])
        waits = self.other.handover.peek()
        assert waits is not None
        self.assertEqual(waits.data, b"%08d" % 2)
        self.assertEqual(self.other.take(), 2)
        self.reactor.settle()

    def test_wantedRaises(self) -> None:
        """
        When the question whether one is wanted raises, none was taken.
        """
        self.send(2)

        def wanted(arrival: Any) -> bool:
            return bool(1 // (1 - int(arrival.data)))

        self.assertRaises(ZeroDivisionError, self.other.handover.take, wanted=wanted)
        self.reactor.settle()
        self.assertEqual(self.one.answers, [])
        self.assertEqual(self.other.take(), 2)

    def test_giveBackMore(self) -> None:
        """
        Not more are given back than wait.
        """
        self.send(2)
        self.other.handover.giveBack(0, "none")
        self.other.handover.giveBack(-1, "none")
        self.other.handover.giveBack(70_000, "all")
        self.other.handover.giveBack(1, "none")
        self.reactor.settle()
        self.assertEqual(self.one.answers, [(0, "all"), (1, "all")])

    def test_reasonThatIsNoText(self) -> None:
        """
        Whatever the reason is, the order of the answers is kept.
        """
        self.send(2)
        self.other.handover.giveBack(1, "\udcff" * 5000)
        self.other.take()
        self.reactor.settle()
        self.assertEqual([token for token, _ in self.one.answers], [0, 1])

    def test_peek(self) -> None:
        """
        One may look at what waits without an answer.
        """
        self.assertIsNone(self.other.handover.peek())
        self.send(2)
        for expected in (b"%08d" % 0, b"%08d" % 1):
            arrival = self.other.handover.peek()
            assert arrival is not None
            self.assertEqual(arrival.data, expected)
            self.other.take(1)
        self.assertIsNone(self.other.handover.peek())

    def test_nobodySent(self) -> None:
        """
        Where nothing waits nothing is taken, and nothing said.
        """
        self.assertEqual(self.other.take(), 0)
        self.other.handover.giveBack(1, "why")
        self.reactor.settle()
        self.assertEqual(self.one.heard, [])

    def test_manyUnanswered(self) -> None:
        """
        More may wait than one read holds.
        """
        descriptor = self.file()
        for _ in range(500):
            self.one.send(descriptor)
        self.reactor.settle()
        while self.other.take(7):
            pass
        self.reactor.settle()
        self.assertEqual(self.one.takenByOther, [*range(500)])


class WordFirst(HandoverTestCase):
    """
    The word leaves before the socket is given.
    """

    def setUp(self) -> None:
        super().setUp()
        self.other.greedy = False
        self.one.send(self.file())
        self.one.send(self.file())
        self.reactor.settle()
        self.other.heard.clear()
        self.one.handover.pauseProducing()
        self.notes = self.stuff(self.other)

    def test_noRoomForTheWord(self) -> None:
        """
        While the channel back is full nothing is taken; when there is room
        C{arrived} is called.
        """
        self.assertEqual([self.other.take(), self.other.take()], [0, 0])
        self.reactor.settle()
        self.assertEqual((self.other.heard, self.other.take()), ([], 0))
        self.one.handover.resumeProducing()
        self.reactor.settle()
        self.assertEqual(self.other.heard, ["arrived"])
        self.assertEqual(self.one.answers, [])
        self.assertEqual(self.other.take(1), 1)
        self.reactor.settle()
        self.assertEqual(self.one.answers, [(0, None)])
        self.assertEqual(len(self.one.notes), self.notes)

    def whileTheWordWaits(self) -> None:
        """
        Say that both are taken with the channel so full that the word waits.
        """
        self.one.handover.resumeProducing()
        self.reactor.settle()
        self.other.heard.clear()
        self.one.handover.pauseProducing()
        self.fill()
        self.assertEqual(self.other.take(), 0)
        self.assertEqual(self.other.transport.pending, 5)

    def fill(self) -> None:
        """
        Fill the channel to the brim, with nothing left to send.
        """
        skt = self.other.transport._socket
        note = encodeNote(b"n")
        with self.assertRaises(BlockingIOError):
            while skt.send(note) == len(note):
                pass

    def test_wordWaits(self) -> None:
        """
        When the word itself does not leave, the sockets are given when it has.
        """
        self.whileTheWordWaits()
        self.assertEqual(self.other.take(), 0)
        self.one.handover.resumeProducing()
        self.other.greedy = True
        self.reactor.settle()
        self.assertEqual(self.other.heard, ["arrived"])
        self.assertEqual(self.other.numbers, [0, 1])

    def test_wordWaitsTakeLess(self) -> None:
        """
        Who takes fewer than it said gets the others next, whatever else is to be
        sent meanwhile.
        """
        self.whileTheWordWaits()
        self.one.handover.resumeProducing()
        self.reactor.settle()
        self.one.handover.pauseProducing()
        self.stuff(self.other)
        self.assertEqual([self.other.take(1) for _ in range(3)], [1, 1, 0])

    def test_lostBefore(self) -> None:
        """
        When the connection ends before the word has left, the sockets are closed
        here and lost to the sender.
        """
        self.whileTheWordWaits()
        self.one.handover.abort()
        self.reactor.settle()
        self.assertEqual((self.one.lost, self.other.taken), ([0, 1], []))
        self.assertNotIn("arrived", self.other.heard)

    def test_abortBefore(self) -> None:
        """
        The same, when the receiver ends it.
        """
        self.whileTheWordWaits()
        self.other.handover.abort()
        self.assertEqual(self.other.take(), 0)
        self.reactor.settle()
        self.one.handover.resumeProducing()
        self.reactor.settle()
        self.assertEqual((self.one.lost, self.other.taken), ([0, 1], []))

    def test_closeBefore(self) -> None:
        """
        A receiver that closes while its word waits gets the sockets when it has
        left: they count as taken.
        """
        self.whileTheWordWaits()
        self.other.handover.close()
        self.assertEqual(self.other.take(), 0)
        self.other.greedy = True
        self.one.handover.resumeProducing()
        self.reactor.settle()
        self.assertEqual((self.one.takenByOther, self.one.lost), ([0, 1], []))
        self.assertEqual(self.other.numbers, [0, 1])
        self.assertEqual(self.other.heard, ["arrived", "lost"])

    def test_lostRightAfter(self) -> None:
        """
        When the word has left, and what was written after it has not when the
        sender goes, the sockets are the receiver's.
        """
        self.whileTheWordWaits()
        self.other.handover.note(b"never read")
        real = self.other.transport._socket

        class GoneAfterTheWord:
            fileno = real.fileno
            recvmsg = real.recvmsg
            shutdown = real.shutdown
            close = real.close

            def send(gone, data: bytes) -> int:
                sent: int = real.send(data)
                self.one.handover.abort()
                return sent

        drain = self.one.transport
        while not select.select([], [real], [], 0)[1]:
            drain.doRead()
        self.other.transport._socket = GoneAfterTheWord()
        self.other.greedy = True
        self.serve(self.other, reading=False)
        self.assertEqual(self.one.takenByOther, [0, 1])
        self.assertEqual(self.other.numbers, [0, 1])
        self.assertEqual(self.other.heard, ["arrived", "lost"])

    def test_deadWhenTheWordIsWritten(self) -> None:
        """
        Nothing is taken from a sender that is gone, known or not.
        """
        self.one.handover.resumeProducing()
        self.reactor.settle()
        self.one.handover.abort()
        self.assertEqual(self.one.lost, [0, 1])
        self.assertEqual(self.other.take(), 0)
        self.reactor.settle()
        self.assertEqual(self.other.take(), 0)


class Ending(HandoverTestCase):
    """
    However it ends, each side knows what became of what it handed over.
    """

    def setUp(self) -> None:
        super().setUp()
        self.other.greedy = False

    def test_close(self) -> None:
        """
        close() gives back what waits, with the reason, and says what is left to
        say before the connection ends; what it handed over and is not answered
        by then is not taken any more.
        """
        self.one.send(self.file())
        self.one.send(self.file())
        self.reactor.settle()
        self.assertEqual(self.other.take(1), 1)
        self.other.send(self.file())
        notes = self.stuff(self.other)
        self.other.handover.close("going down")
        self.other.handover.close()
        self.reactor.settle()
        self.assertEqual(self.one.answers, [(0, None), (1, "going down")])
        self.assertEqual((self.one.lost, len(self.one.notes)), ([], notes))
        self.assertEqual(self.one.handover.pending, 0)

    def test_closeWithWordsUnderWay(self) -> None:
        """
        Answers that the other side has given by the end are told, also when
        they are not read when close() is called.
        """
        for _ in range(3):
            self.one.send(self.file())
        self.reactor.settle()
        self.other.take(1)
        self.one.handover.close()
        self.other.take(1)
        self.serve(self.one, reading=False)
        self.assertEqual((self.one.takenByOther, self.one.lost), ([0, 1], [2]))
        self.assertEqual(self.other.take(), 0)

    def test_abortWithWordsUnderWay(self) -> None:
        """
        The same, when the sender aborts.
        """
        for _ in range(3):
            self.one.send(self.file())
        self.reactor.settle()
        self.other.take(1)
        self.other.handover.giveBack(1, "no")
        self.one.handover.abort()
        self.assertEqual(self.one.answers, [(0, None), (1, "no")])
        self.assertEqual((self.one.lost, self.other.take()), ([2], 0))
        self.assertIsInstance(self.one.reason, ConnectionDone)

    def test_abortWhileAWordIsSaid(self) -> None:
        """
        Once the last word was read no other can be said, however late that is
        tried: what the sender has for lost is not taken.
        """
        self.one.send(self.file())
        self.reactor.settle()
        real = self.one.transport._socket
        tried: list[int] = []

        class Late:
            fileno = real.fileno
            shutdown = real.shutdown

            def recvmsg(late, *args: Any) -> Any:
                try:
                    return real.recvmsg(*args)
                finally:
                    tried.append(self.other.take())

            def close(late) -> None:
                tried.append(self.other.take())
                real.close()

        self.one.transport._socket = Late()
        self.one.handover.abort()
        self.assertEqual((tried, self.one.lost), ([0, 0], [0]))

    def test_notFlushed(self) -> None:
        """
        What did not leave is lost.
        """
        self.one.send(self.file())
        self.one.handover.abort()
        self.reactor.settle()
        self.assertEqual((self.one.lost, self.other.heard), ([0], ["lost"]))

    def test_closeNotFlushed(self) -> None:
        """
        close() lets it leave; it is lost, and never taken, all the same.
        """
        self.one.send(self.file())
        self.one.handover.close()
        self.reactor.settle()
        self.assertEqual((self.one.lost, self.other.taken), ([0], []))

    def test_everywhere(self) -> None:
        """
        What was taken, waits there, is under way, is cut by the kernel and was
        not flushed: all but the first is lost, in order.
        """
        self.one.send(self.file())
        self.one.send(self.file())
        self.reactor.settle()
        self.other.take(1)
        self.one.send(self.file(), 5_000_000)
        self.serve(self.other)
        self.serve(self.other)
        self.one.send(self.file())
        self.one.handover.flush()
        self.one.send(self.file())
        self.assertTrue(self.one.transport.pending)
        self.other.handover.abort()
        self.reactor.settle()
        self.assertEqual((self.one.takenByOther, self.one.lost), ([0], [1, 2, 3, 4]))

    def test_halfAFrame(self) -> None:
        """
        A sender that goes within a frame is in error; one that ends it itself
        is told so.
        """
        self.one.send(self.file(), 5_000_000)
        self.one.handover.flush()
        self.serve(self.other)
        self.one.handover.abort()
        self.reactor.settle()
        self.assertIsInstance(self.other.reason, ProtocolError)
        self.assertIn("within a frame", str(self.other.reason))
        self.assertIsInstance(self.one.reason, ConnectionDone)

    def test_abortWithinAFrame(self) -> None:
        """
        Who aborts within a frame of the other side is told no more than that.
        """
        self.one.send(self.file(), 5_000_000)
        self.one.handover.flush()
        self.serve(self.other)
        self.other.handover.abort()
        self.assertIsInstance(self.other.reason, ConnectionDone)

    def test_pausedAndGone(self) -> None:
        """
        An end that is paused still reads all words when a write finds the other
        side gone.
        """
        self.one.send(self.file())
        self.reactor.settle()
        self.one.handover.pauseProducing()
        self.other.take()
        self.other.handover.note(b"last")
        self.other.handover.abort()
        self.one.handover.note(b"unheard")
        self.reactor.settle()
        self.assertEqual((self.one.takenByOther, self.one.notes), ([0], [b"last"]))
        self.assertEqual(self.one.heard[-1], "lost")

    def test_drain(self) -> None:
        """
        drain() reads everything at once.
        """
        self.one.send(self.file())
        self.reactor.settle()
        self.other.take()
        self.one.handover.drain()
        self.assertEqual(self.one.heard, ["answered"])
        self.other.handover.abort()
        self.one.handover.drain()
        self.assertEqual(self.one.heard, ["answered", "lost"])

    def test_afterTheEnd(self) -> None:
        """
        Nothing can be done after the end, and nothing happens.
        """
        self.one.send(self.file())
        self.reactor.settle()
        for end in (self.other, self.one):
            end.handover.abort()
            end.handover.abort()
            end.handover.close()
            end.handover.drain()
            end.handover.giveBack(1, "why")
            end.handover.note(b"x")
            end.handover.pauseProducing()
            end.handover.resumeProducing()
            self.assertEqual(end.take(), 0)
            self.assertIsNone(end.handover.peek())
        self.reactor.settle()


class Reentrant(HandoverTestCase):
    """
    Who is told something may do anything.
    """

    def setUp(self) -> None:
        super().setUp()
        self.other.greedy = False

    def words(self, count: int = 3) -> None:
        """
        Hand over, and let words and other things be on their way back.
        """
        for _ in range(count):
            self.one.send(self.file())
        self.reactor.settle()
        self.other.take(1)
        self.other.handover.note(b"note")
        self.other.send(self.file())
        self.other.take(1)
        self.other.handover.giveBack(count, "rest")
        self.other.handover.flush()

    def once(self, end: End, what: str, does: Any) -> None:
        """
        Do something the first time that an end is told something.
        """

        def react(told: str) -> None:
            if told == what:
                end.react = lambda told: None
                does()

        end.react = react

    def check(self, does: Any) -> None:
        """
        All words are told, in order, although the first one ends it.
        """
        self.words()
        self.once(self.one, "answered", does)
        self.serve(self.one)
        self.reactor.settle()
        self.assertEqual(self.one.answers, [(0, None), (1, None), (2, "rest")])
        self.assertEqual(self.one.lost, [])

    def test_abortWhenAnswered(self) -> None:
        """
        Aborting when told the first of several answers: the others are told,
        then the end; nothing else is.
        """
        self.check(self.one.handover.abort)
        self.assertEqual(self.one.heard, ["answered"] * 3 + ["lost"])
        self.assertEqual(self.other.lost, [0])

    def test_closeWhenAnswered(self) -> None:
        """
        The same for closing.
        """
        self.check(self.one.handover.close)
        self.assertEqual(self.one.heard, ["answered"] * 3 + ["lost"])
        self.assertEqual(self.other.lost, [0])

    def test_sendWhileItEnds(self) -> None:
        """
        Who hands over the next when told of one, after it has aborted, is told
        that it is lost.
        """
        self.words()
        self.one.react = lambda what: what == "answered" and self.one.send(0)
        self.one.handover.abort()
        self.assertEqual(len(self.one.answers), 3)
        self.assertEqual(self.one.lost, [3, 4, 5])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_drainWhenAnswered(self) -> None:
        """
        Reading on while an answer is told does not change the order.
        """
        self.words()

        def more() -> None:
            self.one.send(self.file())
            self.one.handover.flush()
            self.other.handover.drain()
            self.other.take()
            self.one.handover.drain()
            self.assertEqual(self.one.heard, ["answered"], "not from within")

        self.once(self.one, "answered", more)
        self.reactor.settle()
        self.assertEqual(
            self.one.answers, [(0, None), (1, None), (2, "rest"), (3, None)]
        )

    def test_takeWhenAnswered(self) -> None:
        """
        What waits may be taken at any time.
        """
        self.one.greedy = False
        self.one.send(self.file())
        self.other.send(self.file())
        self.reactor.settle()
        self.one.react = lambda what: self.one.take()
        self.other.take()
        self.reactor.settle()
        self.assertEqual(self.one.heard, ["arrived", "answered"])
        self.assertEqual(self.one.numbers, [0])

    def test_sendWhenAnswered(self) -> None:
        """
        One may hand over the next when the last was answered.
        """
        self.other.greedy = True
        descriptor = self.file()
        self.one.react = lambda what: (
            self.one.send(descriptor) if len(self.one.sent) < 500 else None
        )
        self.one.send(descriptor)
        self.reactor.settle()
        self.assertEqual(self.one.takenByOther, [*range(500)])

    def test_giveBackWhenArrived(self) -> None:
        """
        Giving back and sending back from within C{arrived}.
        """

        def bounce(told: str) -> None:
            while told == "arrived" and self.other.handover.peek() is not None:
                self.other.handover.giveBack(1, "full")
                self.other.send(self.open[0])

        self.other.react = bounce
        for _ in range(70):
            self.one.send(self.file())
        self.reactor.settle()
        self.assertEqual(self.one.givenBack, [*range(70)])
        self.assertEqual(self.one.numbers, [*range(70)])

    def test_abortWhenArrived(self) -> None:
        """
        Who aborts when something arrived gets none of it.
        """
        self.other.greedy = True
        self.once(self.other, "arrived", self.other.handover.abort)
        self.one.send(self.file())
        self.reactor.settle()
        self.assertEqual((self.one.lost, self.other.taken), ([0], []))

    def test_closeWhenNoted(self) -> None:
        """
        Who closes when told a note has given back what came before it and takes
        nothing of what came after it.
        """
        self.once(self.other, "noted", self.other.handover.close)
        self.one.send(self.file())
        self.one.handover.note(b"note")
        self.one.send(self.file())
        self.one.handover.flush()
        self.reactor.settle()
        self.assertEqual((self.one.givenBack, self.one.lost), ([0], [1]))

    def test_closeWhileDraining(self) -> None:
        """
        Nothing is taken after close(), also when more is read.
        """
        self.other.greedy = True
        self.once(self.other, "noted", self.other.handover.close)
        self.one.handover.note(b"note")
        self.one.send(self.file(), 300_000)
        self.one.handover.flush()
        self.other.handover.drain()
        self.assertEqual(self.other.take(), 0)
        self.reactor.settle()
        self.assertEqual(self.one.lost, [0])

    def test_whenLost(self) -> None:
        """
        At the end nothing can be sent; and what is done besides does no harm.
        """

        def last(told: str) -> None:
            if told == "lost":
                self.assertRaises(ChannelClosed, self.one.send, 0)
                self.one.handover.abort()
                self.one.handover.close()
                self.one.handover.drain()
                self.assertEqual(self.one.take(), 0)

        self.one.react = last
        self.words()
        self.one.handover.abort()
        self.assertEqual(self.one.heard[-1], "lost")
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_drainedAgain(self) -> None:
        """
        When the channel is full again by what is done in C{arrived}, it is called
        again.
        """
        for _ in range(3):
            self.one.send(self.file())
        self.reactor.settle()
        self.other.heard.clear()

        def fill(told: str) -> None:
            if told == "arrived" and len(self.other.heard) < 5:
                self.stuff(self.other)

        self.other.react = fill
        self.other.greedy = True
        self.stuff(self.other)
        self.assertEqual(self.other.take(), 0)
        self.reactor.settle()
        self.assertEqual(len(self.other.heard), 5)
        self.assertEqual(self.other.numbers, [0, 1, 2])

    def test_raises(self) -> None:
        """
        An error of whoever is told is logged, and the rest is told.
        """

        def fail(told: str) -> None:
            raise ValueError(told)

        self.one.react = fail
        self.words()
        self.reactor.settle()
        self.assertEqual(self.one.answers, [(0, None), (1, None), (2, "rest")])
        self.assertEqual(self.one.notes, [b"note"])
        self.one.handover.abort()
        told = [str(each.value) for each in self.flushLoggedErrors(ValueError)]
        self.assertEqual(
            told, ["answered", "noted", "answered", "answered", "arrived", "lost"]
        )

    def test_refuses(self) -> None:
        """
        Who is told nonsense ends the connection with a ProtocolError; the words
        that came before and after it are told.
        """

        def refuse(told: str) -> None:
            if told == "noted":
                raise ProtocolError("nonsense")

        self.one.react = refuse
        self.words()
        self.serve(self.one)
        self.assertEqual(self.one.answers, [(0, None), (1, None), (2, "rest")])
        self.assertEqual(self.one.heard.count("arrived"), 0)
        self.assertEqual(str(self.one.reason), "nonsense")
        self.reactor.settle()
        self.assertEqual(self.other.lost, [0])

    def test_refusesWhatIsStillUnderWay(self) -> None:
        """
        The same, with words that were not read yet.
        """

        def refuse(told: str) -> None:
            if told == "noted":
                self.other.take(1)
                raise ProtocolError("nonsense")

        self.one.react = refuse
        self.one.send(self.file())
        self.reactor.settle()
        self.other.handover.note(b"x")
        self.serve(self.one)
        self.assertEqual((self.one.takenByOther, self.other.numbers), ([0], [0]))

    def test_arrivedRefuses(self) -> None:
        """
        The same from within C{arrived}, whoever calls it.
        """

        def refuse(told: str) -> None:
            if told == "arrived":
                raise ProtocolError("not here")

        self.other.react = refuse
        self.one.send(self.file())
        self.reactor.settle()
        self.assertEqual(str(self.other.reason), "not here")
        self.assertEqual(self.one.lost, [0])


class Limits(HandoverTestCase):
    """
    A receiver at its limit of open files.
    """

    def test_someDropped(self) -> None:
        """
        What the kernel dropped is given back, with that reason; the others have
        their own data, and later ones arrive.
        """
        self.other.greedy = False
        files = [self.file() for _ in range(100)]
        for descriptor in files:
            self.one.send(descriptor)
        self.one.handover.flush()
        with room(10):
            self.serve(self.other)
        self.serve(self.other)
        self.reactor.settle()
        while self.other.take():
            pass
        self.reactor.settle()
        self.assertEqual(self.one.givenBack, [*range(10, 64)])
        self.assertEqual(self.other.numbers, [*range(10), *range(64, 100)])
        reasons = {why for _, why in self.one.answers if why is not None}
        [reason] = reasons
        self.assertIn("Too many open files", reason)
        for arrival in self.other.taken:
            self.assertTrue(
                os.path.sameopenfile(files[int(arrival.data)], arrival.descriptor)
            )

    def test_allDropped(self) -> None:
        """
        When there is no room at all nothing arrives, and the connection goes on.
        """
        for _ in range(3):
            self.one.send(self.file())
        self.one.handover.flush()
        with room(0):
            self.serve(self.other)
        self.assertEqual(self.other.heard, [])
        self.one.send(self.file())
        self.reactor.settle()
        self.assertEqual((self.one.givenBack, self.other.numbers), ([0, 1, 2], [3]))

    def test_oneWord(self) -> None:
        """
        Those that did not arrive are given back by one word.
        """
        for _ in range(64):
            self.one.send(self.file())
        self.one.handover.pauseProducing()
        with room(0):
            self.serve(self.other)
        data = self.one.transport._socket.recv(65536)
        self.assertEqual(data[:3], b"R\0\x40")
        self.assertTrue(len(data) < 100, data)
        self.one.handover.abort()
        self.one.lost.clear()
        self.one.sent.clear()

    def test_inTheMiddle(self) -> None:
        """
        One may look, take and give back with some missing between.
        """
        self.other.greedy = False
        for number in (4, 4, 4):
            for _ in range(number):
                self.one.send(self.file())
            self.one.handover.flush()
            with room(2):
                self.serve(self.other)
        seen: list[int] = []
        for take in (True, False, True, False, True, False):
            arrival = self.other.handover.peek()
            assert arrival is not None
            seen.append(int(arrival.data))
            if take:
                self.assertEqual(self.other.take(1), 1)
            else:
                self.other.handover.giveBack(1, "mine")
        self.assertIsNone(self.other.handover.peek())
        self.assertEqual(seen, [0, 1, 4, 5, 8, 9])
        self.reactor.settle()
        why = [each and each[:4] for _, each in self.one.answers]
        self.assertEqual(why, [None, "mine", "the ", "the "] * 3)

    def test_endAtTheLimit(self) -> None:
        """
        The end is told and everything closed also with no room.
        """
        self.one.send(self.file())
        self.one.handover.flush()
        with room(0):
            self.other.handover.abort()
            self.one.handover.abort()
        self.assertEqual(self.one.lost, [0])


class Nonsense(SynchronousTestCase):
    """
    What the other side must not say.
    """

    def setUp(self) -> None:
        self.before = descriptors()
        self.reactor = DescriptorReactor()
        ours, self.raw = socket.socketpair()
        self.end = End(self.reactor, ours)
        self.end.handover.start()

    def tearDown(self) -> None:
        self.end.handover.abort()
        self.raw.close()
        for arrival in self.end.taken:
            os.close(arrival.descriptor)
        self.assertEqual(descriptors(), self.before)
        self.assertEqual(self.reactor.removeAll(), [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def assertRefused(self, why: str) -> None:
        """
        The connection ends for that reason.
        """
        self.reactor.settle()
        self.assertIsInstance(self.end.reason, ProtocolError)
        self.assertIn(why, str(self.end.reason))
        self.assertEqual(self.end.heard[-1], "lost")

    def test_noDescriptor(self) -> None:
        """
        A frame without its descriptors.
        """
        self.raw.send(encodeBatch([b"x"]))
        self.assertRefused("a frame came without its descriptor")

    def test_noFrame(self) -> None:
        """
        Descriptors without their frame.
        """
        sendDescriptors(self.raw, memoryview(encodeNote(b"x")), [0, 1])
        self.assertRefused("a descriptor came without its frame")

    def test_wrongCount(self) -> None:
        """
        A frame with too many or too few descriptors.
        """
        sendDescriptors(self.raw, memoryview(encodeBatch([b"x"])), [0, 1])
        self.assertRefused("2 descriptors for 1 sockets")

    def test_unknown(self) -> None:
        """
        A frame of an unknown kind; words that came before it count.
        """
        self.end.send(0)
        self.end.send(0)
        self.end.handover.flush()
        self.raw.send(encodeTaken(1) + b"?" + encodeTaken(1))
        self.assertRefused("a frame of unknown kind b'?'")
        self.assertEqual((self.end.takenByOther, self.end.lost), ([0], [1]))

    def test_neverSent(self) -> None:
        """
        Answers to what was never sent, or has not left.
        """
        self.end.send(0)
        self.end.handover.flush()
        self.end.send(0)
        self.raw.send(encodeTaken(2))
        self.serve()
        self.assertRefused("answers to what was never sent")
        self.assertEqual((self.end.answers, self.end.lost), ([], [0, 1]))

    def test_neverSentGivenBack(self) -> None:
        """
        Nor may be given back what was never sent.
        """
        self.raw.send(encodeGivenBack(1, "why"))
        self.assertRefused("answers to what was never sent")

    def full(self) -> int:
        """
        Send, one a batch, until the kernel takes no more.

        @return: how many sockets it has; one more waits here.
        """
        while not self.end.transport.pending:
            self.end.send(0)
            self.end.handover.flush()
        return len(self.end.sent) - 1

    def test_notLeft(self) -> None:
        """
        Nor may be answered what the kernel has not taken yet: its sender would
        close a descriptor whose number leaves later, as another file.
        """
        sent = self.full()
        self.raw.send(encodeTaken(sent))
        self.serve()
        self.assertEqual(self.end.takenByOther, [*range(sent)])
        self.raw.send(encodeTaken(1))
        self.assertRefused("answers to what was never sent")
        self.assertEqual((len(self.end.answers), self.end.lost), (sent, [sent]))

    def test_notLeftGivenBack(self) -> None:
        """
        Nor may it be given back.
        """
        sent = self.full()
        self.raw.send(encodeGivenBack(sent + 1, "why"))
        self.assertRefused("answers to what was never sent")
        self.assertEqual((self.end.answers, len(self.end.lost)), ([], sent + 1))

    def test_notLeftAtTheEnd(self) -> None:
        """
        Last words are held to that, too, whichever side ends the connection.
        """
        sent = self.full()
        self.raw.send(encodeTaken(sent) + encodeTaken(1))
        self.end.handover.abort()
        self.assertRefused("answers to what was never sent")
        self.assertEqual((len(self.end.answers), self.end.lost), (sent, [sent]))

    def test_leftWithItsFirstByte(self) -> None:
        """
        A socket has left with the first byte of its batch, and may be answered
        from then on, though most of the data has not left.
        """
        self.end.send(0, 5_000_000)
        self.end.handover.flush()
        self.end.send(0)
        self.end.handover.flush()
        self.raw.send(encodeTaken(1))
        self.serve()
        self.assertEqual(self.end.takenByOther, [0])
        self.raw.send(encodeTaken(1))
        self.assertRefused("answers to what was never sent")
        self.assertEqual(self.end.lost, [1])

    def test_leftLater(self) -> None:
        """
        What waited may be answered once the kernel has taken it.
        """
        sent = self.full()
        while self.end.transport.pending:
            for descriptor in receiveSome(self.raw, 1000)[1]:
                os.close(descriptor)
            self.end.transport.doWrite()
        self.raw.send(encodeTaken(sent + 1))
        self.serve()
        self.assertEqual(self.end.takenByOther, [*range(sent + 1)])

    def test_halfAFrame(self) -> None:
        """
        Half a frame, and the end: the descriptors that came with it are closed.
        """
        sendDescriptors(self.raw, memoryview(encodeBatch([b"xy", b"z"])[:6]), [0, 1])
        self.raw.shutdown(socket.SHUT_WR)
        self.assertRefused("the stream ended within a frame")
        self.assertEqual(self.end.taken, [])

    def test_goodThenBad(self) -> None:
        """
        What came whole before nonsense has arrived; after it nothing can be
        taken.
        """
        data = encodeBatch([b"0", b"1"]) + b"?"
        sendDescriptors(self.raw, memoryview(data), [0, 1])
        self.end.greedy = False
        self.end.react = lambda what: self.end.take(1)
        self.assertRefused("a frame of unknown kind")
        self.assertEqual(self.end.numbers, [0])

    def test_more(self) -> None:
        """
        What follows nonsense, descriptors too, is closed.
        """
        self.raw.send(b"?")
        sendDescriptors(self.raw, memoryview(encodeBatch([b"x"])), [0])
        self.assertRefused("a frame of unknown kind")

    def test_end(self) -> None:
        """
        A connection that ends between frames has ended, no more.
        """
        self.raw.close()
        self.reactor.settle()
        self.assertIsInstance(self.end.reason, ConnectionDone)

    def test_reset(self) -> None:
        """
        When the other side goes with something unread, what it said before is
        heard.
        """
        self.end.send(0)
        self.end.handover.flush()
        self.raw.send(encodeTaken(1))
        self.raw.close()
        self.reactor.settle()
        self.assertEqual((self.end.takenByOther, self.end.lost), ([0], []))
        self.assertIsInstance(
            self.end.reason, (ConnectionDone, ConnectionLost, OSError)
        )

    def serve(self) -> None:
        """
        Read once, before the turn ends.
        """
        self.end.transport.doRead()
