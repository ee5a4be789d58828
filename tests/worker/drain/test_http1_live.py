"""
Tests of L{twisted_cluster.worker.drain.http1} with real connections.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import ClientFactory
from twisted.internet.ssl import ClientContextFactory, DefaultOpenSSLContextFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from tests.integration.clients import makeCertificate, skipWithoutTLS
from tests.sockets.reactors import ReactorTestCase, Recorder
from twisted_cluster.errors import TransferFailed
from twisted_cluster.interfaces import IDrainable
from twisted_cluster.worker.drain import http1
from twisted_cluster.worker.drain.connection import ConnectionDrain

GET = b"GET /now HTTP/1.1\r\nHost: x\r\n\r\n"
LATER = b"GET /later HTTP/1.1\r\nHost: x\r\n\r\n"
CLOSE = b"Connection: close\r\n"


class Named(Resource):
    """
    Answers with a name, at once or later.
    """

    isLeaf = True

    def __init__(self, name: bytes) -> None:
        super().__init__()
        self.name = name
        self.waiting: list[Any] = []

    def render_GET(self, request: Any) -> Any:
        if request.path == b"/later":
            self.waiting.append(request)
            return NOT_DONE_YET
        return self.name


class LiveTestCase(ReactorTestCase):
    """
    Two workers' sites in one process.
    """

    def setUp(self) -> None:
        super().setUp()
        http1.register()
        self.pages = Named(b"first"), Named(b"second")
        self.sites = [Site(page, reactor=self.reactor) for page in self.pages]
        self.transports: list[Any] = []
        self.moved = 0
        self.addCleanup(self.endAll)

    def endAll(self) -> None:
        """
        End what is open.
        """
        for transport in self.transports:
            if transport.connected:
                transport.abortConnection()

    def listen(self, site: Any, family: str = "IPv4") -> Any:
        """
        A port whose connections are kept in C{transports}.
        """
        made = self.transports
        if family == "UNIX":
            port = self.reactor.listenUNIX(self.path(), site)
        else:
            port = self.reactor.listenTCP(0, site, interface="127.0.0.1")
        kind = port.transport

        def make(*arguments: Any) -> Any:
            made.append(kind(*arguments))
            return made[-1]

        port.transport = make
        self.ports.append(port)
        return port

    def connected(self, family: str = "IPv4") -> socket.socket:
        """
        A client of the first site.
        """
        port = self.listen(self.sites[0], family)
        address: Any = port.getHost()
        if family == "UNIX":
            client = self.opened(socket.socket(socket.AF_UNIX))
            client.connect(address.name)
        else:
            client = self.opened(socket.create_connection(("127.0.0.1", address.port)))
        self.until(lambda: self.transports)
        return client

    def move(self, port: Any, descriptor: int, unread: bytes) -> Deferred[None]:
        """
        Let the second site have a connection.
        """
        self.moved += 1
        skt = socket.socket(fileno=os.dup(descriptor))
        kind = type(self.transports[0])
        protocol: Any = self.sites[1].buildProtocol(None)
        peer: Any = "" if skt.family == socket.AF_UNIX else ("127.0.0.1", 1)
        transport = kind(skt, protocol, peer, port, 1, self.reactor)
        self.transports.append(transport)
        protocol.makeConnection(transport)
        if unread:
            protocol.dataReceived(unread)
        return succeed(None)

    def drained(self, idle: float = 0.0, moves: bool = True) -> ConnectionDrain:
        """
        Have the first connection drained.
        """
        [transport] = self.transports
        drain = ConnectionDrain(
            transport, self.reactor, idle, self.move if moves else None
        )
        protocol = transport.protocol
        protocol = getattr(protocol, "wrappedProtocol", protocol)
        drainable: Any = IDrainable(protocol)
        drainable.drain(drain)
        return drain

    def answer(self, client: socket.socket, body: bytes) -> bytes:
        """
        Read one response, of which the body is known.
        """
        data = b""
        while body not in data:
            byte = self.read(client, 1)
            self.assertTrue(byte, f"closed after {data!r}")
            data += byte
        return data


class Moving(LiveTestCase):
    """
    The client of an idle connection.
    """

    def test_noticesNothing(self) -> None:
        """
        Gets its next answer from another worker, on the same connection.
        """
        for family in ("IPv4", "UNIX"):
            client = self.connected(family)
            client.sendall(GET)
            self.assertNotIn(CLOSE, self.answer(client, b"first"))
            self.drained()
            self.until(lambda: not self.transports[0].connected)
            client.sendall(GET)
            self.assertNotIn(CLOSE, self.answer(client, b"second"))
            self.transports.pop(0)
            self.transports.pop(0).abortConnection()
            self.turn()

    def test_unreadInTheKernel(self) -> None:
        """
        May have sent a request that nobody has read.
        """
        client = self.connected()
        client.sendall(GET)
        self.answer(client, b"first")
        client.sendall(GET)
        self.drained()
        self.answer(client, b"second")
        self.assertEqual(self.moved, 1)

    def test_unreadHere(self) -> None:
        """
        May have sent a part of its next request's first line.
        """
        client = self.connected()
        client.sendall(GET + GET[:6])
        self.answer(client, b"first")
        self.until(lambda: self.transports[0].protocol._channel._buffer)
        self.drained()
        client.sendall(GET[6:])
        self.answer(client, b"second")

    def test_afterAResponse(self) -> None:
        """
        Reads a response to its end first, though it is long and slowly read.
        """
        client = self.connected()
        client.sendall(LATER)
        self.until(lambda: self.pages[0].waiting)
        request = self.pages[0].waiting.pop()
        much = 8_000_000
        request.setHeader(b"content-length", str(much).encode())
        request.write(b"a" * (much // 2))
        self.turn()
        self.drained()
        request.write(b"b" * (much // 2))
        request.finish()
        self.turn()
        self.assertEqual(self.moved, 0)
        head = self.answer(client, b"\r\n\r\n")
        self.assertNotIn(CLOSE, head)
        body = self.read(client, much)
        self.assertEqual(body.count(b"a"), body.count(b"b"))
        self.until(lambda: self.moved)
        client.sendall(GET)
        self.answer(client, b"second")


class Staying(LiveTestCase):
    """
    The client of a connection that stays here.
    """

    def test_pipelinedInTheKernel(self) -> None:
        """
        Is answered all that it sent before it could know.
        """
        client = self.connected()
        client.sendall(LATER)
        self.until(lambda: self.pages[0].waiting)
        self.drained(moves=False)
        client.sendall(GET)
        self.pages[0].waiting.pop().finish()
        data = self.answer(client, b"first")
        self.assertEqual(data.count(b"200 OK"), 2)
        self.assertEqual(data.count(CLOSE), 1)
        self.assertEqual(self.read(client, 1), b"")

    def test_idle(self) -> None:
        """
        Is closed upon without a reset.
        """
        client = self.connected()
        client.sendall(GET)
        self.answer(client, b"first")
        self.drained(moves=False)
        self.assertEqual(self.read(client, 1), b"")

    def test_failedMove(self) -> None:
        """
        Is served on when no other worker has taken it.
        """
        client = self.connected()
        client.sendall(LATER)
        self.until(lambda: self.pages[0].waiting)
        drain = self.drained(idle=20.0)
        drain._move = lambda *_: fail(TransferFailed("it was full"))
        request = self.pages[0].waiting.pop()
        self.transports[0].protocol._channel.persistent = True
        request.write(b"late")
        request.finish()
        self.assertIn(CLOSE, self.answer(client, b"0\r\n\r\n"))

    def test_reset(self) -> None:
        """
        May reset it.
        """
        client = self.connected()
        self.drained(idle=20.0, moves=False)
        client.close()
        self.until(lambda: not self.transports[0].connected)


class Secure(LiveTestCase):
    """
    The client of a connection over TLS.
    """

    def secured(self, idle: float) -> Recorder:
        """
        Such a client, which has got an answer, and whose connection is drained.
        """
        key, certificate = makeCertificate(Path(self.directory))
        skipWithoutTLS(key, certificate)
        context = DefaultOpenSSLContextFactory(str(key), str(certificate))
        clock = self.reactor
        site = TLSMemoryBIOFactory(context, False, self.sites[0], clock)
        recorder = self.recorder()
        client = ClientFactory.forProtocol(lambda: recorder)
        self.reactor.connectTCP(
            "127.0.0.1",
            self.listen(site).getHost().port,
            TLSMemoryBIOFactory(ClientContextFactory(), True, client, clock),
        )
        self.until(lambda: recorder.connected)
        recorder.transport.write(GET)
        self.until(lambda: recorder.data.endswith(b"first"))
        recorder.data = b""
        self.drained(idle)
        return recorder

    def test_idle(self) -> None:
        """
        Is closed upon cleanly.
        """
        recorder = self.secured(0.05)
        self.until(recorder.isLost)
        self.assertTrue(recorder.lost[0].check(ConnectionDone))
        self.until(lambda: not self.transports[0].connected)
        self.assertEqual(self.moved, 0)

    def test_asks(self) -> None:
        """
        Is answered before.
        """
        recorder = self.secured(20.0)
        recorder.transport.write(GET)
        self.until(recorder.isLost)
        self.assertIn(CLOSE, recorder.data)
        self.assertTrue(recorder.data.endswith(b"first"))
        self.assertTrue(recorder.lost[0].check(ConnectionDone))
