"""
How all connections of a worker end before it leaves.
"""

from __future__ import annotations

import socket
from typing import Any, Optional

from twisted.internet import tcp
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.components import registerAdapter
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.worker.drain.draining import Drainable, DrainingTestCase
from tests.worker.receiving import NUMBER, Echo
from twisted_cluster.errors import TransferFailed
from twisted_cluster.interfaces import IDrain, IDrainable
from twisted_cluster.ipc.clients import LISTENER
from twisted_cluster.worker.drain import drain as drains
from twisted_cluster.worker.drain.drain import Drain

IDLE, LIMIT = 2.0, 10.0


class DrainTestCase(DrainingTestCase):
    """
    A worker that is about to leave.
    """

    def setUp(self) -> None:
        super().setUp()
        self.patch(drains, "_log", Logger(observer=self.events))
        self.factory.build = Drainable
        self.over: Optional[Deferred[None]] = None

    def begin(self, others: bool = True, limit: float = LIMIT) -> Deferred[None]:
        drain = Drain(self.connections, self.incoming, IDLE, limit)
        self.over = drain.begin(self.reactor, others)
        return self.over

    def own(self, most: int = 100) -> Any:
        """
        A port that accepts by itself.

        @param most: how many at a time.
        """
        port: Any = tcp.Port(0, self.factory, 50, "127.0.0.1", self.reactor)
        self.start(port, accepts=True)
        accept = port.doRead

        def doRead() -> None:
            port.numberAccepts = most
            accept()

        port.doRead = doRead
        return port

    def dial(self, port: Any, count: int = 1) -> list[socket.socket]:
        """
        Let clients connect, which the worker is not yet aware of.
        """
        clients = []
        for _ in range(count):
            client = socket.socket(port.addressFamily)
            client.settimeout(10)
            client.connect(port.socket.getsockname())
            clients.append(client)
        self.clients.extend(clients)
        return clients

    @property
    def counts(self) -> list[int]:
        """
        How often each protocol was asked to drain.
        """
        return [len(each.drains) for each in self.factory.protocols]

    def lose(self) -> None:
        """
        End all connections.
        """
        for each in self.factory.protocols:
            each.transport.loseConnection()
        self.reactor.settle()


