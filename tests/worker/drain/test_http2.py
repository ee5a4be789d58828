"""
Tests of L{twisted_cluster.worker.drain.http2}.
"""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional
from unittest import skipUnless

from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import StringTransport
from twisted.internet.threads import deferToThread
from twisted.logger import LogLevel, globalLogPublisher
from twisted.python.components import getRegistry, registerAdapter
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from zope.interface import implementedBy, implementer
from zope.interface.verify import verifyObject

from tests.integration.clients import makeCertificate, skipWithoutTLS
from tests.sockethelpers import Events, descriptors
from twisted_cluster.errors import TransferFailed
from twisted_cluster.interfaces import IDrain, IDrainable
from twisted_cluster.worker.drain import http2
from twisted_cluster.worker.drain.connection import ConnectionDrain

try:
    import h2.config
    import h2.connection
    import h2.events
    from twisted.web._http2 import H2Connection
except ImportError:
    H2_ENABLED = False
else:
    H2_ENABLED = True

TIMEOUT = 30.0
LOCALHOST = "127.0.0.1"
HIGHEST = 2**31 - 1
REFUSED_STREAM = 7
IDLE = 5.0
MOMENT = 1e-6
SOME = 10_000
GET = [
    (":method", "GET"),
    (":scheme", "https"),
    (":authority", "localhost"),
    ("x-padding", "of which the header compression keeps a copy"),
]


class Client:
    """
    What a client of HTTP/2 sends, and has understood.

    @ivar bodies: what it got, by stream.
    @ivar ended: the streams of which it got all.
    @ivar resets: how streams were reset.
    @ivar goneAway: the last stream of each GOAWAY.
    """

    def __init__(self, answersPings: bool = True) -> None:
        config = h2.config.H2Configuration(client_side=True)
        self.conn: Any = h2.connection.H2Connection(config)
        self.bodies: dict[int, bytes] = defaultdict(bytes)
        self.ended: list[int] = []
        self.resets: dict[int, int] = {}
        self.goneAway: list[int] = []
        self.reads = True
        table = self.conn._frame_dispatch_table
        for kind in table:
            if kind.__name__ == "GoAwayFrame":
                table[kind] = self._goesAway
            elif kind.__name__ == "PingFrame" and not answersPings:
                table[kind] = lambda frame: ([], [])
        self.conn.initiate_connection()

    def _goesAway(self, frame: Any) -> Any:
        assert not frame.error_code
        self.goneAway.append(frame.last_stream_id)
        return [], []

    def begin(
        self, path: str = "/", body: Optional[int] = None, end: bool = True
    ) -> int:
        """
        Ask for something.

        @param body: how many bytes will be uploaded.
        @return: the stream.
        """
        stream: int = self.conn.get_next_available_stream_id()
        headers = [*GET, (":path", path)]
        if body is not None:
            headers[0] = (":method", "POST")
            headers.append(("content-length", str(body)))
        headers.sort(key=lambda header: not header[0].startswith(":"))
        self.conn.send_headers(stream, headers, end_stream=body is None and end)
        return stream

    def room(self, stream: int) -> int:
        """
        How much may be uploaded now, in one piece.
        """
        window: int = self.conn.local_flow_control_window(stream)
        most: int = self.conn.max_outbound_frame_size
        return min(window, most)

    def received(self, data: bytes) -> None:
        """
        Take from the connection.
        """
        for event in self.conn.receive_data(data):
            if isinstance(event, h2.events.DataReceived):
                assert event.data is not None and event.stream_id is not None
                self.bodies[event.stream_id] += event.data
                if self.reads:
                    self.conn.acknowledge_received_data(
                        event.flow_controlled_length, event.stream_id
                    )
            elif isinstance(event, h2.events.StreamEnded):
                self.ended.append(event.stream_id)
            elif isinstance(event, h2.events.StreamReset):
                self.resets[event.stream_id] = event.error_code

    def toSend(self) -> bytes:
        """
        Give to the connection.
        """
        data: bytes = self.conn.data_to_send()
        return data


