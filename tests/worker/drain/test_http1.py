"""
Tests of L{twisted_cluster.worker.drain.http1}.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any, Optional

from hypothesis import given
from hypothesis import strategies as st
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.components import registerAdapter
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http import HTTPChannel, _GenericHTTPChannelProtocol
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.sockethelpers import Events
from tests.worker.drain.served import FakeDrain, Transport, lose
from twisted_cluster.errors import TransferFailed
from twisted_cluster.interfaces import IDrain, IDrainable
from twisted_cluster.worker.drain import http1

GET = b"GET /now HTTP/1.1\r\nHost: x\r\n\r\n"
LATER = b"GET /later HTTP/1.1\r\nHost: x\r\n\r\n"
CLOSE = b"Connection: close\r\n"


class Pages(Resource):
    """
    Answers at once or later, as the path says, with the path or the body.

    @ivar waiting: the requests that wait for an answer.
    @ivar seen: the paths that were asked for.
    @ivar onAsked: called with each request.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Any] = []
        self.seen: list[bytes] = []
        self.onAsked: Callable[[Any], object] = lambda request: None

    def render(self, request: Any) -> Any:
        self.seen.append(request.path)
        self.onAsked(request)
        if request.path == b"/later":
            self.waiting.append(request)
            return NOT_DONE_YET
        return request.content.read() or request.path


class Served:
    """
    A connection to a site.
    """

    def __init__(self, clock: Clock, factory: Any) -> None:
        self.protocol: Any = factory.buildProtocol(None)
        self.transport = Transport()
        self.transport.protocol = self.protocol
        self.protocol.makeConnection(self.transport)
        self.drain = FakeDrain(self.transport, clock)

    @property
    def channel(self) -> Any:
        """
        What speaks HTTP/1.1 in it.
        """
        protocol = self.protocol
        while hasattr(protocol, "wrappedProtocol"):
            protocol = protocol.wrappedProtocol
        return getattr(protocol, "_channel", protocol)

    def send(self, data: bytes) -> None:
        """
        Have the client send something.
        """
        self.protocol.dataReceived(data)

    def got(self) -> bytes:
        """
        Take what was written.
        """
        data: bytes = self.transport.value()
        self.transport.clear()
        return data


class HTTP1TestCase(SynchronousTestCase):
    """
    What the tests share.
    """

    def setUp(self) -> None:
        http1.register()
        self.clock = Clock()
        self.pages = Pages()
        self.site = Site(self.pages, timeout=60, reactor=self.clock)

    def served(self, factory: Any = None) -> Served:
        """
        A new connection.
        """
        return Served(self.clock, factory or self.site)

    def drained(self, served: Served, movable: bool = True) -> FakeDrain:
        """
        Have a connection drained.
        """
        drain = served.drain = FakeDrain(served.transport, self.clock, movable)
        drainable: Any = IDrainable(served.protocol)
        drainable.drain(drain)
        return drain

    def assertClosing(self, served: Served) -> bytes:
        """
        The last of the responses says close, no other does, and the connection is
        being closed.
        """
        data = served.got()
        self.assertEqual(data.count(CLOSE), 1)
        self.assertEqual(data.rpartition(b"HTTP/1.")[2].count(CLOSE), 1)
        self.assertTrue(served.transport.disconnecting)
        self.assertEqual(served.drain.moves, [])
        return data

    def assertLeft(self, served: Served) -> None:
        """
        When a connection has ended, nothing of ours is left on it, and nothing runs.
        """
        lose(served.transport)
        names = {"writeHeaders", "requestDone", "connectionLost"}
        self.assertFalse(names & set(vars(served.channel)))
        self.assertEqual(self.clock.getDelayedCalls(), [])