class AcceptingTests(DrainTestCase):
    """
    Nothing is accepted any more, and nothing of what waited is lost.
    """

    def test_nothingOpen(self) -> None:
        """
        Without connections it is over at once, and nothing is said.
        """
        self.own()
        self.successResultOf(self.begin())
        self.assertEqual(self.events, [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_noPorts(self) -> None:
        """
        Without anything, too.
        """
        self.successResultOf(self.begin(others=False))

    def test_pauses(self) -> None:
        """
        What comes later waits in the socket, which stays open, for other workers.
        """
        port = self.own()
        self.successResultOf(self.begin())
        self.dial(port)
        self.reactor.settle()
        self.assertEqual(self.factory.protocols, [])
        self.assertTrue(port.connected)
        skt, _ = port.socket.accept()
        skt.close()

    def test_oncePer(self) -> None:
        """
        What the kernel may have woken this worker for is accepted: so many as at
        any time; the rest is for the others.
        """
        port = self.own(most=2)
        self.dial(port, 5)
        over = self.begin()
        self.assertEqual(self.counts, [1, 1])
        self.assertNoResult(over)
        for _ in range(3):
            port.socket.accept()[0].close()
        self.assertRaises(BlockingIOError, port.socket.accept)
        self.lose()
        self.successResultOf(over)

    def test_askedOnce(self) -> None:
        """
        Those that are accepted at this last moment are asked once, like all others.
        """
        port = self.own()
        self.dial(port, 2)
        self.reactor.settle()
        self.dial(port, 2)
        self.begin()
        self.reactor.settle()
        self.assertEqual(self.counts, [1] * 4)
        self.lose()

    def test_all(self) -> None:
        """
        When no other worker serves, all that waits is accepted.
        """
        port = self.own(most=2)
        self.dial(port, 9)
        over = self.begin(others=False)
        self.assertEqual(self.counts, [1] * 9)
        self.assertRaises(BlockingIOError, port.socket.accept)
        self.lose()
        self.successResultOf(over)

    def test_refusedOnes(self) -> None:
        """
        Those that the program refuses do not hide those that wait behind them.
        """
        port = self.own(most=2)
        built = iter([None] * 4)
        self.factory.build = lambda: next(built, Drainable())
        self.dial(port, 6)
        over = self.begin(others=False)
        self.assertEqual(self.counts, [1] * 2)
        self.lose()
        self.successResultOf(over)

    def test_paused(self) -> None:
        """
        A port that the program has paused accepts nothing.
        """
        for others in (True, False):
            port = self.own()
            port.stopReading()
            self.dial(port)
            self.successResultOf(self.begin(others))
            self.assertEqual(self.factory.protocols, [])

    def test_closing(self) -> None:
        """
        One that is being closed is left alone.
        """
        port = self.own()
        port.stopListening()
        self.successResultOf(self.begin())
        self.reactor.settle()
        self.assertFalse(port.connected)

    def test_handedOver(self) -> None:
        """
        What the watcher hands over from now on is given back to it.
        """
        port = self.tcp()
        self.connect(port)
        self.successResultOf(self.begin())
        self.give()
        [why] = self.answers
        assert why is not None
        self.assertIn("it ends", why)

    def test_onTheWay(self) -> None:
        """
        When no other worker serves, what the watcher has sent is taken, and asked to
        end.
        """
        [client] = self.connect(self.tcp())
        self.watcher.send(self.given[0].fileno(), LISTENER.pack(NUMBER), None)
        self.watcher.flush()
        over = self.begin(others=False)
        self.assertEqual(self.counts, [1])
        self.assertNoResult(over)
        self.reactor.settle()
        self.assertEqual(self.answers, [None])
        self.assertEqual(self.counts, [1])
        self.hangUp(client)
        self.successResultOf(over)


class AskingTests(DrainTestCase):
    """
    Each connection is asked to end.
    """

    def test_asked(self) -> None:
        """
        By its protocol, which is told what it may do; the worker waits for it.
        """
        client, protocol = self.served(self.tcp())
        over = self.begin()
        [drain] = protocol.drains
        verifyObject(IDrain, drain)
        self.assertIs(drain.transport, protocol.transport)
        self.assertIs(drain.clock, self.reactor)
        self.assertEqual(drain.idle, IDLE)
        self.assertEchoes(client)
        self.assertNoResult(over)
        self.hangUp(client)
        self.successResultOf(over)
        self.assertEqual(
            self.events.texts,
            [
                "1 connections have ended in 0.00 s; 0 of them moved to other workers",
            ],
        )

    def test_all(self) -> None:
        """
        It waits for the last of them.
        """
        port = self.tcp()
        clients = self.connect(port, 3)
        self.give(3)
        over = self.begin()
        self.assertEqual(self.counts, [1] * 3)
        for client in clients:
            self.assertNoResult(over)
            self.hangUp(client)
        self.successResultOf(over)

    def test_unaware(self) -> None:
        """
        One whose protocol cannot be asked is left alone, and waited for.
        """
        self.factory.build = Echo
        client, _ = self.served(self.tcp())
        over = self.begin()
        self.reactor.elapse(LIMIT - 1)
        self.assertEchoes(client)
        self.assertNoResult(over)
        self.hangUp(client)
        self.successResultOf(over)

    def test_fails(self) -> None:
        """
        When one raises, that is logged, it is left alone, and all others are asked.
        """

        class Failing(Drainable):
            def drain(self, drain: IDrain) -> None:
                super().drain(drain)
                raise LookupError("no")

        self.factory.build = Failing
        self.connect(self.tcp(), 3)
        self.give(3)
        over = self.begin()
        self.assertEqual(self.counts, [1] * 3)
        self.assertEqual(len(self.events), 3)
        for text in self.events.texts:
            self.assertIn("Failing", text)
            self.assertIn("cannot be drained", text)
        self.assertNoResult(over)
        for client in self.clients:
            self.hangUp(client)
        self.successResultOf(over)

    def test_later(self) -> None:
        """
        A connection that begins later, by the program's own doing, is asked once
        its protocol is connected, and waited for.
        """
        client, _ = self.served(self.tcp())
        listening = socket.create_server(("127.0.0.1", 0))
        self.clients.append(listening)
        over = self.begin()
        late = socket.create_connection(listening.getsockname())
        self.clients.append(late)
        accepted, _ = listening.accept()
        tcp.Server._fromConnectedSocket(
            accepted.fileno(), accepted.family, self.factory, self.reactor
        )
        accepted.close()
        self.assertEqual(self.counts, [1, 0])
        self.reactor.settle()
        self.assertEqual(self.counts, [1, 1])
        self.hangUp(client)
        self.assertNoResult(over)
        self.hangUp(late)
        self.successResultOf(over)

    def test_laterAndGone(self) -> None:
        """
        One that has ended by then is not asked.
        """
        client, _ = self.served(self.tcp())
        listening = socket.create_server(("127.0.0.1", 0))
        self.clients.append(listening)
        over = self.begin()
        late = socket.create_connection(listening.getsockname())
        self.clients.append(late)
        accepted, _ = listening.accept()
        tcp.Server._fromConnectedSocket(
            accepted.fileno(), accepted.family, self.factory, self.reactor
        )
        accepted.close()
        transport = self.factory.protocols[-1].transport
        transport.abortConnection()
        self.reactor.settle()
        self.assertEqual(self.connections.live, {self.factory.protocols[0].transport})
        self.hangUp(client)
        self.successResultOf(over)

    def test_endsAnother(self) -> None:
        """
        One that ends others as it is asked does no harm.
        """

        def endAll(drain: IDrain) -> None:
            for each in self.factory.protocols:
                each.transport.abortConnection()

        self.connect(self.tcp(), 3)
        self.give(3)
        for each in self.factory.protocols:
            each.drain = endAll
        over = self.begin()
        self.reactor.settle()
        self.successResultOf(over)

    def test_adapter(self) -> None:
        """
        A program may say by an adapter how its protocols drain.
        """

        class Own(Echo):
            pass

        drained: list[Any] = []

        @implementer(IDrainable)
        class OwnDrainable:
            def __init__(self, protocol: Own) -> None:
                self.protocol = protocol

            def drain(self, drain: IDrain) -> None:
                drained.append(self.protocol)
                drain.close()

        registerAdapter(OwnDrainable, Own, IDrainable)
        self.factory.build = Own
        client, protocol = self.served(self.tcp())
        over = self.begin()
        self.assertEqual(drained, [protocol])
        self.assertEqual(client.recv(100), b"")
        self.reactor.settle()
        self.successResultOf(over)

    def wrapped(self, *kinds: type) -> tuple[Any, Any]:
        """
        A client of a protocol that others are wrapped around.
        """
        factory: Any = self.factory
        for kind in kinds:
            factory = WrappingFactory(factory)
            factory.protocol = kind
            factory.noisy = False
        return self.served(self.tcp(factory))

    def test_wrapped(self) -> None:
        """
        A protocol within others is found, and told of the socket's transport.
        """
        client, protocol = self.wrapped(ProtocolWrapper, ProtocolWrapper)
        self.begin()
        [drain] = protocol.drains
        self.assertIsInstance(drain.transport, tcp.Server)
        self.hangUp(client)

    def test_outermost(self) -> None:
        """
        The outermost that knows is asked, and nobody else.
        """
        drained: list[Any] = []

        @implementer(IDrainable)
        class Knowing(ProtocolWrapper):
            def drain(self, drain: IDrain) -> None:
                drained.append(self)

        client, protocol = self.wrapped(Knowing, ProtocolWrapper)
        self.begin()
        self.assertEqual(len(drained), 1)
        self.assertEqual(protocol.drains, [])
        self.hangUp(client)


class MovingTests(DrainTestCase):
    """
    Connections go to other workers.
    """

    def test_moves(self) -> None:
        """
        What has moved has ended here.
        """
        client, protocol = self.served(self.tcp())
        over = self.begin()
        moved = protocol.drains[0].move(b"unread")
        self.reactor.settle()
        self.assertNoResult(over)
        [(data, _)] = self.take()
        self.assertEqual(data, LISTENER.pack(NUMBER) + b"unread")
        self.successResultOf(moved)
        self.successResultOf(over)
        self.assertIn("1 of them moved to other workers", self.events.texts[-1])
        self.assertEqual(protocol.life, ["made", "lost"])
        client.close()

    def test_atOnce(self) -> None:
        """
        When all ask for it at once, they move together.
        """

        class Moving(Drainable):
            def drain(self, drain: IDrain) -> None:
                self.moved = drain.move()

        self.factory.build = Moving
        self.connect(self.tcp(), 5)
        self.give(5)
        over = self.begin()
        self.reactor.settle()
        self.assertEqual(len(self.take()), 5)
        self.successResultOf(over)

    def test_nobodyElse(self) -> None:
        """
        When no other worker serves, none can move, and clients that have asked for
        nothing are given little time.
        """
        client, protocol = self.served(self.tcp())
        over = self.begin(others=False)
        [drain] = protocol.drains
        self.failureResultOf(drain.move(), TransferFailed)
        self.assertEqual(drain.idle, 0.5)
        self.assertEqual(protocol.life, ["made"])
        self.assertTrue(drain.close())
        self.reactor.settle()
        self.successResultOf(over)
        self.assertEqual(client.recv(100), b"")


class LimitTests(DrainTestCase):
    """
    It ends, whatever the clients do.
    """

    def test_late(self) -> None:
        """
        When the time is over the worker may leave; the log names what is cut.
        """
        port = self.tcp()
        self.connect(port, 3)
        self.give(2)
        self.factory.build = Echo
        self.give(1)
        over = self.begin()
        self.reactor.elapse(LIMIT - 0.5)
        self.assertNoResult(over)
        self.assertEqual(self.events, [])
        self.reactor.elapse(1.0)
        self.successResultOf(over)
        self.assertEqual(
            self.events.texts[0],
            "3 of this worker's connections are still open after 10 s, and are cut: "
            "2 of Drainable, 1 of Echo",
        )
        self.assertEqual([each.life for each in self.factory.protocols], [["made"]] * 3)
        for client in self.clients:
            self.hangUp(client)

    def test_inTime(self) -> None:
        """
        What ends in time leaves nothing behind that waits.
        """
        client, _ = self.served(self.tcp())
        over = self.begin()
        self.reactor.elapse(LIMIT / 2)
        self.hangUp(client)
        self.successResultOf(over)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertIn("ended in 5.0", self.events.texts[-1])

    def test_wrapped(self) -> None:
        """
        The log names what the program would call it.
        """
        factory: Any = WrappingFactory(self.factory)
        factory.noisy = False
        client, _ = self.served(self.tcp(factory))
        self.begin()
        self.reactor.elapse(LIMIT + 0.5)
        self.assertIn("1 of Drainable", self.events.texts[0])
        self.hangUp(client)
