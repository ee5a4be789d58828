"""
One program in many processes: the main job.
"""

from __future__ import annotations

from tests.integration.support import ClusterTestCase, answersOf, get, reactor, until
from twisted_cluster.errors import (
    AlreadyStarted,
    InvalidWorkerCount,
    StartFailed,
    UsageError,
)
from twisted_cluster.watcher import ClusterWatcher

SERVER = """
import os
from twisted.internet import reactor
from twisted.web.resource import Resource
from twisted.web.server import Site

class Pid(Resource):
    isLeaf = True
    def render_GET(self, request):
        return b"%d" % os.getpid()

port = reactor.listenTCP(0, Site(Pid()), interface="127.0.0.1")
print("port", port.getHost().port)
reactor.run()
"""


def portOf(watcher: ClusterWatcher) -> int:
    """
    The port of the only TCP address that a cluster listens on.
    """
    [address] = watcher.addresses
    return int(address.rpartition(":")[2])


class OneProgram(ClusterTestCase):
    """
    A script that knows nothing of clusters, on several workers.
    """

    async def test_twoPidsAnswer(self) -> None:
        """
        Requests to one port are answered by all workers.
        """
        watcher = await self.serving(self.program(SERVER), 2)
        port = portOf(watcher)
        answers = await answersOf(lambda: get(port), 2)
        self.assertEqual(
            answers, {str(worker.pid).encode() for worker in watcher.workers}
        )

    async def test_samePort(self) -> None:
        """
        Three workers that ask for port 0 get the same port.
        """
        watcher = await self.serving(self.program(SERVER), 3)
        port = portOf(watcher)
        self.assertEqual(
            [text for text in self.logged.texts if text.startswith("port ")],
            [f"port {port}"] * 3,
        )

    async def test_doubleStart(self) -> None:
        """
        A watcher cannot be started twice.
        """
        watcher = await self.serving(self.program(SERVER), 1)
        self.assertRaises(AlreadyStarted, watcher.startService)

    def test_invalidCount(self) -> None:
        """
        Fewer than one worker, or no whole number, is refused.
        """
        for count in (0, -1, 1.5, True, "2"):
            self.assertRaises(
                InvalidWorkerCount, ClusterWatcher, reactor, "server.py", count
            )

    def test_emptyTarget(self) -> None:
        """
        No target is refused.
        """
        for target in ("", [], [""]):
            self.assertRaises(UsageError, ClusterWatcher, reactor, target, 1)

    async def test_restart(self) -> None:
        """
        A restart replaces every worker, and the port stays.
        """
        watcher = await self.serving(self.program(SERVER), 2)
        port = portOf(watcher)
        before = {worker.pid for worker in watcher.workers}
        await watcher.restart().addTimeout(60, reactor)
        await until(lambda: len(watcher.workers) == 2)
        after = {worker.pid for worker in watcher.workers}
        self.assertFalse(before & after)
        self.assertEqual(portOf(watcher), port)
        answers = await answersOf(lambda: get(port), 2)
        self.assertEqual(answers, {str(pid).encode() for pid in after})

    async def test_scale(self) -> None:
        """
        More workers can be had, and fewer.
        """
        watcher = await self.serving(self.program(SERVER), 1)
        await watcher.scale(3).addTimeout(60, reactor)
        self.assertEqual(sorted(w.slot for w in watcher.workers), [0, 1, 2])
        await watcher.scale(1).addTimeout(60, reactor)
        self.assertEqual([w.slot for w in watcher.workers], [0])
        self.assertRaises(InvalidWorkerCount, watcher.scale, 0)


CLOSES = "import os; os.closerange(3, 256)\n" + SERVER

HASTY = """
import os
from twisted.internet import reactor
from twisted_cluster import cluster

if cluster.workerID() == 1:
    cluster.shutdown()
reactor.run()
"""


class OddPrograms(ClusterTestCase):
    """
    Programs that do things at odd times.
    """

    async def test_closesDescriptors(self) -> None:
        """
        A program that closes the low descriptors, as daemons do, keeps its
        channels.
        """
        watcher = await self.serving(self.program(CLOSES), 2)
        port = portOf(watcher)
        await answersOf(lambda: get(port), 2)

    async def test_endsBeforeItRuns(self) -> None:
        """
        A worker that ends itself before its reactor runs does not run for long.
        """
        watcher = self.cluster(self.program(HASTY), 1, shutdownTimeout=20.0)
        over = watcher.whenStopped().addTimeout(15, reactor)
        try:
            await over
        except StartFailed as error:
            self.assertIn("exited with status 0", str(error))
        else:
            self.fail("a worker that ended itself has not started")