class Idle(HTTP1TestCase):
    """
    Nothing was asked for.
    """

    def test_moves(self) -> None:
        """
        The connection moves at once, and nothing is left of it.
        """
        served = self.served()
        drain = self.drained(served)
        self.assertEqual(drain.moves, [b""])
        drain.moved()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(set(vars(served.channel)) & {"writeHeaders"}, set())

    def test_movesLater(self) -> None:
        """
        So does one that was in use before.
        """
        served = self.served()
        served.send(GET + GET)
        self.assertNotIn(CLOSE, served.got())
        self.assertEqual(self.drained(served).moves, [b""])

    def test_seems(self) -> None:
        """
        A channel that holds anything of a request, or is ending, only seems idle.
        """
        for name, value in (
            ("_dataBuffer", [b"x"]),
            ("_requestProducer", object()),
            ("_transferDecoder", object()),
            ("_handlingRequest", True),
            ("line_mode", 0),
        ):
            served = self.served()
            setattr(served.channel, name, value)
            self.assertEqual(self.drained(served).moves, [], name)
        served = self.served()
        served.channel.loseConnection()
        self.assertEqual(self.drained(served).moves, [])

    def test_duringAnother(self) -> None:
        """
        So does one that has come to the end of a request among others it has read.
        """
        served = self.served()
        served.send(LATER[:-2])
        drains: list[FakeDrain] = []

        def drain(_: object) -> None:
            if not drains:
                drains.append(self.drained(served))

        self.pages.onAsked = lambda request: request.notifyFinish().addCallback(drain)
        served.send(b"\r\n")
        self.assertEqual(drains, [])
        self.pages.waiting.pop().finish()
        self.assertEqual(drains[0].moves, [b""])

        served = self.served()
        drains.clear()
        served.send(GET + GET)
        self.assertEqual(drains[0].moves, [])
        self.assertEqual(served.got().count(b"200 OK"), 2)

    def test_beginning(self) -> None:
        """
        The beginning of a request line goes along, unparsed.
        """
        served = self.served()
        served.send(GET + b"GET /n")
        drain = self.drained(served)
        self.assertEqual(drain.moves, [b"GET /n"])
        drain.moved()
        self.assertEqual(self.pages.seen, [b"/now"])

    def test_notSent(self) -> None:
        """
        As long as the end of a response is not sent, nothing happens.
        """
        served = self.served()
        served.transport.dataBuffer = b"much"
        drain = self.drained(served)
        self.clock.pump([0.1] * 100)
        self.assertEqual((drain.moves, drain.closes), ([], 0))
        served.transport.offset = 4
        self.clock.advance(http1._SELDOM)
        self.assertEqual(drain.moves, [b""])

    def test_soonSent(self) -> None:
        """
        What is sent at once does not hold the connection up.
        """
        served = self.served()
        served.transport.dataBuffer = b"little"
        drain = self.drained(served)
        served.transport.dataBuffer = b""
        self.clock.advance(http1._OFTEN)
        self.assertEqual(drain.moves, [b""])

    def test_timeout(self) -> None:
        """
        While the connection moves, the channel's time does not run.
        """
        served = self.served()
        drain = self.drained(served)
        self.clock.advance(1000)
        self.assertFalse(served.transport.disconnecting)
        self.assertEqual(drain.closes, 0)

    def test_timeoutGoesOn(self) -> None:
        """
        When it stays, the channel's time runs again.
        """
        self.site.timeOut = 3
        served = self.served()
        drain = self.drained(served)
        self.clock.advance(1000)
        drain.notMoved(TransferFailed("no"))
        self.clock.advance(2.9)
        self.assertFalse(served.transport.disconnecting)
        self.clock.advance(0.2)
        self.assertTrue(served.transport.disconnecting)
        self.assertEqual(drain.closes, 0)

    def test_wrapped(self) -> None:
        """
        A harmless wrapper hinders nothing; one that may have read what the next
        one would miss, as that of PROXY does, keeps the connection here.
        """
        served = self.served(WrappingFactory(self.site))
        served.protocol = served.protocol.wrappedProtocol
        self.assertEqual(self.drained(served).moves, [b""])

        class Other(ProtocolWrapper):
            pass

        wrapping = WrappingFactory(self.site)
        wrapping.protocol = Other
        served = self.served(wrapping)
        served.protocol = served.protocol.wrappedProtocol
        self.assertEqual(self.drained(served).moves, [])

    def test_channelAlone(self) -> None:
        """
        A channel without anything before it will do.
        """
        served = self.served(Factory.forProtocol(HTTPChannel))
        self.assertEqual(self.drained(served).moves, [b""])

    def test_lost(self) -> None:
        """
        A client that goes away while its connection moves ends everything.
        """
        served = self.served()
        drain = self.drained(served)
        lose(served.transport)
        drain.notMoved(TransferFailed("the connection ended"))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(drain.closes, 0)

    def test_strange(self) -> None:
        """
        A move that fails as none should is logged, and otherwise like any other.
        """
        served = self.served()
        drain = self.drained(served)
        drain.notMoved(ZeroDivisionError())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        served.send(GET)
        self.assertIn(CLOSE, served.got())


