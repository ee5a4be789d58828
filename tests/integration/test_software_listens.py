"""
A program that listens late, again, twice, and with options of its own.
"""

from __future__ import annotations

import json
import socket
import sys
from typing import Any
from urllib.parse import quote

from tests.integration.support import ClusterTestCase, get
from tests.integration.workers import freePort, fromEach, portsOf

STEERED = """
import os, socket, struct, sys
from twisted.internet import defer, endpoints, reactor, tcp
from twisted.internet.error import CannotListenError
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

class Eager(tcp.Port):
    def createInternetSocket(self):
        skt = tcp.Port.createInternetSocket(self)
        skt.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        skt.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 5)
        skt.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return skt

class Slow(socket.socket):
    def listen(self, backlog):
        raise OSError(98, "Address already in use")

class Raced(tcp.Port):
    def createInternetSocket(self):
        return Slow()

OPTIONS = {
    name: (getattr(socket, level), getattr(socket, name))
    for level, name in [
        ("SOL_SOCKET", "SO_REUSEADDR"), ("SOL_SOCKET", "SO_KEEPALIVE"),
        ("SOL_SOCKET", "SO_REUSEPORT"), ("IPPROTO_TCP", "TCP_NODELAY"),
        ("IPPROTO_TCP", "TCP_DEFER_ACCEPT"), ("SOL_SOCKET", "SO_ACCEPTCONN"),
    ]
}

class Steer(Resource):
    isLeaf = True
    def render_GET(self, request):
        def answer(result):
            request.write(str(result).encode())
            request.finish()
        def failed(failure):
            failure.trap(CannotListenError)
            answer(f"{failure.type.__name__}: {failure.getErrorMessage()}")
        what = getattr(self, request.postpath[0].decode())
        words = [word.decode() for word in request.postpath[1:]]
        defer.maybeDeferred(what, *words).addCallback(answer).addErrback(failed)
        return NOT_DONE_YET

    def pid(self):
        return os.getpid()

    def listen(self, number):
        port = reactor.listenTCP(int(number), site, interface="127.0.0.1")
        return f"listens on {port.getHost().port}"

    async def endpoint(self, description):
        endpoint = endpoints.serverFromString(reactor, description)
        port = await endpoint.listen(site)
        return f"listens on {port.getHost().port}"

    def raced(self, number):
        Raced(int(number), site, 50, "127.0.0.1", reactor).startListening()

    async def again(self):
        number = extra[0].getHost().port
        await extra[0].stopListening()
        extra[0] = reactor.listenTCP(number, site, interface="127.0.0.1")
        return f"listens on {number}"

    async def stop(self):
        await extra[0].stopListening()
        return "stopped"

    def options(self):
        import json
        found = {
            name: main.socket.getsockopt(*option) for name, option in OPTIONS.items()
        }
        found["backlogs"] = [
            struct.unpack_from("I", port.socket.getsockopt(6, socket.TCP_INFO, 104), 28)
            for port in (main, extra[0])
        ]
        found["blocking"] = main.socket.getblocking()
        found["inheritable"] = main.socket.get_inheritable()
        found["host"] = str(main.getHost()).replace(str(main.getHost().port), "PORT")
        return json.dumps(found, sort_keys=True)

site = Site(Steer())
main = Eager(0, site, 200, "127.0.0.1", reactor)
main.startListening()
extra = [reactor.listenTCP(int(sys.argv[1]), site, interface="127.0.0.1")]
print("port", main.getHost().port, extra[0].getHost().port, flush=True)
reactor.run()
"""


