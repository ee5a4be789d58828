"""
Workers leave, and nobody's request is lost.
"""

from __future__ import annotations

import os
import signal
import ssl
from typing import Any

from twisted.internet.defer import DeferredList
from twisted.internet.protocol import ClientCreator

from tests.integration.balancing import GREETER, TCP, Call, connect
from tests.integration.clients import makeCertificate, skipWithoutTLS, toTLS
from tests.integration.faults import FaultTestCase, descriptorsOf, portOf
from tests.integration.support import DEADLINE, reactor, until
from tests.integration.workers import inThread, state
from twisted_cluster.watcher import ClusterWatcher

WEB = """
import os, sys
from twisted.internet import endpoints, reactor
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from twisted_cluster import cluster

def whenReleased(function, *arguments):
    if os.path.exists("release"):
        function(*arguments)
    else:
        reactor.callLater(0.02, whenReleased, function, *arguments)

class Pid(Resource):
    isLeaf = True
    def render(self, request):
        size = len(request.content.read())
        answer = b"%d %d" % (os.getpid(), size)
        if request.path == b"/hold":
            open("begun", "w").close()
            whenReleased(self.finish, request, answer * 10_000)
            return NOT_DONE_YET
        if request.path == b"/chunks":
            request.write(b"begun ")
            whenReleased(self.finish, request, answer)
            return NOT_DONE_YET
        return answer
    def finish(self, request, answer):
        request.write(answer)
        request.finish()

cluster.whenStopping().addCallback(lambda _: print("it is told:", os.getpid()))
endpoints.serverFromString(reactor, sys.argv[1]).listen(Site(Pid()))
reactor.run()
"""
"""
Answers with who it is and how large the request's body was: at once; or, to
C{/hold} and from the middle of an answer to C{/chunks}, once a file is there.
"""

DRAINABLE = """
import sys
from twisted.internet import endpoints, reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.python.components import registerAdapter
from twisted_cluster.interfaces import IDrainable
from zope.interface import implementer

class Polite(Protocol):
    def dataReceived(self, data):
        self.transport.write(data)

@implementer(IDrainable)
class Ending:
    def __init__(self, protocol):
        self.protocol = protocol
    def drain(self, drain):
        self.protocol.transport.write(b"good bye")
        self.protocol.transport.loseConnection()

if sys.argv[2] == "adapter":
    registerAdapter(Ending, Polite, IDrainable)
else:
    Polite.drain = lambda self, drain: Ending(self).drain(drain)
    Polite = implementer(IDrainable)(Polite)
endpoints.serverFromString(reactor, sys.argv[1]).listen(Factory.forProtocol(Polite))
reactor.run()
"""
"""
Echoes, and says good-bye when it is to drain.
"""


PASSIVE = """
import os, sys
from twisted.internet import endpoints, reactor
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineReceiver
from twisted_cluster import cluster

class Passive(LineReceiver):
    delimiter = b"\\n"
    def lineReceived(self, line):
        port = reactor.listenTCP(0, Factory.forProtocol(Passive), interface="127.0.0.1")
        self.sendLine(b"%d" % port.getHost().port)

endpoints.serverFromString(reactor, sys.argv[1]).listen(Factory.forProtocol(Passive))
cluster.whenStopping().addCallback(lambda _: print("it is told:", os.getpid()))
reactor.run()
"""
"""
Opens a port whenever it is asked, and tells its number, as FTP does.
"""