class Immovable(HTTP1TestCase):
    """
    The connection cannot move, as over TLS, or when there is nobody to take it.
    """

    def test_closed(self) -> None:
        """
        It is closed when its client has asked for nothing for a while.
        """
        served = self.served()
        drain = self.drained(served, movable=False)
        self.clock.pump([0.1] * 49)
        self.assertEqual(drain.closes, 0)
        self.clock.advance(0.2)
        self.assertEqual((len(drain.moves), drain.closes), (1, 1))
        self.assertTrue(served.transport.disconnecting)
        self.assertIsNone(served.transport.producer)
        self.assertLeft(served)

    def test_noTimeForIdlers(self) -> None:
        """
        With no time given, it is closed as soon as all can have been written.
        """
        served = self.served()
        drain = served.drain = FakeDrain(served.transport, self.clock, False)
        drain.idle = 0.0
        drainable: Any = IDrainable(served.protocol)
        drainable.drain(drain)
        self.assertEqual(drain.closes, 0)
        self.clock.advance(http1._OFTEN)
        self.assertEqual(drain.closes, 1)

    def test_asked(self) -> None:
        """
        A request that comes meanwhile is answered, and the response says close.
        """
        served = self.served()
        drain = self.drained(served, movable=False)
        self.clock.advance(4.9)
        served.send(LATER)
        self.clock.advance(30)
        self.assertEqual(drain.closes, 0)
        self.pages.waiting.pop().finish()
        self.assertIn(CLOSE, served.got())
        self.assertTrue(served.transport.disconnecting)
        self.assertLeft(served)

    def test_closingAtTheMoment(self) -> None:
        """
        So is one that has come at the very moment of closing, and the channel is as
        it was.
        """
        served = self.served()
        drain = self.drained(served, movable=False)
        drain.closable = False
        self.clock.advance(5)
        self.assertEqual(drain.closes, 1)
        self.assertIs(served.transport.producer, served.channel)
        served.send(GET)
        self.assertIn(b"/now", served.got())
        self.assertTrue(served.transport.disconnecting)

    def test_halfLine(self) -> None:
        """
        A client that has begun a request line is not closed upon.
        """
        served = self.served()
        drain = self.drained(served, movable=False)
        served.send(GET[:7])
        self.clock.pump([1] * 50)
        self.assertEqual(drain.closes, 0)
        served.send(GET[7:])
        self.assertIn(CLOSE, served.got())

    def test_emptyLine(self) -> None:
        """
        An empty line between requests, which some send, changes nothing.
        """
        served = self.served()
        drain = self.drained(served, movable=False)
        served.send(b"\r\n")
        self.clock.pump([1] * 6)
        self.assertEqual(drain.closes, 1)

    def test_timeAfterAnswer(self) -> None:
        """
        A client that got an answer which did not say close gets its time anew.
        """
        served = self.served()
        drain = self.drained(served, movable=False)
        self.clock.pump([0.5] * 9)
        served.send(GET + b"\r\n")
        self.assertNotIn(CLOSE, served.got())
        self.clock.pump([0.5] * 9)
        self.assertEqual(drain.closes, 0)
        self.clock.pump([0.5] * 2)
        self.assertEqual(drain.closes, 1)

    def test_failed(self) -> None:
        """
        When a move failed, there is no other, and the client gets its time.
        """
        served = self.served()
        drain = self.drained(served)
        self.clock.advance(30)
        drain.notMoved(TransferFailed("there is no other worker"))
        self.assertEqual(drain.closes, 0)
        self.clock.pump([1] * 5)
        self.assertEqual((len(drain.moves), drain.closes), (1, 1))


