"""
DNS: C{twistd dns} as a server on UDP and TCP, and programs that resolve names
through C{twisted.names}.
"""

from __future__ import annotations

import sys

from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher
from twisted.names import authority, dns, server

from tests.integration.clients import dnsOverTCP, dnsOverUDP
from tests.integration.support import ClusterTestCase, LogOfTest, get, reactor
from tests.integration.workers import freePort, fromEach, inThread, portsOf

ZONE = """
zone = [
    SOA(
        "example.test", mname="ns.example.test", rname="root.example.test",
        serial=1, refresh="1H", retry="1H", expire="1H", minimum="1H",
    ),
    NS("example.test", "ns.example.test"),
    A("www.example.test", "192.0.2.7"),
]
"""

RESOLVING = """
import os, sys
from twisted.internet import reactor
from twisted.names.client import Resolver
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

resolver = Resolver(servers=[("127.0.0.1", int(sys.argv[1]))])

class Resolve(Resource):
    isLeaf = True
    def __init__(self, before):
        self.before = before
    def render_GET(self, request):
        def found(after):
            request.write(f"{os.getpid()} {self.before} {after}".encode())
            request.finish()
        resolve(request.path[1:].decode()).addCallback(found)
        return NOT_DONE_YET

def resolve(name):
    return resolver.lookupAddress(name).addCallback(
        lambda result: result[0][0].payload.dottedQuad()
    )

def start():
    resolve("early.example.test").addCallbacks(
        lambda before: reactor.listenTCP(
            0, Site(Resolve(before)), interface="127.0.0.1"
        ),
        lambda failure: (failure.printTraceback(), os._exit(9)),
    )

reactor.callWhenRunning(start)
reactor.run()
"""


class DNSServer(ClusterTestCase):
    """
    C{twistd dns}.
    """

    async def test_overUDPAndTCP(self) -> None:
        """
        Each worker answers over UDP and over TCP, as the lone program does.
        """
        zone = self.program(ZONE, "zone.py")
        words = ["dns", "--interface=127.0.0.1", f"--pyzone={zone}"]
        lonePort, port = freePort(), freePort()
        alone = self.execute(
            [sys.executable, "-m", "twisted", *words, f"--port={lonePort}"]
        )
        watcher = await self.serving([*words, f"--port={port}"])
        self.assertEqual(
            watcher.addresses, [f"tcp:127.0.0.1:{port}", f"udp:127.0.0.1:{port}"]
        )
        await alone.waitFor("DNSDatagramProtocol starting on")
        for name in ("www.example.test", "missing.example.test"):
            expected = await inThread(dnsOverUDP, lonePort, name)
            for ask in (dnsOverUDP, dnsOverTCP):
                answers = await fromEach(watcher, lambda: inThread(ask, port, name))  # noqa: B023 - awaited here
                self.assertEqual(
                    answers, {worker.pid: expected for worker in watcher.workers}
                )


class NameClient(ClusterTestCase):
    """
    A program whose resolver opens a random UDP port for each query.
    """

    async def test_beforeAndAfterReady(self) -> None:
        """
        Each worker gets the answers to its own queries, also while it starts;
        none of the resolver's ports is shared, not even for a moment.
        """
        said = LogOfTest()
        globalLogPublisher.addObserver(said)
        self.addCleanup(globalLogPublisher.removeObserver, said)
        zone = self.program(
            ZONE.replace(
                "]\n",
                '    A("early.example.test", "192.0.2.1"),\n'
                + "".join(
                    f'    A("n{n}.example.test", "192.0.2.{n}"),\n'
                    for n in range(10, 40)
                )
                + "]\n",
            ),
            "zone.py",
        )
        factory = server.DNSServerFactory([authority.PySourceAuthority(zone)])
        names = reactor.listenUDP(
            0, dns.DNSDatagramProtocol(factory), interface="127.0.0.1"
        )
        try:
            watcher = await self.serving(
                [self.program(RESOLVING), str(names.getHost().port)], 3
            )
            [address] = watcher.addresses
            [port] = portsOf(watcher)
            asked = [
                Deferred.fromCoroutine(get(port, f"/n{n}.example.test"))
                for n in range(10, 40)
            ]
            answers = [(await each).decode().split() for each in asked]
            self.assertEqual(
                [answer[1:] for answer in answers],
                [["192.0.2.1", f"192.0.2.{n}"] for n in range(10, 40)],
            )
            pids = await fromEach(watcher, lambda: get(port, "/n10.example.test"))
            self.assertEqual(
                {int(answer.split()[0]) for answer in pids.values()}, set(pids)
            )
            self.assertEqual(watcher.addresses, [address])
            self.assertEqual(said.count("Listening on tcp:"), 1)
            self.assertEqual(said.count("Listening on udp:"), 0)
        finally:
            await names.stopListening()
