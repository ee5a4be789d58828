"""
What becomes of a program that cannot have the address it wants.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import Any

from twisted.internet.error import CannotListenError

from tests.integration.faults import FaultTestCase, failed, pauses
from tests.integration.support import Command, reactor, until
from twisted_cluster.errors import RestartFailed
from twisted_cluster.watcher import ClusterWatcher

LISTENER = """
import sys
from twisted.internet import reactor
from twisted.internet.protocol import Factory
where = open(sys.argv[1]).read()
if where.startswith("/"):
    reactor.listenUNIX(where, Factory())
else:
    reactor.listenTCP(int(where), Factory(), interface="127.0.0.1")
reactor.run()
"""

WITNESS = """
import errno, os, sys
from twisted.internet import reactor
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory
where = sys.argv[1]
root = os.geteuid() == 0
if root:
    os.seteuid(65534)
try:
    if where.startswith("/"):
        reactor.listenUNIX(where, Factory())
    else:
        reactor.listenTCP(int(where), Factory(), interface="127.0.0.1")
except CannotListenError as error:
    number = error.socketError.errno
    print("witness:", type(error).__name__, errno.errorcode[number], error)
if root:
    os.seteuid(0)
reactor.callLater(0, reactor.stop)
reactor.run()
"""


def taken() -> tuple[socket.socket, int]:
    """
    A port that somebody else listens on, and its owner.
    """
    owner = socket.create_server(("127.0.0.1", 0))
    return owner, owner.getsockname()[1]


def theLine(command: Command, text: str) -> str:
    """
    The only line that contains a text, from there on.
    """
    [line] = [line for line in command.text.splitlines() if text in line]
    return line[line.index(text) :]


class ListeningFaults(FaultTestCase):
    """
    An address that cannot be had.
    """

    async def _asAlone(self, where: str, expected: str) -> None:
        """
        Check that a program meets the same exception alone and in a cluster.
        """
        path = self.program(WITNESS, "witness.py")
        self.directory.chmod(0o755)
        alone = self.execute([sys.executable, path, where])
        await alone.whenEnded()
        line = theLine(alone, "witness:")
        self.assertIn(expected, line)
        cluster = self.command("run", "-w", "1", path, where)
        self.assertEqual(await cluster.whenEnded(), 3)
        self.assertEqual(theLine(cluster, "witness:"), line)
        self.assertEqual(cluster.text.count("Cannot listen on"), 1)

    async def test_takenAsAlone(self) -> None:
        """
        A worker that asks for a taken port meets the exception, errno and
        message that the program meets alone.
        """
        owner, port = taken()
        with owner:
            await self._asAlone(str(port), "CannotListenError EADDRINUSE")

    async def test_takenPath(self) -> None:
        """
        A path that is a regular file is refused as alone, and the file stays.
        """
        path = self.file("regular", "precious")
        await self._asAlone(str(path), "CannotListenError EADDRINUSE")
        self.assertEqual(path.read_text(), "precious")

    async def test_missingDirectory(self) -> None:
        """
        A path in a directory that does not exist is refused as alone.
        """
        path = self.directory / "nowhere" / "socket"
        await self._asAlone(str(path), "CannotListenError ENOENT")

    async def test_unreadablePath(self) -> None:
        """
        A path in a directory that may not be entered is refused as alone.
        """
        forbidden = self.directory / "forbidden"
        forbidden.mkdir()
        self._files.add("forbidden")
        forbidden.chmod(0)
        self.addCleanup(forbidden.chmod, 0o700)
        path = forbidden / "socket"
        await self._asAlone(str(path), "CannotListenError EACCES")

    async def test_first(self) -> None:
        """
        When the first worker cannot have its port, the command ends with status
        3, and says why, once.
        """
        owner, port = taken()
        with owner:
            path = self.program(LISTENER, "listener.py")
            where = str(self.file("where", str(port)))
            command = self.command("run", "-w", "2", path, where)
            self.assertEqual(await command.whenEnded(), 3)
        reason = f"Couldn't listen on 127.0.0.1:{port}: [Errno 98]"
        self.assertIn(f"CannotListenError: {reason}", command.text)
        self.assertEqual(command.text.count("could not start"), 1)
        self.assertEqual(command.text.count("Cannot listen on"), 1)

    async def _listener(self, where: str = "0") -> ClusterWatcher:
        """
        Start a cluster of two that listens where a file says.
        """
        path = self.program(LISTENER, "listener.py")
        self.where = self.file("where", where)
        return await self.serving([path, str(self.where)], 2)

    async def test_restart(self) -> None:
        """
        When the new workers of a restart cannot have their port, the restart
        fails and says why, and the old workers serve on.
        """
        watcher = await self._listener()
        before = await self.full(watcher)
        owner, port = taken()
        with owner:
            self.where.write_text(str(port))
            error = await failed(watcher.restart()).addTimeout(30, reactor)
            self.assertIsInstance(error, RestartFailed)
            self.assertIn(f"127.0.0.1:{port}: [Errno 98]", str(error))
            self.assertEqual(await self.full(watcher), before)
        self.where.write_text("0")
        await watcher.restart().addTimeout(30, reactor)

    async def test_saidOnce(self) -> None:
        """
        While the replacements of a worker ask for a taken port again and again,
        the watcher's log says once that it is taken; and when it is free, one
        of them gets it.
        """
        watcher = await self._listener()
        [victim, _] = await self.full(watcher)
        owner, port = taken()
        with owner:
            self.where.write_text(str(port))
            os.kill(victim, signal.SIGKILL)
            await until(lambda: len(pauses(self.logged)) >= 4)
        await self.full(watcher)
        self.assertEqual(self.logged.count("Cannot listen on"), 1)
        self.assertIn(f"tcp:127.0.0.1:{port}", watcher.addresses)

    async def test_bind(self) -> None:
        """
        A watcher that cannot bind an address of its own does not start.
        """
        owner, port = taken()
        with owner:
            watcher = ClusterWatcher(
                reactor,
                self.program(LISTENER, "listener.py"),
                1,
                binds=["tcp:0:interface=127.0.0.1", f"tcp:{port}:interface=127.0.0.1"],
            )
            error: Any = self.assertRaises(CannotListenError, watcher.startService)
            self.assertEqual(error.socketError.errno, 98)
            await self.assertFailure(watcher.whenReady(), CannotListenError)
            await self.assertFailure(watcher.whenStopped(), CannotListenError)

    async def test_bindStatus(self) -> None:
        """
        A C{--bind} that cannot be bound ends the command with status 1.
        """
        owner, port = taken()
        with owner:
            path = self.program(LISTENER, "listener.py")
            bind = f"tcp:{port}:interface=127.0.0.1"
            command = self.command("run", "-w", "1", "--bind", bind, path)
            self.assertEqual(await command.whenEnded(), 1)
        self.assertIn(f"127.0.0.1:{port}: [Errno 98]", command.text)
