"""
Processes that meet through a hub, and what is left when they die.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import unittest
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from tests.integration.support import (
    DEADLINE,
    ClusterTestCase,
    Command,
    openDescriptors,
    reactor,
    until,
)
from twisted_cluster.errors import ChannelClosed, HubClosed, HubTimeout
from twisted_cluster.sockets.hub import handshake
from twisted_cluster.sockets.hub.client import connect
from twisted_cluster.sockets.hub.hub import LocalIPCHub

GUEST = """
import os, sys, time
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted_cluster.errors import ClusterError
from twisted_cluster.sockets.hub.client import connect

async def main(reactor, uri, key, user=None):
    if user is not None:
        os.setgroups([])
        os.setgid(int(user))
        os.setuid(int(user))
    print("connecting", flush=True)
    try:
        skt = await connect(reactor, uri, key)
    except ClusterError as error:
        print(type(error).__name__ + ":", error, flush=True)
        raise SystemExit(1)
    skt.setblocking(True)
    skt.sendall(b"from process %d" % os.getpid())
    print("heard", skt.recv(100), flush=True)

react(lambda *args: Deferred.fromCoroutine(main(*args)), sys.argv[1:])
"""
"""
Connects, tells its pid and prints what it hears.
"""

SILENT = """
import socket, sys, time
skt = socket.socket(socket.AF_UNIX)
skt.connect(sys.argv[1])
skt.send(sys.argv[2].encode())
print("said", flush=True)
time.sleep(60)
"""
"""
Says something to a hub and then nothing more.
"""

HOST = """
import sys
from twisted.internet import reactor
from twisted_cluster.sockets.hub.hub import LocalIPCHub
hub = LocalIPCHub(reactor, sys.argv[1])
hub.listen()
reactor.callWhenRunning(print, "hub", hub.uri, hub.generateKey(), flush=True)
reactor.run()
"""
"""
Has a hub until it is stopped.
"""

NOBODY = 65534
asRoot = unittest.skipIf(os.geteuid() != 0, "needs root, to be somebody else")


class HubProcesses(ClusterTestCase):
    """
    A hub, and processes that come to it.
    """

    def setUp(self) -> Any:
        return super().setUp().addCallback(lambda _: self._start())

    def _start(self) -> Deferred[None]:
        self.hub = self.newHub()
        self.addCleanup(self.assertNoDirectories)
        self.addCleanup(self.hub.close)
        return self.hub.listen()

    def newHub(self) -> LocalIPCHub:
        """
        Make a hub in the test's directory.
        """
        return LocalIPCHub(reactor, str(self.directory))

    def hubDirectories(self) -> list[Path]:
        """
        The directories of hubs that there are.
        """
        return [each for each in self.directory.iterdir() if each.is_dir()]

    def assertNoDirectories(self) -> None:
        """
        No hub has left a directory behind.
        """
        self.assertEqual(self.hubDirectories(), [])

    def start(self, source: str, *arguments: str) -> Command:
        """
        Run a program in a process of its own.
        """
        return self.execute([sys.executable, "-c", source, *arguments])

    def silent(self, said: str) -> Command:
        """
        Start a process that says something and then nothing more.
        """
        return self.start(SILENT, handshake.pathOf(self.hub.uri), said)

    async def kill(self, command: Command) -> None:
        """
        Kill a process, and wait for its end.
        """
        command.signal(signal.SIGKILL)
        self.assertEqual(await command.whenEnded(), -signal.SIGKILL)

    async def assertGetsIn(self) -> None:
        """
        A process that knows a key is let in.
        """
        key = self.hub.generateKey()
        accepted = self.hub.accept(key)
        guest = self.start(GUEST, self.hub.uri, key)
        await self.assertJoined(await accepted, guest)

    async def assertJoined(self, skt: socket.socket, guest: Command) -> None:
        """
        A socket leads to a process.
        """
        with skt:
            skt.settimeout(DEADLINE)
            self.assertEqual(skt.recv(100), b"from process %d" % guest.pid)
            skt.sendall(b"a greeting")
        self.assertEqual(await guest.whenEnded(), 0, guest.text)
        self.assertIn("heard b'a greeting'", guest.text)

    async def test_several(self) -> None:
        """
        Processes that were started by themselves are joined, each with who
        waits for it.
        """
        keys = [self.hub.generateKey() for _ in range(4)]
        guests = [self.start(GUEST, self.hub.uri, key) for key in keys]
        for key, guest in zip(reversed(keys), reversed(guests), strict=True):
            await self.assertJoined(await self.hub.accept(key), guest)

    async def test_refused(self) -> None:
        """
        A process without the right key is told why it is not let in.
        """
        key = self.hub.generateKey()
        guest = self.start(GUEST, self.hub.uri, "0" * 64)
        self.assertEqual(await guest.whenEnded(), 1)
        self.assertIn("HubRefused: ", guest.text)
        self.assertIn("the key is wrong", guest.text)
        accepted = self.hub.accept(key)
        guest = self.start(GUEST, self.hub.uri, key)
        await self.assertJoined(await accepted, guest)
        replayed = self.start(GUEST, self.hub.uri, key)
        self.assertEqual(await replayed.whenEnded(), 1)
        self.assertIn("was used already", replayed.text)

    async def test_guestKilled(self) -> None:
        """
        A process may be killed before it has said its key, in the middle of
        it, before it is waited for, or after it was let in: what it held is
        given back, and the hub serves on.
        """
        before = len(openDescriptors())
        key = self.hub.generateKey()
        accepted = self.hub.accept(key, timeout=60)
        for said in ("", key[:32]):
            silent = self.silent(said)
            await silent.waitFor("said")
            await until(lambda: len(openDescriptors()) > before)
            await self.kill(silent)
            await until(lambda: len(openDescriptors()) == before)
        self.assertFalse(accepted.called)
        silent = self.silent(key)
        with await accepted as skt:
            await self.kill(silent)
            skt.settimeout(DEADLINE)
            # It had not read the hub's answer.
            self.assertRaises(ConnectionResetError, skt.recv, 100)
        early = self.hub.generateKey()
        silent = self.silent(early)
        await silent.waitFor("said")
        await self.kill(silent)
        with self.assertRaises((ChannelClosed, HubTimeout)):
            await self.hub.accept(early, timeout=5)
        await self.assertGetsIn()

    async def test_hubKilled(self) -> None:
        """
        When the hub's process is killed, who waits there is told, as is who
        comes later; the next hub removes what was left behind.
        """
        host = self.start(HOST, str(self.directory))
        await host.waitFor("hub unix:")
        _, uri, key = host.text.split()
        self.assertEqual(len(self.hubDirectories()), 2)
        waiting = self.start(GUEST, uri, key)
        await waiting.waitFor("connecting")
        here = connect(reactor, uri, "0" * 64)
        with self.assertRaises(Exception):  # noqa: B017 - it is there, and refuses
            await here
        await self.kill(host)
        self.assertEqual(await waiting.whenEnded(), 1)
        self.assertIn("HubClosed: ", waiting.text)
        self.assertIn(handshake.pathOf(uri), waiting.text)
        with self.assertRaisesRegex(HubClosed, "start this process anew"):
            await connect(reactor, uri, key)
        self.assertEqual(len(self.hubDirectories()), 2)
        another = self.newHub()
        await another.listen()
        left = {str(each) for each in self.hubDirectories()}
        self.assertNotIn(os.path.dirname(handshake.pathOf(uri)), left)
        self.assertEqual(len(left), 2)
        await another.close()
        await self.assertGetsIn()

    async def test_hubStopped(self) -> None:
        """
        A hub that nobody closes goes when its reactor stops.
        """
        host = self.start(HOST, str(self.directory))
        await host.waitFor("hub unix:")
        self.assertEqual(len(self.hubDirectories()), 2)
        host.signal(signal.SIGTERM)
        await host.whenEnded()
        self.assertEqual(len(self.hubDirectories()), 1)

    async def test_forked(self) -> None:
        """
        A process that the hub's process has started keeps neither its
        directory nor its socket.
        """
        sleeper = self.start("import time; print('asleep', flush=True); time.sleep(60)")
        await sleeper.waitFor("asleep")
        held = [os.readlink(each) for each in Path(f"/proc/{sleeper.pid}/fd").iterdir()]
        self.assertEqual([each for each in held if str(self.directory) in each], [])
        self.assertFalse([each for each in held if "socket" in each])

    @asRoot
    async def test_otherUser(self) -> None:
        """
        A process of another user does not get to the hub, although it knows
        the key.
        """
        key = self.hub.generateKey()
        accepted = self.hub.accept(key)
        os.chmod(self.directory, 0o755)
        guest = self.start(GUEST, self.hub.uri, key, str(NOBODY))
        self.assertEqual(await guest.whenEnded(), 1, guest.text)
        self.assertIn("HubRefused: the hub at", guest.text)
        self.assertIn("is another user's", guest.text)
        self.assertFalse(accepted.called)
        guest = self.start(GUEST, self.hub.uri, key)
        await self.assertJoined(await accepted, guest)

    @asRoot
    async def test_otherUserWithin(self) -> None:
        """
        Nor does it get in where somebody has opened the directory to all.
        """
        key = self.hub.generateKey()
        accepted = self.hub.accept(key)
        path = handshake.pathOf(self.hub.uri)
        for opened in (self.directory, os.path.dirname(path), path):
            os.chmod(opened, 0o777)
        guest = self.start(GUEST, self.hub.uri, key, str(NOBODY))
        self.assertEqual(await guest.whenEnded(), 1, guest.text)
        self.assertIn(f"it is user 0's, and not user {NOBODY}'s", guest.text)
        self.assertFalse(accepted.called)
        guest = self.start(GUEST, self.hub.uri, key)
        await self.assertJoined(await accepted, guest)

    @asRoot
    async def test_otherUsersDirectory(self) -> None:
        """
        What the hub of another user has left behind is not removed, also by
        root.
        """
        left = self.directory / "twisted-cluster-hub-foreign"
        left.mkdir()
        os.chown(left, NOBODY, NOBODY)
        another = self.newHub()
        await another.listen()
        self.assertTrue(left.exists())
        left.rmdir()
        await another.close()