class Browser(Call):
    """
    A client that keeps its connection.
    """

    def request(self, path: str, body: bytes = b"", size: int = 0) -> None:
        """
        Ask, with a body, of which more may follow.

        @param size: how long it will be.
        """
        self.data = b""
        method = "POST" if size or body else "GET"
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n"
        if size or body:
            head += f"Content-Length: {size or len(body)}\r\n"
        self.say(head.encode() + b"\r\n" + body)

    @property
    def answer(self) -> tuple[bytes, bytes]:
        """
        The head and the body of a complete answer, or nothing.
        """
        head, found, body = self.data.partition(b"\r\n\r\n")
        if b"transfer-encoding: chunked" in head.lower():
            chunks = _chunks(body)
            if chunks is not None:
                return head, chunks
        for line in head.lower().split(b"\r\n"):
            name, _, value = line.partition(b": ")
            if name == b"content-length" and found and len(body) >= int(value):
                return head, body
        return b"", b""

    async def answered(self) -> tuple[bytes, bytes]:
        """
        Wait for the whole answer.
        """
        await until(
            lambda: self.answer[0] or self.over, what=f"an answer, not {self.data!r}"
        )
        head, body = self.answer
        assert head, f"closed after {self.data[:300]!r} ({len(self.data)} bytes)"
        assert head.startswith(b"HTTP/1.1 200 "), head
        return head, body

    async def whoServes(self) -> int:
        """
        Ask for the pid of who answers.
        """
        self.request("/")
        _, body = await self.answered()
        return int(body.split()[0])


def _chunks(body: bytes) -> Any:
    data = b""
    while True:
        size, found, body = body.partition(b"\r\n")
        if not found or len(body) < int(size, 16) + 2:
            return None
        if not int(size, 16):
            return data
        data, body = data + body[: int(size, 16)], body[int(size, 16) + 2 :]


async def browser(port: int) -> Browser:
    """
    Connect a client.
    """
    connecting = ClientCreator(reactor, Browser).connectTCP("127.0.0.1", port, DEADLINE)
    connected: Browser = await connecting
    return connected