class Steered(ClusterTestCase):
    """
    A program with two servers that does as it is told.
    """

    async def steered(self, **options: Any) -> None:
        """
        Start it on two workers.
        """
        self.watcher = await self.serving(
            [self.program(STEERED), str(freePort())], **options
        )
        line = next(text for text in self.logged.texts if text.startswith("port "))
        self.main, self.extra = map(int, line.split()[1:])
        self.assertEqual(sorted(portsOf(self.watcher)), sorted([self.main, self.extra]))

    async def tell(self, *words: str) -> list[str]:
        """
        Tell each worker something, one after another.

        @return: the answers, in order.
        """
        path = "/" + "/".join(quote(word, safe="") for word in words)
        answers = await fromEach(self.watcher, lambda: get(self.main, path))
        return [answers[pid].decode() for pid in answers]

    async def checkPort(self, port: int) -> None:
        """
        Each worker serves on a port.
        """
        answers = await fromEach(self.watcher, lambda: get(port, "/pid"))
        self.assertEqual(answers, {pid: b"%d" % pid for pid in answers})

    async def test_late(self) -> None:
        """
        A second server opened late is the first worker's own; the second
        worker's attempt fails as that of a second program would, and the log
        names the remedy, which works.
        """
        await self.steered()
        port = freePort()
        good, bad = await self.tell("listen", str(port))
        self.assertEqual(good, f"listens on {port}")
        self.assertEqual(
            bad,
            f"CannotListenError: Couldn't listen on 127.0.0.1:{port}: "
            "[Errno 98] Address already in use.",
        )
        await self.logged.waitFor(f"the endpoint cluster:tcp:{port}")
        self.assertEqual(self.logged.count("opened after the start"), 1)
        port = freePort()
        description = f"cluster:tcp:{port}:interface=127.0.0.1"
        answers = await self.tell("endpoint", description)
        self.assertEqual(answers, [f"listens on {port}"] * 2)
        await self.checkPort(port)
        [one, other] = await self.tell("endpoint", "tcp:0:interface=127.0.0.1")
        self.assertNotEqual(one, other)
        self.assertEqual(len(self.watcher.addresses), 3)

    async def test_raced(self) -> None:
        """
        Where another process comes in between C{bind} and C{listen}, as happens
        when workers try the ports of a range, the error is the usual one.
        """
        await self.steered()
        port = freePort()
        expected = (
            f"CannotListenError: Couldn't listen on 127.0.0.1:{port}: "
            "[Errno 98] Address already in use."
        )
        self.assertEqual(await self.tell("raced", str(port)), [expected] * 2)

    async def test_again(self) -> None:
        """
        A worker may stop listening and listen again, as often as it likes; a
        port that nobody listens on any more is closed; and a second listen in
        one worker fails.
        """
        await self.steered()
        for _ in range(2):
            answers = await self.tell("again")
            self.assertEqual(answers, [f"listens on {self.extra}"] * 2)
            await self.checkPort(self.extra)
        [first, second] = await self.tell("listen", str(self.extra))
        self.assertIn("[Errno 98] Address already in use", first)
        self.assertEqual(first, second)
        self.assertEqual(await self.tell("stop"), ["stopped"] * 2)
        self.assertEqual(portsOf(self.watcher), [self.main])
        with socket.socket() as skt:
            skt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            skt.bind(("127.0.0.1", self.extra))
        answers = await self.tell("listen", str(self.extra))
        self.assertEqual(answers, [f"listens on {self.extra}"] * 2)
        await self.checkPort(self.extra)

    async def test_optionsAndBacklog(self) -> None:
        """
        The program's backlog and the options that it sets on its socket are
        those of the shared socket, as when it runs alone.
        """
        alone = self.execute([sys.executable, self.program(STEERED), "0"])
        await alone.waitFor("port ")
        expected = json.loads(await get(int(alone.text.split()[1]), "/options"))
        self.assertEqual(expected["backlogs"], [[200], [50]])
        self.assertTrue(expected["SO_KEEPALIVE"] and expected["TCP_DEFER_ACCEPT"])
        await self.steered(backlog=1)
        for answer in await self.tell("options"):
            self.assertEqual(json.loads(answer), expected)

    async def test_leastBacklog(self) -> None:
        """
        A cluster's own backlog raises what is lower, and lowers nothing.
        """
        await self.steered(backlog=100)
        for answer in await self.tell("options"):
            self.assertEqual(json.loads(answer)["backlogs"], [[200], [100]])

    async def test_local(self) -> None:
        """
        C{local:} is each worker's own, and the watcher knows nothing of it.
        """
        await self.steered()
        description = "local:tcp:0:interface=127.0.0.1"
        pids = [worker.pid for worker in self.watcher.workers]
        answers = await self.tell("endpoint", description)
        ports = [int(answer.split()[-1]) for answer in answers]
        self.assertEqual(len(set(ports)), 2)
        self.assertEqual(
            [await get(port, "/pid") for port in ports], [b"%d" % p for p in pids if p]
        )
        self.assertEqual(len(self.watcher.addresses), 2)
