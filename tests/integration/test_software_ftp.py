"""
FTP servers, whose every passive transfer opens a port that belongs to one client
alone.
"""

from __future__ import annotations

import ftplib
import io
from typing import Any

from tests.integration.clients import TIMEOUT
from tests.integration.support import ClusterTestCase
from tests.integration.workers import freePort, freeRange, fromEach, inThread, portsOf
from twisted_cluster.watcher import ClusterWatcher

RANGED = """
import sys
from twisted.cred.checkers import AllowAnonymousAccess
from twisted.cred.portal import Portal
from twisted.internet import reactor
from twisted.protocols.ftp import FTPFactory, FTPRealm

factory = FTPFactory(Portal(FTPRealm(sys.argv[1]), [AllowAnonymousAccess()]))
factory.passivePortRange = range(int(sys.argv[2]), int(sys.argv[3]))
reactor.listenTCP(0, factory, interface="127.0.0.1")
reactor.run()
"""


def transfer(port: int, name: str) -> tuple[bytes, list[str], int]:
    """
    Fetch a file and a listing.

    @return: what arrived, and the last port of a transfer.
    """
    ports = []

    class Client(ftplib.FTP):
        def makepasv(self) -> tuple[str, int]:
            host, number = super().makepasv()
            ports.append(number)
            return host, number

    content, names = io.BytesIO(), []
    client = Client(timeout=TIMEOUT)
    with client:
        client.connect("127.0.0.1", port)
        client.login()
        client.retrbinary(f"RETR {name}", content.write)
        names = client.nlst(".")
    return content.getvalue(), sorted(names), ports[-1]


class FTPServers(ClusterTestCase):
    """
    30 transfers, ten at a time, from three workers.
    """

    def setUp(self) -> Any:
        ready = super().setUp()
        self.root = self.directory / "ftp"
        self.root.mkdir()
        for number in range(30):
            (self.root / f"file{number}").write_bytes(b"%d," % number * 20000)
        return ready

    async def transfers(self, watcher: ClusterWatcher) -> list[int]:
        [address] = watcher.addresses
        port = int(address.rpartition(":")[2])
        names = sorted(path.name for path in self.root.iterdir())
        used = []
        for first in range(0, 30, 10):
            numbers = range(first, first + 10)
            running = [inThread(transfer, port, f"file{n}") for n in numbers]
            for number, each in zip(numbers, running, strict=True):
                content, listing, passive = await each
                self.assertEqual(content, b"%d," % number * 20000)
                self.assertEqual(listing, names)
                used.append(passive)
        served = await fromEach(watcher, lambda: inThread(transfer, port, "file1"))
        self.assertEqual(
            {content for content, _, _ in served.values()}, {b"1," * 20000}
        )
        self.assertEqual(watcher.addresses, [address])
        return used

    async def test_anyPort(self) -> None:
        """
        C{twistd ftp}, which takes any port for a transfer: 30 of 30 are right.
        """
        port = freePort()
        words = ["ftp", f"--port={port}", f"--root={self.root}"]
        watcher = await self.serving(words, 3)
        self.assertEqual(watcher.addresses, [f"tcp:0.0.0.0:{port}"])
        await self.transfers(watcher)

    async def test_portRange(self) -> None:
        """
        A server that tries the ports of a range one after another: 30 of 30
        are right, all within the range, and no worker complains of each port
        that another one has.
        """
        first = freeRange(60)
        words = [self.program(RANGED), str(self.root), str(first), str(first + 60)]
        watcher = await self.serving(words, 3)
        self.assertEqual(len(portsOf(watcher)), 1)
        used = await self.transfers(watcher)
        self.assertTrue(set(used) <= set(range(first, first + 60)), used)
        self.assertLessEqual(self.logged.count("opened after the start"), 3)
