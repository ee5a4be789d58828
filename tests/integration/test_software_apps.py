"""
Daphne, scrapyd and Klein, as they are installed, on several workers.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from typing import Any

from tests.integration.clients import (
    Connect,
    httpAnswer,
    httpBody,
    toTCP,
    toUNIX,
    undated,
    webSocketEcho,
)
from tests.integration.support import ClusterTestCase, Command, answersOf
from tests.integration.workers import (
    environment,
    freePort,
    fromEach,
    inThread,
    portsOf,
    setEnvironment,
)
from twisted_cluster.watcher import ClusterWatcher

ASGI = """
import os

async def application(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            event = await receive()
            if event["type"] == "websocket.disconnect":
                return
            text = f"{os.getpid()} {event['text']}"
            await send({"type": "websocket.send", "text": text})
    elif scope["type"] == "http":
        body = str(os.getpid()) if scope["path"] == "/pid" else scope["path"]
        await send({
            "type": "http.response.start", "status": 200,
            "headers": [(b"x-served-by", b"asgi")],
        })
        await send({"type": "http.response.body", "body": body.encode()})
"""

KLEIN = """
import asyncio, os, sys
import uvloop
from twisted.internet import asyncioreactor
asyncioreactor.install(uvloop.new_event_loop())
from klein import Klein
from twisted.internet import reactor
from twisted.web.server import Site

app = Klein()

@app.route("/pid")
def pid(request):
    return str(os.getpid())

@app.route("/hello/<name>")
async def hello(request, name):
    loop = type(reactor._asyncioEventloop).__module__
    return f"{name}, by {loop}"

port = reactor.listenTCP(0, Site(app.resource()), interface="127.0.0.1")
print("port", port.getHost().port, flush=True)
reactor.run()
"""


def pidsOf(watcher: ClusterWatcher) -> set[bytes]:
    """
    The pids of all workers, as text.
    """
    return {str(worker.pid).encode() for worker in watcher.workers}


class Daphne(ClusterTestCase):
    """
    C{-m daphne}, which installs a reactor while it is imported.
    """

    def setUp(self) -> Any:
        ready = super().setUp()
        self.program(ASGI, "served.py")
        self.changes = environment({"PYTHONPATH": str(self.directory)})
        setEnvironment(self, "PYTHONPATH", str(self.directory))
        return ready

    def daphne(self, *words: str) -> list[str]:
        return ["-m", "daphne", *words, "served:application"]

    async def check(self, connect: Connect) -> set[bytes]:
        """
        Ask over HTTP and over a WebSocket until two workers have answered.

        @return: the pids.
        """

        async def overHTTP() -> bytes:
            return await inThread(httpBody, connect, "/pid")

        async def overWebSocket() -> bytes:
            answer = await inThread(webSocketEcho, connect, b"hello")
            pid, _, text = answer.partition(b" ")
            self.assertEqual(text, b"hello")
            return pid

        pids = await answersOf(overHTTP, 2)
        self.assertEqual(await answersOf(overWebSocket, 2), pids)
        return pids

    async def test_overTCP(self) -> None:
        """
        Each worker serves HTTP and WebSockets on one port, and answers as
        Daphne does alone.
        """
        words = self.daphne("-b", "127.0.0.1", "-p")
        lonePort = freePort()
        words.insert(-1, str(lonePort))
        alone = self.execute([sys.executable, *words], environment=self.changes)
        words[-2] = "0"
        watcher = await self.serving(words)
        [port] = portsOf(watcher)
        self.assertEqual(await self.check(toTCP(port)), pidsOf(watcher))
        await alone.waitFor("Listening on TCP address")
        for path in ("/some/path", "/"):
            self.assertEqual(
                undated(await inThread(httpAnswer, toTCP(port), path)),
                undated(await inThread(httpAnswer, toTCP(lonePort), path)),
            )

    async def test_overUNIX(self) -> None:
        """
        C{-u} serves on a path.
        """
        path = self.directory / "daphne.sock"
        watcher = await self.serving(self.daphne("-u", str(path)))
        self.assertEqual(await self.check(toUNIX(path)), pidsOf(watcher))
        await watcher.stopService()
        self.assertFalse(path.exists())

    async def test_inheritedDescriptor(self) -> None:
        """
        C{--fd} serves on a listening socket that a process manager passed to
        the watcher, and leaves it listening when a worker ends.
        """
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen(100)
            connect = toTCP(listening.getsockname()[1])
            command = self.command(
                *("run", "-w", "2", *self.daphne("--fd", "7")),
                environment=self.changes,
                childFDs={0: "w", 1: "r", 2: "r", 7: listening.fileno()},
            )
            await command.waitFor("2 workers serve")
            first = await self.check(connect)
            os.kill(int(min(first)), signal.SIGTERM)

            async def whose() -> bytes:
                try:
                    answer = await inThread(httpAnswer, connect, "/pid")
                except ConnectionError:
                    answer = b""
                # The worker that was told to leave may cut what it serves.
                pid = answer.rpartition(b"\r\n")[2]
                return b"new" if pid and pid not in first else b"old"

            await answersOf(whose, 2)
            command.signal(signal.SIGTERM)
            self.assertEqual(await command.whenEnded(), 0, command.text)


class Scrapyd(ClusterTestCase):
    """
    C{-m scrapyd}, which is twistd in disguise.
    """

    async def test_api(self) -> None:
        """
        Each worker answers the API as scrapyd does alone; nobody writes a pid
        file, and the directory holds what a lone scrapyd leaves in it.
        """
        port, lonePort = freePort(), freePort()
        places = {}
        for name, number in (("cluster", port), ("alone", lonePort)):
            places[name] = self.directory / name
            places[name].mkdir()
            (places[name] / "scrapyd.conf").write_text(
                f"[scrapyd]\nhttp_port = {number}\nnode_name = here\n"
            )
        lone = Command([sys.executable, "-m", "scrapyd", "--pidfile="], places["alone"])
        self.addCleanup(lone.end)
        cluster = Command(
            [
                *(sys.executable, "-m", "twisted_cluster.cli"),
                *("run", "-w", "3", "-m", "scrapyd"),
            ],
            places["cluster"],
        )
        self.addCleanup(cluster.end)
        await cluster.waitFor("3 workers serve")
        await lone.waitFor("Launcher")
        pids = {int(each) for each in _between(cluster.text, "pid ")}
        self.assertEqual(len(pids), 3, cluster.text)
        for path in ("daemonstatus.json", "listprojects.json", "listjobs.json", ""):
            expected = await inThread(httpAnswer, toTCP(lonePort), f"/{path}")
            for _ in range(6):
                answer = await inThread(httpAnswer, toTCP(port), f"/{path}")
                self.assertEqual(undated(answer), undated(expected))
        status = await inThread(httpBody, toTCP(port), "/daemonstatus.json")
        self.assertEqual(json.loads(status)["status"], "ok")
        self.assertEqual(
            sorted(each.name for each in places["cluster"].iterdir()),
            sorted(each.name for each in places["alone"].iterdir()),
        )
        cluster.signal(signal.SIGTERM)
        self.assertEqual(await cluster.whenEnded(), 0, cluster.text)
        self.assertNotIn("twistd.pid", os.listdir(places["cluster"]))

    async def test_eachWorkerServes(self) -> None:
        """
        Each worker answers, none of them for the others.
        """
        port = freePort()
        (self.directory / "scrapyd.conf").write_text(f"[scrapyd]\nhttp_port = {port}\n")
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.directory)
        watcher = await self.serving(["-m", "scrapyd"])
        self.assertEqual(watcher.addresses, [f"tcp:127.0.0.1:{port}"])
        answers = await fromEach(
            watcher,
            lambda: inThread(httpBody, toTCP(port), "/daemonstatus.json"),
        )
        self.assertEqual(
            [json.loads(each)["status"] for each in answers.values()], ["ok"] * 2
        )


class KleinOnUvloop(ClusterTestCase):
    """
    A Klein application whose reactor runs on uvloop.
    """

    async def test_eachWorkerServes(self) -> None:
        """
        Each worker answers, on uvloop, and as the program does alone.
        """
        program = self.program(KLEIN)
        alone = self.execute([sys.executable, program])
        watcher = await self.serving(program)
        [port] = portsOf(watcher)

        async def pid() -> bytes:
            return await inThread(httpBody, toTCP(port), "/pid")

        self.assertEqual(await answersOf(pid, 2), pidsOf(watcher))
        await alone.waitFor("port ")
        lone = toTCP(int(_between(alone.text, "port ")[0]))
        for path in ("/hello/you", "/missing"):
            expected = await inThread(httpAnswer, lone, path)
            self.assertEqual(
                undated(await inThread(httpAnswer, toTCP(port), path)),
                undated(expected),
            )
        self.assertIn(b"by uvloop", await inThread(httpBody, lone, "/hello/you"))


def _between(text: str, before: str) -> list[str]:
    """
    The words that follow a text.
    """
    return [part.split()[0].strip(",.") for part in text.split(before)[1:]]
