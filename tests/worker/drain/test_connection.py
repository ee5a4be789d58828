"""
What a protocol may do with its connection when it is to be drained.
"""

from __future__ import annotations

import socket
import struct
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from tests.sockethelpers import isOpen
from tests.worker.drain.draining import DrainingTestCase
from tests.worker.receiving import Echo
from twisted_cluster.errors import NotTransferable, TransferFailed
from twisted_cluster.interfaces import IDrain
from twisted_cluster.sockets.clients.detach import ConnectionTransferred
from twisted_cluster.worker.drain.connection import GOODBYE, ConnectionDrain

MUCH = 8_000_000
"""More than the kernel takes while the client does not read."""


class Remembering(Echo):
    """
    Remembers how its connection ended.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reasons: list[Failure] = []

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]
        super().connectionLost(reason)
        self.reasons.append(reason)


class ConnectionTestCase(DrainingTestCase):
    """
    One connection that drains.

    @ivar moves: what was to be moved, with the Deferreds of the outcomes.
    """

    def setUp(self) -> None:
        super().setUp()
        self.factory.build = Remembering
        self.port = self.tcp()
        self.moves: list[tuple[Any, int, bytes]] = []
        self.outcome: Deferred[None] = Deferred()
        self.skt, self.protocol = self.served(self.port)

    def move(self, port: Any, descriptor: int, unread: bytes) -> Deferred[None]:
        self.moves.append((port, descriptor, unread))
        return self.outcome

    def drain(self, idle: float = 5.0, others: bool = True) -> ConnectionDrain:
        move = self.move if others else None
        return ConnectionDrain(self.protocol.transport, self.reactor, idle, move)


class MoveTests(ConnectionTestCase):
    """
    Another worker gets the connection.
    """

    def test_interface(self) -> None:
        """
        It is what protocols are promised.
        """
        drain = self.drain(1.5)
        verifyObject(IDrain, drain)
        self.assertIs(drain.transport, self.protocol.transport)
        self.assertIs(drain.clock, self.reactor)
        self.assertEqual(drain.idle, 1.5)
        self.hangUp(self.skt)

    def test_moves(self) -> None:
        """
        Until the outcome the connection is held still, and its descriptor open;
        then the protocol hears that it is gone, and the client nothing at all.
        """
        drain = self.drain()
        moved = drain.move(b"GET ")
        [(port, descriptor, unread)] = self.moves
        self.assertIs(port, self.port)
        self.assertEqual(descriptor, self.protocol.transport.fileno())
        self.assertEqual(unread, b"GET ")
        other = socket.socket(fileno=socket.dup(descriptor))
        self.clients.append(other)
        self.skt.send(b"hello")
        self.reactor.settle()
        self.assertEqual((self.protocol.received, drain.moved), (b"", False))
        self.assertTrue(isOpen(descriptor))
        self.outcome.callback(None)
        self.successResultOf(moved)
        self.assertTrue(drain.moved)
        [reason] = self.protocol.reasons
        reason.trap(ConnectionTransferred)
        self.assertEqual(self.connections.live, set())
        self.reactor.settle()
        self.assertEqual(other.recv(100), b"hello")
        other.send(b"still here")
        self.assertEqual(self.skt.recv(100), b"still here")
        self.assertEqual(self.ended, 1)

    def test_writtenFirst(self) -> None:
        """
        What the protocol had written is sent before it moves.
        """
        self.protocol.transport.write(b"x" * MUCH)
        moved = self.drain().move()
        self.assertEqual(self.moves, [])
        left = MUCH
        while left:
            self.reactor.settle()
            left -= len(self.skt.recv(MUCH))
        self.reactor.settle()
        self.assertEqual(len(self.moves), 1)
        self.outcome.callback(None)
        self.successResultOf(moved)

    def test_producer(self) -> None:
        """
        A producer, which C{twisted.web}'s protocols always register, does not hold
        it back.
        """
        self.protocol.transport.registerProducer(self.protocol.transport, True)
        moved = self.drain().move()
        self.outcome.callback(None)
        self.successResultOf(moved)

    def assertStays(self, moved: Deferred[None], kind: type[Exception]) -> None:
        """
        The move has failed, and the connection goes on.
        """
        self.failureResultOf(moved, kind)
        self.assertEqual(self.protocol.life, ["made"])
        self.assertEqual(self.connections.live, {self.protocol.transport})
        self.assertEchoes(self.skt)
        self.hangUp(self.skt)
        self.assertEqual(self.protocol.life, ["made", "lost"])

    def test_fails(self) -> None:
        """
        When the other side does not take it, it goes on here.
        """
        drain = self.drain()
        moved = drain.move()
        self.outcome.errback(TransferFailed("no"))
        self.assertStays(moved, TransferFailed)
        self.assertFalse(drain.moved)

    def test_again(self) -> None:
        """
        It may then be tried again.
        """
        drain = self.drain()
        first = drain.move()
        self.outcome.errback(TransferFailed("no"))
        self.failureResultOf(first, TransferFailed)
        self.outcome = Deferred()
        second = drain.move(b"more")
        self.outcome.callback(None)
        self.successResultOf(second)
        self.assertEqual([unread for *_, unread in self.moves], [b"", b"more"])

    def test_raises(self) -> None:
        """
        Likewise when it cannot even be asked.
        """

        def move(port: Any, descriptor: int, unread: bytes) -> Deferred[None]:
            raise LookupError("no")

        drain = ConnectionDrain(self.protocol.transport, self.reactor, 5.0, move)
        self.assertStays(drain.move(), LookupError)

    def test_cancelled(self) -> None:
        """
        Likewise when whoever asked does not want it any more.
        """
        moved = self.drain().move()
        moved.cancel()
        self.assertStays(moved, CancelledError)

    def test_nobodyElse(self) -> None:
        """
        Without other workers it cannot move.
        """
        self.assertStays(self.drain(others=False).move(), TransferFailed)

    def test_notTransferable(self) -> None:
        """
        What cannot move is not even offered: what is about to close, say.
        """
        self.protocol.transport.loseConnection()
        moved = self.drain().move()
        self.failureResultOf(moved, NotTransferable)
        self.assertEqual(self.moves, [])
        self.reactor.settle()
        self.assertEqual(self.protocol.life, ["made", "lost"])

    def test_clientGoes(self) -> None:
        """
        A client that leaves while its connection moves and does not arrive is gone
        when that is known.
        """
        moved = self.drain().move()
        self.skt.close()
        self.reactor.settle()
        self.assertEqual(self.protocol.life, ["made"])
        self.outcome.errback(TransferFailed("no"))
        self.failureResultOf(moved, TransferFailed)
        self.reactor.settle()
        self.assertEqual(self.protocol.life, ["made", "lost"])

    def test_toWatcher(self) -> None:
        """
        With the channel to the watcher, that is who gets it.
        """
        transport = self.protocol.transport
        drain = ConnectionDrain(transport, self.reactor, 5.0, self.incoming.sendBack)
        moved = drain.move(b"G")
        self.reactor.settle()
        [(data, skt)] = self.take()
        self.successResultOf(moved)
        self.assertEqual(data[-1:], b"G")
        skt.send(b"from another")
        self.assertEqual(self.skt.recv(100), b"from another")


class CloseTests(ConnectionTestCase):
    """
    An idle connection is closed.
    """

    def close(self) -> bool:
        return self.drain().close()

    def test_idle(self) -> None:
        """
        The client reads the end, at once, and the protocol hears of it.
        """
        self.assertTrue(self.close())
        self.assertEqual(self.skt.recv(100), b"")
        self.reactor.settle()
        self.assertEqual(self.protocol.life, ["made", "lost"])
        self.assertEqual(self.connections.live, set())

    def test_asking(self) -> None:
        """
        One whose client has sent something at this moment stays and is served.
        """
        self.skt.send(b"hello")
        self.assertFalse(self.close())
        self.reactor.settle()
        self.assertEqual(self.skt.recv(100), b"hello")
        self.assertEqual(self.protocol.received, b"hello")
        self.assertTrue(self.close())
        self.assertEqual(self.skt.recv(100), b"")
        self.reactor.settle()

    def test_twice(self) -> None:
        """
        What is closing, or closed, is closed.
        """
        drain = self.drain()
        self.assertTrue(drain.close())
        self.assertTrue(drain.close())
        self.reactor.settle()
        self.assertTrue(drain.close())
        self.assertEqual(self.protocol.life, ["made", "lost"])

    def test_clientClosed(self) -> None:
        """
        One whose client has closed it, which is not yet known here.
        """
        self.skt.close()
        self.assertTrue(self.close())
        self.reactor.settle()
        self.assertEqual(self.protocol.life, ["made", "lost"])

    def test_clientReset(self) -> None:
        """
        One whose client has reset it ends as it would have.
        """
        linger = struct.pack("ii", 1, 0)
        self.skt.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.skt.close()
        self.close()
        self.reactor.settle()
        self.assertEqual(self.protocol.life, ["made", "lost"])
        self.assertEqual(self.connections.live, set())

    def test_unix(self) -> None:
        """
        UNIX sockets are closed likewise.
        """
        self.hangUp(self.skt)
        self.stop(self.port)
        self.skt, self.protocol = self.served(self.unix())
        self.skt.send(b"hello")
        self.assertFalse(self.close())
        self.reactor.settle()
        self.assertEqual(self.skt.recv(100), b"hello")
        self.assertTrue(self.close())
        self.assertEqual(self.skt.recv(100), b"")
        self.reactor.settle()


class WrappedTests(DrainingTestCase):
    """
    A connection that wraps another protocol's, as TLS does.
    """

    def test_saysGoodBye(self) -> None:
        """
        The wrapper closes it, and may say good-bye in its own language first.
        """

        class Polite(ProtocolWrapper):
            def loseConnection(self) -> None:
                self.transport.write(b"good bye")  # type: ignore[union-attr]
                super().loseConnection()

        wrapping: Any = WrappingFactory(self.factory)
        wrapping.protocol = Polite
        wrapping.noisy = False
        port = self.tcp(wrapping)
        client, protocol = self.served(port)
        transport = protocol.transport.transport
        drain = ConnectionDrain(transport, self.reactor, 5.0, None)
        client.send(b"hello")
        self.assertFalse(drain.close())
        self.reactor.settle()
        self.assertEqual(client.recv(100), b"hello")
        self.assertTrue(drain.close())
        self.reactor.settle()
        self.assertEqual(client.recv(100), b"good bye")
        self.assertEqual(client.recv(100), b"")
        drain.look()
        self.assertEqual(protocol.life, ["made", "lost"])

    def test_noGoodBye(self) -> None:
        """
        A client that does not answer the good-bye is hung up on after a while, as
        soon as it has read all.
        """

        class Waiting(ProtocolWrapper):
            def loseConnection(self) -> None:
                self.transport.write(b"good bye")  # type: ignore[union-attr]

        wrapping: Any = WrappingFactory(self.factory)
        wrapping.protocol = Waiting
        wrapping.noisy = False
        port = self.tcp(wrapping)
        client, protocol = self.served(port)
        transport = protocol.transport.transport
        drain = ConnectionDrain(transport, self.reactor, 5.0, None)
        drain.look()
        self.assertTrue(drain.close())
        self.reactor.elapse(GOODBYE / 2)
        drain.look()
        self.assertFalse(transport.disconnecting)
        self.reactor.elapse(GOODBYE)
        drain.look()
        self.reactor.settle()
        self.assertEqual(client.recv(100), b"good bye")
        self.assertEqual(client.recv(100), b"")
        self.assertEqual(protocol.life, ["made", "lost"])
