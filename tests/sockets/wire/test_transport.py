"""
Bytes and descriptors over UNIX sockets.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
from typing import Any, Optional

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import main
from twisted.internet.error import (
    ConnectionDone,
    ConnectionLost,
    FileDescriptorOverrun,
)
from twisted.internet.interfaces import (
    IReactorFDSet,
    IReactorTime,
    IReadDescriptor,
    ITransport,
    IUNIXTransport,
    IWriteDescriptor,
)
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.sockethelpers import descriptors, room
from twisted_cluster.errors import ProtocolError
from twisted_cluster.sockets.wire.lastwords import LastWords
from twisted_cluster.sockets.wire.transport import UNIXTransport

MOST = 253


@implementer(IReactorFDSet, IReactorTime)
class Reactor(Clock):
    """
    Watches descriptors, one turn whenever it is told to.
    """

    def __init__(self) -> None:
        super().__init__()
        self.readers: dict[Any, None] = {}
        self.writers: dict[Any, None] = {}
        self.wakes = 0

    def addReader(self, reader: IReadDescriptor) -> None:
        self.readers[reader] = None

    def addWriter(self, writer: IWriteDescriptor) -> None:
        self.writers[writer] = None

    def removeReader(self, reader: IReadDescriptor) -> None:
        self.readers.pop(reader, None)

    def removeWriter(self, writer: IWriteDescriptor) -> None:
        self.writers.pop(writer, None)

    def removeAll(self) -> Any:
        self.readers, self.writers = {}, {}
        return []

    def getReaders(self) -> Any:
        return list(self.readers)

    def getWriters(self) -> Any:
        return list(self.writers)

    def turn(self) -> bool:
        """
        Serve who can be served now, as a reactor does.

        @return: whether there was anybody.
        """
        can = select.select(list(self.readers), list(self.writers), [], 0)
        for selectables, method in ((can[0], "doRead"), (can[1], "doWrite")):
            for each in selectables:
                if each in self.readers or each in self.writers:
                    self.wakes += 1
                    why = getattr(each, method)()
                    if why is not None:
                        each.connectionLost(Failure(why))
        return bool(can[0] or can[1])

    def settle(self) -> None:
        """
        Take turns until there is nothing to do.
        """
        for _ in range(100_000):
            if not self.turn():
                return
        raise AssertionError("it never ends: somebody spins")


class Recorder:
    """
    A protocol that records what it hears, and closes what it is given.
    """

    def __init__(self) -> None:
        self.data = b""
        self.descriptors: list[int] = []
        self.heard: list[Any] = []
        self.lost: list[Failure] = []
        self.transport: Any = None
        self.closeOnDescriptor = False
        self.error: Optional[Exception] = None

    def makeConnection(self, transport: ITransport) -> None:
        self.transport = transport

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        self.heard.append(data)

    def fileDescriptorReceived(self, descriptor: int) -> None:
        self.descriptors.append(descriptor)
        self.heard.append(descriptor)
        if self.closeOnDescriptor:
            self.transport.abortConnection()
        if self.error is not None:
            raise self.error

    def connectionLost(self, reason: Failure) -> None:
        self.lost.append(reason)


class TransportTestCase(SynchronousTestCase):
    """
    Two transports, joined; afterwards no descriptor may be left open.
    """

    here: Any
    there: Any

    def setUp(self) -> None:
        self.before = descriptors()
        self.reactor = Reactor()
        ours, theirs = socket.socketpair()
        self.here, self.there = Recorder(), Recorder()
        self.one = UNIXTransport(self.reactor, ours, self.here)
        self.other = UNIXTransport(self.reactor, theirs, self.there)
        self.one.start()
        self.other.start()

    def tearDown(self) -> None:
        for transport, protocol in ((self.one, self.here), (self.other, self.there)):
            transport.discard()
            for descriptor in protocol.descriptors:
                os.close(descriptor)
        self.assertEqual(descriptors(), self.before)
        self.assertEqual((self.reactor.readers, self.reactor.writers), ({}, {}))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def pipe(self) -> int:
        """
        The reading end of a pipe; it is closed with the test.
        """
        reading, writing = os.pipe()
        os.close(writing)
        return reading

    def stuff(self) -> int:
        """
        Write until the kernel takes no more.

        @return: how many bytes that was.
        """
        written = 0
        while not self.one.pending:
            self.one.write(b"x" * 65536)
            written += 65536
        return written


class Bytes(TransportTestCase):
    """
    Bytes only.
    """

    def test_interfaces(self) -> None:
        """
        It is a UNIX transport that a reactor can serve.
        """
        for interface in (IUNIXTransport, IReadDescriptor, IWriteDescriptor):
            verifyObject(interface, self.one)
        self.assertIs(self.here.transport, self.one)
        self.assertEqual(self.one.logPrefix(), "Recorder")
        self.assertEqual(self.one.getHost(), self.one.getPeer())

    def test_atOnce(self) -> None:
        """
        What the kernel takes has left when write() returns.
        """
        self.one.write(b"hello ")
        self.one.writeSequence([b"wor", b"ld"])
        self.assertEqual((self.one.pending, self.reactor.getWriters()), (0, []))
        self.other.doRead()
        self.assertEqual(self.there.data, b"hello world")

    def test_long(self) -> None:
        """
        What the kernel does not take leaves when it does; meanwhile it is
        pending.
        """
        self.one.write(b"x" * 5_000_000)
        self.assertTrue(4_000_000 < self.one.pending < 5_000_000)
        self.one.write(b"y")
        self.reactor.settle()
        self.assertEqual(self.there.data, b"x" * 5_000_000 + b"y")
        self.assertEqual((self.one.pending, self.reactor.getWriters()), (0, []))

    @given(st.lists(st.integers(0, 300_000), max_size=20), st.randoms())
    def test_order(self, sizes: list[int], random: Any) -> None:
        """
        Bytes arrive in the order of the writes, whoever is served when.
        """
        self.reactor.settle()
        self.there.data = b""
        expected = b""
        for number, size in enumerate(sizes):
            data = bytes([number]) * size
            expected += data
            self.one.write(data)
            if random.random() < 0.3:
                self.reactor.turn()
        self.reactor.settle()
        self.assertTrue(self.there.data == expected)

    def test_loseConnection(self) -> None:
        """
        The connection is closed when everything has been sent; what is written
        after that is not.
        """
        self.one.write(b"x" * 1_000_000)
        self.one.loseConnection()
        self.one.loseConnection()
        self.one.write(b"more")
        self.reactor.settle()
        self.assertEqual(len(self.there.data), 1_000_000)
        for protocol in (self.here, self.there):
            [reason] = protocol.lost
            self.assertTrue(reason.check(ConnectionDone))
        self.assertEqual(self.one.fileno(), -1)

    def test_abort(self) -> None:
        """
        An aborted connection ends at once, and what waits is lost.
        """
        self.stuff()
        self.one.abortConnection()
        [reason] = self.here.lost
        self.assertTrue(reason.check(ConnectionLost))
        self.one.abortConnection()
        self.one.loseConnection()
        self.one.write(b"x")
        self.one.connectionLost(Failure(main.CONNECTION_DONE))
        self.assertEqual(len(self.here.lost), 1)

    def test_lastWords(self) -> None:
        """
        What a peer wrote before it went is read, also when it is a write of
        ours that finds it gone.
        """
        self.other.write(b"last words" * 10_000)
        self.other.discard()
        self.one.write(b"x")
        [writer] = self.reactor.getWriters()
        self.assertIsNone(writer.doWrite())
        self.assertEqual(self.here.data, b"last words" * 10_000)
        self.assertEqual(len(self.here.lost), 1)

    def test_drain(self) -> None:
        """
        drain() reads everything that has arrived, to the end if that has.
        """
        self.other.write(b"x" * 100_000)
        self.one.drain()
        self.assertEqual((len(self.here.data), self.here.lost), (100_000, []))
        self.other.write(b"y")
        self.other.discard()
        self.one.drain()
        self.assertEqual(self.here.data[-1:], b"y")
        self.assertEqual(len(self.here.lost), 1)
        self.one.drain()

    def test_detach(self) -> None:
        """
        A detached socket is the caller's, with what was not sent; the protocol
        is told nothing.
        """
        written = self.stuff()
        self.one.sendFileDescriptor(0)
        pending = self.one.pending
        skt, unsent = self.one.detach()
        self.addCleanup(skt.close)
        self.assertEqual(len(unsent), pending)
        self.reactor.settle()
        self.assertEqual(len(self.there.data), written - pending)
        self.assertEqual(self.here.lost, [])
        self.assertNotIn(self.one, self.reactor.readers)

    def test_neverStarted(self) -> None:
        """
        A transport that was never started can be discarded.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            UNIXTransport(self.reactor, ours, self.here).discard()
            self.assertEqual(theirs.recv(1), b"")
        self.assertEqual(self.here.lost, [])


