"""
A program that opens its first port long after its worker counts as ready.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.internet.task import deferLater

from tests.integration.support import ClusterTestCase, get, reactor, until
from tests.integration.workers import freePort

LATE = """
import os, sys
from twisted.internet import reactor
from twisted.web.resource import Resource
from twisted.web.server import Site

class Who(Resource):
    isLeaf = True
    def render_GET(self, request):
        return str(os.getpid()).encode()

site = Site(Who())
reactor.callLater(2, reactor.listenTCP, int(sys.argv[1]), site, interface="127.0.0.1")
reactor.run()
"""


class LatePorts(ClusterTestCase):
    """
    Its workers are replaced.
    """

    async def test_restart(self) -> None:
        """
        A restart refuses no connection, although the new workers open the port
        long after the old ones have left.
        """
        port = freePort()
        watcher = await self.serving([self.program(LATE), str(port)], 2)
        old = {worker.pid for worker in watcher.workers}
        await until(lambda: bool(watcher.addresses), 30, "the port is opened")
        refused: list[Exception] = []
        served: list[int] = []
        over = False

        async def ask() -> None:
            while not over:
                try:
                    served.append(int(await get(port)))
                except ConnectError as error:
                    refused.append(error)
                    await deferLater(reactor, 0.05, lambda: None)
                except (AssertionError, ConnectionClosed):
                    pass  # a worker that leaves cuts what it serves

        asking = [Deferred.fromCoroutine(ask()) for _ in range(4)]
        await watcher.restart().addTimeout(60, reactor)
        await until(lambda: bool(served) and served[-1] not in old, 30, "new answers")
        over = True
        for each in asking:
            await each
        self.assertEqual([], refused)
