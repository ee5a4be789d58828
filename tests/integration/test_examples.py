"""
Every example runs, and does what its first lines say.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from twisted.internet.protocol import ClientCreator, Protocol

from tests.integration.support import (
    ROOT,
    ClusterTestCase,
    Command,
    answersOf,
    exchange,
    get,
    reactor,
    until,
)
from tests.integration.test_cluster import portOf

EXAMPLES = ROOT / "examples"
HELLO = re.compile(rb"Hello from process (\d+)!\n")


def example(name: str) -> str:
    """
    The path of an example.
    """
    return str(EXAMPLES / name)


def tracebackOf(event: dict[str, Any]) -> str:
    """
    The traceback in an event of C{twisted.python.log.err}.
    """
    failure: Any = event["failure"]
    return str(failure.getTraceback())


def freePort() -> int:
    """
    A port that nobody listens on at the moment.
    """
    with socket.socket() as skt:
        skt.bind(("127.0.0.1", 0))
        return int(skt.getsockname()[1])


def listens(port: int) -> bool:
    """
    Whether somebody listens on a port.
    """
    with socket.socket() as skt:
        return skt.connect_ex(("127.0.0.1", port)) == 0


class _Visitor(Protocol):
    """
    Sits in the chat.
    """

    def __init__(self) -> None:
        self.heard = b""

    def dataReceived(self, data: bytes) -> None:
        self.heard += data


class Examples(ClusterTestCase):
    """
    The examples in a cluster.
    """

    async def assertAllAnswer(self, watcher: Any, ask: Any) -> None:
        """
        Check that the answers are those of all workers.
        """
        answers = await answersOf(ask, len(watcher.workers))
        pids = {int(found.group(1)) for a in answers if (found := HELLO.search(a))}
        self.assertEqual(pids, {worker.pid for worker in watcher.workers})

    async def test_helloWorld(self) -> None:
        """
        C{hello_world.py}: all workers greet those who connect.
        """
        watcher = await self.serving([example("hello_world.py"), "0"])
        port = portOf(watcher)
        await self.assertAllAnswer(watcher, lambda: exchange(port, b""))

    async def test_httpServer(self) -> None:
        """
        C{http_server.py}: all workers answer, what they log comes once, and they
        hear that they are to stop.
        """
        where = "tcp:0:interface=127.0.0.1"
        watcher = await self.serving([example("http_server.py"), where])
        port = portOf(watcher)
        await get(port, "/once")
        await self.assertAllAnswer(watcher, lambda: get(port))
        await self.logged.waitFor('"GET /once HTTP/1.0" 200')
        await watcher.stopService()
        self.assertEqual(self.logged.count("GET /once "), 1)
        self.assertEqual(self.logged.count("was told to stop"), 2)

    async def test_failingProcess(self) -> None:
        """
        C{failing_process.py}: the traceback is in the log, and another worker
        comes.
        """
        watcher = await self.serving([example("failing_process.py"), "1.3"], 1)
        [first] = watcher.workers
        event = await self.logged.waitFor("main function encountered error")
        self.assertIn("the database has melted", tracebackOf(event))
        await until(
            lambda: any(
                each.id != first.id and each.state == "ready"
                for each in watcher.workers
            )
        )

    async def test_outOfMemory(self) -> None:
        """
        C{out_of_memory.py}: the worker says that there is no memory left, and
        another comes.
        """
        target = [example("out_of_memory.py"), "768", "0.3"]
        watcher = await self.serving(target, 1)
        [first] = watcher.workers
        event = await self.logged.waitFor("main function encountered error")
        self.assertIn("MemoryError", tracebackOf(event))
        await until(lambda: any(each.id != first.id for each in watcher.workers))

    async def test_tac(self) -> None:
        """
        C{web.tac}: all workers answer.
        """
        self.patch(os, "environ", {**os.environ, "LISTEN": "tcp:0:interface=127.0.0.1"})
        watcher = await self.serving(example("web.tac"))
        port = portOf(watcher)
        await self.assertAllAnswer(watcher, lambda: get(port))

    async def test_asgi(self) -> None:
        """
        C{asgi_app.py}: all workers answer, each with a Daphne of its own.
        """
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(EXAMPLES)
        target = ["-m", "daphne", "-b", "127.0.0.1", "-p", "0", "asgi_app:application"]
        watcher = await self.serving(target)
        port = portOf(watcher)
        await self.assertAllAnswer(watcher, lambda: get(port))


class Programs(ClusterTestCase):
    """
    The examples that are commands of their own.
    """

    async def portIn(self, command: Command, pattern: str) -> int:
        """
        Wait until a command has told its port.
        """
        await until(
            lambda: re.search(pattern, command.text) or command.status is not None,
            what=pattern,
        )
        found = re.search(pattern, command.text)
        assert found is not None, command.text
        return int(found.group(1))

    async def stop(self, command: Command) -> None:
        """
        Stop a command as a user does, and check that it ends well.
        """
        command.signal(signal.SIGTERM)
        self.assertEqual(await command.whenEnded(), 0, command.text)

    async def test_httpServerAlone(self) -> None:
        """
        C{http_server.py} runs without a cluster as well, logs to its standard
        output, and ends well when it is told to stop.
        """
        where = "tcp:0:interface=127.0.0.1"
        alone = self.execute([sys.executable, example("http_server.py"), where])
        port = await self.portIn(alone, r"Site starting on (\d+)(?s:.*) serves")
        self.assertEqual(await get(port), b"Hello from process %d!\n" % alone.pid)
        await self.stop(alone)
        self.assertIn("was told to stop", alone.text)

    async def test_helloWorldAlone(self) -> None:
        """
        C{hello_world.py} runs without a cluster as well.
        """
        alone = self.execute([sys.executable, example("hello_world.py"), "0"])
        port = await self.portIn(alone, r"listening on port (\d+)")
        greeting = await exchange(port, b"")
        self.assertEqual(greeting, b"Hello from process %d!\n" % alone.pid)
        await self.stop(alone)

    async def test_chat(self) -> None:
        """
        C{chat/watcher.py}: what is said to one worker is heard by the users of
        both.
        """
        chat = self.execute([sys.executable, example("chat/watcher.py"), "0"])
        port = await self.portIn(chat, r"2 workers serve tcp:127\.0\.0\.1:(\d+)")
        visitors = await self.visit(port)
        visitors[0].transport.write(b"hello, you all\n")
        await until(
            lambda: all(v.heard.endswith(b"\nhello, you all\n") for v in visitors)
        )
        for visitor in visitors:
            visitor.transport.loseConnection()
        await self.stop(chat)

    async def visit(self, port: int) -> list[Any]:
        """
        Connect until there is somebody in each of two workers.
        """
        visitors: list[Any] = []
        creator = ClientCreator(reactor, _Visitor)
        while len({visitor.heard for visitor in visitors}) < 2:
            visitor = await creator.connectTCP("127.0.0.1", port)
            visitors.append(visitor)
            await until(lambda: all(v.heard.endswith(b"\n") for v in visitors))
        return visitors

    async def test_chatAlone(self) -> None:
        """
        C{chat/server.py} is a chat without a cluster as well.
        """
        alone = self.execute([sys.executable, example("chat/server.py"), "0"])
        port = await self.portIn(alone, r"chatting on port (\d+)")
        heard = await exchange(port, b"hello\n", lambda data: b"hello\n" in data)
        self.assertEqual(heard, b"welcome to worker None\nhello\n")


class Readme(ClusterTestCase):
    """
    The programs that the README shows.
    """

    def setUp(self) -> Any:
        blocks = re.findall(
            r"(?ms)^```python\n# (\w+\.py)\n(.*?)^```$",
            (ROOT / "README.md").read_text(),
        )
        self.programs = dict(blocks)
        done = super().setUp()
        for name, source in self.programs.items():
            self.program(
                source.replace('"tcp:8080"', '"tcp:0:interface=127.0.0.1"'), name
            )
        return done

    async def test_together(self) -> None:
        """
        The watcher counts the hits of all workers, and all of them know the
        total.
        """
        watcher = self.execute([sys.executable, "watcher.py"])
        await watcher.waitFor("serving tcp:")
        port = int(watcher.text.rpartition(":")[2])
        for _ in range(5):
            await get(port)

        async def whoKnows() -> bytes:
            worker, _, total = (await get(port)).partition(b": ")
            return worker if int(total.split()[0]) >= 5 else b"somebody else"

        answers = await answersOf(whoKnows, 2)
        answers.discard(b"somebody else")
        while len(answers) < 2:
            answers |= await answersOf(whoKnows, 2) - {b"somebody else"}
        self.assertEqual(answers, {b"worker 1", b"worker 2"})
        watcher.signal(signal.SIGTERM)
        self.assertEqual(await watcher.whenEnded(), 0, watcher.text)

    async def test_alone(self) -> None:
        """
        The server runs alone.
        """
        source = self.programs["server.py"]
        port = freePort()
        self.program(source.replace('"tcp:8080"', f'"tcp:{port}"'), "server.py")
        alone = self.execute([sys.executable, "server.py"])
        await until(lambda: listens(port))
        self.assertEqual(await get(port), b"worker None: 0 hits\n")
        alone.signal(signal.SIGTERM)
        self.assertEqual(await alone.whenEnded(), 0, alone.text)

    def test_links(self) -> None:
        """
        What the README and the documentation link to is there.
        """
        pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
        for page in pages:
            for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
                self.assertTrue((page.parent / target).exists(), (page, target))


class Shape(ClusterTestCase):
    """
    What all examples have in common.
    """

    def test_short(self) -> None:
        """
        Each can be read in a minute.
        """
        found = [each for each in EXAMPLES.rglob("*") if each.suffix in (".py", ".tac")]
        self.assertGreaterEqual(len(found), 8)
        for each in found:
            self.assertLess(len(each.read_text().splitlines()), 90, each)

    def test_tested(self) -> None:
        """
        Each is run by a test in this module, or in one beside it.
        """
        modules = Path(__file__).parent.glob("test_examples*.py")
        tests = "".join(module.read_text() for module in modules)
        for each in EXAMPLES.rglob("*"):
            if each.suffix in (".py", ".tac"):
                self.assertIn(each.name, tests)