class Descriptors(TransportTestCase):
    """
    Descriptors, too.
    """

    def names(self, numbers: list[int]) -> list[str]:
        """
        What descriptors are.
        """
        return [os.readlink(f"/proc/self/fd/{number}") for number in numbers]

    def test_duplicated(self) -> None:
        """
        A descriptor is duplicated when it is queued: its owner may close it,
        and the number be reused, before it is written.
        """
        self.stuff()
        mine = self.pipe()
        what = self.names([mine])
        self.one.sendFileDescriptor(mine)
        os.close(mine)
        again = self.pipe()
        self.one.write(b"!")
        self.reactor.settle()
        self.assertEqual(self.names(self.there.descriptors), what)
        os.close(again)

    def test_closedOnceWritten(self) -> None:
        """
        The duplicate is closed when it was written.
        """
        before = descriptors()
        self.one.sendFileDescriptor(0)
        self.assertEqual(descriptors(), before + 1)
        self.one.write(b"!")
        self.assertEqual(descriptors(), before)

    def test_closedWhenLost(self) -> None:
        """
        Duplicates that were never written are closed with the connection,
        those that wait for a write and those that wait for the kernel.
        """
        before = descriptors()
        self.stuff()
        self.one.sendFileDescriptor(0)
        self.one.write(b"!")
        self.one.sendFileDescriptor(0)
        self.assertEqual(descriptors(), before + 2)
        self.one.abortConnection()
        self.assertEqual(descriptors(), before - 1)
        self.one.sendFileDescriptor(0)
        self.assertEqual(descriptors(), before - 1)

    def test_cannotDuplicate(self) -> None:
        """
        What cannot be duplicated is refused at once.
        """
        closed = os.dup(0)
        os.close(closed)
        error = self.assertRaises(OSError, self.one.sendFileDescriptor, closed)
        self.assertEqual(error.errno, errno.EBADF)

    def test_closeOnExec(self) -> None:
        """
        Received descriptors are close-on-exec.
        """
        self.one.sendFileDescriptor(0)
        self.one.write(b"!")
        self.reactor.settle()
        [descriptor] = self.there.descriptors
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFD)
        self.assertTrue(flags & fcntl.FD_CLOEXEC)

    def test_withTheirBytes(self) -> None:
        """
        A descriptor comes right before the bytes that hold the first one of
        the write after it, however many were written before.
        """
        self.one.write(b"x" * 1_000_000)
        self.one.sendFileDescriptor(0)
        self.one.write(b"y" * 1_000_000)
        self.one.write(b"z")
        self.reactor.settle()
        [place] = [
            n for n, each in enumerate(self.there.heard) if isinstance(each, int)
        ]
        self.assertTrue(b"y" not in b"".join(self.there.heard[:place]))
        self.assertIn(b"y", self.there.heard[place + 1])
        self.assertEqual(len(self.there.data), 2_000_001)

    @given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 100_000)), max_size=12))
    def test_order(self, writes: list[tuple[int, int]]) -> None:
        """
        Whatever is written: each descriptor comes in order, right before the
        bytes that hold the first one of its write.
        """
        self.reactor.settle()
        self.there.heard.clear()
        owed: list[int] = []
        total = 0
        for count, size in writes:
            owed.extend([total] * count)
            for _ in range(count):
                self.one.sendFileDescriptor(0)
            self.one.write(b"x" * size)
            total += size
        self.reactor.settle()
        read = 0
        waiting: list[int] = []
        for heard in self.there.heard:
            if isinstance(heard, int):
                waiting.append(owed.pop(0))
            else:
                self.assertTrue(all(read <= at < read + len(heard) for at in waiting))
                waiting.clear()
                read += len(heard)
        self.assertEqual((owed, waiting, read), ([], [], total))
        while self.there.descriptors:
            os.close(self.there.descriptors.pop())

    def test_asManyAsTheKernelTakes(self) -> None:
        """
        As many descriptors as one sendmsg carries come with one byte.
        """
        for _ in range(MOST):
            self.one.sendFileDescriptor(0)
        self.one.write(b"!")
        self.reactor.settle()
        self.assertEqual(len(self.there.descriptors), MOST)
        self.assertEqual(self.there.data, b"!")

    def test_more(self) -> None:
        """
        More than that come with the bytes that follow, in order, all before
        the last of these.
        """
        reading = [self.pipe() for _ in range(2)]
        numbers = [reading[0]] * MOST + [reading[1]] + [reading[0]] * MOST
        for number in numbers:
            self.one.sendFileDescriptor(number)
        self.one.write(b"abc and more")
        self.reactor.settle()
        self.assertEqual(self.names(self.there.descriptors), self.names(numbers))
        self.assertEqual(self.there.data, b"abc and more")
        self.assertIsInstance(self.there.heard[-1], bytes)
        for number in reading:
            os.close(number)

    def test_tooFewBytes(self) -> None:
        """
        A write with too few bytes for its descriptors ends the connection,
        after what was written before, and closes them.
        """
        before = descriptors()
        self.one.write(b"before")
        for _ in range(2 * MOST + 1):
            self.one.sendFileDescriptor(0)
        self.one.write(b"ab")
        self.assertEqual(self.here.lost, [], "not from within write()")
        self.reactor.settle()
        [reason] = self.here.lost
        self.assertTrue(reason.check(FileDescriptorOverrun))
        self.assertEqual(descriptors(), before - 2)
        self.assertEqual((self.there.data, self.there.descriptors), (b"before", []))

    def test_truncated(self) -> None:
        """
        When the kernel had to drop descriptors the connection ends, and those
        that came are closed.
        """
        for _ in range(MOST):
            self.one.sendFileDescriptor(0)
        self.one.write(b"!")
        before = descriptors()
        with room(5):
            why = self.other.doRead()
        self.assertIsInstance(why, ProtocolError)
        self.assertIn("RLIMIT_NOFILE", str(why))
        self.assertEqual(descriptors(), before)
        self.assertEqual((self.there.heard, self.there.descriptors), ([], []))

    def test_protocolCloses(self) -> None:
        """
        When the protocol closes the connection on the first of several
        descriptors, the others are closed, and nothing more is told.
        """
        before = descriptors()
        for _ in range(3):
            self.one.sendFileDescriptor(0)
        self.one.write(b"!")
        self.there.closeOnDescriptor = True
        self.other.doRead()
        self.assertEqual(len(self.there.descriptors), 1)
        self.assertEqual(self.there.data, b"")
        self.assertEqual(descriptors(), before)

    def test_protocolRaises(self) -> None:
        """
        When the protocol raises, the descriptors that it was not given are
        closed.
        """
        before = descriptors()
        for _ in range(3):
            self.one.sendFileDescriptor(0)
        self.one.write(b"!")
        self.there.error = ValueError("no")
        self.assertRaises(ValueError, self.other.doRead)
        self.assertEqual(descriptors(), before + 1)

    def test_tooManyUnderWay(self) -> None:
        """
        ETOOMANYREFS means to wait: nothing is lost, nothing spins, and it is
        tried again a little later.
        """
        real = self.one._socket
        self.one._socket = Refusing(real)  # type: ignore[assignment]
        self.one.sendFileDescriptor(0)
        self.one.write(b"!")
        self.one.write(b"?")
        self.reactor.settle()
        for _ in range(5):
            self.reactor.advance(0.05)
            self.reactor.settle()
        self.assertEqual((self.there.data, self.here.lost), (b"", []))
        self.assertTrue(self.reactor.wakes < 10, self.reactor.wakes)
        self.assertEqual(self.reactor.getWriters(), [])
        self.one._socket = real
        self.one.loseConnection()
        self.reactor.settle()
        self.assertEqual(self.there.data, b"")
        self.reactor.advance(0.05)
        self.reactor.settle()
        self.assertEqual((self.there.data, len(self.there.descriptors)), (b"!?", 1))
        self.assertEqual(len(self.there.lost), 1)

    def test_lostWhileWaiting(self) -> None:
        """
        A connection that ends meanwhile is not tried again.
        """
        real = self.one._socket
        self.one._socket = Refusing(real)  # type: ignore[assignment]
        self.one.sendFileDescriptor(0)
        self.one.write(b"!")
        self.one._socket = real
        self.one.abortConnection()
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class Refusing:
    """
    A socket that takes no descriptors for now.
    """

    def __init__(self, skt: socket.socket) -> None:
        self.fileno = skt.fileno

    def sendmsg(self, *_: object) -> int:
        raise OSError(errno.ETOOMANYREFS, "too many references")