class WebTestCase(FaultTestCase):
    """
    Servers of C{twisted.web}.

    @ivar balance: how connections reach the workers.
    """

    balance = "kernel"

    def setUp(self) -> Any:
        done = super().setUp()
        self._files |= {"begun", "release"}
        return done

    async def web(self, workers: int = 2, **options: Any) -> ClusterWatcher:
        """
        Start one.
        """
        options.setdefault("balance", self.balance)
        return await self.serving([self.program(WEB), TCP], workers, **options)

    def release(self) -> None:
        """
        Have all requests that are held answered.
        """
        self.file("release")

    async def holding(self, port: int) -> Browser:
        """
        A client whose request is in a handler.
        """
        client = await browser(port)
        client.request("/hold")
        await until((self.directory / "begun").exists, what="the request is held")
        return client

    def started(self, doing: Any) -> list[Any]:
        """
        @return: where the outcome will be.
        """
        outcomes: list[Any] = []
        doing.addBoth(outcomes.append)
        return outcomes

    async def pidOfStopping(self) -> int:
        """
        Wait until a worker has been told that it is to leave.
        """
        event = await self.logged.waitFor("it is told: ")
        text = self.logged.texts[self.logged.events.index(event)]
        return int(text.rpartition(" ")[2])

    def assertLarge(self, answer: tuple[bytes, bytes], pids: Any) -> None:
        """
        The answer to a request that was held is there in full, and says that the
        connection ends.
        """
        head, body = answer
        pid, size = body[: len(body) // 10_000].split()
        self.assertEqual(body, b"%d %d" % (int(pid), int(size)) * 10_000)
        self.assertIn(int(pid), pids)
        self.assertIn(b"connection: close", head.lower())


class KernelTests(WebTestCase):
    """
    Workers accept by themselves.
    """

    async def test_restart(self) -> None:
        """
        Idle kept-alive connections live through restarts, one after another, and
        go on with a new worker; no descriptor is left over.
        """
        watcher = await self.web()
        clients = [await browser(portOf(watcher)) for _ in range(8)]
        old = await self.full(watcher)
        for client in clients:
            self.assertIn(await client.whoServes(), old)
        opened = sum(len(descriptorsOf(pid)) for pid in old)
        for _ in range(3):
            await watcher.restart().addTimeout(60, reactor)
            new = await self.full(watcher)
            self.assertEqual(set(old) & set(new), set())
            for client in clients:
                self.assertIn(await client.whoServes(), new)
            old = new
        self.assertEqual(sum(len(descriptorsOf(pid)) for pid in old), opened)
        self.assertFalse(any(client.over for client in clients))
        for client in clients:
            await client.hangUp()

    async def test_fewer(self) -> None:
        """
        They live through scaling down, and up again.
        """
        watcher = await self.web(3)
        clients = [await browser(portOf(watcher)) for _ in range(6)]
        for client in clients:
            await client.whoServes()
        for count in (1, 3):
            await watcher.scale(count).addTimeout(60, reactor)
            pids = await self.full(watcher)
            for client in clients:
                self.assertIn(await client.whoServes(), pids)
        for client in clients:
            await client.hangUp()

    async def test_handler(self) -> None:
        """
        A request in a handler is answered in full, though its worker is replaced;
        only then it leaves.
        """
        watcher = await self.web(1)
        [old] = await self.full(watcher)
        client = await self.holding(portOf(watcher))
        restarted = self.started(watcher.restart())
        self.assertEqual(await self.pidOfStopping(), old)
        other = await browser(portOf(watcher))
        self.assertNotEqual(await other.whoServes(), old)
        await other.hangUp()
        self.assertEqual((client.data, state(old) in "RS"), (b"", True))
        self.release()
        self.assertLarge(await client.answered(), [old])
        await until(lambda: client.over, what="it is closed")
        await self.gone([old])
        await until(lambda: bool(restarted))
        self.assertEqual(restarted, [None])

    async def test_upload(self) -> None:
        """
        An upload under way is finished, and answered.
        """
        watcher = await self.web(1)
        client = await browser(portOf(watcher))
        old = await client.whoServes()
        client.request("/", b"x" * 1000, 200_000)
        restarted = self.started(watcher.restart())
        self.assertEqual(await self.pidOfStopping(), old)
        other = await browser(portOf(watcher))
        self.assertNotEqual(await other.whoServes(), old)
        await other.hangUp()
        client.say(b"x" * 199_000)
        head, body = await client.answered()
        self.assertEqual(body, b"%d 200000" % old)
        self.assertIn(b"connection: close", head.lower())
        await until(lambda: bool(restarted))
        self.assertEqual(restarted, [None])

    async def test_chunks(self) -> None:
        """
        An answer under way is completed; on its connection, which says nothing
        of an end, the next worker answers.
        """
        watcher = await self.web(1)
        [old] = await self.full(watcher)
        client = await browser(portOf(watcher))
        client.request("/chunks")
        await until(lambda: b"begun " in client.data)
        restarted = self.started(watcher.restart())
        self.assertEqual(await self.pidOfStopping(), old)
        self.release()
        head, body = await client.answered()
        self.assertEqual(body, b"begun %d 0" % old)
        self.assertNotIn(b"connection: close", head.lower())
        await until(lambda: bool(restarted))
        self.assertEqual(restarted, [None])
        self.assertNotEqual(await client.whoServes(), old)
        await client.hangUp()

    async def test_halfRequest(self) -> None:
        """
        A client that has typed half a line types on with the next worker.
        """
        watcher = await self.web(1)
        client = await browser(portOf(watcher))
        old = await client.whoServes()
        client.data = b""
        client.say(b"GET / HT")
        # It has been read when what was asked afterwards is answered.
        other = await browser(portOf(watcher))
        await other.whoServes()
        await watcher.restart().addTimeout(60, reactor)
        client.say(b"TP/1.1\r\nHost: localhost\r\n\r\n")
        _, body = await client.answered()
        self.assertNotEqual(int(body.split()[0]), old)
        await client.hangUp()
        await other.hangUp()

    async def test_oneWorker(self) -> None:
        """
        TERM to one worker alone drains it, and it is replaced: what it has in a
        handler is answered, its idle connections go to others.
        """
        watcher = await self.web()
        port = portOf(watcher)
        pids = await self.full(watcher)
        clients = [await browser(port) for _ in range(8)]
        serving = [await client.whoServes() for client in clients]
        busy = await self.holding(port)
        [holding] = [pid for pid in pids if _established(pid) > serving.count(pid)]
        os.kill(holding, signal.SIGTERM)
        self.assertEqual(await self.pidOfStopping(), holding)
        for client in clients:
            self.assertNotEqual(await client.whoServes(), holding)
        self.assertIn(state(holding), "RS")
        self.release()
        self.assertLarge(await busy.answered(), [holding])
        new = await self.replaced(watcher, holding)
        self.assertEqual(len(set(new) & set(pids)), 1)
        for client in clients:
            self.assertIn(await client.whoServes(), new)
            await client.hangUp()

    async def test_watcher(self) -> None:
        """
        TERM to the watcher lets what is in handlers be answered, closes what is
        idle, and the command ends with 0.
        """
        path = self.program(WEB)
        command = self.command("run", "-w", "2", "--balance", self.balance, path, TCP)
        port = await self.portOfCommand(command)
        idle = await browser(port)
        await idle.whoServes()
        client = await self.holding(port)
        pids = await self.workersOf(command, 2)
        command.signal(signal.SIGTERM)
        await until(lambda: idle.over, what="the idle connection is closed")
        self.assertIsNone(command.status)
        self.release()
        self.assertLarge(await client.answered(), pids)
        self.assertEqual(await command.whenEnded(), 0)
        await self.gone(pids)

    async def portOfCommand(self, command: Any) -> int:
        await command.waitFor("workers serve")
        found = [word for word in command.text.split() if word.startswith("tcp:127")]
        return int(found[0].rstrip(",.").rpartition(":")[2])

    async def test_backlog(self) -> None:
        """
        Connections that wait to be accepted when the cluster is told to stop are
        served.
        """
        watcher = await self.web()
        port = portOf(watcher)
        pids = await self.full(watcher)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        await until(lambda: all(state(pid) == "T" for pid in pids))
        clients = [await browser(port) for _ in range(20)]
        for client in clients:
            client.request("/")
        await until(lambda: self.sent(watcher, clients), what="all is on its way")
        stopped = self.started(watcher.stopService())
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        for client in clients:
            _, body = await client.answered()
            self.assertIn(int(body.split()[0]), pids)
        await until(lambda: bool(stopped))
        self.assertEqual(stopped, [None])

    def sent(self, watcher: ClusterWatcher, clients: list[Browser]) -> bool:
        """
        Whether the kernel has all that clients have said, and the workers are next.
        """
        return not {client.transport for client in clients} & set(reactor.getWriters())

    async def test_told(self) -> None:
        """
        Programs are told at the beginning, not in the end.
        """
        watcher = await self.web(1)
        [old] = await self.full(watcher)
        client = await self.holding(portOf(watcher))
        stopped = self.started(watcher.stopService())
        self.assertEqual(await self.pidOfStopping(), old)
        self.assertEqual((client.data, stopped), (b"", []))
        self.release()
        self.assertLarge(await client.answered(), [old])
        await until(lambda: bool(stopped))

    async def test_unaware(self) -> None:
        """
        A connection whose protocol cannot be asked stays until the time is over;
        the log names it.
        """
        path = self.program(GREETER, "greeter.py")
        watcher = await self.serving(
            [path, TCP], 1, balance=self.balance, shutdownTimeout=3.0
        )
        call = await connect(portOf(watcher))
        old = (await call.greeted())["pid"]
        restarted = self.started(watcher.restart())
        await self.logged.waitFor("is told to stop")
        call.say(b"still here")
        await until(lambda: call.data.endswith(b"still here"))
        self.assertEqual(restarted, [])
        await until(lambda: call.over, what="it is cut")
        await self.logged.waitFor(
            "1 of this worker's connections are still open after 2.7 s, and are cut: "
            "1 of Greeter"
        )
        await self.gone([old])
        await until(lambda: bool(restarted))
        self.assertEqual(restarted, [None])

    async def test_ownPorts(self) -> None:
        """
        Ports that a worker has opened for its clients, as FTP's, accept until it is
        gone: before it was told to leave, and afterwards.
        """
        path = self.program(PASSIVE)
        watcher = await self.serving([path, TCP], 1, balance=self.balance)
        call = await connect(portOf(watcher))

        async def another() -> int:
            call.data = b""
            call.say(b"another\n")
            await until(lambda: call.data.endswith(b"\n"))
            return int(call.data)

        early = await another()
        restarted = self.started(watcher.restart())
        await self.pidOfStopping()
        for port in (await another(), early):
            transfer = await connect(port)
            transfer.say(b"one more\n")
            await until(lambda each=transfer: each.data.endswith(b"\n"))  # type: ignore[misc]  # mypy cannot type a lambda with a default
            await transfer.hangUp()
        await call.hangUp()
        await until(lambda: bool(restarted))
        self.assertEqual(restarted, [None])

    async def test_ownDrainable(self) -> None:
        """
        A program says how its connections drain, by its protocols or by an
        adapter.
        """
        path = self.program(DRAINABLE)
        for how in ("protocol", "adapter"):
            watcher = await self.serving([path, TCP, how], 1, balance=self.balance)
            call = await connect(portOf(watcher))
            call.say(b"hello")
            await until(lambda call=call: call.data == b"hello")  # type: ignore[misc]  # mypy cannot type a lambda with a default
            await watcher.restart().addTimeout(60, reactor)
            await until(lambda call=call: call.over)  # type: ignore[misc]  # likewise
            self.assertEqual(call.data, b"hellogood bye")
            await watcher.stopService()

    async def test_secure(self) -> None:
        """
        Idle connections over TLS, which cannot move, are closed, politely.
        """
        key, certificate = makeCertificate(self.directory)
        self._files |= {key.name, certificate.name}
        skipWithoutTLS(key, certificate)
        description = (
            f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={certificate}"
        )
        watcher = await self.serving(
            [self.program(WEB), description], 1, balance=self.balance, drainIdle=1.0
        )
        connecting = toTLS(portOf(watcher), certificate)
        clients = [await inThread(connecting) for _ in range(3)]
        for client in clients:
            self.addCleanup(client.close)
        old = [await inThread(_askBlocking, client) for client in clients]
        restarted = self.started(watcher.restart())
        self.assertEqual(await self.pidOfStopping(), old[0])
        ends = [inThread(client.recv, 1000) for client in clients]
        results: Any = await DeferredList(ends).addTimeout(DEADLINE, reactor)
        self.assertEqual(results, [(True, b"")] * 3)
        await until(lambda: bool(restarted))
        self.assertEqual(restarted, [None])


class RoundRobinTests(KernelTests):
    """
    The watcher accepts.
    """

    balance = "round-robin"

    def sent(self, watcher: ClusterWatcher, clients: list[Browser]) -> bool:
        """
        Likewise: the watcher has handed over all connections.
        """
        distributor: Any = watcher._listeners._distributor
        given = [each._handover for each in distributor._intakes.values()]
        return (
            super().sent(watcher, clients)
            and sum(each.unanswered for each in given) == len(clients)
            and not any(each.pending for each in given)
        )


def _established(pid: int) -> int:
    """
    How many TCP connections a process has.
    """
    inodes = {each[8:-1] for each in descriptorsOf(pid) if each.startswith("socket:[")}
    with open("/proc/net/tcp") as file:
        rows = [line.split() for line in file.readlines()[1:]]
    return sum(row[3] == "01" and row[9] in inodes for row in rows)


def _askBlocking(client: ssl.SSLSocket) -> int:
    client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    data = b""
    while b"\r\n\r\n" not in data or data.endswith(b"\r\n\r\n"):
        more = client.recv(1000)
        assert more, data
        data += more
    return int(data.partition(b"\r\n\r\n")[2].split()[0])
