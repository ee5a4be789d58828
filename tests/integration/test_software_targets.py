"""
Every kind of target and every reactor: scripts, C{.tac} files, callables.
"""

from __future__ import annotations

import os
from typing import Optional

from tests.integration.support import ClusterTestCase, answersOf, get
from tests.integration.workers import portsOf, setEnvironment
from twisted_cluster.watcher import ClusterWatcher

REACTORS = {
    "epoll": "EPollReactor",
    "poll": "PollReactor",
    "select": "SelectReactor",
    "asyncio": "AsyncioSelectorReactor",
}

INSTALLS = """
import os, sys
name = sys.argv[1]
if name == "uvloop":
    import uvloop
    from twisted.internet import asyncioreactor
    asyncioreactor.install(uvloop.new_event_loop())
elif name:
    __import__(f"twisted.internet.{name}reactor")
    sys.modules[f"twisted.internet.{name}reactor"].install()

from twisted.internet import reactor
from twisted.web.resource import Resource
from twisted.web.server import Site

class Who(Resource):
    isLeaf = True
    def render_GET(self, request):
        kind = type(reactor).__name__
        loop = getattr(reactor, "_asyncioEventloop", None)
        if loop is not None and type(loop).__module__.startswith("uvloop"):
            kind += " on uvloop"
        return f"{os.getpid()} {port.getHost().port} {kind}".encode()

port = reactor.listenTCP(0, Site(Who()), interface="127.0.0.1")
reactor.run()
"""

SERVICES = """
import os
from twisted.application.internet import StreamServerEndpointService, TCPServer
from twisted.application.service import Application, MultiService
from twisted.internet import defer, endpoints
from twisted.web.resource import Resource
from twisted.web.server import Site

class Pid(Resource):
    isLeaf = True
    def render_GET(self, request):
        return b"%d" % os.getpid()

def makeService():
    return TCPServer(0, Site(Pid()), interface="127.0.0.1")

def makeLater(reactor):
    from twisted.internet import task
    return task.deferLater(reactor, 0.1, makeService)

async def makeEndpoint(reactor):
    endpoint = endpoints.serverFromString(reactor, "tcp:0:interface=127.0.0.1")
    return StreamServerEndpointService(endpoint, Site(Pid()))

def justListen(reactor):
    reactor.listenTCP(0, Site(Pid()), interface="127.0.0.1")
"""

ASYNCIO = """
import asyncio, os, sys
if sys.argv[1] == "uvloop":
    import uvloop
    loop = uvloop.new_event_loop()
else:
    loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
from twisted.internet import asyncioreactor
asyncioreactor.install(loop)
from twisted.internet import reactor

async def serve(reader, writer):
    await reader.readuntil(b"\\r\\n\\r\\n")
    writer.write(b"HTTP/1.0 200 OK\\r\\n\\r\\n%d" % os.getpid())
    await writer.drain()
    writer.close()

async def start():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print("port", server.sockets[0].getsockname()[1])

reactor.callWhenRunning(lambda: asyncio.ensure_future(start(), loop=loop))
reactor.run()
"""


class _Serving(ClusterTestCase):
    async def answers(self, watcher: ClusterWatcher, port: int) -> list[list[str]]:
        """
        The words of one answer of each worker; the first is its pid.
        """
        found = await answersOf(lambda: get(port), len(watcher.workers))
        answers = [answer.decode().split(None, 2) for answer in found]
        self.assertEqual(
            sorted(int(answer[0]) for answer in answers),
            sorted(worker.pid or 0 for worker in watcher.workers),
        )
        return answers

    async def check(self, target: list[str]) -> None:
        """
        Both workers of a target answer.
        """
        watcher = await self.serving(target)
        [port] = portsOf(watcher)
        await self.answers(watcher, port)
        await watcher.stopService()


class Reactors(_Serving):
    """
    C{reactor.listenTCP} and C{getHost} on every reactor.
    """

    async def runOn(
        self, installed: str, expected: Optional[str], chosen: Optional[str] = None
    ) -> None:
        """
        @param installed: what the script installs; empty: nothing.
        @param expected: the class that must run; L{None}: any.
        @param chosen: what C{--reactor} says.
        """
        target = [self.program(INSTALLS), installed]
        watcher = await self.serving(target, workerReactor=chosen)
        [port] = portsOf(watcher)
        for _, where, kind in await self.answers(watcher, port):
            self.assertEqual(int(where), port)
            if expected is not None:
                self.assertEqual(kind, expected)
        await watcher.stopService()

    async def test_default(self) -> None:
        """
        A program that installs none runs on Twisted's own choice.
        """
        await self.runOn("", None)

    async def test_installedByTheProgram(self) -> None:
        """
        Whatever reactor a program installs, that one runs and serves.
        """
        for name, kind in REACTORS.items():
            await self.runOn(name, kind)

    async def test_uvloop(self) -> None:
        """
        An asyncio reactor on uvloop runs and serves.
        """
        await self.runOn("uvloop", "AsyncioSelectorReactor on uvloop")

    async def test_chosenByOption(self) -> None:
        """
        A program that installs none runs on what C{--reactor} names.
        """
        for name, kind in REACTORS.items():
            await self.runOn("", kind, name)

    async def test_programWins(self) -> None:
        """
        What the program installs wins over C{--reactor}.
        """
        await self.runOn("select", "SelectReactor", "poll")

    async def test_asyncioServers(self) -> None:
        """
        C{asyncio.start_server} is shared, with asyncio's loops and uvloop's.
        """
        for loop in ("asyncio", "uvloop"):
            watcher = await self.serving([self.program(ASYNCIO), loop])
            [port] = portsOf(watcher)
            await self.answers(watcher, port)
            self.assertEqual(self.logged.count(f"port {port}"), 2)
            await watcher.stopService()


class Services(_Serving):
    """
    Services from code.
    """

    async def test_callables(self) -> None:
        """
        C{package.module:callable} may return a service, a Deferred or a
        coroutine of one, or take the reactor and listen.
        """
        package = self.directory / "served"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "services.py").write_text(SERVICES)
        setEnvironment(self, "PYTHONPATH", str(self.directory))
        for name in ("makeService", "makeLater", "makeEndpoint", "justListen"):
            await self.check([f"served.services:{name}"])

    async def test_tac(self) -> None:
        """
        A C{.tac} file serves, and nobody writes a pid file.
        """
        tac = self.program(
            SERVICES
            + "\napplication = Application('site')\n"
            + "makeService().setServiceParent(application)\n",
            "site.tac",
        )
        before = os.listdir(".")
        await self.check([tac])
        self.assertEqual(os.listdir("."), before)