class Reader(Recorder):
    """
    A protocol that takes the descriptors of each read at once, and hears when
    all has left.
    """

    def __init__(self) -> None:
        super().__init__()
        self.drains = 0
        self.whenDrained: Any = lambda: None

    def descriptorsReceived(self, descriptors: list[int], truncated: bool) -> None:
        self.descriptors.extend(descriptors)
        self.heard.append((len(descriptors), truncated))

    def drained(self) -> None:
        self.drains += 1
        self.whenDrained()


class Borrowed(TransportTestCase):
    """
    Descriptors that stay the sender's.
    """

    def setUp(self) -> None:
        super().setUp()
        self.mine = os.dup(0)
        self.addCleanup(os.close, self.mine)

    def test_open(self) -> None:
        """
        They stay open, and no duplicates are made.
        """
        before = descriptors()
        self.one.writeWith(b"!", [self.mine, self.mine])
        self.assertEqual(descriptors(), before)
        self.reactor.settle()
        self.assertEqual((len(self.there.descriptors), self.there.data), (2, b"!"))
        os.fstat(self.mine)

    def test_openWhenLost(self) -> None:
        """
        They stay open when the connection ends before they have left; those
        that were duplicated are closed.
        """
        self.stuff()
        before = descriptors()
        self.one.writeWith(b"!", [self.mine])
        self.one.sendFileDescriptor(self.mine)
        self.one.write(b"!")
        self.one.abortConnection()
        self.assertEqual(descriptors(), before - 1)
        os.fstat(self.mine)

    def test_openWhenDetached(self) -> None:
        """
        They stay open when the socket is taken away.
        """
        self.stuff()
        self.one.writeWith(b"!", [self.mine])
        skt, unsent = self.one.detach()
        skt.close()
        self.assertEqual(unsent[-1:], b"!")
        os.fstat(self.mine)

    def test_order(self) -> None:
        """
        They leave in the order of the writes, among those that were duplicated,
        each with the first byte of its own write.
        """
        self.stuff()
        self.one.sendFileDescriptor(self.mine)
        self.one.writeWith(b"a" * 1_000_000, [self.mine] * 2)
        self.one.write(b"b" * 1_000_000)
        self.one.writeWith(b"c", [self.mine] * 3)
        self.reactor.settle()
        read = b""
        counts = [0, 0, 0]
        owed = 0
        for heard in self.there.heard:
            if isinstance(heard, int):
                owed += 1
            elif owed:
                [letter] = [n for n in range(3) if b"abc"[n] in heard and not counts[n]]
                counts[letter] += owed
                owed = 0
            if isinstance(heard, bytes):
                read += heard
        self.assertEqual(counts, [2, 1, 3])
        self.assertEqual(read.count(b"a") + read.count(b"b"), 2_000_000)

    def test_tooManyUnderWay(self) -> None:
        """
        ETOOMANYREFS is a reason to wait with them, too.
        """
        real = self.one._socket
        self.one._socket = Refusing(real)  # type: ignore[assignment]
        self.one.writeWith(b"!", [self.mine])
        self.reactor.settle()
        self.assertEqual((self.one.pending, self.here.lost), (1, []))
        self.one._socket = real
        self.reactor.settle()
        self.assertEqual(self.there.data, b"")
        self.reactor.advance(0.05)
        self.reactor.settle()
        self.assertEqual((self.there.data, len(self.there.descriptors)), (b"!", 1))

    def test_closedTooEarly(self) -> None:
        """
        One that was closed before it has left ends the connection.
        """
        closed = os.dup(0)
        os.close(closed)
        self.one.write(b"before")
        self.one.writeWith(b"!", [closed])
        self.assertEqual(self.here.lost, [], "not from within writeWith()")
        self.reactor.settle()
        [reason] = self.here.lost
        self.assertTrue(reason.check(ConnectionLost))
        self.assertEqual(self.there.data, b"before")

    def test_afterTheEnd(self) -> None:
        """
        After the end, or its announcement, nothing is written.
        """
        self.one.loseConnection()
        self.one.writeWith(b"!", [self.mine])
        self.reactor.settle()
        self.one.writeWith(b"!", [self.mine])
        self.assertEqual((self.there.data, self.there.descriptors), (b"", []))


