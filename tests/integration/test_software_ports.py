"""
Programs that listen where something is in the way: they hunt for a free port,
stand in their own way, or fail, all as they do alone.
"""

from __future__ import annotations

import socket
import sys
from functools import partial

from twisted.logger import globalLogPublisher

from tests.integration.support import ClusterTestCase, LogOfTest, get
from tests.integration.workers import freePort, freeRange, fromEach, portsOf

HUNTING = """
import os, sys
from twisted.internet import reactor
from twisted.internet.error import CannotListenError
from twisted.web.resource import Resource
from twisted.web.server import Site

class Pid(Resource):
    isLeaf = True
    def render_GET(self, request):
        return b"%d" % os.getpid()

def hunt(first):
    for number in range(first, first + 20):
        try:
            port = reactor.listenTCP(number, Site(Pid()), interface="127.0.0.1")
        except CannotListenError:
            continue
        return port.getHost().port

print("found", hunt(int(sys.argv[1])), hunt(int(sys.argv[1])), flush=True)
reactor.run()
"""

FAILING = """
import sys
from twisted.internet import reactor, protocol
from twisted.internet.error import CannotListenError

taken, directory = int(sys.argv[1]), sys.argv[2]
factory, datagram = protocol.Factory(), protocol.DatagramProtocol()
for listen, arguments, options in [
    (reactor.listenTCP, (taken, factory), {"interface": "127.0.0.1"}),
    (reactor.listenTCP, (taken, factory), {}),
    (reactor.listenUDP, (taken, datagram), {"interface": "127.0.0.1"}),
    (reactor.listenTCP, (taken, factory), {"interface": "192.0.2.1"}),
    (reactor.listenUDP, (taken, datagram), {"interface": "192.0.2.1"}),
    (reactor.listenTCP, (70000, factory), {}),
    (reactor.listenUNIX, (directory + "/none/socket", factory), {}),
    (reactor.listenUNIX, (directory + "/" + "x" * 200, factory), {}),
    (reactor.listenUNIX, (sys.argv[0], factory), {}),
]:
    try:
        listen(*arguments, **options)
    except Exception as error:
        inner = getattr(error, "socketError", None)
        print(
            f"failed: {listen.__name__} {type(error).__name__} {error} / "
            f"{type(inner).__name__} {getattr(inner, 'errno', None)}",
            flush=True,
        )
    else:
        print(f"failed: not at all, {arguments}")
print("done", flush=True)
reactor.listenTCP(0, factory, interface="127.0.0.1")
reactor.run()
"""

WILDCARD = """
import socket, sys
from twisted.internet import protocol, reactor

number, factory = int(sys.argv[1]), protocol.Factory()
for interface in ("::", "0.0.0.0", "", "::1", "localhost"):
    try:
        port = reactor.listenTCP(number, factory, interface=interface)
    except Exception as error:
        print(f"result: {interface} {type(error).__name__} {error}", flush=True)
    else:
        print(f"result: {interface} {port.getHost()}", end="")
        if ":" in interface:
            only = port.socket.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            print(f" {only}", end="")
        print(flush=True)
print("done", flush=True)
reactor.run()
"""


class Hunting(ClusterTestCase):
    """
    A program that takes the first port that is free, twice.
    """

    async def test_sameAsAlone(self) -> None:
        """
        All workers find the ports that a lone program finds, and share them.
        """
        first = freeRange(4)
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", first))
            taken.listen()
            words = [self.program(HUNTING), str(first)]
            alone = self.execute([sys.executable, *words])
            await alone.waitFor("found ")
            await alone.end()
            expected = f"found {first + 1} {first + 2}"
            self.assertEqual(alone.text.strip(), expected)
            watcher = await self.serving(words, 3)
            self.assertEqual(self.logged.count(expected), 3)
            self.assertEqual(portsOf(watcher), [first + 1, first + 2])
            for port in portsOf(watcher):
                answers = await fromEach(watcher, partial(get, port))
                self.assertEqual(answers, {pid: b"%d" % pid for pid in answers})


class Wildcards(ClusterTestCase):
    """
    A program that listens on one port of several interfaces.
    """

    async def test_sameAsAlone(self) -> None:
        """
        IPv4 and IPv6 stand in each other's way as they do alone.
        """
        words = [self.program(WILDCARD), str(freePort())]
        alone = self.execute([sys.executable, *words])
        await alone.waitFor("done")
        await alone.end()
        expected = [line for line in alone.text.splitlines() if line != "done"]
        self.assertEqual(len(expected), 5, alone.text)
        watcher = await self.serving(words)
        for line in expected:
            self.assertEqual(self.logged.count(line), 2, f"{line}\n{self.logged.texts}")
        served = [line for line in expected if "Error" not in line]
        self.assertEqual(len(watcher.addresses), len(served))


class Failing(ClusterTestCase):
    """
    A program that listens where nothing can.
    """

    async def test_sameAsAlone(self) -> None:
        """
        Each worker meets the same exception as a lone program, with the same
        words and errno; the log of the watcher tells of each address once.
        """
        said = LogOfTest()
        globalLogPublisher.addObserver(said)
        self.addCleanup(globalLogPublisher.removeObserver, said)
        port = freePort()
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", port))
            tcp.listen()
            udp.bind(("127.0.0.1", port))
            words = [self.program(FAILING), str(port), str(self.directory)]
            alone = self.execute([sys.executable, *words])
            await alone.waitFor("done")
            watcher = await self.serving(words, 3)
        expected = [
            line for line in alone.text.splitlines() if line.startswith("failed: ")
        ]
        self.assertEqual(len(expected), 9)
        for line in expected:
            self.assertEqual(self.logged.count(line), 3, f"{line}\n{self.logged.texts}")
        for address in (f"tcp:127.0.0.1:{port}", f"udp:127.0.0.1:{port}"):
            self.assertEqual(said.count(f"Cannot listen on {address},"), 1)
        self.assertEqual(len(watcher.addresses), 1)
