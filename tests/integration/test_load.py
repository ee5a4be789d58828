"""
The load client, against servers that do what servers should not.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.protocol import Factory, Protocol

from benchmarks.load import LoadFailed, LoadReport, Offer, startLoad
from benchmarks.processes import spawn
from tests.integration.support import DEADLINE, ClusterTestCase, reactor, until

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


class Answering(Protocol):
    """
    Does with the n-th request of all what a test says.
    """

    def __init__(self, server: Misbehaving) -> None:
        self.server = server

    def dataReceived(self, data: bytes) -> None:
        """
        A request has come.
        """
        for _ in range(data.count(b"\r\n\r\n")):
            self.server.count += 1
            self.server.act(self.transport, self.server.count)


class Misbehaving(Factory):
    """
    A server.
    """

    noisy = False

    def __init__(self, act: Callable[[Any, int], None]) -> None:
        self.act = act
        self.count = 0

    def buildProtocol(self, addr: object) -> Answering:
        return Answering(self)


def answer(transport: Any, number: int) -> None:
    """
    Answer as one should.
    """
    transport.write(ANSWER)


class LoadClient(ClusterTestCase):
    """
    What it makes of what happens to its requests.
    """

    def setUp(self) -> Any:
        self.ports: list[Any] = []
        # The first port of a process opens a descriptor that stays.
        first = reactor.listenTCP(0, Misbehaving(answer), interface="127.0.0.1")
        stopped: Any = first.stopListening()
        return stopped.addCallback(lambda _: super(LoadClient, self).setUp())

    async def _leaveNothing(self) -> None:
        for port in self.ports:
            await port.stopListening()
        await super()._leaveNothing()

    async def load(
        self, act: Callable[[Any, int], None], kind: str = "kept", **settings: Any
    ) -> LoadReport:
        """
        Offer some requests to a server.
        """
        port = reactor.listenTCP(0, Misbehaving(act), interface="127.0.0.1")
        self.ports.append(port)
        options = {"rate": 200, "count": 30, "connections": 2, "expect": "hello"}
        offer = Offer(kind=kind, port=port.getHost().port, **{**options, **settings})
        load = startLoad(reactor, [offer], seconds=30)
        report = await load.whenDone().addTimeout(DEADLINE, reactor)
        [found] = report.offers
        self.assertEqual(found.offered, found.succeeded + found.failed)
        return report

    async def test_good(self) -> None:
        """
        Of a server that answers, nothing fails, and idle ends are no failures.
        """
        report = await self.load(answer)
        [found] = report.offers
        self.assertEqual((found.offered, found.failed), (30, 0))

    async def test_closedIdle(self) -> None:
        """
        A connection that closes after its answer is counted, and not as a
        failure.
        """

        def act(transport: Any, number: int) -> None:
            transport.write(ANSWER)
            transport.loseConnection()

        # Slow enough for the end to arrive before the next request.
        report = await self.load(act, rate=20, count=5)
        [found] = report.offers
        self.assertEqual(found.failed, 0, report.summary())
        self.assertEqual(found.idle, {"closed": 5})

    async def test_saysClose(self) -> None:
        """
        A connection whose answer says that it closes is not used again.
        """

        def act(transport: Any, number: int) -> None:
            transport.write(ANSWER.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"))

        report = await self.load(act)
        [found] = report.offers
        self.assertEqual((found.failed, found.opened), (0, 30), report.summary())

    async def failing(
        self, how: Callable[[Any], None], kind: str, verdict: str
    ) -> None:
        """
        Have every third request end in some way.
        """

        def act(transport: Any, number: int) -> None:
            if number % 3:
                answer(transport, number)
            else:
                how(transport)

        report = await self.load(act, kind, timeout=2.0)
        [found] = report.offers
        self.assertEqual(found.failures, {verdict: 10}, report.summary())

    async def test_failures(self) -> None:
        """
        Each way to fail is told from the others, on new connections and on kept
        ones.
        """

        def wrong(transport: Any) -> None:
            transport.write(ANSWER.replace(b"hello", b"hullo"))

        def truncate(transport: Any) -> None:
            transport.write(ANSWER[:-1])
            transport.loseConnection()

        for kind in ("new", "kept"):
            for verdict, how in (
                ("reset", lambda transport: transport.abortConnection()),
                ("closed without an answer", lambda each: each.loseConnection()),
                ("truncated", truncate),
                ("wrong answer", wrong),
                ("timed out", lambda transport: None),
            ):
                await self.failing(how, kind, verdict)

    async def test_refused(self) -> None:
        """
        Where nobody listens all is refused, and nothing flows.
        """
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            offer = Offer(kind="new", port=taken.getsockname()[1], rate=100, count=10)
            load = startLoad(reactor, [offer], seconds=30)
            report = await load.whenDone().addTimeout(DEADLINE, reactor)
        self.assertEqual(report.offers[0].failures, {"refused": 10})
        with self.assertRaises(LoadFailed):
            await load.whenFlowing()

    async def test_stop(self) -> None:
        """
        A load that is told to stop sends no more and says what it found.
        """
        port = reactor.listenTCP(0, Misbehaving(answer), interface="127.0.0.1")
        self.ports.append(port)
        offer = Offer(kind="kept", port=port.getHost().port, rate=100)
        load = startLoad(reactor, [offer], seconds=300)
        await load.whenFlowing().addTimeout(DEADLINE, reactor)
        report = await load.stop().addTimeout(DEADLINE, reactor)
        self.assertEqual(report.failed, 0)
        self.assertGreater(report.offered, 0)
        self.assertEqual((await load.stop()).offered, report.offered)

    async def test_killed(self) -> None:
        """
        A load client that dies is no result.
        """
        offer = Offer(kind="kept", port=1, rate=1)
        load = startLoad(reactor, [offer], seconds=300)
        assert load.transport is not None
        load.transport.signalProcess(signal.SIGKILL)
        with self.assertRaises(LoadFailed):
            await load.whenDone().addTimeout(DEADLINE, reactor)

    async def test_websocket(self) -> None:
        """
        Each message comes back from a real server.
        """
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            other.bind(("127.0.0.1", 0))
            ports = [each.getsockname()[1] for each in (one, other)]
        child, process = spawn(
            reactor, "loadserver.py", str(ports[0]), "--websocket", str(ports[1])
        )
        child.whenEnded().addErrback(lambda _: None)
        try:
            await until(lambda: _connects(ports[1]), what="the server listens")
            offers = [
                Offer(kind="websocket", port=ports[1], rate=100, count=50, echo=True),
                Offer(kind="new", port=ports[0], rate=100, count=50, echo=True),
            ]
            load = startLoad(reactor, offers, seconds=30)
            report = await load.whenDone().addTimeout(DEADLINE, reactor)
        finally:
            process.signalProcess("KILL")
        self.assertEqual(report.failed, 0, report.summary())
        for found in report.offers:
            self.assertEqual(found.succeeded, 50)
            self.assertEqual(list(found.answeredBy), [str(process.pid)])


def _connects(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
