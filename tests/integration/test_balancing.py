"""
Who gets the next connection, when it is the watcher that accepts.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import sys
from typing import Any

from twisted.internet.defer import Deferred

from tests.integration import balancers
from tests.integration.balancing import (
    GREETER,
    Call,
    connect,
    greet,
    greetings,
    shares,
)
from tests.integration.clients import makeCertificate, readAll, toTCP
from tests.integration.faults import FaultTestCase, portOf
from tests.integration.support import DEADLINE, reactor, until
from tests.integration.workers import inThread
from twisted_cluster.watcher import ClusterWatcher

TCP = "tcp:0:interface=127.0.0.1"
SOURCES = [f"127.0.3.{number}" for number in range(1, 25)]


def _greeted(port: int, count: int) -> list[int]:
    """
    Connect, be greeted and leave, one time after the other, in a blocking way.

    @return: the pids.
    """
    found = []
    for _ in range(count):
        with socket.create_connection(("127.0.0.1", port), DEADLINE) as client:
            found.append(int(json.loads(client.makefile().readline())["pid"]))
    return found


class BalancingTestCase(FaultTestCase):
    """
    A test of a cluster that balances.
    """

    def setUp(self) -> Any:
        balancers.seen.clear()
        return super().setUp()

    async def greeters(
        self, workers: int, *descriptions: str, balance: str, **options: Any
    ) -> ClusterWatcher:
        """
        Start a cluster of greeters.
        """
        words = [self.program(GREETER, "greeter.py"), *(descriptions or [TCP])]
        return await self.serving(words, workers, balance=balance, **options)

    def pids(self, watcher: ClusterWatcher) -> list[int]:
        """
        The workers' pids, ordered by id.
        """
        workers = sorted(watcher.workers, key=lambda worker: worker.id)
        return [worker.pid for worker in workers if worker.pid]

    async def checkTurns(
        self, watcher: ClusterWatcher, address: Any, rounds: int = 3
    ) -> dict[str, Any]:
        """
        Check that workers take turns.

        @return: the last greeting.
        """
        pids = self.pids(watcher)
        found = await greetings(address, rounds * len(pids))
        turns = [each["pid"] for each in found]
        first = pids.index(turns[0])
        self.assertEqual(turns, (pids[first:] + pids[:first]) * rounds)
        return found[-1]


class RoundRobin(BalancingTestCase):
    """
    Each worker in turn.
    """

    async def test_inTurn(self) -> None:
        """
        Connections one after the other go to the workers in the order of their ids.
        """
        watcher = await self.greeters(3, balance="round-robin")
        await self.checkTurns(watcher, portOf(watcher), 10)

    async def test_thousand(self) -> None:
        """
        Of a thousand short connections, no two of 2, 4 or 8 workers get numbers that
        differ by more than one.
        """
        watcher = await self.greeters(2, balance="round-robin")
        port = portOf(watcher)
        for workers in (2, 4, 8):
            await watcher.scale(workers).addTimeout(60, reactor)
            found = shares(await inThread(_greeted, port, 1003))
            self.assertEqual(set(found), set(self.pids(watcher)))
            self.assertLessEqual(max(found.values()) - min(found.values()), 1, found)

    async def test_atOnce(self) -> None:
        """
        Of connections that come all at once, no two workers get numbers that differ
        by more than one.
        """
        watcher = await self.greeters(3, balance="round-robin")
        port = portOf(watcher)
        calling = [Deferred.fromCoroutine(connect(port)) for _ in range(61)]
        calls: list[Call] = [await each for each in calling]
        pids = [(await call.greeted())["pid"] for call in calls]
        self.assertEqual(sorted(shares(pids).values()), [20, 20, 21])
        for call in calls:
            await call.hangUp()

    async def test_afterRestart(self) -> None:
        """
        After a restart and after a change of their number, workers take turns as
        before.
        """
        watcher = await self.greeters(2, balance="round-robin")
        port = portOf(watcher)
        await watcher.restart().addTimeout(60, reactor)
        await until(lambda: len(watcher.workers) == 2)
        await self.checkTurns(watcher, port)
        await watcher.scale(3).addTimeout(60, reactor)
        await self.checkTurns(watcher, port)
        await watcher.scale(1).addTimeout(60, reactor)
        await until(lambda: len(watcher.workers) == 1)
        await self.checkTurns(watcher, port)

    async def test_bind(self) -> None:
        """
        What was bound by C{--bind}, the watcher balances, too.
        """
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        description = f"tcp:{port}:interface=127.0.0.1"
        watcher = await self.greeters(
            2, description, balance="round-robin", binds=[description]
        )
        await self.checkTurns(watcher, port)


class LeastConnections(BalancingTestCase):
    """
    A worker that has no more connections than any other.
    """

    async def test_longOnes(self) -> None:
        """
        Connections that stay are spread evenly, and a worker whose connections end
        gets the next ones.
        """
        watcher = await self.greeters(3, balance="least-connections")
        port = portOf(watcher)
        calls: dict[int, list[Call]] = {pid: [] for pid in self.pids(watcher)}

        async def one() -> int:
            fewest = min(map(len, calls.values()))
            call = await connect(port)
            pid: int = (await call.greeted())["pid"]
            self.assertEqual(len(calls[pid]), fewest, shares(calls))
            calls[pid].append(call)
            return pid

        for _ in range(31):
            await one()
        quiet = self.pids(watcher)[1]
        before = self.connections(watcher)
        for _ in range(6):
            await calls[quiet].pop().hangUp()
        await until(lambda: self.connections(watcher) == before - 6)
        fewest = len(calls[quiet])
        others = min(len(each) for pid, each in calls.items() if pid != quiet)
        for _ in range(others - fewest):
            self.assertEqual(await one(), quiet)
        for _ in range(9):
            await one()
        for each in calls.values():
            for call in each:
                await call.hangUp()
        await until(lambda: self.connections(watcher) == 0)

    def connections(self, watcher: ClusterWatcher) -> int:
        """
        How many connections the watcher believes that its workers have.
        """
        intakes = watcher._listeners._distributor._intakes
        return sum(intake.candidate.connections for intake in intakes.values())

    async def test_afterDeath(self) -> None:
        """
        What a dead worker had is not counted to the one that replaces it, which
        gets the next connections until it has as many as the other.
        """
        watcher = await self.greeters(2, balance="least-connections")
        port = portOf(watcher)
        calls = [await connect(port) for _ in range(8)]
        for call in calls:
            await call.greeted()
        [victim, other] = self.pids(watcher)
        os.kill(victim, signal.SIGKILL)
        new = [pid for pid in await self.replaced(watcher, victim) if pid != other]
        for _ in range(4):
            call = await connect(port)
            calls.append(call)
            self.assertEqual([(await call.greeted())["pid"]], new)
        for call in calls:
            await call.hangUp()


class Sticky(BalancingTestCase):
    """
    The same worker for all connections from one address.
    """

    async def slots(self, port: int, times: int = 2) -> dict[str, int]:
        """
        Which slot each client meets, always the same one.
        """
        found = {}
        for source in SOURCES:
            met = {each["slot"] for each in await greetings(port, times, source)}
            self.assertEqual(len(met), 1, source)
            [found[source]] = met
        return found

    async def test_scale(self) -> None:
        """
        A client meets the same worker again.  A worker more takes clients from the
        others, and moves no other client; a worker fewer gives its own away; and
        when it comes back all is as before.
        """
        watcher = await self.greeters(3, balance="sticky")
        port = portOf(watcher)
        three = await self.slots(port, 4)
        self.assertEqual(set(three.values()), {0, 1, 2})
        await watcher.scale(4).addTimeout(60, reactor)
        four = await self.slots(port)
        moved = {source for source in SOURCES if three[source] != four[source]}
        self.assertTrue(moved)
        self.assertEqual({four[source] for source in moved}, {3})
        await watcher.scale(2).addTimeout(60, reactor)
        await until(lambda: len(watcher.workers) == 2)
        two = await self.slots(port)
        for source in SOURCES:
            if three[source] < 2:
                self.assertEqual(two[source], three[source])
            else:
                self.assertIn(two[source], (0, 1))
        await watcher.scale(3).addTimeout(60, reactor)
        self.assertEqual(await self.slots(port), three)

    async def test_deathAndRestart(self) -> None:
        """
        While a worker is dead only its clients meet others, and the worker that
        replaces it meets them again; a restart of all moves none.
        """
        watcher = await self.greeters(3, balance="sticky")
        port = portOf(watcher)
        before = await self.slots(port)
        victim = next(worker for worker in watcher.workers if worker.slot == 1)
        assert victim.pid is not None
        # A replacement that takes longer than the clients.
        greeter = self.directory / "greeter.py"
        greeter.write_text("import time\ntime.sleep(4)\n" + GREETER)
        os.kill(victim.pid, signal.SIGKILL)
        await self.gone([victim.pid])
        await until(lambda: victim not in watcher.workers)
        while sum(worker.state == "ready" for worker in watcher.workers) == 2:
            for source in SOURCES:
                met = (await greet(port, source))["slot"]
                if before[source] != 1:
                    self.assertEqual(met, before[source])
                elif sum(each.state == "ready" for each in watcher.workers) == 2:
                    self.assertIn(met, (0, 2))
        greeter.write_text(GREETER)
        await self.replaced(watcher, victim.pid)
        self.assertEqual(await self.slots(port), before)
        await watcher.restart().addTimeout(60, reactor)
        await until(lambda: len(watcher.workers) == 3)
        self.assertEqual(await self.slots(port), before)

    async def test_unix(self) -> None:
        """
        Clients without an address get each worker in turn.
        """
        path = self.directory / "greeter.sock"
        watcher = await self.greeters(2, f"unix:{path}", balance="sticky")
        await self.checkTurns(watcher, path)


WEB = """
import os, sys
from twisted.internet import endpoints, reactor
from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted_cluster import cluster

