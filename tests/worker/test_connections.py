"""
What is known of a process's connections.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import main, tcp, unix
from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure

from tests.worker.receiving import Echo, IncomingTestCase
from twisted_cluster.sockets.clients.detach import detach
from twisted_cluster.worker.connections import Connections


class ConnectionsTests(IncomingTestCase):
    """
    Connections of all kinds, known from their beginning to their end.

    @ivar told: what was told, in order.
    """

    def setUp(self) -> None:
        super().setUp()
        self.attach()
        self.connections = Connections()
        self.told: list[str] = []
        self.connections.ended = lambda: self.told.append("ended")
        self.undo = self.connections.install()
        self.addCleanup(lambda: self.undo())

    @property
    def transports(self) -> set[Any]:
        return {each.transport for each in self.factory.protocols}

    def dial(self, port: Any) -> socket.socket:
        """
        Connect to a port that accepts by itself.
        """
        client = socket.socket(port.addressFamily)
        self.clients.append(client)
        client.settimeout(10)
        client.connect(port.socket.getsockname())
        self.reactor.settle()
        return client

    def listen(self, kind: type = tcp.Port) -> Any:
        """
        Open a port that accepts by itself.
        """
        port: Any
        if kind is tcp.Port:
            port = tcp.Port(0, self.factory, 50, "127.0.0.1", self.reactor)
        else:
            path = f"{self.directory}/s".encode()
            port = unix.Port(path, self.factory, reactor=self.reactor)
        return self.start(port, accepts=True)

    def test_accepted(self) -> None:
        """
        Those that a port accepts, of TCP and of UNIX sockets, are live until they
        end, and counted for good.
        """
        for count, kind in enumerate((tcp.Port, unix.Port), 1):
            client = self.dial(self.listen(kind))
            self.assertEqual(self.connections.live, self.transports)
            self.assertEqual(self.connections.count, count)
            self.assertEqual(self.told, [])
            self.hangUp(client)
            self.assertEqual(self.connections.live, set())
            self.assertEqual(self.connections.count, count)
            self.assertEqual(self.told, ["ended"])
            self.told.clear()
            self.factory.protocols.clear()

    def test_handedOver(self) -> None:
        """
        So are those that the watcher accepted.
        """
        for listen in (self.tcp, self.unix):
            port = listen()
            client = self.client(port)
            self.assertEqual(self.connections.live, self.transports)
            self.hangUp(client)
            self.assertEqual(self.connections.live, set())
            self.factory.protocols.clear()
            self.stop(port)
        self.assertEqual((self.connections.count, self.ended), (2, 2))

    def test_adopted(self) -> None:
        """
        So are those that the program adopted.
        """
        listening = socket.create_server(("127.0.0.1", 0))
        self.clients.append(listening)
        client = socket.create_connection(listening.getsockname())
        self.clients.append(client)
        accepted, _ = listening.accept()
        tcp.Server._fromConnectedSocket(
            accepted.fileno(), accepted.family, self.factory, self.reactor
        )
        accepted.close()
        self.assertEqual(self.connections.live, self.transports)
        self.hangUp(client)
        self.assertEqual(self.connections.live, set())

    def test_clients(self) -> None:
        """
        Those that the program made to others do not count.
        """
        listening = socket.create_server(("127.0.0.1", 0))
        self.clients.append(listening)
        factory: Any = ClientFactory.forProtocol(Echo)
        factory.noisy = False
        address: tuple[str, int] = listening.getsockname()
        connector = tcp.Connector(
            address[0], address[1], factory, 30, None, self.reactor
        )
        connector.connect()
        self.reactor.settle()
        self.assertEqual(connector.state, "connected")
        self.assertEqual((self.connections.count, self.connections.live), (0, set()))
        connector.disconnect()
        self.reactor.settle()
        self.assertEqual(self.told, [])

    def test_made(self) -> None:
        """
        Each new one is told of, before its protocol is connected.
        """
        made: list[Any] = []

        def note(transport: Any) -> None:
            made.append(transport)
            self.assertIn(transport, self.connections.live)
            self.assertEqual(transport.protocol.life, [])

        self.connections.made = note
        self.dial(self.listen())
        self.assertEqual(set(made), self.transports)
        self.hangUp(self.clients[0])

    def test_endedLast(self) -> None:
        """
        That one has ended is told when its protocol knows, and it is live no more.
        """
        seen: list[Any] = []

        def note() -> None:
            [protocol] = self.factory.protocols
            seen.append((list(protocol.life), set(self.connections.live)))

        self.connections.ended = note
        self.hangUp(self.dial(self.listen()))
        self.assertEqual(seen, [(["made", "lost"], set())])

    def test_failsInTheEnd(self) -> None:
        """
        It is, also when the protocol raises on it.
        """

        class Failing(Echo):
            def connectionLost(self, reason: Any = None) -> None:
                raise LookupError("no")

        self.factory.build = Failing
        self.dial(self.listen()).close()
        self.assertRaises(LookupError, self.reactor.settle)
        self.assertEqual(self.connections.live, set())
        self.assertEqual(self.told, ["ended"])
        for each in self.transports:
            self.reactor.removeReader(each)

    def test_cannotBeMade(self) -> None:
        """
        A transport that cannot be made never was.
        """

        class Failing(tcp.Server):
            def __init__(self, *arguments: Any) -> None:
                raise LookupError("no")

        port = self.tcp()
        port.transport = Failing
        self.connect(port)
        self.give()
        self.assertEqual(len(self.flushLoggedErrors(LookupError)), 1)
        self.assertEqual((self.connections.count, self.connections.live), (0, set()))

    def test_ownTransports(self) -> None:
        """
        Transports of the program's own classes count, whatever these override.
        """

        class Own(tcp.Server):
            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments)

            def connectionLost(self, reason: Failure) -> None:
                super().connectionLost(reason)

        port = self.listen()
        port.transport = Own
        client = self.dial(port)
        self.assertEqual(self.connections.live, self.transports)
        self.hangUp(client)
        self.assertEqual(self.connections.live, set())

    def test_transferred(self) -> None:
        """
        One that has gone to another process has ended.
        """
        self.dial(self.listen())
        [transport] = self.transports
        detached = self.successResultOf(detach(transport))
        self.assertEqual(self.connections.live, {transport})
        detached.complete()
        self.assertEqual(self.connections.live, set())
        self.assertEqual(self.told, ["ended"])

    def test_lostTwice(self) -> None:
        """
        One that is told of its end twice does no harm.
        """
        self.dial(self.listen())
        [transport] = self.transports
        self.reactor.removeReader(transport)
        for _ in range(2):
            transport.connectionLost(Failure(main.CONNECTION_DONE))
        self.assertEqual(self.connections.live, set())

    def test_undo(self) -> None:
        """
        Undone, Twisted is as it was, and what comes is not counted.
        """
        changed = tcp.Server.__init__
        self.undo()
        self.undo = lambda: None
        self.assertIsNot(tcp.Server.__init__, changed)
        self.assertEqual(tcp.Server.__init__.__qualname__, "Server.__init__")
        self.assertEqual("connectionLost" in vars(tcp.Server), _OWN)
        client = self.dial(self.listen())
        self.assertEqual(self.connections.count, 0)
        self.hangUp(client)
        self.assertEqual(self.told, [])


_OWN = "connectionLost" in vars(tcp.Server)
"""Whether Twisted overrides it there."""
