"""
The endpoint descriptions C{cluster:…} and C{local:…}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.endpoints import (
    TCP4ServerEndpoint,
    TCP6ServerEndpoint,
    UNIXServerEndpoint,
)
from twisted.internet.interfaces import (
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactor
from twisted.plugin import IPlugin
from twisted.plugins.twisted_cluster_plugin import (
    clusterEndpointParser,
    localEndpointParser,
)
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from twisted_cluster.errors import InvalidEndpoint
from twisted_cluster.worker.modes import currentMode


class Reactor(MemoryReactor):
    """
    Remembers what was said of each listen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.modes: list[Any] = []

    def listenTCP(self, *args: Any, **kw: Any) -> Any:
        self.modes.append(currentMode())
        return super().listenTCP(*args, **kw)

    def listenUNIX(self, *args: Any, **kw: Any) -> Any:
        self.modes.append(currentMode())
        return super().listenUNIX(*args, **kw)


class ParserTests(SynchronousTestCase):
    """
    Both parsers, as Twisted calls them: with the words and options that its
    own parser has taken apart.
    """

    def inner(self, parser: Any, *words: str, **options: str) -> Any:
        endpoint = parser.parseStreamServer(Reactor(), *words, **options)
        verifyObject(IStreamServerEndpoint, endpoint)
        return endpoint._endpoint

    def test_interfaces(self) -> None:
        """
        The parsers are plugins for Twisted's endpoint descriptions.
        """
        for parser in (clusterEndpointParser, localEndpointParser):
            verifyObject(IPlugin, parser)
            verifyObject(IStreamServerEndpointStringParser, parser)
        self.assertEqual("cluster", clusterEndpointParser.prefix)
        self.assertEqual("local", localEndpointParser.prefix)

    def test_inner(self) -> None:
        """
        What is within is an endpoint of any kind, with its own options.
        """
        parser = clusterEndpointParser
        tcp = self.inner(parser, "tcp", "8080", interface="127.0.0.1", backlog="7")
        self.assertIsInstance(tcp, TCP4ServerEndpoint)
        self.assertEqual(
            (8080, 7, "127.0.0.1"), (tcp._port, tcp._backlog, tcp._interface)
        )
        tcp6 = self.inner(localEndpointParser, "tcp6", "80", interface="::1")
        self.assertIsInstance(tcp6, TCP6ServerEndpoint)
        self.assertEqual("::1", tcp6._interface)
        unix = self.inner(parser, "unix", r"/run/a=b:c\d", mode="600")
        self.assertIsInstance(unix, UNIXServerEndpoint)
        self.assertEqual(r"/run/a=b:c\d", unix._address)

    def test_listen(self) -> None:
        """
        The listen, and nothing else, is marked; it listens as the endpoint
        within does.
        """
        reactor = Reactor()
        for parser in (clusterEndpointParser, localEndpointParser):
            endpoint = parser.parseStreamServer(reactor, "tcp", "8080")
            self.assertIsNone(currentMode())
            self.successResultOf(endpoint.listen(Factory()))
            self.assertIsNone(currentMode())
        self.assertEqual(["cluster", "local"], reactor.modes)
        self.assertEqual([8080, 8080], [each[0] for each in reactor.tcpServers])

    def test_balance(self) -> None:
        """
        How connections are balanced may be said: in the ways that there are, and
        as code of somebody's own, which only the watcher knows.
        """
        parser = clusterEndpointParser
        for balance in ("kernel", "round-robin", "least-connections", "sticky"):
            tcp = self.inner(parser, "tcp", "8080", balance=balance)
            self.assertEqual(8080, tcp._port)
        self.inner(parser, "tcp", "8080", balance="package.module:Name")
        error = self.assertRaises(
            InvalidEndpoint,
            parser.parseStreamServer,
            Reactor(),
            "tcp",
            "8080",
            balance="rr",
        )
        self.assertIn("it can be kernel, round-robin, least-conn", str(error))

    def test_wrong(self) -> None:
        """
        A description without an ordinary endpoint within is refused.
        """
        parsers = [clusterEndpointParser, localEndpointParser]
        for parser in parsers:
            for words in [(), ("cluster", "tcp", "80"), ("local", "tcp", "80")]:
                error = self.assertRaises(
                    InvalidEndpoint, parser.parseStreamServer, Reactor(), *words
                )
                self.assertIn(f"{parser.prefix}: needs an", str(error))
            self.assertRaises(
                ValueError, parser.parseStreamServer, Reactor(), "nonsense", "80"
            )