class Busy(HTTP1TestCase):
    """
    A request is somewhere between its first byte and the last of its response.
    """

    def test_headers(self) -> None:
        """
        Half a request's headers: it is read on, and answered with close.
        """
        for end in range(GET.index(b"\r\n") + 2, len(GET)):
            served = self.served()
            served.send(GET[:end])
            drain = self.drained(served)
            self.assertEqual(drain.moves, [])
            served.send(GET[end:])
            self.assertTrue(self.assertClosing(served).endswith(b"/now"))
            self.assertLeft(served)

    def test_upload(self) -> None:
        """
        An upload goes on as slowly as the channel lets it, however it is encoded.
        """
        for head, body in (
            (b"Content-Length: 12\r\n", b"uploaded all"),
            (b"Transfer-Encoding: chunked\r\n", b"c\r\nuploaded all\r\n0\r\n\r\n"),
        ):
            served = self.served()
            served.send(b"POST /p HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n" + body[:5])
            self.drained(served)
            for byte in body[5:]:
                self.clock.pump([1] * 50)
                served.send(bytes([byte]))
            self.assertTrue(self.assertClosing(served).endswith(b"uploaded all"))

    def test_uploadTimesOut(self) -> None:
        """
        An upload that stands still ends as it would have.
        """
        served = self.served()
        served.send(b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\nupl")
        self.drained(served)
        self.clock.pump([1] * 61)
        self.assertTrue(served.transport.disconnecting)
        self.assertEqual(served.got(), b"")

    def test_continue(self) -> None:
        """
        An interim response does not say close; the final one does.
        """
        served = self.served()
        self.drained(served, movable=False)
        served.send(
            b"POST /p HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
            b"Content-Length: 4\r\n\r\n"
        )
        self.assertEqual(served.got(), b"HTTP/1.1 100 Continue\r\n\r\n")
        served.channel.writeHeaders(b"HTTP/1.1", b"103", b"Hints", Headers())
        self.assertNotIn(CLOSE, served.got())
        served.send(b"body")
        self.assertIn(CLOSE, served.got())

    def test_handler(self) -> None:
        """
        A response that has not begun says close, with its length or in chunks.
        """
        for chunked in (False, True):
            served = self.served()
            served.send(LATER)
            self.drained(served)
            self.clock.pump([1] * 300)
            request = self.pages.waiting.pop()
            if not chunked:
                request.setHeader(b"content-length", b"4")
            request.write(b"late")
            self.assertFalse(served.transport.disconnecting)
            request.finish()
            self.assertIn(b"late", self.assertClosing(served))
            self.assertLeft(served)

    def test_headersOut(self) -> None:
        """
        A response that has begun ends kept-alive, then the connection moves.
        """
        for chunked in (False, True):
            served = self.served()
            served.send(LATER)
            request = self.pages.waiting.pop()
            if not chunked:
                request.setHeader(b"content-length", b"8")
            request.write(b"late")
            drain = self.drained(served)
            self.clock.pump([1] * 30)
            self.assertEqual(drain.moves, [])
            request.write(b"more")
            request.finish()
            self.assertEqual(drain.moves, [])
            served.transport.dataBuffer = b"more"
            self.clock.advance(0)
            self.assertEqual(drain.moves, [])
            served.transport.dataBuffer = b""
            self.clock.advance(http1._OFTEN)
            self.assertEqual(drain.moves, [b""])
            self.assertNotIn(CLOSE, served.got())
            drain.moved()
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_headersOutThenNext(self) -> None:
        """
        A request that comes before it can move is answered, and says close.
        """
        served = self.served()
        served.send(LATER)
        request = self.pages.waiting.pop()
        request.write(b"late")
        drain = self.drained(served)
        request.finish()
        served.send(LATER)
        self.clock.advance(0)
        self.assertEqual(drain.moves, [])
        self.pages.waiting.pop().finish()
        self.assertClosing(served)

    def test_pipelined(self) -> None:
        """
        No response says close while another request waits behind it; the last one
        does.
        """
        served = self.served()
        served.send(LATER + GET + LATER + GET)
        self.drained(served)
        self.pages.waiting.pop().finish()
        self.assertNotIn(CLOSE, served.got())
        self.pages.waiting.pop().finish()
        self.assertClosing(served)
        self.assertEqual(self.pages.seen, [b"/later", b"/now"] * 2)

    def test_pipelinedAtOnce(self) -> None:
        """
        The same where requests are answered as they are read.
        """
        served = self.served()
        self.drained(served, movable=False)
        served.send(GET * 5)
        data = served.got()
        self.assertEqual(data.count(b"200 OK"), 5)
        self.assertEqual(data.count(CLOSE), 1)
        self.assertTrue(served.transport.disconnecting)

    def test_pipelinedPart(self) -> None:
        """
        Half a request behind another is a request that waits.
        """
        for end in (3, len(GET) - 1):
            served = self.served()
            served.send(LATER + GET[:end])
            drain = self.drained(served, movable=False)
            self.pages.waiting.pop().finish()
            self.assertNotIn(CLOSE, served.got())
            self.clock.advance(0)
            self.assertEqual(drain.closes, 0)
            served.send(GET[end:])
            self.assertIn(CLOSE, served.got())

    def test_pipelinedMoves(self) -> None:
        """
        The beginning of a line behind the last response moves along.
        """
        served = self.served()
        served.send(LATER + b"GE")
        drain = self.drained(served)
        self.pages.waiting.pop().finish()
        self.clock.advance(0)
        self.assertEqual(drain.moves, [b"GE"])

    def test_endless(self) -> None:
        """
        A client that pipelines for ever is told to close at some time.
        """
        self.patch(http1, "MOST", 3)
        served = self.served()
        self.drained(served, movable=False)
        served.send(GET * 10)
        data = served.got()
        self.assertEqual(data.count(b"200 OK"), 4)
        self.assertEqual(data.count(CLOSE), 1)
        self.assertIn(CLOSE, data.rpartition(b"HTTP/1.1")[2])

    def test_oldVersion(self) -> None:
        """
        HTTP/1.0 ends as it always does.
        """
        served = self.served()
        served.send(b"GET /later HTTP/1.0\r\n\r\n")
        self.drained(served)
        self.pages.waiting.pop().finish()
        self.assertNotIn(b"chunked", served.got())
        self.assertTrue(served.transport.disconnecting)
        self.assertLeft(served)

    def test_clientCloses(self) -> None:
        """
        A client that wants to close is told so once.
        """
        served = self.served()
        served.send(b"GET /later HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        self.drained(served)
        self.pages.waiting.pop().finish()
        self.assertClosing(served)

    def test_options(self) -> None:
        """
        What a program says of the connection stays, unless it is the contrary.
        """
        served = self.served()
        served.send(LATER)
        self.drained(served)
        request = self.pages.waiting.pop()
        request.setHeader(b"connection", b"Keep-Alive, Upgrade")
        request.finish()
        self.assertIn(b"\r\nConnection: Upgrade, close\r\n", served.got())

    def test_pairs(self) -> None:
        """
        Headers of a form that Twisted has given up are let through.
        """
        served = self.served()
        served.send(LATER)
        self.drained(served)
        served.channel.writeHeaders(b"HTTP/1.1", b"200", b"OK", [(b"A", b"b")])
        self.assertEqual(served.got(), b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n")

    def test_bad(self) -> None:
        """
        A request that cannot be read is answered as always.
        """
        served = self.served()
        served.send(b"GET /now HTTP/1.1\r\n")
        self.drained(served)
        served.send(b"no header\r\n\r\n")
        self.assertIn(b"400 Bad Request", served.got())
        self.assertTrue(served.transport.disconnecting)
        self.clock.pump([1] * 5)
        self.assertLeft(served)

    def test_lost(self) -> None:
        """
        A client that goes away is heard of by its request, and nothing is left.
        """
        served = self.served()
        served.send(LATER)
        self.drained(served)
        gone: Deferred[None] = self.pages.waiting.pop().notifyFinish()
        self.assertLeft(served)
        self.failureResultOf(gone)


class Others(HTTP1TestCase):
    """
    Programs that are not simply a L{Site}.
    """

    def test_subclasses(self) -> None:
        """
        Subclasses of the site, the request and the channel, which may do more when
        headers are written, are drained likewise.
        """
        written = []

        class OurRequest(Request):
            pass

        class OurChannel(HTTPChannel):
            def writeHeaders(self, *arguments: Any) -> None:
                written.append(arguments)
                super().writeHeaders(*arguments)

        class OurSite(Site):
            protocol = lambda self: _GenericHTTPChannelProtocol(  # noqa: E731
                OurChannel()
            )

        site = OurSite(self.pages, requestFactory=OurRequest, reactor=self.clock)
        served = self.served(site)
        served.send(LATER)
        self.drained(served)
        self.pages.waiting.pop().finish()
        self.assertClosing(served)
        self.assertEqual(len(written), 1)

    def test_klein(self) -> None:
        """
        So is Klein.
        """
        app = Klein()
        answer: Deferred[bytes] = Deferred()

        @app.route("/")
        def root(request: object) -> Deferred[bytes]:
            return answer

        served = self.served(Site(app.resource(), reactor=self.clock))
        served.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        self.drained(served)
        answer.callback(b"klein")
        self.assertIn(b"klein", self.assertClosing(served))

    def test_instanceOverride(self) -> None:
        """
        What a program has put before a channel's method is called, and is there
        again afterwards.
        """
        served = self.served()
        served.send(LATER)
        channel = served.channel
        calls = []
        done = channel.requestDone

        def requestDone(request: object) -> None:
            calls.append(request)
            done(request)

        channel.requestDone = requestDone
        self.drained(served)
        self.pages.waiting.pop().finish()
        lose(served.transport)
        self.assertEqual(len(calls), 1)
        self.assertIs(channel.requestDone, requestDone)


@implementer(IDrainable)
class Speaking(Protocol):
    """
    Something else than HTTP/1.1.
    """

    def __init__(self) -> None:
        self.drains: list[IDrain] = []

    def drain(self, drain: IDrain) -> None:
        """
        See L{IDrainable}.
        """
        self.drains.append(drain)


class Upgrades(HTTP1TestCase):
    """
    A connection that speaks something else since it is being drained is drained as
    that, and not touched as HTTP any more.
    """

    def upgraded(self, movable: bool = True) -> tuple[Served, FakeDrain, Speaking]:
        """
        A connection in whose handler it is to be upgraded.
        """
        served = self.served()
        served.send(LATER)
        return served, self.drained(served, movable), Speaking()

    def assertHandedOver(self, drain: FakeDrain, other: Speaking) -> None:
        """
        The other protocol drains it.
        """
        self.clock.pump([0.5] * 20)
        self.assertEqual(other.drains, [drain])
        self.assertEqual((drain.moves, drain.closes), ([], 0))

    def test_ofTheTransport(self) -> None:
        """
        As Autobahn and Daphne do it.
        """
        served, drain, other = self.upgraded()
        served.channel.transport = None
        served.transport.protocol = other
        self.assertHandedOver(drain, other)
        self.assertNotIn("writeHeaders", vars(served.channel))

    def test_withinAWrapper(self) -> None:
        """
        The same over TLS.
        """
        factory = WrappingFactory(self.site)
        served = self.served(factory)
        wrapper = served.protocol
        served.protocol = wrapper.wrappedProtocol
        served.send(LATER)
        drain, other = self.drained(served), Speaking()
        wrapper.wrappedProtocol = other
        self.assertHandedOver(drain, other)

    def test_ofTheChannel(self) -> None:
        """
        As HTTP/2 over TLS begins: it is not closed as an idle HTTP/1.1 connection.
        """
        served = self.served()
        drain, other = self.drained(served, movable=False), Speaking()
        self.clock.advance(0.5)
        served.protocol._channel = other
        self.clock.pump([0.5] * 20)
        self.assertEqual(other.drains, [drain])
        self.assertEqual(drain.closes, 0)

    def test_ofTheData(self) -> None:
        """
        As C{twisted.web}'s own WebSockets do it.
        """
        served, drain, other = self.upgraded()
        served.channel.dataReceived = other.dataReceived
        served.channel.connectionLost = other.connectionLost
        self.assertHandedOver(drain, other)

    def test_before(self) -> None:
        """
        The same when it was so before.
        """
        served, other = self.served(), Speaking()
        served.channel.dataReceived = other.dataReceived
        drain = self.drained(served)
        self.assertEqual(other.drains, [drain])
        self.assertEqual(drain.moves, [])

    def test_unknown(self) -> None:
        """
        Something for which no drain is known is left alone.
        """
        served, drain, _ = self.upgraded()
        served.transport.protocol = Protocol()
        self.clock.pump([0.5] * 20)
        self.assertEqual((drain.moves, drain.closes), ([], 0))
        self.assertFalse(served.transport.disconnecting)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_frontOfAnother(self) -> None:
        """
        What stands before another protocol than HTTP/1.1 has that drained.
        """
        served, other = self.served(), Speaking()
        served.protocol._channel = other
        drain = self.drained(served)
        self.assertEqual(other.drains, [drain])
        served.protocol._channel = Protocol()
        self.assertEqual(self.drained(served).moves, [])

    def test_fails(self) -> None:
        """
        When the other protocol cannot be drained, that is logged.
        """
        served, _, other = self.upgraded()
        del other.drains
        served.transport.protocol = other
        self.clock.advance(1)
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)


class Knowing(HTTP1TestCase):
    """
    What is known of the installed Twisted.
    """

    def test_provides(self) -> None:
        """
        The adapters do what they say.
        """
        served = self.served()
        verifyObject(IDrainable, http1.DrainableChannel(served.channel))
        verifyObject(IDrainable, http1.DrainableFront(served.protocol))
        verifyObject(IDrain, served.drain)

    def test_needed(self) -> None:
        """
        The installed Twisted has all that is needed.
        """
        channel = self.served().channel
        self.assertEqual([n for n in http1.NEEDED if not hasattr(channel, n)], [])

    def test_missing(self) -> None:
        """
        Where something is missing, the connection is left alone, and that is said
        once.
        """
        self.patch(http1, "NEEDED", (*http1.NEEDED, "_newInTwisted99"))
        self.patch(http1, "_unknown", set())
        events = Events()
        globalLogPublisher.addObserver(events)
        self.addCleanup(globalLogPublisher.removeObserver, events)
        for _ in range(2):
            served = self.served()
            self.assertEqual(self.drained(served).moves, [])
            served.send(GET)
            self.assertNotIn(CLOSE, served.got())
        [text] = [each for each in events.texts if "_newInTwisted99" in each]
        self.assertIn("left alone", text)

    def test_missingFront(self) -> None:
        """
        The same for what stands before the channels.
        """
        self.patch(http1, "_unknown", set())
        served = self.served()
        del served.protocol._channel
        drain = FakeDrain(served.transport, self.clock)
        http1.DrainableFront(served.protocol).drain(drain)
        self.assertEqual(http1._unknown, {"_GenericHTTPChannelProtocol._channel"})

    def test_programsOwn(self) -> None:
        """
        What a program says of its own class counts.
        """

        class Channel(HTTPChannel):
            pass

        other = Speaking()
        registerAdapter(lambda channel: other, Channel, IDrainable)
        served = Served(self.clock, Factory.forProtocol(Channel))
        drain = self.drained(served)
        self.assertEqual(other.drains, [drain])

    def test_importsNothing(self) -> None:
        """
        A program that does not use C{twisted.web} does not come to it by this.
        """
        code = (
            "import sys\n"
            "from twisted_cluster.worker.drain.http1 import register\n"
            "register()\n"
            "sys.exit('twisted.web.http' in sys.modules)\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


class Anywhere(SynchronousTestCase):
    """
    Wherever in a conversation its drain begins.
    """

    REQUESTS = (
        GET,
        b"POST /post HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
        b"\r\nGET /blank HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /chunks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nxyz\r\n0\r\n\r\n",
        LATER,
    )

    @given(st.data())
    def test_eachOnce(self, data: st.DataObject) -> None:
        """
        Each request is handled once at most; if its client does not learn that the
        connection closes before it, once exactly, here or where the connection
        moves to, and all are answered in their order.
        """
        http1.register()
        asked = data.draw(st.lists(st.sampled_from(self.REQUESTS), max_size=5))
        coin = st.booleans()
        whole = b"".join(asked)
        cuts = data.draw(
            st.lists(st.integers(0, len(whole)), max_size=6).map(sorted), "cuts"
        )
        pieces = [
            whole[begin:end]
            for begin, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)
        ]
        start = data.draw(st.integers(0, len(pieces)), "drain begins")
        movable = data.draw(coin, "movable")
        clock, pages = Clock(), Pages()
        sites = [Site(pages, reactor=clock) for _ in range(2)]
        served = Served(clock, sites[0])
        drain: Optional[FakeDrain] = None
        answers = b""
        for number, piece in enumerate([*pieces, b""]):
            if number == start:
                drain = FakeDrain(served.transport, clock, movable)
                drainable: Any = IDrainable(served.protocol)
                drainable.drain(drain)
            if data.draw(coin, "time passes"):
                clock.advance(0.02)
            if drain is not None and drain.moving is not None:
                answers += served.got()
                if data.draw(coin, "moved"):
                    drain.moved()
                    served = Served(clock, sites[1])
                    served.send(drain.moves[-1])
                else:
                    drain.notMoved(TransferFailed("no"))
            if served.transport.disconnecting:
                break
            served.send(piece)
            while pages.waiting and bool(data.draw(coin, "answer")):
                pages.waiting.pop().finish()
        while pages.waiting:
            pages.waiting.pop().finish()
        answers += served.got()
        self.assertEqual(answers.count(b"HTTP/1.1 200 OK"), len(pages.seen))
        paths = [each.split(maxsplit=2)[1] for each in asked]
        self.assertEqual(pages.seen, paths[: len(pages.seen)])
        if CLOSE in answers:
            self.assertTrue(served.transport.disconnecting)
            self.assertIn(CLOSE, answers.rpartition(b"HTTP/1.1 200 OK")[2])
        else:
            self.assertEqual(pages.seen, paths)
            self.assertEqual(len(drain.moves) if drain else 0, 1)
