"""
Writing without a reactor.
"""

from __future__ import annotations

import os
import socket

from twisted.internet.interfaces import ITransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from twisted_cluster.sockets.wire.blocking import BlockingTransport, identify, isStill


class Blocking(SynchronousTestCase):
    """
    Writing without a reactor.
    """

    def setUp(self) -> None:
        self.skt, self.peer = socket.socketpair()
        self.addCleanup(self.skt.close)
        self.addCleanup(self.peer.close)
        self.skt.setblocking(False)

    def test_writes(self) -> None:
        """
        Everything has left when write() returns.
        """
        transport = BlockingTransport(self.skt, 1.0)
        verifyObject(ITransport, transport)
        transport.write(b"ab")
        transport.writeSequence([b"c", b"d"])
        self.assertEqual(self.peer.recv(10), b"abcd")
        transport.loseConnection()
        transport.write(b"e")
        self.peer.setblocking(False)
        self.assertRaises(BlockingIOError, self.peer.recv, 10)

    def test_deaf(self) -> None:
        """
        A peer that does not read is given up after a while, once.
        """
        transport = BlockingTransport(self.skt, 0.05)
        transport.write(b"x" * 10_000_000)
        before = self.peer.recv(10_000_000)
        transport.write(b"y")
        self.peer.setblocking(False)
        while before:
            self.assertNotIn(b"y", before)
            try:
                before = self.peer.recv(10_000_000)
            except BlockingIOError:
                break

    def test_gone(self) -> None:
        """
        A peer that is gone is nobody's error.
        """
        transport = BlockingTransport(self.skt, 1.0)
        self.peer.close()
        transport.write(b"x")
        transport.write(b"x")

    def test_replaced(self) -> None:
        """
        What is not the same socket any more is not written to, whether the
        number is free or somebody else's.
        """
        identity = identify(self.skt)
        transport = BlockingTransport(self.skt, 1.0, identity)
        mine, others = socket.socketpair()
        self.addCleanup(others.close)
        os.dup2(mine.fileno(), self.skt.fileno())
        mine.close()
        others.setblocking(False)
        self.assertFalse(isStill(self.skt, identity))
        transport.write(b"x")
        self.assertRaises(BlockingIOError, others.recv, 1)
        self.skt.close()
        self.assertFalse(isStill(self.skt, identity))
        BlockingTransport(self.skt, 1.0, identity).write(b"x")