class Echo(Resource):
    isLeaf = True
    def render_POST(self, request):
        return b"%d " % cluster.slot() + request.content.read()
    def render_GET(self, request):
        return b"%d" % cluster.slot()

description = sys.argv[1]
endpoints.serverFromString(reactor, description).listen(Site(Echo()))
reactor.run()
"""

NAMED = "tests.integration.balancers"


class Named(BalancingTestCase):
    """
    A balancer of the user's own.
    """

    async def test_byHost(self) -> None:
        """
        It routes by the Host header, which may come in pieces, and the stream is
        untouched: a request that is far longer than the bytes that were looked at
        is answered whole.
        """
        watcher = await self.serving(
            [self.program(WEB), TCP], 3, balance=f"{NAMED}:ByHost"
        )
        port = portOf(watcher)
        body = os.urandom(300_000)
        for slot in (2, 0, 1, 1, 2):
            head = (
                f"POST / HTTP/1.0\r\nAccept: text\r\nHost: slot{slot}.example:80\r\n"
                f"Content-Length: {len(body)}\r\n\r\n"
            ).encode()
            call = await connect(port)
            for start, end in ((0, 9), (9, 48), (48, None)):
                balancers.seen.clear()
                call.say(head[start:end])
                if end is not None:
                    await until(lambda: bool(balancers.seen), what="the balancer looks")
                    self.assertFalse(balancers.seen[-1].final)
                    self.assertEqual(balancers.seen[-1].firstBytes, head[:end])
            call.say(body)
            await until(lambda: call.over)  # noqa: B023 - it is awaited at once
            answer = call.data.partition(b"\r\n\r\n")[2]
            self.assertEqual(answer.partition(b" "), (b"%d" % slot, b" ", body))

    async def test_byHostUNIX(self) -> None:
        """
        It routes what comes over a UNIX socket, too.
        """
        path = self.directory / "web.sock"
        watcher = await self.serving(
            [self.program(WEB), f"unix:{path}"], 2, balance=f"{NAMED}.ByHost"
        )
        self.assertEqual(len(watcher.workers), 2)
        for slot in (1, 1, 0, 1):
            call = await connect(path)
            call.say(f"GET / HTTP/1.0\r\nHost: slot{slot}.x\r\n\r\n".encode())
            await until(lambda: call.over)  # noqa: B023 - it is awaited at once
            self.assertEqual(call.data[-1:], b"%d" % slot)

    async def test_byServerName(self) -> None:
        """
        It routes by the name in a TLS ClientHello, and the handshake succeeds.
        """
        key, certificate = makeCertificate(self.directory)
        self._files |= {key.name, certificate.name}
        watcher = await self.greeters(
            3,
            f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={certificate}",
            balance=f"{NAMED}:ByServerName",
        )
        context = ssl.create_default_context(cafile=os.fspath(certificate))
        context.check_hostname = False

        def greeting(name: str) -> bytes:
            with (
                toTCP(portOf(watcher))() as plain,
                context.wrap_socket(plain, server_hostname=name) as skt,
            ):
                skt.sendall(b"the end")
                data = b""
                while not data.endswith(b"the end"):
                    data += skt.recv(1000)
                return data

        for slot in (1, 0, 2, 2, 1):
            data = await inThread(greeting, f"slot{slot}.example")
            self.assertIn(b'"slot": %d' % slot, data)

    async def test_silentClients(self) -> None:
        """
        A client that says nothing is given to somebody once the balancer's patience
        is over, and one that leaves before is forgotten.
        """
        watcher = await self.greeters(2, balance=f"{NAMED}:Impatient")
        port = portOf(watcher)
        gone = await connect(port)
        await gone.hangUp()
        began = reactor.seconds()
        calls = [await connect(port) for _ in range(6)]
        pids = [(await call.greeted(10))["pid"] for call in calls]
        self.assertGreaterEqual(reactor.seconds() - began, 0.5)
        self.assertEqual(shares(pids), dict.fromkeys(self.pids(watcher), 3))
        self.assertTrue(all(connection.final for connection in balancers.seen))
        for call in calls:
            await call.hangUp()

    async def test_clientThatSaysNoMore(self) -> None:
        """
        A client that ends its side after too little is given to somebody at once.
        """
        watcher = await self.greeters(2, balance=f"{NAMED}:ByHost")

        def half() -> bytes:
            with toTCP(portOf(watcher))() as skt:
                skt.sendall(b"GET / HTTP/1.0\r\nHo")
                skt.shutdown(socket.SHUT_WR)
                return readAll(skt)

        self.assertIn(b"GET / HTTP/1.0\r\nHo", await inThread(half))

    async def test_fails(self) -> None:
        """
        Where it raises, the log says so once, and workers take turns.
        """
        watcher = await self.greeters(2, balance=f"{NAMED}:Fails")
        await self.checkTurns(watcher, portOf(watcher))
        self.assertEqual(self.logged.count("balancers:Fails of tcp:"), 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class Sockets(BalancingTestCase):
    """
    Every kind of socket, under several reactors.
    """

    async def check(self, reactorName: str) -> None:
        """
        Workers take turns on TCP, IPv6 and UNIX sockets, and the program sees each
        client, and itself, under the right addresses.
        """
        path = self.directory / "greeter.sock"
        watcher = await self.greeters(
            2,
            TCP,
            r"tcp6:0:interface=\:\:1",
            f"unix:{path}",
            balance="round-robin",
            workerReactor=reactorName,
        )
        self.assertIn(
            reactorName.lower(), (await self.ask(watcher, "type(reactor)")).lower()
        )
        [four] = [
            int(each.rpartition(":")[2])
            for each in watcher.addresses
            if "127.0.0.1" in each
        ]
        [six] = [
            int(each.rpartition(":")[2]) for each in watcher.addresses if "::1" in each
        ]
        await self.checkTurns(watcher, four)
        await self.checkTurns(watcher, ("::1", six))
        await self.checkTurns(watcher, path)
        for address, kind, host, port in (
            (four, "IPv4Address", "127.0.0.1", four),
            (("::1", six), "IPv6Address", "::1", six),
        ):
            call = await connect(address)
            greeting = await call.greeted()
            assert call.transport is not None
            me: Any = call.transport.getHost()
            self.assertTrue(greeting["peer"].startswith(f"{kind}("), greeting)
            self.assertIn(f"host='{host}', port={me.port}", greeting["peer"])
            self.assertIn(f"host='{host}', port={port}", greeting["host"])
            call.say(b"x" * 100_000)
            await until(lambda: call.data.endswith(b"x" * 100_000))  # noqa: B023 - it is awaited at once
            await call.hangUp()
        greeting = await greet(path)
        self.assertEqual(greeting["host"], f"UNIXAddress('{path}')")
        self.assertIn(greeting["peer"], ("UNIXAddress('')", "UNIXAddress(None)"))

    async def ask(self, watcher: ClusterWatcher, code: str) -> str:
        """
        Have a worker evaluate something.
        """
        return str(await watcher.workers[0].request(code))

    async def test_epoll(self) -> None:
        """
        Under epoll.
        """
        await self.check("epoll")

    async def test_poll(self) -> None:
        """
        Under poll.
        """
        await self.check("poll")

    async def test_select(self) -> None:
        """
        Under select.
        """
        await self.check("select")

    async def test_asyncio(self) -> None:
        """
        Under asyncio.
        """
        await self.check("asyncio")

    async def test_tls(self) -> None:
        """
        TLS connections are spread before their handshake, which succeeds.
        """
        key, certificate = makeCertificate(self.directory)
        self._files |= {key.name, certificate.name}
        watcher = await self.greeters(
            2,
            f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={certificate}",
            balance="round-robin",
        )
        context = ssl.create_default_context(cafile=os.fspath(certificate))

        def greeting() -> bytes:
            with (
                toTCP(portOf(watcher))() as plain,
                context.wrap_socket(plain, server_hostname="localhost") as skt,
            ):
                return skt.recv(1000)

        heard = [await inThread(greeting) for _ in range(4)]
        for pid in self.pids(watcher):
            self.assertEqual(sum(b'"pid": %d' % pid in each for each in heard), 2)


class Choice(BalancingTestCase):
    """
    Where the mode of balancing is said.
    """

    async def test_endpoint(self) -> None:
        """
        What an endpoint says wins over the cluster's default, either way.
        """
        watcher = await self.greeters(
            3,
            f"cluster:{TCP}:balance=sticky",
            f"cluster:{TCP}:balance=kernel",
            TCP,
            balance="round-robin",
        )
        await self.logged.waitFor("balances by sticky")
        await self.logged.waitFor("balances by round-robin")
        self.assertEqual(self.logged.count("The watcher accepts on"), 2)
        byMode = {
            each["balance"]: int(each["address"].rpartition(":")[2])
            for each in self.logged.events
            if "The watcher accepts on" in str(each.get("log_format"))
        }
        await self.checkTurns(watcher, byMode["round-robin"])
        for source in SOURCES[:5]:
            found = await greetings(byMode["sticky"], 4, source)
            self.assertEqual(len({each["pid"] for each in found}), 1)
        ports = {int(each.rpartition(":")[2]) for each in watcher.addresses}
        [kernel] = ports - set(byMode.values())
        self.assertIn((await greet(kernel))["pid"], self.pids(watcher))

    async def test_default(self) -> None:
        """
        By default the watcher accepts nothing; one endpoint may ask for it.
        """
        watcher = await self.greeters(
            2, TCP, f"cluster:{TCP}:balance=round-robin", balance="kernel"
        )
        self.assertEqual(self.logged.count("The watcher accepts on"), 1)
        [event] = [
            each
            for each in self.logged.events
            if "The watcher accepts on" in str(each.get("log_format"))
        ]
        await self.checkTurns(watcher, int(event["address"].rpartition(":")[2]))

    async def test_unknownInProgram(self) -> None:
        """
        A listen that names what there is not, or code that the watcher was not
        given, fails with C{CannotListenError}, or where the endpoint is read, and
        the text names it.
        """
        watcher = await self.greeters(
            1,
            TCP,
            f"cluster:{TCP}:balance=no.such.Thing",
            balance="round-robin",
        )
        await self.logged.waitFor("CannotListenError")
        self.assertEqual(self.logged.count("balance=no.such.Thing"), 1)
        self.assertEqual(
            await watcher.workers[0].request(
                "exec('''try: listen(\"cluster:tcp:0:balance=robin\")\n"
                "except ValueError as error: print('refused:', error)''', globals())"
            ),
            "None",
        )
        event = await self.logged.waitFor("refused: ")
        self.assertIn("balance=robin", str(event))
        await self.checkTurns(watcher, portOf(watcher))

    async def test_commandLine(self) -> None:
        """
        The command line refuses what there is not with a usage error that names it.
        """
        path = self.program(GREETER, "greeter.py")
        for name, hint in (
            ("round-robbin", "did you mean round-robin"),
            ("nosuchmodule:Thing", "there is no module named nosuchmodule"),
            (f"{NAMED}:NoSuchName", "NoSuchName"),
            ("os:getpid", "int"),
            ("", "kernel"),
        ):
            command = self.command("run", f"--balance={name}", "-w", "2", path, TCP)
            self.assertEqual(await command.whenEnded(), 2, command.text)
            self.assertIn(repr(name), command.text)
            self.assertIn(hint, command.text)
            self.assertNotIn("Traceback", command.text)

    async def test_command(self) -> None:
        """
        C{twisted-cluster run} and C{twist cluster} balance as they are told, by a
        module in the working directory, too.
        """
        self.program(
            """
            from twisted_cluster.policy.balance import LeastConnections
            class Mine(LeastConnections):
                pass
            """,
            "mine.py",
        )
        path = self.program(GREETER, "greeter.py")
        tail = ["--balance", "mine.Mine", "-w", "2", path, TCP]
        run = self.command("run", *tail)
        words = [sys.executable, "-m", "twisted", "--log-format=text", "cluster"]
        twist = self.execute([*words, *tail])
        for command in (run, twist):
            await command.waitFor("balances by mine.Mine")
            await command.waitFor("2 workers serve")
            text = command.text.partition("The watcher accepts on tcp:127.0.0.1:")[2]
            port = int(text.split()[0])
            pids = [each["pid"] for each in await greetings(port, 4)]
            self.assertEqual(sorted(shares(pids).values()), [2, 2])
            command.signal(signal.SIGTERM)
            await command.whenEnded()
            self.assertNotIn("Traceback", command.text)