class Reads(TransportTestCase):
    """
    Protocols that want to know more.
    """

    def setUp(self) -> None:
        super().setUp()
        self.other.discard()
        self.one.discard()
        ours, theirs = socket.socketpair()
        self.here, self.there = Reader(), Reader()
        self.one = UNIXTransport(self.reactor, ours, self.here)
        self.other = UNIXTransport(self.reactor, theirs, self.there)
        self.one.start()
        self.other.start()

    def test_atOnce(self) -> None:
        """
        The descriptors of a read come at once, right before its bytes.
        """
        self.one.write(b"ab")
        self.one.writeWith(b"cd", [0, 0])
        self.one.writeWith(b"ef", [0])
        self.one.write(b"gh")
        self.reactor.settle()
        self.assertEqual(
            self.there.heard, [(2, False), b"abcd", (1, False), b"ef", b"gh"]
        )

    def test_truncated(self) -> None:
        """
        When the kernel dropped some, one is told, and the connection goes on; if
        it dropped all, one is told that, too.
        """
        for count in (0, 2):
            self.one.writeWith(b"!", [0] * 5)
            with room(count):
                self.assertIsNone(self.other.doRead())
        self.one.writeWith(b"?", [0])
        self.reactor.settle()
        self.assertEqual(
            self.there.heard, [(0, True), b"!", (2, True), b"!", (1, False), b"?"]
        )

    def test_drained(self) -> None:
        """
        One is told when what had to wait has left, not while some waits, and
        not when all left at once.
        """
        self.one.write(b"x")
        self.reactor.settle()
        self.assertEqual((self.here.drains, self.there.data), (0, b"x"))
        self.stuff()
        self.reactor.settle()
        self.assertEqual((self.here.drains, self.one.pending), (1, 0))
        self.reactor.settle()
        self.assertEqual(self.here.drains, 1)

    def test_drainedWritesMore(self) -> None:
        """
        Who is told may write more than fits, and is told again.
        """
        self.here.whenDrained = lambda: self.here.drains < 3 and self.stuff()
        self.stuff()
        self.reactor.settle()
        self.assertEqual((self.here.drains, self.one.pending), (3, 0))

    def test_drainedCloses(self) -> None:
        """
        Who is told may close the connection, and what was written before leaves.
        """

        def last() -> None:
            self.stuff()
            self.one.write(b"last")
            self.one.loseConnection()
            self.here.whenDrained = lambda: None

        self.here.whenDrained = last
        self.stuff()
        self.reactor.settle()
        self.assertEqual(self.there.data[-4:], b"last")
        self.assertEqual((len(self.here.lost), len(self.there.lost)), (1, 1))

    def test_drainedAborts(self) -> None:
        """
        Who is told may abort the connection.
        """
        self.here.whenDrained = self.one.abortConnection
        self.stuff()
        self.reactor.settle()
        self.assertEqual((len(self.here.lost), len(self.there.lost)), (1, 1))

    def test_drainedLast(self) -> None:
        """
        One is told also when the connection ends right after that.
        """
        self.stuff()
        self.one.loseConnection()
        self.here.whenDrained = lambda: self.assertEqual(self.here.lost, [])
        self.reactor.settle()
        self.assertEqual((self.here.drains, len(self.here.lost)), (1, 1))

    def test_pause(self) -> None:
        """
        What arrives while one reads no more waits, until one reads again; the
        end waits as well.
        """
        self.other.pauseProducing()
        self.one.writeWith(b"!", [0])
        self.one.loseConnection()
        self.reactor.settle()
        self.assertEqual((self.there.heard, self.there.lost), ([], []))
        self.other.resumeProducing()
        self.reactor.settle()
        self.assertEqual(self.there.heard, [(1, False), b"!"])
        self.assertEqual(len(self.there.lost), 1)

    def test_resumeAfterTheEnd(self) -> None:
        """
        Who reads again after the end, or its announcement, does not.
        """
        self.stuff()
        self.one.loseConnection()
        self.one.resumeProducing()
        self.assertNotIn(self.one, self.reactor.readers)
        self.one.abortConnection()
        self.one.resumeProducing()
        self.one.pauseProducing()
        self.assertNotIn(self.one, self.reactor.readers)

    def test_drainWhilePaused(self) -> None:
        """
        drain() reads all the same, and ends once.
        """
        self.other.pauseProducing()
        self.one.writeWith(b"!", [0])
        self.one.discard()
        self.other.drain()
        self.assertEqual(self.there.heard, [(1, False), b"!"])
        self.assertEqual(len(self.there.lost), 1)


