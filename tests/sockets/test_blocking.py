"""
Writing without a reactor.
"""

from __future__ import annotations

import socket

from twisted.internet.interfaces import ITransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from twisted_cluster.sockets.blocking import BlockingTransport


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
