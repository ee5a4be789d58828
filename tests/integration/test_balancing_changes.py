"""
The watcher accepts on while ports open, pause and close, and while workers and
ways of balancing change.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError

from tests.integration.balancing import (
    GREETER,
    TCP,
    StormTestCase,
    connect,
    greet,
    greetings,
    shares,
)
from tests.integration.faults import FaultTestCase, portOf
from tests.integration.support import reactor, until
from tests.integration.workers import freePort
from twisted_cluster.watcher import ClusterWatcher


class Ports(FaultTestCase):
    """
    Programs that open, pause and close their ports as they like.
    """

    async def greeters(self, *descriptions: str, code: str = "") -> ClusterWatcher:
        """
        Start two.
        """
        words = [self.program(code + GREETER, "greeter.py"), *descriptions]
        return await self.serving(words, 2, balance="round-robin")

    async def test_pausesOne(self) -> None:
        """
        A worker that pauses its port gets no connection, the others get all, and it
        gets some again when it goes on.
        """
        watcher = await self.greeters(TCP)
        port = portOf(watcher)
        [first, second] = await self.full(watcher)
        await watcher.workers[0].request("ports[0].stopReading()")
        self.assertEqual({each["pid"] for each in await greetings(port, 20)}, {second})
        await watcher.workers[0].request("ports[0].startReading()")
        for _ in range(500):
            if (await greet(port))["pid"] == first:
                break
        else:
            self.fail("it gets none")
        found = [each["pid"] for each in await greetings(port, 10)]
        self.assertEqual(shares(found), {first: 5, second: 5})

    async def test_pausesAll(self) -> None:
        """
        When all workers pause a port, its clients wait, and clients of another
        port do not wait for them; when one goes on, all are served.
        """
        watcher = await self.greeters(TCP, TCP)
        ports = [int(each.rpartition(":")[2]) for each in watcher.addresses]
        paused = int(await watcher.workers[0].request("ports[0].getHost().port"))
        [other] = set(ports) - {paused}
        for worker in watcher.workers:
            await worker.request("ports[0].stopReading()")
        calls = [await connect(paused) for _ in range(20)]
        began = reactor.seconds()
        found = [each["slot"] for each in await greetings(other, 20)]
        self.assertLess(reactor.seconds() - began, 2)
        self.assertEqual(shares(found), {0: 10, 1: 10})
        self.assertFalse(any(call.data or call.over for call in calls))
        await watcher.workers[1].request("ports[0].startReading()")
        for call in calls:
            self.assertEqual((await call.greeted())["slot"], 1)
            await call.hangUp()

    async def test_stopsListening(self) -> None:
        """
        When a worker stops listening the others get its connections; when the last
        does, connections are refused; and it may be opened again.
        """
        port = freePort()
        description = f"tcp:{port}:interface=127.0.0.1"
        watcher = await self.greeters(description, TCP)
        [_, second] = await self.full(watcher)
        held = await connect(port)
        await held.greeted()
        stop = f"[p.stopListening() for p in ports if p.getHost().port == {port}]"
        await watcher.workers[0].request(stop)
        found = [each["pid"] for each in await greetings(port, 10)]
        self.assertEqual(shares(found), {second: 10})
        await watcher.workers[1].request(stop)
        await until(lambda: len(watcher.addresses) == 1)
        refused = Deferred.fromCoroutine(connect(port))
        await self.assertFailure(refused, ConnectionRefusedError)
        held.say(b"still here")
        await until(lambda: held.data.endswith(b"still here"))
        await held.hangUp()
        for worker in watcher.workers:
            await worker.request(f"listen('cluster:{description}')")
        await until(lambda: len(watcher.addresses) == 2)
        await until(lambda: self.logged.count("The watcher accepts on") == 3)
        found = [each["slot"] for each in await greetings(port, 10)]
        self.assertEqual(shares(found), {0: 5, 1: 5})

    async def test_late(self) -> None:
        """
        Workers that listen long after they count as ready take turns, and a restart
        of such refuses no connection.
        """
        port = freePort()
        watcher = await self.greeters(
            f"tcp:{port}:interface=127.0.0.1",
            code="import sys\nlate, sys.argv[1:] = sys.argv[1], []\n",
        )
        path = self.directory / "greeter.py"
        path.write_text(
            path.read_text().replace(
                "reactor.run()", "reactor.callLater(2, listen, late)\nreactor.run()"
            )
        )
        await watcher.restart().addTimeout(60, reactor)
        await until(lambda: bool(watcher.addresses), what="the port is opened")
        await until(lambda: self.logged.count(f"Factory starting on {port}") >= 2)
        found = [each["slot"] for each in await greetings(port, 10)]
        self.assertEqual(shares(found), {0: 5, 1: 5})
        old = await self.full(watcher)
        restarted: list[Any] = []
        watcher.restart().addTimeout(60, reactor).addBoth(restarted.append)
        pids: set[int] = set()
        while not restarted or pids & set(old) or len(pids) < 2:
            pids = {each["pid"] for each in await greetings(port, 2)}
        self.assertEqual(restarted, [None])


class Changes(StormTestCase):
    """
    Workers that come and go while connections come.
    """

    def report(self, watcher: ClusterWatcher, most: int) -> None:
        """
        Check that none failed but some that a worker had which has left.
        """
        failures = self.storm.check(self, self.left(watcher))
        print(
            f"{len(self.storm.accounts)} connections in {self.storm.seconds:.1f} s, "
            f"{self.storm.returned} came back, {len(failures)} were cut"
        )
        self.assertLessEqual(len(failures), most)

    async def test_restart(self) -> None:
        """
        During restarts every connection is answered once, but those that a worker
        had when its program stopped.
        """
        watcher = await self.tokens(3)
        self.storm.start(portOf(watcher), 300)
        for _ in range(3):
            await watcher.restart().addTimeout(60, reactor)
        await self.storm.end()
        self.report(watcher, 9)

    async def test_scale(self) -> None:
        """
        Likewise while their number changes.
        """
        watcher = await self.tokens(2)
        self.storm.start(portOf(watcher), 300)
        for count in (4, 1, 3, 2):
            await watcher.scale(count).addTimeout(60, reactor)
            await self.storm.more(100)
        await self.storm.end()
        self.report(watcher, 5)

    async def test_leavesUntaken(self) -> None:
        """
        What a worker was handed that is stopped before it can take it reaches
        another, and is answered once.
        """
        watcher = await self.tokens(2, shutdownTimeout=1.0)
        self.port = portOf(watcher)
        await self._leaveUntaken(watcher)

    async def test_leavesUntakenToKernel(self) -> None:
        """
        So it does when the others accept by themselves.
        """
        self.port = freePort()
        description = self._say("round-robin")
        watcher = await self.tokens(2, description, shutdownTimeout=1.0)
        self._say("kernel")
        await self._leaveUntaken(watcher)

    async def _leaveUntaken(self, watcher: ClusterWatcher) -> None:
        old = await self.full(watcher)
        for pid in old:
            os.kill(pid, signal.SIGSTOP)
        self.storm.calls(self.port, 20)
        await until(lambda: sum(self.connections(watcher)) == 20)
        await watcher.restart().addTimeout(60, reactor)
        await self.storm.end()
        self.assertEqual(self.storm.check(self, {}), [])
        self.assertFalse({each.pid for each in self.storm.accounts} & set(old))

    async def _choose(self, watcher: ClusterWatcher, balance: str) -> None:
        """
        Restart to code that asks for another way of balancing, while connections
        come.
        """
        self._say(balance)
        await watcher.restart().addTimeout(60, reactor)
        await until(lambda: len(watcher.workers) == 2)
        await self.storm.more(100)
        for worker in watcher.workers:
            accepts = await worker.request("port in reactor.getReaders()")
            self.assertEqual(accepts, str(balance == "kernel"))

    def _say(self, balance: str) -> str:
        description = f"cluster:tcp:{self.port}:interface=127.0.0.1:balance={balance}"
        return str(self.file("endpoint", description))

    async def test_otherBalance(self) -> None:
        """
        Restarts lead from one way of balancing on an address to another, from and
        to the kernel's, too, without a refused connection.
        """
        self.port = freePort()
        watcher = await self.tokens(2, self._say("kernel"), balance="kernel")
        self.storm.start(self.port, 200)
        for balance in ("round-robin", "sticky", "kernel", "least-connections"):
            await self._choose(watcher, balance)
        await self.storm.end()
        self.report(watcher, 8)
        self.assertEqual(self.logged.count("and balances by round-robin"), 1)
        self.assertEqual(self.logged.count("by sticky"), 1)
        self.assertEqual(self.logged.count("by least-connections"), 1)
