"""
Tests of L{twisted_cluster.worker.drain.websocket}.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import subprocess
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.python.components import getRegistry
from twisted.trial.unittest import SkipTest, SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Site
from zope.interface import implementedBy
from zope.interface.verify import verifyObject

from tests.sockethelpers import Events
from tests.sockets.reactors import ReactorTestCase
from tests.worker.drain.served import FakeDrain, Transport, lose
from twisted_cluster.errors import TransferFailed
from twisted_cluster.interfaces import IDrainable
from twisted_cluster.worker.drain import http1, websocket
from twisted_cluster.worker.drain.connection import ConnectionDrain

try:
    from autobahn.twisted.resource import WebSocketResource
    from autobahn.twisted.websocket import (
        WebSocketServerFactory,
        WebSocketServerProtocol,
    )
    from autobahn.websocket.types import ConnectionDeny
except ImportError:
    AUTOBAHN = False
else:
    AUTOBAHN = True

try:
    from daphne.http_protocol import HTTPFactory as DaphneFactory
    from daphne.ws_protocol import WebSocketFactory as DaphneWebSocketFactory
except ImportError:
    DAPHNE = False
else:
    DAPHNE = True

HANDSHAKE = (
    b"GET / HTTP/1.1\r\n"
    b"Host: localhost\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n\r\n"
)
CLOSE, TEXT = 8, 1
GOING_AWAY = struct.pack("!BBH", 0x80 | CLOSE, 12, 1001) + b"going away"


def frame(opcode: int, payload: bytes) -> bytes:
    """
    Make a short frame as clients send it.
    """
    mask = b"mask"
    masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + mask + masked


ANSWER = frame(CLOSE, struct.pack("!H", 1001))


class WebSocketTestCase(SynchronousTestCase):
    """
    What the tests share.
    """

    def setUp(self) -> None:
        if not AUTOBAHN:
            raise SkipTest("Autobahn is not installed")
        websocket.register()
        http1.register()
        self.clock = Clock()
        self.transport = Transport()
        self.closed: list[tuple[bool, int]] = []
        self.messages: list[bytes] = []
        self.hello = b""
        self.connect: Any = lambda request: None
        self.factory = self.makeFactory()

    def makeFactory(self) -> Any:
        """
        A factory whose protocols tell what they hear.
        """
        case = self

        class Telling(WebSocketServerProtocol):
            def onConnect(self, request: Any) -> Any:
                return case.connect(request)

            def onOpen(self) -> None:
                if case.hello:
                    self.sendMessage(case.hello)

            def onMessage(self, payload: bytes, isBinary: bool) -> None:
                case.messages.append(payload)

            def onClose(self, wasClean: bool, code: int, reason: str) -> None:
                case.closed.append((wasClean, code))

        factory = WebSocketServerFactory(None)
        factory.protocol = Telling
        # Its timers run on the real reactor.
        factory.setProtocolOptions(openHandshakeTimeout=0, closeHandshakeTimeout=10)
        return factory

    def connected(self, factory: Any = None) -> Any:
        """
        The protocol of a new connection.
        """
        protocol = (factory or self.factory).buildProtocol(None)
        self.transport.protocol = protocol
        protocol.makeConnection(self.transport)
        return protocol

    def opened(self) -> Any:
        """
        The protocol of an open WebSocket.
        """
        protocol = self.connected()
        protocol.dataReceived(HANDSHAKE)
        self.assertIn(b"101 Switching", self.got())
        return protocol

    def got(self) -> bytes:
        """
        Take what was written.
        """
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    def drained(self, protocol: Any, movable: bool = True) -> FakeDrain:
        """
        Have a connection drained.
        """
        drain = FakeDrain(self.transport, self.clock, movable)
        drainable: Any = IDrainable(protocol)
        drainable.drain(drain)
        return drain


class Open(WebSocketTestCase):
    """
    An open WebSocket.
    """

    def test_goesAway(self) -> None:
        """
        The peer hears that the server goes away, and when it has answered, that is
        a clean end, and nothing runs.
        """
        protocol = self.opened()
        drain = self.drained(protocol)
        self.assertEqual(self.got(), GOING_AWAY)
        self.assertFalse(self.transport.disconnecting)
        # Autobahn's own, on the real reactor.
        self.assertIsNone(protocol.closeHandshakeTimeoutCall)
        protocol.dataReceived(ANSWER)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        lose(self.transport)
        self.assertEqual(self.closed, [(True, 1001)])
        self.assertEqual((drain.moves, drain.closes), ([], 0))

    def test_received(self) -> None:
        """
        What the peer had sent before it answered is received.
        """
        protocol = self.opened()
        self.drained(protocol)
        protocol.dataReceived(frame(TEXT, b"before") + ANSWER)
        self.assertEqual(self.messages, [b"before"])

    def test_silent(self) -> None:
        """
        A peer that does not answer gets a second.
        """
        self.drained(self.opened())
        self.clock.advance(0.9)
        self.assertFalse(self.transport.disconnecting)
        self.clock.advance(0.1)
        self.assertTrue(self.transport.disconnecting)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        lose(self.transport)
        self.assertEqual(self.closed, [(False, 1006)])

    def test_slow(self) -> None:
        """
        One that still reads what was written before is waited for.
        """
        protocol = self.opened()
        self.transport.dataBuffer = b"much"
        self.drained(protocol)
        self.clock.pump([0.5] * 20)
        self.assertFalse(self.transport.disconnecting)
        self.transport.dataBuffer = b""
        self.clock.advance(1)
        self.assertTrue(self.transport.disconnecting)

    def test_wrapped(self) -> None:
        """
        Where something around it, as TLS, waits on for the peer, it is cut.
        """
        protocol = self.opened()
        self.transport.protocol = object()
        aborted: list[bool] = []
        self.patch(self.transport, "abortConnection", lambda: aborted.append(True))
        self.drained(protocol)
        self.clock.advance(1)
        self.assertTrue(self.transport.disconnecting)
        self.assertEqual(aborted, [])
        self.clock.advance(1)
        self.assertEqual(aborted, [True])

    def test_wrappedEnds(self) -> None:
        """
        Unless that has ended meanwhile.
        """
        protocol = self.opened()
        self.transport.protocol = object()
        self.patch(self.transport, "abortConnection", lambda: self.fail("cut"))
        self.drained(protocol)
        self.clock.advance(1)
        self.transport.connected = False
        self.clock.advance(1)

    def test_lost(self) -> None:
        """
        A peer that goes away leaves nothing that runs.
        """
        self.drained(self.opened())
        lose(self.transport)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_closing(self) -> None:
        """
        One that the program has begun to close gets the second as well, and no
        other close frame.
        """
        protocol = self.opened()
        protocol.sendClose(1000)
        self.got()
        self.drained(protocol)
        self.assertEqual(self.got(), b"")
        self.clock.advance(1)
        self.assertTrue(self.transport.disconnecting)

    def test_closed(self) -> None:
        """
        One that is closed already is left alone.
        """
        protocol = self.opened()
        protocol.dropConnection()
        self.drained(protocol)
        self.assertEqual(self.got(), b"")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_withinAFrame(self) -> None:
        """
        A frame that the program sends in pieces is not interrupted; a message of
        several frames is.
        """
        protocol = self.opened()
        protocol.beginMessage()
        protocol.beginMessageFrame(4)
        protocol.sendMessageFrameData(b"pa")
        self.got()
        self.drained(protocol)
        self.clock.advance(1)
        self.assertEqual(self.got(), b"")
        protocol.sendMessageFrameData(b"rt")
        self.got()
        self.clock.advance(1)
        self.assertEqual(self.got(), GOING_AWAY)


class Opening(WebSocketTestCase):
    """
    A WebSocket whose handshake has not ended.
    """

    def test_nothing(self) -> None:
        """
        A client that has sent nothing, or only a part of its request, moves.
        """
        for part in (b"", HANDSHAKE[:40]):
            self.transport = Transport()
            protocol = self.connected()
            if part:
                protocol.dataReceived(part)
            drain = self.drained(protocol)
            self.assertEqual(drain.moves, [part])
            drain.moved()
            self.assertEqual(self.got(), b"")
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nowhereToMove(self) -> None:
        """
        Where it cannot, it is closed after a while.
        """
        drain = self.drained(self.connected(), movable=False)
        self.clock.advance(4.9)
        self.assertEqual(drain.closes, 0)
        self.clock.advance(0.1)
        self.assertEqual((len(drain.moves), drain.closes), (1, 1))
        lose(self.transport)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_wrapped(self) -> None:
        """
        Within something else, it does not move.
        """
        protocol = self.connected()
        self.transport.protocol = object()
        drain = self.drained(protocol)
        self.clock.advance(5)
        self.assertEqual((drain.moves, drain.closes), ([], 1))

    def test_comesAfterAll(self) -> None:
        """
        A handshake that begins meanwhile succeeds, and then the server goes away.
        """
        protocol = self.connected()
        drain = self.drained(protocol, movable=False)
        protocol.dataReceived(HANDSHAKE[:20])
        self.clock.advance(5)
        drain.closable = False
        self.clock.advance(5)
        self.assertEqual(drain.closes, 0)
        protocol.dataReceived(HANDSHAKE[20:])
        self.assertIn(b"101 Switching", self.got())
        self.clock.advance(0)
        self.assertEqual(self.got(), GOING_AWAY)
        self.assertEqual(drain.closes, 0)
        protocol.dataReceived(ANSWER)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_closingAtTheMoment(self) -> None:
        """
        So does one that has come at the very moment of closing.
        """
        protocol = self.connected()
        drain = self.drained(protocol, movable=False)
        drain.closable = False
        self.clock.advance(5)
        self.assertEqual(drain.closes, 1)
        protocol.dataReceived(HANDSHAKE)
        self.assertIn(b"101 Switching", self.got())
        self.clock.advance(0)
        self.assertEqual(self.got(), GOING_AWAY)

    def test_asked(self) -> None:
        """
        The program may take its time to accept, and what it says on opening comes
        before the close frame.
        """
        accepting: Deferred[None] = Deferred()
        self.connect = lambda request: accepting
        self.hello = b"hello"
        protocol = self.connected()
        protocol.dataReceived(HANDSHAKE)
        drain = self.drained(protocol)
        self.clock.pump([1] * 20)
        self.assertEqual((self.got(), drain.moves, drain.closes), (b"", [], 0))
        accepting.callback(None)
        self.clock.advance(0)
        data = self.got()
        self.assertIn(b"101 Switching", data)
        self.assertTrue(data.endswith(b"hello" + GOING_AWAY), data)

    def test_refused(self) -> None:
        """
        Or refuse.
        """
        accepting: Deferred[None] = Deferred()
        self.connect = lambda request: accepting
        protocol = self.connected()
        protocol.dataReceived(HANDSHAKE)
        self.drained(protocol)
        accepting.errback(ConnectionDeny(403, "no"))
        self.assertIn(b"403 no", self.got())
        self.assertTrue(self.transport.disconnecting)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_strange(self) -> None:
        """
        A move that fails as none should is logged, and otherwise like any other.
        """
        drain = self.drained(self.connected())
        drain.notMoved(ZeroDivisionError())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.clock.advance(5)
        self.assertEqual(drain.closes, 1)

    def test_lostOnTheWay(self) -> None:
        """
        A client that goes away while its connection moves ends everything.
        """
        drain = self.drained(self.connected())
        lose(self.transport)
        drain.notMoved(TransferFailed("the connection ended"))
        self.assertEqual(self.clock.getDelayedCalls(), [])


class Upgraded(WebSocketTestCase):
    """
    A WebSocket that began as a request to a web server.
    """

    def test_autobahn(self) -> None:
        """
        C{WebSocketResource}: in the middle of its request when the drain begins, it
        is opened, and then hears that the server goes away.
        """
        root = Resource()
        root.putChild(b"", WebSocketResource(self.factory))
        protocol = self.connected(Site(root, reactor=self.clock))
        protocol.dataReceived(HANDSHAKE[:60])
        self.drained(protocol)
        protocol.dataReceived(HANDSHAKE[60:])
        self.assertIn(b"101 Switching", self.got())
        self.assertIsInstance(self.transport.protocol, WebSocketServerProtocol)
        self.clock.advance(1)
        self.assertEqual(self.got(), GOING_AWAY)
        self.transport.protocol.dataReceived(ANSWER)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_daphne(self) -> None:
        """
        Daphne: likewise, also when its application accepts it later only.
        """
        if not DAPHNE:
            raise SkipTest("Daphne is not installed")
        server = FakeServer()
        protocol = self.connected(DaphneFactory(server))
        protocol.callLater = self.clock.callLater
        protocol.dataReceived(HANDSHAKE[:60])
        drain = self.drained(protocol)
        protocol.dataReceived(HANDSHAKE[60:])
        self.clock.pump([1] * 3)
        self.assertEqual(self.got(), b"")
        self.transport.protocol.serverAccept()
        self.assertIn(b"101 Switching", self.got())
        self.clock.advance(0)
        self.assertEqual(self.got(), GOING_AWAY)
        self.assertEqual((drain.moves, drain.closes), ([], 0))
        self.transport.protocol.dataReceived(ANSWER)
        lose(self.transport)
        said = [server.queue.get_nowait()["type"] for _ in range(server.queue.qsize())]
        self.assertEqual(said, ["websocket.connect", "websocket.disconnect"])

    def test_daphneRequest(self) -> None:
        """
        Daphne's ordinary requests are drained as any other's.
        """
        if not DAPHNE:
            raise SkipTest("Daphne is not installed")
        server = FakeServer()
        protocol = self.connected(DaphneFactory(server))
        protocol.dataReceived(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        self.drained(protocol)
        request = protocol._channel.requests[0]
        start = {"type": "http.response.start", "status": 200}
        request.handle_reply(start)
        request.handle_reply({"type": "http.response.body", "body": b"daphne"})
        data = self.got()
        self.assertIn(b"\r\nConnection: close\r\n", data)
        self.assertIn(b"daphne", data)
        self.assertTrue(self.transport.disconnecting)
        lose(self.transport)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class FakeServer:
    """
    Stands in for Daphne's server: there is one application, which does nothing.

    @ivar queue: what it is told.
    """

    proxy_forwarded_address_header = None
    root_path = ""
    request_buffer_size = 8192
    server_name = "Daphne"

    def __init__(self) -> None:
        self.queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.ws_factory = DaphneWebSocketFactory(self)
        self.ws_factory.protocol.openHandshakeTimeout = 0

    @property
    def server_class(self) -> FakeServer:
        """
        What the factory of WebSockets calls it.
        """
        return self

    def create_application(self, *_: object) -> object:
        """
        Give the application's queue.
        """
        return self.queue

    def protocol_connected(self, protocol: object) -> None:
        """
        Daphne counts its connections so.
        """

    def protocol_disconnected(self, protocol: object) -> None:
        """
        Likewise.
        """

    def log_action(self, *_: object) -> None:
        """
        Daphne logs so.
        """


class Knowing(WebSocketTestCase):
    """
    What is known of the installed Autobahn.
    """

    def test_provides(self) -> None:
        """
        The adapter does what it says.
        """
        verifyObject(IDrainable, websocket.DrainableWebSocket(self.connected()))

    def test_registered(self) -> None:
        """
        It is registered once, however often that is asked for, and what a program
        says of the class counts.
        """
        websocket.register()
        spec = implementedBy(WebSocketServerProtocol)
        registered = getRegistry().registered([spec], IDrainable)
        self.assertIs(registered, websocket.DrainableWebSocket)

    def test_needed(self) -> None:
        """
        The installed Autobahn has all that is needed.
        """
        protocol = self.connected()
        missing = [n for n in websocket.NEEDED if not hasattr(protocol, n)]
        self.assertEqual(missing, [])

    def test_missing(self) -> None:
        """
        Where something is missing, the connection is left alone, and that is said
        once.
        """
        self.patch(websocket, "NEEDED", (*websocket.NEEDED, "newInAutobahn99"))
        self.patch(websocket, "_unknown", set())
        events = Events()
        globalLogPublisher.addObserver(events)
        self.addCleanup(globalLogPublisher.removeObserver, events)
        for _ in range(2):
            self.transport = Transport()
            self.drained(self.opened())
            self.assertEqual(self.got(), b"")
        [text] = [each for each in events.texts if "newInAutobahn99" in each]
        self.assertIn("left alone", text)


class Live(ReactorTestCase):
    """
    A real connection.
    """

    def test_silent(self) -> None:
        """
        A peer that does not answer reads the close frame, and then the end, though
        Autobahn's own time limit is longer.
        """
        if not AUTOBAHN:
            raise SkipTest("Autobahn is not installed")
        websocket.register()
        factory = WebSocketServerFactory(None, reactor=self.reactor)
        factory.protocol = WebSocketServerProtocol
        factory.setProtocolOptions(openHandshakeTimeout=0, closeHandshakeTimeout=60)
        port = self.reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.ports.append(port)
        made: list[Any] = []
        kind = port.transport

        def make(*arguments: Any) -> Any:
            made.append(kind(*arguments))
            return made[-1]

        port.transport = make
        address = ("127.0.0.1", port.getHost().port)
        client = self.opened(socket.create_connection(address))
        client.sendall(HANDSHAKE)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.read(client, 1)
        [transport] = made
        drain = ConnectionDrain(transport, self.reactor, 0.0, None)
        drainable: Any = IDrainable(transport.protocol)
        drainable.drain(drain)
        self.assertEqual(self.read(client, len(GOING_AWAY)), GOING_AWAY)
        self.assertEqual(self.read(client, 1), b"")
        self.until(lambda: not transport.connected)


class Unused(SynchronousTestCase):
    """
    Programs that do not use Autobahn.
    """

    def test_importsNothing(self) -> None:
        """
        They do not come to it by this.
        """
        code = (
            "import sys\n"
            "from twisted_cluster.worker.drain.websocket import register\n"
            "register()\n"
            "sys.exit('autobahn' in sys.modules)\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
