"""
What the tests of a worker's connections share: a worker with ports, and the
watcher's end of its client-socket channel.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Optional

from twisted.internet import main, tcp, unix
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.sockethelpers import Events, descriptors, shortDirectory
from twisted_cluster.ipc.clients import ENDED, LISTENER
from twisted_cluster.sockets.wire.handover import Handover
from twisted_cluster.testing import DescriptorReactor
from twisted_cluster.worker import incoming as incomings
from twisted_cluster.worker.incoming import Incoming

NUMBER = 3


class Echo(Protocol):
    """
    Sends back what it gets, and remembers its life.
    """

    transport: Any

    def __init__(self) -> None:
        self.life: list[str] = []
        self.received = b""

    def connectionMade(self) -> None:
        self.life.append("made")

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self.transport.write(data)

    def connectionLost(self, reason: Failure = main.CONNECTION_DONE) -> None:  # type: ignore[assignment]
        self.life.append("lost")


class Keeping(Factory):
    """
    Keeps the protocols that it builds, and the addresses that it was asked with.

    @ivar build: builds them.
    """

    noisy = False

    def __init__(self) -> None:
        self.protocols: list[Any] = []
        self.addresses: list[Any] = []
        self.build: Callable[[], Any] = Echo

    def buildProtocol(self, addr: Any) -> Any:
        self.addresses.append(addr)
        built = self.build()
        if built is not None:
            self.protocols.append(built)
        return built


class IncomingTestCase(SynchronousTestCase):
    """
    A worker with a port, and the watcher's end of its channel.

    @ivar answers: what became of the connections that were given to it.
    @ivar ended: how many it said have ended.
    """

    def setUp(self) -> None:
        tcp._reservedFD.reserve()
        self.directory = shortDirectory(self)
        before = descriptors()
        self.events = Events()
        self.patch(incomings, "_log", Logger(observer=self.events))
        self.reactor: Any = DescriptorReactor()
        self.answers: list[Optional[str]] = []
        self.ended = 0
        self.lost: list[Any] = []
        self.given: list[socket.socket] = []
        self.clients: list[socket.socket] = []
        self.ports: list[Any] = []
        self.factory = Keeping()
        ours, theirs = socket.socketpair()
        self.number = theirs.fileno()
        self.watcher = Handover(self.reactor, ours)
        self.watcher.answered = self._answered
        self.watcher.noted = self._noted
        self.watcher.lost = lambda reason, tokens: self.lost.extend(tokens)
        self.watcher.start()
        self.incoming = Incoming(theirs.detach())

        def end() -> None:
            self.watcher.abort()
            self.incoming.close()
            for port in self.ports:
                self.stop(port)
            for skt in (*self.clients, *self.given):
                skt.close()
            self.reactor.settle()
            self.assertEqual(before, descriptors())
            self.assertEqual([], self.reactor.getReaders())
            self.assertEqual([], self.reactor.getDelayedCalls())

        self.addCleanup(end)

    def _answered(self, token: object, why: Optional[str]) -> None:
        self.answers.append(why)

    def _noted(self, data: bytes) -> None:
        (count,) = ENDED.unpack(data)
        self.ended += count

    def attach(self) -> None:
        self.incoming.attach(self.reactor)
        self.reactor.settle()

    def start(self, port: Any, number: int = NUMBER, accepts: bool = False) -> Any:
        """
        Start a port as one that gets connections from the watcher.
        """
        self.incoming.enter(port, number, accepts)
        port.startListening()
        self.ports.append(port)
        return port

    def stop(self, port: Any) -> None:
        if port.connected:
            port.stopListening()
            self.reactor.advance(0)
        self.incoming.leave(port)

    def tcp(self, factory: Optional[Any] = None, interface: str = "127.0.0.1") -> Any:
        port = tcp.Port(
            0, factory or self.factory, interface=interface, reactor=self.reactor
        )
        return self.start(port)

    def unix(self) -> Any:
        path = f"{self.directory}/s".encode()
        return self.start(unix.Port(path, self.factory, reactor=self.reactor))

    def connect(self, port: Any, count: int = 1) -> list[socket.socket]:
        """
        Connect, and accept in the watcher.
        """
        clients = []
        for _ in range(count):
            client = socket.socket(port.addressFamily)
            self.clients.append(client)
            client.settimeout(10)
            client.connect(port.socket.getsockname())
            port.socket.setblocking(True)
            self.given.append(port.socket.accept()[0])
            clients.append(client)
        return clients

    def give(self, count: int = 1, data: bytes = LISTENER.pack(NUMBER)) -> None:
        """
        Give the oldest of these connections to the worker, and see what becomes
        of them.
        """
        for skt in self.given[:count]:
            self.watcher.send(skt.fileno(), data, skt)
        self.reactor.settle()
        for skt in self.given[:count]:
            skt.close()
        del self.given[:count]

    def client(self, port: Any) -> socket.socket:
        """
        A client whose connection the worker has taken.
        """
        [client] = self.connect(port)
        self.give()
        self.assertEqual(self.answers, [None])
        self.answers.clear()
        return client

    def assertEchoes(self, client: socket.socket) -> None:
        """
        The client is served.
        """
        client.send(b"hello")
        self.reactor.settle()
        self.assertEqual(client.recv(100), b"hello")

    def hangUp(self, client: socket.socket) -> None:
        """
        Have the client end its connection.
        """
        client.close()
        self.reactor.settle()

    def take(self) -> list[tuple[bytes, socket.socket]]:
        """
        Take in the watcher what the worker has handed over.

        @return: the data and the socket of each, closed when the test ends.
        """
        taken = []
        for arrival in self.watcher.take():
            skt = socket.socket(fileno=arrival.descriptor)
            self.clients.append(skt)
            taken.append((arrival.data, skt))
        self.reactor.settle()
        return taken
