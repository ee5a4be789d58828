"""
C{twistd web}, which knows nothing of clusters, on every kind of stream socket.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import sys
from typing import Any

from tests.integration.clients import (
    PID_SCRIPT,
    Connect,
    httpAnswer,
    httpBody,
    makeCertificate,
    skipWithoutTLS,
    toTCP,
    toTLS,
    toUNIX,
    undated,
)
from tests.integration.support import (
    DEADLINE,
    ClusterTestCase,
    Command,
    answersOf,
    reactor,
    until,
)
from tests.integration.workers import fromEach, inThread, portsOf
from twisted_cluster.errors import StartFailed
from twisted_cluster.watcher import ClusterWatcher


class _Site(ClusterTestCase):
    """
    A directory to serve, C{self.root}.
    """

    def setUp(self) -> Any:
        ready = super().setUp()
        self.root = self.directory / "www"
        self.root.mkdir()
        (self.root / "pid.rpy").write_text(PID_SCRIPT)
        (self.root / "page.html").write_text("<p>page</p>" * 1000)
        return ready

    def alone(self, *words: str) -> Command:
        """
        Run C{twistd web} in one process.
        """
        return self.execute(
            [sys.executable, "-m", "twisted", "web", *words, f"--path={self.root}"]
        )

    def web(self, *words: str) -> list[str]:
        """
        The target.
        """
        return ["web", *words, f"--path={self.root}"]

    async def refusal(self, watcher: ClusterWatcher) -> str:
        """
        Why a cluster could not start.
        """
        try:
            await watcher.whenReady().addTimeout(DEADLINE, reactor)
        except StartFailed as error:
            return str(error)
        raise AssertionError("it has started")

    def pids(self, watcher: ClusterWatcher) -> set[bytes]:
        """
        What the workers answer to a request for their pid.
        """
        return {b"%d" % worker.pid for worker in watcher.workers if worker.pid}


class WebOverStreams(_Site):
    """
    One site on TCP, IPv6, TLS and UNIX sockets.
    """

    async def test_everyKindOfSocket(self) -> None:
        """
        On every kind of socket each worker answers, and answers as the program
        does when it runs alone.
        """
        path = self.directory / "web.sock"
        watcher = await self.serving(
            self.web(
                "--listen=tcp:0:interface=127.0.0.1",
                r"--listen=tcp6:0:interface=\:\:1",
                f"--listen=unix:{path}:mode=600",
            )
        )
        [six] = [each for each in watcher.addresses if "::1" in each]
        [port] = portsOf(watcher)
        self.assertEqual(len(watcher.addresses), 3)
        alone = self.alone("--listen=tcp:0:interface=127.0.0.1")
        await alone.waitFor("Starting factory")
        found = re.search(r"Site starting on (\d+)", alone.text)
        assert found is not None
        for connect in (
            toTCP(port),
            toTCP(int(six.rpartition(":")[2]), "::1"),
            toUNIX(path),
        ):
            await self.check(watcher, connect, toTCP(int(found[1])))

    async def test_tls(self) -> None:
        """
        Over TLS, by endpoint and by the program's own option, each worker
        answers, and answers as the program does when it runs alone.
        """
        key, certificate = makeCertificate(self.directory)
        skipWithoutTLS(key, certificate)
        options = [f"--privkey={key}", f"--certificate={certificate}", "--https=0"]
        endpoint = f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={certificate}"
        alone = self.alone(*options)
        watcher = await self.serving(self.web(f"--listen={endpoint}", *options))
        await alone.waitFor("Starting factory")
        found = re.search(r"Site \(TLS\) starting on (\d+)", alone.text)
        assert found is not None
        self.assertEqual(len(watcher.addresses), 2)
        for address in watcher.addresses:
            connect = toTLS(int(address.rpartition(":")[2]), certificate)
            await self.check(watcher, connect, toTLS(int(found[1]), certificate))

    async def test_launcher(self) -> None:
        """
        Twisted's own launcher, run as a module, serves from both workers.
        """
        listen = "--listen=tcp:0:interface=127.0.0.1"
        watcher = await self.serving(["-m", "twisted", *self.web(listen)])
        [port] = portsOf(watcher)
        self.assertEqual(
            await answersOf(lambda: _page(toTCP(port)), 2), self.pids(watcher)
        )

    async def check(
        self, watcher: ClusterWatcher, connect: Connect, lone: Connect
    ) -> None:
        """
        Each worker answers, as the lone program does.
        """
        pids = await fromEach(watcher, lambda: _page(connect))
        self.assertEqual(set(pids.values()), self.pids(watcher))
        for page in ("/page.html", "/missing", "/"):
            expected = await inThread(httpAnswer, lone, page)
            answer = await inThread(httpAnswer, connect, page)
            self.assertEqual(undated(answer), undated(expected))


async def _page(connect: Connect) -> bytes:
    return bytes(await inThread(httpBody, connect, "/pid.rpy"))


class WebOverUNIX(_Site):
    """
    The file that stands for a UNIX socket.
    """

    async def test_pathOutlivesWorkers(self) -> None:
        """
        The path has the mode that the program asked for and is the same file
        whatever becomes of workers; the stop of the cluster removes it, and
        its lock.
        """
        path = self.directory / "web.sock"
        lock = self.directory / "web.sock.lock"
        watcher = await self.serving(self.web(f"--listen=unix:{path}:mode=640"))
        before = os.stat(path)
        self.assertEqual(stat.S_IMODE(before.st_mode), 0o640)
        self.assertTrue(os.path.lexists(lock))
        victim = watcher.workers[0].pid
        assert victim is not None
        os.kill(victim, signal.SIGKILL)
        await until(lambda: victim not in {worker.pid for worker in watcher.workers})
        await watcher.scale(1)
        await watcher.restart()
        after = os.stat(path)
        self.assertEqual(
            (after.st_ino, stat.S_IMODE(after.st_mode)), (before.st_ino, 0o640)
        )
        self.assertTrue(os.path.lexists(lock))
        self.assertEqual({await _page(toUNIX(path))}, self.pids(watcher))
        await watcher.stopService()
        self.assertFalse(os.path.lexists(path))
        self.assertFalse(os.path.lexists(lock))

    async def test_withoutLockFile(self) -> None:
        """
        C{lockfile=0} makes no lock file.
        """
        path = self.directory / "web.sock"
        watcher = await self.serving(self.web(f"--listen=unix:{path}:lockfile=0"))
        self.assertEqual(
            {p.name for p in self.directory.iterdir()}, {"www", "web.sock"}
        )
        self.assertEqual(
            await answersOf(lambda: _page(toUNIX(path)), 2), self.pids(watcher)
        )

    async def test_staleFile(self) -> None:
        """
        What a program left behind that was killed is in nobody's way.
        """
        path = self.directory / "web.sock"
        alone = self.alone(f"--listen=unix:{path}")
        await until(lambda: path.exists(), what="the lone program listens")
        alone.signal(signal.SIGKILL)
        await alone.whenEnded()
        self.assertTrue(path.exists())
        watcher = await self.serving(self.web(f"--listen=unix:{path}"))
        self.assertEqual(
            await answersOf(lambda: _page(toUNIX(path)), 2), self.pids(watcher)
        )

    async def test_noSocket(self) -> None:
        """
        A path where something else lives is refused with the reason that a
        lone program gets, and what lives there is left alone.
        """
        path = self.directory / "web.sock"
        path.write_text("precious")
        alone = self.alone(f"--listen=unix:{path}:lockfile=0")
        await alone.waitFor("CannotListenError")
        alone.signal(signal.SIGKILL)
        await alone.whenEnded()
        found = re.search(r"CannotListenError: (.*)", alone.text)
        assert found is not None
        watcher = self.cluster(self.web(f"--listen=unix:{path}:lockfile=0"))
        error = await self.refusal(watcher)
        self.assertIn(found[1], error)
        self.assertEqual(path.read_text(), "precious")

    async def test_heldByAnother(self) -> None:
        """
        A path on which another program listens is refused, and that program
        goes on.
        """
        path = self.directory / "web.sock"
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(os.fspath(path))
            other.listen()
            watcher = self.cluster(self.web(f"--listen=unix:{path}"))
            error = await self.refusal(watcher)
            self.assertIn("Address already in use", error)
            with toUNIX(path)() as client:
                self.assertEqual(client.getpeername(), os.fspath(path))
