"""
The examples of sockets between processes run, and do what their first lines
say.
"""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

from tests.integration.support import (
    ROOT,
    ClusterTestCase,
    Command,
    answersOf,
    exchange,
    until,
)

EXAMPLES = ROOT / "examples" / "socket_transfer"
ASKED = b"What is your name?\n"


class SocketTransfer(ClusterTestCase):
    """
    F{examples/socket_transfer}.
    """

    def start(self, name: str, *arguments: str) -> Command:
        """
        Run an example in a process of its own, whose hub is in the test's
        directory.
        """
        return self.execute(
            [sys.executable, str(EXAMPLES / name), *arguments],
            environment={"TMPDIR": str(self.directory)},
        )

    async def children(self, parent: Command, count: int) -> list[list[str]]:
        """
        Wait until a parent has told how to start its children.

        @return: the name, the uri and the key for each.
        """

        def told() -> list[str]:
            found = re.findall(r"run python (\S+ \S+ \S+)\n", parent.text)
            return found if len(found) == count else []

        lines = await until(told, what="how to start the children")
        return [[Path(line.split()[0]).name, *line.split()[1:]] for line in lines]

    async def portOf(self, command: Command, text: str) -> int:
        """
        Wait until a process has told its port.
        """
        pattern = re.compile(re.escape(text) + r".*port=(\d+)\)")
        told = await until(lambda: pattern.search(command.text), what=text)
        assert told is not None
        return int(told[1])

    def assertNoHub(self) -> None:
        """
        No hub has left a directory behind.
        """
        self.assertEqual(list(self.directory.glob("twisted-cluster-hub-*")), [])

    async def test_clients(self) -> None:
        """
        Clients say their name to F{clients_parent.py}, and what they say
        besides, with or after it, to F{clients_child.py}.
        """
        parent = self.start("clients_parent.py", "tcp:0:interface=127.0.0.1")
        [[name, *arguments]] = await self.children(parent, 1)
        self.assertEqual(name, "clients_child.py")
        child = self.start(name, *arguments)
        port = await self.portOf(parent, "accepting at")
        for number, words in enumerate((b"", b"hello\nand more\n"), start=1):

            def said(heard: bytes, lines: int = words.count(b"\n") + 2) -> bool:
                return heard.count(b"\n") == lines

            heard = await exchange(port, b"Alice\n" + words, said)
            greeting = b"Hello Alice, client %d of process %d!\n" % (number, child.pid)
            echo = b"".join(b"You said: %s\n" % word for word in words.splitlines())
            self.assertEqual(heard, ASKED + greeting + echo)
        child.signal(signal.SIGTERM)
        await child.whenEnded()
        self.assertEqual(await parent.whenEnded(), 0, parent.text)
        self.assertIn("the child has gone", parent.text)
        self.assertNoHub()

    async def test_clientsParentEnds(self) -> None:
        """
        F{clients_child.py} ends when its parent is killed.
        """
        parent = self.start("clients_parent.py", "tcp:0:interface=127.0.0.1")
        [[name, *arguments]] = await self.children(parent, 1)
        child = self.start(name, *arguments)
        await parent.waitFor("accepting at")
        parent.signal(signal.SIGKILL)
        self.assertEqual(await child.whenEnded(), 0, child.text)
        self.assertIn("the parent has gone", child.text)

    async def test_servers(self) -> None:
        """
        Both processes of F{servers_child.py} listen on the socket that
        F{servers_parent.py} has bound, and it is closed when the last has gone.
        """
        parent = self.start("servers_parent.py", "2")
        found = await self.children(parent, 2)
        children = []
        ports = set()
        for name, *arguments in found:
            self.assertEqual(name, "servers_child.py")
            child = self.start(name, *arguments, "tcp:0:interface=127.0.0.1")
            children.append(child)
            ports.add(await self.portOf(child, f"process {child.pid} serves at"))
        [port] = ports

        async def ask() -> bytes:
            return await exchange(port, b"")

        greetings = {b"Hello from process %d!\n" % child.pid for child in children}
        self.assertEqual(await answersOf(ask, 2), greetings)
        first, second = children
        first.signal(signal.SIGKILL)
        await parent.waitFor("a child has gone; still bound: ['tcp:127.0.0.1:")
        self.assertEqual(await ask(), b"Hello from process %d!\n" % second.pid)
        second.signal(signal.SIGTERM)
        self.assertEqual(await parent.whenEnded(), 0, parent.text)
        self.assertIn("still bound: []", parent.text)
        self.assertNoHub()
