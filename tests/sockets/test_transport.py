"""
Bytes and descriptors over UNIX sockets.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import resource
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

from tests.sockethelpers import descriptors
from twisted_cluster.errors import ProtocolError
from twisted_cluster.sockets.ancillary import receive
from twisted_cluster.sockets.transport import UNIXTransport

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
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(map(int, os.listdir("/proc/self/fd")))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 6, hard))
        try:
            why = self.other.doRead()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
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


class Receiving(SynchronousTestCase):
    """
    The function that transports and others receive with.
    """

    def test_receive(self) -> None:
        """
        It gives bytes and descriptors, nothing at the end, and raises where
        there is nothing yet.
        """
        one, other = socket.socketpair()
        with one, other:
            other.setblocking(False)
            self.assertRaises(BlockingIOError, receive, other, 10)
            rights = array.array("i", [0, 1])
            one.sendmsg([b"ab"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            data, found = receive(other, 10)
            self.assertEqual((data, len(found)), (b"ab", 2))
            for descriptor in found:
                os.close(descriptor)
            one.close()
            self.assertEqual(receive(other, 10), (b"", []))