@implementer(IDrain)
class FakeDrain:
    """
    An L{IDrain} whose client sends something at an unfortunate moment, if the
    test says so.

    @ivar busy: how often C{close} is in vain.
    @ivar closed: how often it was called.
    """

    def __init__(self, transport: Any, clock: Clock, idle: float = IDLE) -> None:
        self.transport = transport
        self.clock = clock
        self.idle = idle
        self.busy = 0
        self.closed = 0

    def move(self, unread: bytes = b"") -> Deferred[None]:
        """
        HTTP/2 cannot.
        """
        return fail(TransferFailed("it should not have been tried"))

    def close(self) -> bool:
        """
        See L{IDrain.close}.
        """
        self.closed += 1
        if self.closed <= self.busy:
            return False
        self.transport.loseConnection()
        return True


class Turns(Clock):
    """
    A clock whose every turn takes a moment, so that what is called in each of them
    does not hold it up.
    """

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object, **kw: object
    ) -> IDelayedCall:
        """
        See L{IReactorTime.callLater<twisted.internet.interfaces.IReactorTime>}.
        """
        return super().callLater(max(delay, MOMENT), callable, *args, **kw)


class Wire(StringTransport):
    """
    A transport that has been given all, unless the test says so.
    """

    offset = 0
    dataBuffer = b""
    _tempDataLen = 0


