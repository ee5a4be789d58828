"""
Tests that drive a reactor of each kind themselves, with live connections on it.
"""

from __future__ import annotations

import asyncio
import functools
import os
import socket
import time
from collections.abc import Callable
from typing import Any, ClassVar, Optional

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.pollreactor import PollReactor
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.selectreactor import SelectReactor
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.sockethelpers import descriptors, shortDirectory

DEADLINE = 20.0
KINDS: dict[str, Callable[[], Any]] = {
    "epoll": EPollReactor,
    "poll": PollReactor,
    "select": SelectReactor,
    "asyncio": lambda: AsyncioSelectorReactor(asyncio.new_event_loop()),
}
FAMILIES = ("IPv4", "IPv6", "UNIX")


@functools.cache
def reactorOf(kind: str) -> Any:
    """
    A reactor of a kind, which nobody runs.
    """
    reactor = KINDS[kind]()
    # The first port of a process opens a descriptor in reserve, for good.
    reactor.listenTCP(0, Factory(), interface="127.0.0.1").stopListening()
    for _ in range(3):
        reactor.iterate(0)
    return reactor


class Recorder(Protocol):
    """
    Records what it hears.
    """

    transport: Any

    def __init__(self) -> None:
        self.data = b""
        self.lost: list[Failure] = []
        self.onMade: Callable[[Any], object] = lambda transport: None

    def connectionMade(self) -> None:
        self.onMade(self.transport)

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.append(reason)

    def has(self, data: bytes) -> bool:
        """
        Whether this is what was received.
        """
        return self.data == data

    def isLost(self) -> bool:
        """
        Whether the connection has ended.
        """
        return bool(self.lost)


class ReactorTestCase(SynchronousTestCase):
    """
    Tests on a reactor that they drive.  Afterwards, nothing is left in it, and
    no descriptor is open that was not before.
    """

    kind: ClassVar[str] = "epoll"

    def setUp(self) -> None:
        self.directory = shortDirectory(self)
        # Cleanups run before tearDown, the last one first.
        self.addCleanup(self.leave)
        self.reactor = reactorOf(self.kind)
        self.paths = 0
        self.turn()
        self.before = descriptors()
        self.idle = self.watched()
        self.closing: list[socket.socket] = []
        self.ports: list[Any] = []
        self.protocols: list[Recorder] = []

    def leave(self) -> None:
        """
        End what is open, and look for what was left.
        """
        for protocol in self.protocols:
            if protocol.transport is not None and not protocol.lost:
                protocol.transport.abortConnection()
        for skt in self.closing:
            skt.close()
        for port in self.ports:
            port.stopListening()
        self.turn()
        self.turn()
        self.assertEqual(self.watched(), self.idle)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(descriptors(), self.before)

    def watched(self) -> int:
        """
        How many selectables the reactor watches.
        """
        return len(self.reactor.getReaders()) + len(self.reactor.getWriters())

    def turn(self) -> None:
        """
        Let the reactor do what there is to do.
        """
        for _ in range(3):
            self.reactor.iterate(0.001)

    def until(self, condition: Callable[[], object], what: str = "") -> None:
        """
        Let the reactor run until something is so.
        """
        deadline = time.monotonic() + DEADLINE
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"it does not happen: {what or condition}")
            self.reactor.iterate(0.005)

    def opened(self, skt: socket.socket) -> socket.socket:
        """
        Have a socket closed with the test.
        """
        self.closing.append(skt)
        return skt

    def path(self) -> str:
        """
        A new path for a UNIX socket.
        """
        self.paths += 1
        return os.path.join(self.directory, str(self.paths))

    def listener(self, family: str) -> socket.socket:
        """
        A plain listening socket.
        """
        kind = {"IPv4": socket.AF_INET, "IPv6": socket.AF_INET6}.get(family)
        skt = self.opened(socket.socket(kind or socket.AF_UNIX))
        if kind is None:
            skt.bind(self.path())
        else:
            skt.bind(("127.0.0.1" if kind == socket.AF_INET else "::1", 0))
        skt.listen()
        skt.setblocking(False)
        return skt

    def accepted(self, family: str) -> tuple[socket.socket, socket.socket]:
        """
        A connection, as its client and its server have it.
        """
        listener = self.listener(family)
        client = self.opened(socket.socket(listener.family))
        client.settimeout(DEADLINE)
        client.connect(listener.getsockname())
        server = self.opened(listener.accept()[0])
        server.settimeout(DEADLINE)
        return client, server

    def served(self, family: str = "IPv4") -> tuple[Recorder, socket.socket]:
        """
        A live connection that the reactor has accepted, and its client.
        """
        protocol = self.recorder()
        factory = Factory.forProtocol(lambda: protocol)
        if family == "UNIX":
            path = self.path()
            port = self.reactor.listenUNIX(path, factory)
            client = self.opened(socket.socket(socket.AF_UNIX))
            client.connect(path)
        else:
            host = "127.0.0.1" if family == "IPv4" else "::1"
            port = self.reactor.listenTCP(0, factory, interface=host)
            client = self.opened(
                socket.create_connection((host, port.getHost().port), DEADLINE)
            )
        self.ports.append(port)
        client.settimeout(DEADLINE)
        self.until(lambda: protocol.connected)
        return protocol, client

    def recorder(self) -> Recorder:
        """
        A protocol, whose connection ends with the test.
        """
        protocol = Recorder()
        self.protocols.append(protocol)
        return protocol

    def read(self, client: socket.socket, size: int) -> bytes:
        """
        Read so many bytes while the reactor runs.
        """
        client.setblocking(False)
        data = bytearray()

        def more() -> bool:
            try:
                while len(data) < size:
                    piece = client.recv(size - len(data))
                    if not piece:
                        return True
                    data.extend(piece)
            except BlockingIOError:
                pass
            return len(data) >= size

        self.until(more, f"{size} bytes")
        client.settimeout(DEADLINE)
        return bytes(data)

    def hears(self, client: socket.socket) -> Optional[bytes]:
        """
        What a client could read now, if anything; empty at the end.
        """
        self.turn()
        client.setblocking(False)
        try:
            return client.recv(65536, socket.MSG_PEEK)
        except BlockingIOError:
            return None
        finally:
            client.settimeout(DEADLINE)


def onEveryReactor(case: type[ReactorTestCase], into: dict[str, Any]) -> None:
    """
    Make a test case for each kind of reactor from one for the first.
    """
    for kind in KINDS:
        name = f"{case.__name__}On{kind.capitalize()}"
        body = {
            "kind": kind,
            "__doc__": case.__doc__,
            "__module__": case.__module__,
            "__test__": True,
        }
        into[name] = type(name, (case,), body)
