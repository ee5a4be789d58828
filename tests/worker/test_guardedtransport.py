"""
A transport whose descriptor the program may close, or use for something else.
"""

from __future__ import annotations

import os
import socket
from functools import partial
from typing import Any

from twisted.internet.main import CONNECTION_DONE
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.sockethelpers import descriptors
from twisted_cluster.sockets.wire.blocking import identify
from twisted_cluster.sockets.wire.handover import Handover
from twisted_cluster.testing import DescriptorReactor
from twisted_cluster.worker.guardedtransport import GuardedTransport
from twisted_cluster.worker.incoming import _Transport


class Recording:
    """
    A protocol that keeps what it is told.
    """

    def __init__(self) -> None:
        self.data = b""
        self.ends: list[str] = []

    def makeConnection(self, transport: object) -> None: ...

    def fileDescriptorReceived(self, descriptor: int) -> None:
        os.close(descriptor)

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure) -> None:
        self.ends.append(reason.getErrorMessage())


class GuardedTests(SynchronousTestCase):
    """
    A guarded transport, and what the program does to its descriptor.
    """

    def setUp(self) -> None:
        before = descriptors()
        self.reactor: Any = DescriptorReactor()
        self.peer, ours = socket.socketpair()
        self.peer.setblocking(False)
        self.number = ours.fileno()
        self.protocol = Recording()
        self.transport = GuardedTransport(
            self.reactor, ours, self.protocol, identify(ours)
        )
        self.transport.start()
        self.open: list[socket.socket] = [self.peer]

        def end() -> None:
            self.transport.discard()
            for skt in self.open:
                skt.close()
            self.assertEqual(before, descriptors())
            self.assertEqual([], self.reactor.getReaders())
            self.assertEqual([], self.reactor.getWriters())
            self.assertEqual([], self.reactor.getDelayedCalls())

        self.addCleanup(end)

    def replace(self) -> socket.socket:
        """
        Use the number for another socket.

        @return: the other end of that.
        """
        mine, others = socket.socketpair()
        os.dup2(mine.fileno(), self.number)
        mine.close()
        self.addCleanup(os.close, self.number)
        self.open.append(others)
        others.setblocking(False)
        return others

    def assertUntouched(self, others: socket.socket) -> None:
        """
        The program's own socket is open, and nothing was written to it or read
        from it.
        """
        self.assertRaises(BlockingIOError, others.recv, 1)
        others.send(b"to the program")
        self.assertEqual(os.read(self.number, 100), b"to the program")

    def assertLost(self) -> None:
        """
        The protocol was told once.
        """
        [why] = self.protocol.ends
        self.assertIn("the program closed the channel's descriptor", why)

    def test_untouched(self) -> None:
        """
        As long as the descriptor is what it was, it is any transport.
        """
        self.transport.write(b"out")
        self.assertEqual(self.peer.recv(100), b"out")
        self.peer.send(b"in")
        self.reactor.settle()
        self.assertEqual(self.protocol.data, b"in")
        self.assertTrue(self.transport.isOurs())
        self.transport.loseConnection()
        self.reactor.settle()
        self.assertEqual(len(self.protocol.ends), 1)
        self.assertEqual(self.peer.recv(1), b"")

    def test_write(self) -> None:
        """
        Nothing is written to another's socket.  The connection ends soon, but
        not while somebody writes.
        """
        others = self.replace()
        self.transport.write(b"out")
        self.transport.writeSequence([b"more"])
        self.assertEqual(self.protocol.ends, [])
        self.assertEqual(self.transport.pending, 7)
        self.reactor.settle()
        self.assertLost()
        self.assertUntouched(others)

    def test_writeDescriptors(self) -> None:
        """
        Descriptors that were to go along are closed, unless they were borrowed.
        """
        others = self.replace()
        self.transport.sendFileDescriptor(self.peer.fileno())
        self.transport.write(b"one")
        self.transport.writeWith(b"two", [self.peer.fileno()])
        self.reactor.settle()
        self.assertLost()
        self.assertUntouched(others)
        os.fstat(self.peer.fileno())

    def test_writeOn(self) -> None:
        """
        What did not fit before is not written there either.
        """
        self.transport.write(b"x" * 10_000_000)
        others = self.replace()
        self.transport.write(b"more")
        self.reactor.settle()
        self.assertLost()
        self.assertUntouched(others)

    def test_read(self) -> None:
        """
        Nothing is read from another's socket.
        """
        others = self.replace()
        others.send(b"for the program")
        self.reactor.settle()
        self.assertEqual(os.read(self.number, 100), b"for the program")
        self.assertEqual(self.protocol.data, b"")
        self.assertLost()

    def test_closed(self) -> None:
        """
        A descriptor that is nothing any more is no reason to raise.
        """
        os.close(self.number)
        self.transport.write(b"out")
        self.reactor.advance(0)
        self.assertLost()
        self.assertFalse(self.transport.isOurs())

    def test_end(self) -> None:
        """
        However it ends, another's socket stays open.
        """
        others = self.replace()
        self.transport.connectionLost(Failure(CONNECTION_DONE))
        self.assertUntouched(others)
        self.transport.discard()
        self.assertUntouched(others)
        self.assertEqual(len(self.protocol.ends), 1)

    def test_wordThatCannotLeave(self) -> None:
        """
        A socket for which the word cannot leave any more is not given to the
        receiver: it is the sender's again.
        """
        ours, theirs = socket.socketpair()
        self.number = theirs.fileno()
        lost: list[int] = []
        sender = Handover(self.reactor, ours)
        sender.lost = lambda reason, tokens: lost.extend(tokens)
        identity = identify(theirs)
        receiver = Handover(
            self.reactor,
            theirs,
            transport=partial(_Transport, identity=identity),
        )
        sender.start()
        receiver.start()
        sender.send(self.peer.fileno(), b"", 1)
        self.reactor.settle()
        others = self.replace()
        self.assertEqual(receiver.take(), [])
        self.reactor.settle()
        self.assertEqual(receiver.take(), [])
        self.assertEqual(lost, [1])
        self.assertUntouched(others)