class Page(Resource):
    """
    Answers when it is told to, with what was uploaded.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Any] = []
        self.heard: Callable[[Any], None] = lambda request: None
        self.gone = 0

    def render(self, request: Any) -> Any:
        """
        See L{Resource.render}.
        """
        if request.path == b"/at-once":
            return b"at once"
        self.requests.append(request)
        request.notifyFinish().addErrback(self._gone)
        self.heard(request)
        return NOT_DONE_YET

    def _gone(self, reason: Failure) -> None:
        self.gone += 1

    def answer(self, body: bytes = b"later") -> None:
        """
        Answer the request that waits longest.
        """
        request = self.requests.pop(0)
        request.write(body)
        request.finish()


class Exchange(SynchronousTestCase):
    """
    A client and a connection of C{twisted.web}, in memory.
    """

    answersPings = True

    def setUp(self) -> None:
        self.clock = Turns()
        self.page = Page()
        self.site = Site(self.page)
        self.wire = Wire()
        kind: Any = H2Connection
        self.protocol = kind(reactor=self.clock)
        self.protocol.callLater = self.clock.callLater
        self.protocol.timeOut = None
        self.protocol.site = self.protocol.factory = self.site
        self.protocol.requestFactory = self.site.requestFactory
        self.protocol.makeConnection(self.wire)
        self.wire.registerProducer(self.protocol, True)
        self.client = Client(self.answersPings)
        self.drain = FakeDrain(self.wire, self.clock)
        self.exchange()

    def exchange(self, seconds: float = 0) -> None:
        """
        Let both sides have what the other has sent, until there is no more.
        """
        if seconds:
            self.clock.advance(seconds)
        while True:
            toServer = self.client.toSend()
            if toServer and not self.wire.disconnecting:
                self.protocol.dataReceived(toServer)
            for _ in range(50):
                self.clock.advance(MOMENT)
            toClient = self.wire.value()
            self.wire.clear()
            if not toClient and not toServer:
                return
            self.client.received(toClient)

    def begin(self) -> None:
        """
        Begin to drain; the client has not read anything of it yet.
        """
        http2.HTTP2Drainable(self.protocol).drain(self.drain)

    def hear(self) -> None:
        """
        Let the client read that the end is near, answer, and hear that it is there.
        """
        self.exchange()
        self.exchange(http2.GRACE)

    def loseConnection(self) -> None:
        """
        Have the connection end.
        """
        self.protocol.connectionLost(Failure(ConnectionDone()))


@skipUnless(H2_ENABLED, "this Twisted speaks no HTTP/2, or h2 is not installed")
class HTTP2Tests(Exchange):
    """
    A client as it should be.
    """

    def test_interfaces(self) -> None:
        """
        It is an L{IDrainable}, and is tested with an L{IDrain}.
        """
        verifyObject(IDrainable, http2.HTTP2Drainable(self.protocol))
        verifyObject(IDrain, self.drain)

    def test_idle(self) -> None:
        """
        A client that has asked for nothing hears first that the end is near; when
        it has read that, that it is there; and the connection is closed at once.
        """
        self.begin()
        self.exchange()
        self.assertEqual((self.client.goneAway, self.drain.closed), ([HIGHEST], 0))
        self.exchange(http2.GRACE)
        self.assertEqual(self.client.goneAway, [HIGHEST, 0])
        self.assertEqual(self.drain.closed, 1)
        self.assertIsNone(self.wire.producer)

    def test_underWay(self) -> None:
        """
        What was asked for before is answered in full, and then the connection is
        closed.
        """
        first, second = self.client.begin(), self.client.begin()
        self.exchange()
        self.begin()
        self.hear()
        self.exchange(60)
        self.assertEqual(self.client.goneAway, [HIGHEST, second])
        self.page.answer()
        self.exchange()
        self.assertEqual((self.client.ended, self.drain.closed), ([first], 0))
        self.page.answer()
        self.exchange()
        self.assertEqual(self.client.ended, [first, second])
        self.assertEqual(self.client.bodies, {first: b"later", second: b"later"})
        self.assertEqual(self.drain.closed, 1)

    def test_betweenGoAways(self) -> None:
        """
        A request that the client sends before it has read of the end is answered,
        as is one that comes together with the PING's answer, or soon after.
        """
        early = self.client.begin("/at-once")
        self.begin()
        self.protocol.dataReceived(self.client.toSend())
        together = self.client.begin("/at-once")
        self.exchange()
        soon = self.client.begin("/at-once")
        self.hear()
        self.assertEqual(self.client.ended, [early, together, soon])
        self.assertEqual(self.client.goneAway, [HIGHEST, soon])
        self.assertEqual(self.drain.closed, 1)

    def test_sameRead(self) -> None:
        """
        A request that is in one piece of data with the PING's answer, behind it,
        is answered.
        """
        self.begin()
        self.client.received(self.wire.value())
        self.wire.clear()
        stream = self.client.begin("/at-once")
        self.hear()
        self.assertEqual(self.client.ended, [stream])
        self.assertEqual(self.client.goneAway, [HIGHEST, stream])

    def test_refused(self) -> None:
        """
        One that comes after that is refused, such that it may be repeated
        elsewhere, whatever it uploads; those before it go on.
        """
        upload = self.client.begin(body=30)
        self.client.conn.send_data(upload, b"0123456789")
        self.exchange()
        self.begin()
        self.hear()
        self.assertEqual(self.client.goneAway, [HIGHEST, upload])
        late = self.client.begin("/refused", body=300_000)
        for _ in range(4):
            self.client.conn.send_data(late, b"x" * 16_000)
        self.exchange()
        later = self.client.begin("/refused")
        self.client.conn.send_data(upload, b"0123456789")
        self.exchange()
        self.assertEqual(self.client.resets, dict.fromkeys([late, later], 7))
        self.assertEqual(REFUSED_STREAM, 7)
        self.client.conn.send_data(upload, b"0123456789", end_stream=True)
        self.exchange()
        self.assertEqual(self.page.requests[0].content.read(), b"0123456789" * 3)
        self.page.answer(b"got it")
        self.exchange()
        self.assertEqual(self.client.bodies[upload], b"got it")
        self.assertEqual((self.client.ended, self.drain.closed), ([upload], 1))

    def test_refusedGivenUp(self) -> None:
        """
        One that its client has reset at once hurts nobody.
        """
        stream = self.client.begin()
        self.exchange()
        self.begin()
        self.hear()
        late = self.client.begin(end=False)
        self.client.conn.reset_stream(late)
        self.exchange()
        self.page.answer()
        self.exchange()
        self.assertEqual((self.client.ended, self.drain.closed), ([stream], 1))

    def test_refusedWindow(self) -> None:
        """
        What refused streams upload does not use up what the connection lets the
        client send: an upload under way ends.
        """
        upload = self.client.begin(body=200_000)
        self.exchange()
        self.begin()
        self.hear()
        for _ in range(20):
            late = self.client.begin(body=16_000)
            self.client.conn.send_data(late, b"x" * 16_000, end_stream=True)
            self.exchange()
        left = 200_000
        while left:
            room = min(left, self.client.room(upload))
            self.assertGreater(room, 0)
            left -= room
            self.client.conn.send_data(upload, b"y" * room, end_stream=not left)
            self.exchange()
        self.page.answer()
        self.exchange()
        self.assertEqual((self.client.ended, self.drain.closed), ([upload], 1))

    def test_slowReader(self) -> None:
        """
        A client that reads slowly gets all.
        """
        self.client.reads = False
        stream = self.client.begin()
        self.exchange()
        body = bytes(range(256)) * 1000
        self.page.answer(body)
        self.exchange()
        self.begin()
        self.hear()
        self.exchange(60)
        while len(self.client.bodies[stream]) < len(body):
            self.assertEqual(self.drain.closed, 0)
            self.client.conn.increment_flow_control_window(10_000)
            self.client.conn.increment_flow_control_window(10_000, stream)
            self.exchange()
        self.exchange()
        self.assertEqual(self.client.bodies[stream], body)
        self.assertEqual((self.client.ended, self.drain.closed), ([stream], 1))

    def test_producer(self) -> None:
        """
        A response that goes on for long is not cut.
        """
        stream = self.client.begin()
        self.exchange()
        request = self.page.requests.pop()
        request.write(b"begun ")
        self.begin()
        for _ in range(10):
            self.exchange(10)
            request.write(b"on ")
        request.finish()
        self.exchange()
        self.assertEqual(self.client.bodies[stream], b"begun " + b"on " * 10)
        self.assertEqual((self.client.ended, self.drain.closed), ([stream], 1))

    def test_clientGoesAway(self) -> None:
        """
        A client that goes away in answer gets what it has asked for.
        """
        stream = self.client.begin()
        self.exchange()
        self.begin()
        self.client.received(self.wire.value())
        self.wire.clear()
        for _ in range(2):
            goodbye = http2._goAway(0)
            self.protocol.dataReceived(self.client.toSend() + goodbye)
        self.hear()
        self.assertEqual((self.page.gone, self.drain.closed), (0, 0))
        self.page.answer()
        self.exchange()
        self.assertEqual(self.client.bodies, {stream: b"later"})
        self.assertEqual((self.client.ended, self.drain.closed), ([stream], 1))

    def test_clientGoesAwayWithError(self) -> None:
        """
        One that goes away as it has found an error is treated as always.
        """
        self.client.begin()
        self.exchange()
        self.begin()
        self.protocol.dataReceived(http2._goAway(0)[:-1] + b"\x01")
        self.assertEqual((self.page.gone, self.wire.disconnecting), (1, True))

    def test_sending(self) -> None:
        """
        What is still on its way to the client is waited for.
        """
        self.wire.dataBuffer = b"unsent"
        self.begin()
        self.hear()
        self.exchange(100)
        self.assertEqual(self.drain.closed, 0)
        self.wire.dataBuffer = b""
        self.wire._tempDataLen = 6
        self.exchange(1)
        self.assertEqual(self.drain.closed, 0)
        self.wire._tempDataLen = 0
        self.exchange(1)
        self.assertEqual(self.drain.closed, 1)

    def test_backPressure(self) -> None:
        """
        So is what the connection holds back from its transport.
        """
        stream = self.client.begin("/at-once")
        self.protocol.pauseProducing()
        self.begin()
        self.hear()
        self.exchange(100)
        self.assertEqual((self.client.ended, self.drain.closed), ([], 0))
        self.protocol.resumeProducing()
        self.exchange(1)
        self.assertEqual((self.client.ended, self.drain.closed), ([stream], 1))

    def test_backPressureIdle(self) -> None:
        """
        A transport that wants nothing at the moment has not sent all.
        """
        self.protocol.pauseProducing()
        self.begin()
        self.hear()
        self.exchange(100)
        self.assertEqual(self.drain.closed, 0)
        self.protocol.resumeProducing()
        self.exchange(1)
        self.assertEqual(self.drain.closed, 1)

    def test_otherPing(self) -> None:
        """
        An answer to a PING that is not ours says nothing.
        """
        self.begin()
        self.protocol.dataReceived(b"\0\0\x08\x06\x01\0\0\0\0whatever")
        self.clock.advance(http2.GRACE)
        self.exchange()
        self.assertEqual(self.client.goneAway, [HIGHEST])

    def test_asksWhileClosing(self) -> None:
        """
        A client that sends something at the very moment when the connection is to
        be closed has it read, and hears that it is refused.
        """
        self.drain.busy = 2
        self.begin()
        self.hear()
        self.assertEqual(self.drain.closed, 1)
        stream = self.client.begin()
        self.exchange()
        self.assertEqual(self.client.resets, {stream: REFUSED_STREAM})
        self.exchange(1)
        self.assertFalse(self.wire.disconnecting)
        self.exchange(1)
        self.assertTrue(self.wire.disconnecting)

    def test_asksAllTheTime(self) -> None:
        """
        One that goes on sending what belongs to no stream does not keep the
        connection open.
        """
        self.drain.busy = 1_000_000
        self.begin()
        self.hear()
        self.exchange(IDLE - 1)
        self.assertFalse(self.wire.disconnecting)
        self.exchange(1)
        self.assertTrue(self.wire.disconnecting)

    def test_afterClose(self) -> None:
        """
        When the connection is closed, nothing that still arrives is looked at.
        """
        self.begin()
        self.hear()
        self.client.begin()
        self.protocol.dataReceived(self.client.toSend())
        self.assertEqual((self.page.requests, self.wire.value()), ([], b""))

    def test_lost(self) -> None:
        """
        When the connection ends, nothing goes on.
        """
        for seconds in (None, 0, IDLE):
            with self.subTest(seconds=seconds):
                self.setUp()
                self.wire.dataBuffer = b"unsent"
                self.client.begin()
                self.exchange()
                self.begin()
                if seconds is not None:
                    self.exchange(seconds)
                self.loseConnection()
                self.exchange()
                self.assertEqual(self.clock.getDelayedCalls(), [])
                self.assertEqual((self.page.gone, self.drain.closed), (1, 0))

    def test_closing(self) -> None:
        """
        A connection that Twisted is closing already is not kept by what it might
        still produce.
        """
        self.wire.loseConnection()
        self.begin()
        self.assertIsNone(self.wire.producer)
        self.assertEqual(self.wire.value(), b"")

    def test_unknownVersion(self) -> None:
        """
        With a Twisted or an h2 that lacks something, connections are left alone,
        which is said once, with what it is.
        """
        self.patch(http2, "NEEDED", (*http2.NEEDED, "_new"))
        self.patch(http2, "NEEDED_OF_H2", ("_newer",))
        http2._tellMissing.cache_clear()
        events = Events()
        globalLogPublisher.addObserver(events)
        self.addCleanup(globalLogPublisher.removeObserver, events)
        self.begin()
        self.begin()
        self.assertEqual(self.wire.value(), b"")
        self.assertEqual(
            [(each["log_level"], each["names"]) for each in events if "names" in each],
            [(LogLevel.error, "_new, conn._newer")],
        )


@skipUnless(H2_ENABLED, "this Twisted speaks no HTTP/2, or h2 is not installed")
class SilentClientTests(Exchange):
    """
    A client that does not answer the PING.
    """

    answersPings = False

    def test_idle(self) -> None:
        """
        When it has asked for nothing, it is given the time for such, and no more.
        """
        self.begin()
        self.exchange()
        self.exchange(IDLE - 1)
        self.assertEqual((self.client.goneAway, self.drain.closed), ([HIGHEST], 0))
        self.exchange(1)
        self.assertEqual((self.client.goneAway, self.drain.closed), ([HIGHEST, 0], 1))

    def test_noTime(self) -> None:
        """
        When there is no time for such, all is said at once.
        """
        self.drain.idle = 0
        self.begin()
        self.exchange()
        self.assertEqual((self.client.goneAway, self.drain.closed), ([HIGHEST, 0], 1))

    def test_patience(self) -> None:
        """
        While it waits for something, it may take longer, and may ask for more.
        """
        first = self.client.begin()
        self.exchange()
        self.begin()
        self.exchange(IDLE)
        self.exchange(http2.PATIENCE - 1)
        second = self.client.begin("/at-once")
        self.exchange()
        self.assertEqual(self.client.goneAway, [HIGHEST])
        self.assertEqual(self.client.ended, [second])
        self.exchange(1)
        self.assertEqual(self.client.goneAway, [HIGHEST, second])
        third = self.client.begin("/at-once")
        self.exchange()
        self.assertEqual(self.client.resets, {third: REFUSED_STREAM})
        self.page.answer()
        self.exchange()
        self.assertEqual(self.client.ended, [second, first])
        self.assertEqual(self.drain.closed, 1)

    def test_patienceEnds(self) -> None:
        """
        When it has got that, it is not waited for any longer.
        """
        stream = self.client.begin()
        self.exchange()
        self.begin()
        self.exchange(IDLE)
        self.assertEqual(self.client.goneAway, [HIGHEST])
        self.page.answer()
        self.exchange()
        self.assertEqual(self.client.goneAway, [HIGHEST, stream])
        self.assertEqual((self.client.ended, self.drain.closed), ([stream], 1))


@skipUnless(H2_ENABLED, "this Twisted speaks no HTTP/2, or h2 is not installed")
class RegisterTests(SynchronousTestCase):
    """
    What Twisted and the program have imported decides.
    """

    def test_importsNothing(self) -> None:
        """
        Nothing is imported for it.
        """
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "import sys\n"
                "from twisted_cluster.worker.drain.http2 import MODULE, register\n"
                "register()\n"
                "print(MODULE in sys.modules, 'h2' in sys.modules)",
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual((done.returncode, done.stdout), (0, "False False\n"))

    def test_registered(self) -> None:
        """
        With the protocol imported, its connections are drained so, however often
        that is said.
        """
        self.forget()
        self.addCleanup(self.forget)
        http2.register()
        http2.register()
        protocol = H2Connection(reactor=Clock())
        self.assertIsInstance(IDrainable(protocol), http2.HTTP2Drainable)

    def test_programKnowsBetter(self) -> None:
        """
        What the program has registered itself is left.
        """

        @implementer(IDrainable)
        class Own:
            def __init__(self, protocol: object) -> None:
                pass

            def drain(self, drain: IDrain) -> None:
                pass

        self.forget()
        registerAdapter(Own, H2Connection, IDrainable)
        self.addCleanup(self.forget)
        http2.register()
        protocol: Any = H2Connection(reactor=Clock())
        self.assertIsInstance(IDrainable(protocol), Own)

    def forget(self) -> None:
        """
        Take back what is registered.
        """
        getRegistry().unregister([implementedBy(H2Connection)], IDrainable, "")


@skipUnless(H2_ENABLED, "this Twisted speaks no HTTP/2, or h2 is not installed")
class RealTests(TestCase):
    """
    A site with a real socket, TLS and a client in a thread.
    """

    timeout = TIMEOUT

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        directory = Path(self.mktemp())
        directory.mkdir()
        key, certificate = makeCertificate(directory)
        skipWithoutTLS(key, certificate)
        self.page = Page()
        endpoint = serverFromString(
            self.reactor,
            f"ssl:0:interface={LOCALHOST}:privateKey={key}:certKey={certificate}",
        )
        port = self.successResultOf(endpoint.listen(Site(self.page)))
        self.addCleanup(port.stopListening)
        self.port = port.getHost().port
        self.context = ssl.create_default_context(cafile=str(certificate))
        self.context.set_alpn_protocols(["h2"])
        self.asked: Deferred[Any] = Deferred()

    async def drained(self, talk: Callable[[Client, ssl.SSLSocket], None]) -> Client:
        """
        Have a client talk in a thread; drain its connection as soon as it has asked
        for something that is not answered at once, and wait until both have ended.
        """
        client = Client()
        # A reactor that runs has more of them.
        await deferLater(self.reactor, 0)
        before = descriptors()

        def connected() -> None:
            plain = socket.create_connection((LOCALHOST, self.port), TIMEOUT)
            with self.context.wrap_socket(plain, server_hostname="localhost") as skt:
                talk(client, skt)

        talking = deferToThread(connected)
        request = await self.asked
        protocol = request.channel._conn
        lost: Deferred[None] = Deferred()
        connectionLost = protocol.connectionLost

        def connectionIsLost(*args: Any, **kwargs: Any) -> None:
            connectionLost(*args, **kwargs)
            if not lost.called:
                self.reactor.callLater(0, lost.callback, None)

        protocol.connectionLost = connectionIsLost
        drain = ConnectionDrain(protocol.transport.transport, self.reactor, IDLE, None)
        http2.HTTP2Drainable(protocol).drain(drain)
        await talking
        await lost
        self.assertEqual(descriptors(), before)
        return client

    async def test_all(self) -> None:
        """
        What was asked for before, an upload under way, and what is asked for while
        the client hears of the end, is answered in full.  The client's own GOAWAY
        changes nothing, and in the end the server closes.
        """
        large = b"0123456789" * 30_000

        def heard(request: Any) -> None:
            if request.path == b"/later":
                self.asked.callback(request)
            else:
                uploaded = self.page.requests.pop()
                uploaded.write(uploaded.content.read())
                uploaded.finish()
                self.page.answer(large)

        def talk(client: Client, skt: ssl.SSLSocket) -> None:
            client.begin("/later")
            upload = client.begin("/upload", body=len(large))
            client.conn.send_data(upload, large[:SOME])
            rest = large[SOME:]
            while True:
                skt.sendall(client.toSend())
                data = skt.recv(65536)
                if not data:
                    return
                hadHeard = bool(client.goneAway)
                client.received(data)
                if client.goneAway and not hadHeard:
                    skt.sendall(http2._goAway(0))
                    client.begin("/at-once")
                while client.goneAway and rest and client.room(upload):
                    part, rest = rest[: (room := client.room(upload))], rest[room:]
                    client.conn.send_data(upload, part, end_stream=not rest)

        self.page.heard = heard
        client = await self.drained(talk)
        self.assertEqual(client.goneAway, [HIGHEST, 5])
        self.assertEqual(client.bodies, {1: large, 3: large, 5: b"at once"})
        self.assertEqual(sorted(client.ended), [1, 3, 5])
        self.assertEqual((client.resets, self.page.gone), ({}, 0))