class Last(TransportTestCase):
    """
    Transports that read to the end.
    """

    def setUp(self) -> None:
        super().setUp()
        self.one.discard()
        self.other.discard()
        ours, theirs = socket.socketpair()
        self.here, self.there = Reader(), Reader()
        self.one = self.last = LastWords(self.reactor, ours, self.here)
        self.other = UNIXTransport(self.reactor, theirs, self.there)
        self.one.start()
        self.other.start()

    def test_sent(self) -> None:
        """
        It knows how many bytes have left, also after the end.
        """
        self.assertEqual(self.last.sent, 0)
        self.one.writeWith(b"!", [0])
        self.one.write(b"x" * 5_000_000)
        sent = self.last.sent
        self.assertEqual(sent, 5_000_001 - self.one.pending)
        for _ in range(3):
            self.other.doRead()
        [writer] = self.reactor.getWriters()
        writer.doWrite()
        self.assertTrue(sent < self.last.sent < 5_000_000)
        sent = self.last.sent
        self.one.abortConnection()
        self.assertEqual((self.last.sent, self.one.pending), (sent, 0))

    def test_borrowed(self) -> None:
        """
        It knows how many borrowed descriptors have not left, also after the end;
        those that were duplicated do not count.
        """
        self.one.writeWith(b"!", [0, 0])
        self.assertEqual(self.last.borrowed, 0)
        self.stuff()
        self.one.sendFileDescriptor(0)
        self.one.write(b"!")
        self.one.writeWith(b"!", [0, 0, 0])
        self.one.writeWith(b"!" * 5_000_000, [0])
        self.assertEqual(self.last.borrowed, 4)
        while self.one.pending >= 5_000_000:
            self.other.doRead()
            self.one.doWrite()
        self.assertEqual(self.last.borrowed, 0)
        self.one.writeWith(b"!", [0, 0])
        self.one.abortConnection()
        self.assertEqual(self.last.borrowed, 2)

    def test_every(self) -> None:
        """
        However it ends, what the other side has written is read before, and
        what it writes after that is refused.
        """
        reason = Failure(main.CONNECTION_LOST)
        for end in (
            UNIXTransport.abortConnection,
            UNIXTransport.discard,
            lambda transport: transport.connectionLost(reason),
        ):
            self.other.write(b"last words" * 100)
            self.other.writeWith(b"!", [0])
            end(self.one)
            self.assertEqual(self.here.data, b"last words" * 100 + b"!")
            self.assertEqual((len(self.here.descriptors), len(self.here.lost)), (1, 1))
            self.other.write(b"too late")
            self.assertEqual(self.other.pending, 8)
            self.tearDown()
            self.setUp()

    def test_close(self) -> None:
        """
        The same, when all that was written had to leave first.
        """
        self.stuff()
        self.one.loseConnection()
        self.other.write(b"last words")
        self.reactor.settle()
        self.assertEqual(self.here.data, b"last words")

    def test_forked(self) -> None:
        """
        In a forked process it ends without a word to be read or refused: the
        connection is the parent's.
        """
        self.last._pid += 1
        copy = self.last._socket.dup()
        with copy:
            self.other.write(b"x")
            self.one.connectionLost(Failure(main.CONNECTION_LOST))
            self.assertEqual((self.here.data, len(self.here.lost)), (b"", 1))
            self.other.write(b"y")
            self.assertEqual(copy.recv(10), b"xy")

    def test_nothing(self) -> None:
        """
        When there is nothing to be read it just ends.
        """
        self.one.abortConnection()
        self.assertEqual((self.here.heard, len(self.here.lost)), ([], 1))

    def test_protocolRaises(self) -> None:
        """
        A protocol that raises is still told the end.
        """
        self.other.write(b"x")

        def fail(data: bytes) -> None:
            raise ValueError("no")

        self.here.dataReceived = fail
        self.one.abortConnection()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual(len(self.here.lost), 1)

    def test_protocolEnds(self) -> None:
        """
        A protocol that ends the connection again, while the last words are read,
        hears all of them, and one end.
        """
        written = self.stuff()
        pending = self.one.pending

        def again(data: bytes) -> None:
            self.here.heard.append(data)
            self.one.abortConnection()
            self.one.discard()
            self.one.drain()
            self.one.loseConnection()

        self.here.dataReceived = again
        for letter in (b"a", b"b"):
            self.other.writeWith(letter, [0])
        self.one.abortConnection()
        self.assertEqual(self.here.heard, [(1, False), b"a", (1, False), b"b"])
        self.assertEqual(len(self.here.lost), 1)
        self.assertEqual(self.last.sent, written - pending)
