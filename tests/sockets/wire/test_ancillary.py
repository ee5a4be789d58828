"""
Bytes and descriptors in one system call.
"""

from __future__ import annotations

import errno
import os
import socket

from twisted.trial.unittest import SynchronousTestCase

from tests.sockethelpers import descriptors, room
from twisted_cluster.errors import ProtocolError
from twisted_cluster.sockets.wire.ancillary import (
    MOST_DESCRIPTORS,
    receive,
    receiveSome,
    sendDescriptors,
)


class AncillaryTestCase(SynchronousTestCase):
    """
    Two sockets, joined; afterwards no descriptor may be left open.
    """

    def setUp(self) -> None:
        self.before = descriptors()
        self.one, self.other = socket.socketpair()
        self.other.setblocking(False)

    def tearDown(self) -> None:
        self.one.close()
        self.other.close()
        self.assertEqual(descriptors(), self.before)

    def send(self, data: bytes, numbers: list[int]) -> int:
        """
        Send from the one to the other.
        """
        return sendDescriptors(self.one, memoryview(data), numbers)

    def close(self, numbers: list[int]) -> None:
        """
        Close what was received.
        """
        for number in numbers:
            os.close(number)


class Sending(AncillaryTestCase):
    """
    L{sendDescriptors}.
    """

    def test_borrowed(self) -> None:
        """
        What was sent stays the caller's.
        """
        self.assertEqual(self.send(b"ab", [0, 0]), 2)
        os.fstat(0)
        self.close(receiveSome(self.other, 10)[1])

    def test_part(self) -> None:
        """
        When not all bytes are sent, all descriptors are, with the first.
        """
        self.one.setblocking(False)
        sent = self.send(b"x" * 10_000_000, [0, 1])
        self.assertTrue(0 < sent < 10_000_000)
        data, found, truncated = receiveSome(self.other, 1)
        self.assertEqual((data, len(found), truncated), (b"x", 2, False))
        self.close(found)
        self.assertEqual(receiveSome(self.other, 10), (b"x" * 10, [], False))

    def test_most(self) -> None:
        """
        253 are sent, one more is an error.
        """
        error = self.assertRaises(
            OSError, self.send, b"x", [0] * (MOST_DESCRIPTORS + 1)
        )
        self.assertEqual(error.errno, errno.EINVAL)
        self.send(b"x", [0] * MOST_DESCRIPTORS)
        data, found, truncated = receiveSome(self.other, 10)
        self.assertEqual((data, len(found), truncated), (b"x", 253, False))
        self.close(found)

    def test_none(self) -> None:
        """
        No descriptors at all may be sent.
        """
        self.assertEqual(self.send(b"abc", []), 3)
        self.assertEqual(receiveSome(self.other, 10), (b"abc", [], False))


class Receiving(AncillaryTestCase):
    """
    L{receiveSome} and L{receive}.
    """

    def test_receive(self) -> None:
        """
        They give bytes and descriptors, nothing at the end, and raise where
        there is nothing yet.
        """
        self.assertRaises(BlockingIOError, receive, self.other, 10)
        self.assertRaises(BlockingIOError, receiveSome, self.other, 10)
        self.send(b"ab", [0, 1])
        data, found = receive(self.other, 10)
        self.assertEqual((data, len(found)), (b"ab", 2))
        self.assertFalse(any(os.get_inheritable(number) for number in found))
        self.close(found)
        self.one.close()
        self.assertEqual(receive(self.other, 10), (b"", []))
        self.assertEqual(receiveSome(self.other, 10), (b"", [], False))

    def test_merged(self) -> None:
        """
        What Linux does, on which the frames rely: a read goes over bytes without
        descriptors to those that have some, and ends after these; descriptors
        come with whatever part of their bytes is read first.
        """
        self.one.send(b"ab")
        self.send(b"cd", [0])
        self.send(b"ef", [0, 0])
        self.one.send(b"gh")
        reads = []
        for size in (10, 1, 10):
            data, found, _ = receiveSome(self.other, size)
            self.close(found)
            reads.append((data, len(found)))
        self.assertEqual(reads, [(b"abcd", 1), (b"e", 2), (b"fgh", 0)])

    def test_dropped(self) -> None:
        """
        At the limit of open files the first descriptors come, the others are
        dropped, and one is told; or it is an error, and those that came are
        closed.
        """
        two = os.pipe()
        for count in (0, 1):
            self.send(b"a", list(two))
            with room(count):
                data, found, truncated = receiveSome(self.other, 10)
            self.assertEqual((data, len(found), truncated), (b"a", count, True))
            for number in found:
                self.assertTrue(os.path.sameopenfile(number, two[0]))
            self.close(found)
            self.send(b"b", list(two))
            with room(count):
                error = self.assertRaises(ProtocolError, receive, self.other, 10)
            self.assertIn("RLIMIT_NOFILE", str(error))
        self.close(list(two))
