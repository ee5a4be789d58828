"""
How the first bytes of a connection are looked at.
"""

from __future__ import annotations

import socket
import struct
from typing import Optional

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.sockethelpers import descriptors
from twisted_cluster.supervisor.peeking import Peek
from twisted_cluster.testing import DescriptorReactor

MOST = 8
PATIENCE = 2.0


class PeekTests(SynchronousTestCase):
    """
    A connection of which up to 8 bytes are looked at, for up to 2 seconds.

    @ivar needed: what is enough.
    """

    needed: Optional[bytes] = b"x"

    def setUp(self) -> None:
        self.before = descriptors()
        self.reactor = DescriptorReactor()
        self.seen: list[tuple[bytes, bool]] = []
        self.done = 0
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.client = socket.create_connection(server.getsockname())
            self.server, _ = server.accept()
        self.peek = Peek(
            self.reactor, self.server, MOST, PATIENCE, self._seen, self._done
        )

    def tearDown(self) -> None:
        self.client.close()
        self.server.close()
        self.assertEqual(descriptors(), self.before)
        self.assertEqual(self.reactor.getReaders(), [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def _seen(self, data: bytes, final: bool) -> bool:
        self.seen.append((data, final))
        return final or (self.needed is not None and self.needed in data)

    def _done(self) -> None:
        self.done += 1

    def send(self, data: bytes) -> None:
        """
        Have the client send, and the bytes arrive.
        """
        self.client.sendall(data)
        self.reactor.settle()

    def assertOver(self, *seen: tuple[bytes, bool]) -> None:
        """
        Nothing is looked at any more, and this is what was seen.
        """
        self.reactor.elapse(2 * PATIENCE)
        self.assertEqual(self.seen, list(seen))
        self.assertEqual(self.done, 1)

    def test_atOnce(self) -> None:
        """
        What is there already is seen at once, and stays there.
        """
        self.client.sendall(b"ax")
        self.peek.start()
        self.assertEqual(self.done, 1)
        self.assertOver((b"ax", False))
        self.assertEqual(self.server.recv(100), b"ax")

    def test_later(self) -> None:
        """
        What comes later is seen when it comes.
        """
        self.peek.start()
        self.reactor.elapse(1.0)
        self.assertEqual((self.seen, self.done), ([], 0))
        self.send(b"x")
        self.assertEqual(self.done, 1)
        self.assertOver((b"x", False))

    def test_more(self) -> None:
        """
        What was not enough is looked at again, together with what came since.
        """
        self.peek.start()
        self.send(b"a")
        self.assertEqual(self.seen, [(b"a", False)])
        self.client.sendall(b"x")
        self.reactor.elapse(0.05)
        self.assertEqual(self.done, 1)
        self.assertEqual(self.seen[-1], (b"ax", False))
        self.assertEqual(self.server.recv(100), b"ax")

    def test_seldom(self) -> None:
        """
        One who sends one byte and no more is not looked at all the time.
        """
        self.peek.start()
        self.send(b"a")
        self.reactor.elapse(PATIENCE, 0.001)
        self.assertEqual(self.done, 1)
        self.assertLess(len(self.seen), 15)
        self.assertEqual(self.seen[-1], (b"a", True))

    def test_settle(self) -> None:
        """
        Somebody else may say that no more is waited for: what is there is all.
        """
        self.peek.start()
        self.send(b"a")
        self.peek.settle()
        self.assertEqual(self.done, 1)
        self.peek.settle()
        self.assertOver((b"a", False), (b"a", True))

    def test_patience(self) -> None:
        """
        When the time is over, that is all, once, even if nothing came.
        """
        self.peek.start()
        self.reactor.elapse(PATIENCE - 0.1)
        self.assertEqual(self.done, 0)
        self.reactor.elapse(0.2)
        self.assertEqual(self.done, 1)
        self.assertOver((b"", True))

    def test_patienceWithSome(self) -> None:
        """
        The time is over once, and nothing is seen after that, although what was
        there was about to be looked at again.
        """
        self.peek.start()
        self.send(b"a")
        self.reactor.elapse(PATIENCE + 1)
        finals = [final for _, final in self.seen]
        self.assertEqual(finals.count(True), 1)
        self.assertIs(finals[-1], True)
        self.assertEqual(self.done, 1)
        self.assertNotEqual(self.server.fileno(), -1)

    def test_full(self) -> None:
        """
        As much as is to be looked at is all; the rest is not seen.
        """
        self.client.sendall(b"abcdefghij")
        self.peek.start()
        self.assertOver((b"abcdefgh", True))
        self.assertEqual(self.server.recv(100), b"abcdefghij")

    def test_closedBefore(self) -> None:
        """
        A client that closes without a word has sent all: whoever gets the
        connection sees that.
        """
        self.peek.start()
        self.client.close()
        self.reactor.settle()
        self.assertOver((b"", True))
        self.assertEqual(self.server.recv(100), b"")

    def test_closedWithin(self) -> None:
        """
        What comes before the client's end is all, and is not waited for any
        longer.
        """
        self.needed = None
        self.client.sendall(b"abc")
        self.client.shutdown(socket.SHUT_WR)
        self.peek.start()
        self.assertEqual(self.done, 1)
        self.assertOver((b"abc", True))

    def test_closedLater(self) -> None:
        """
        Likewise when the end comes later.
        """
        self.peek.start()
        self.send(b"abc")
        self.client.shutdown(socket.SHUT_WR)
        self.reactor.elapse(0.1)
        self.assertEqual(self.done, 1)
        self.assertEqual(self.seen[-1], (b"abc", True))

    def test_reset(self) -> None:
        """
        A client that resets is forgotten, and its connection closed.
        """
        self.peek.start()
        linger = struct.pack("ii", 1, 0)
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.client.close()
        self.reactor.settle()
        self.assertEqual(self.server.fileno(), -1)
        self.assertOver()

    def test_close(self) -> None:
        """
        Closing it closes the connection, and tells nobody.
        """
        self.peek.start()
        self.send(b"a")
        self.peek.close()
        self.assertEqual(self.server.fileno(), -1)
        self.reactor.elapse(PATIENCE)
        self.assertEqual((len(self.seen), self.done), (1, 0))

    def test_closeAfter(self) -> None:
        """
        A connection that is somebody's already is not closed.
        """
        self.client.sendall(b"x")
        self.peek.start()
        self.peek.close()
        self.peek.connectionLost(Failure(ConnectionDone()))
        self.assertNotEqual(self.server.fileno(), -1)
        self.assertOver((b"x", False))

    def test_closeWhileSeen(self) -> None:
        """
        It may be closed by the one who sees the bytes.
        """

        def close(data: bytes, final: bool) -> bool:
            self.peek.close()
            return False

        self.peek = Peek(self.reactor, self.server, MOST, 2.0, close, self._done)
        self.client.sendall(b"a")
        self.peek.start()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(self.done, 0)

    def test_reactorEnds(self) -> None:
        """
        When the reactor ends, so does the connection.
        """
        self.peek.start()
        [reader] = self.reactor.removeAll()
        self.assertIs(reader, self.peek)
        self.peek.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.server.fileno(), -1)
        self.assertOver()


class UNIXPeekTests(PeekTests):
    """
    The same for UNIX sockets.
    """

    def setUp(self) -> None:
        super().setUp()
        self.client.close()
        self.server.close()
        self.client, self.server = socket.socketpair()
        self.peek = Peek(
            self.reactor, self.server, MOST, PATIENCE, self._seen, self._done
        )

    def test_reset(self) -> None:
        """
        A client that goes with something unread resets the connection.
        """
        self.peek.start()
        self.server.send(b"unread")
        self.client.close()
        self.reactor.settle()
        self.assertEqual(self.server.fileno(), -1)
        self.assertOver()
