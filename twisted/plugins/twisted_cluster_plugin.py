"""
What C{twisted_cluster} adds to Twisted: the command C{twistd cluster}, and the
endpoints C{cluster:...} and C{local:...}.

Twisted imports this file to list plugins, in any program: it is cheap, and
imports neither the reactor nor the package itself.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from twisted.application.service import ServiceMaker
from twisted.internet.interfaces import (
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import IPlugin
from zope.interface import implementer


@implementer(IPlugin, IStreamServerEndpointStringParser)
class _Parser:
    """
    Parses endpoint strings of one prefix, by a function that is imported when
    it is first needed.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def parseStreamServer(
        self, reactor: Any, *args: Any, **kwargs: Any
    ) -> IStreamServerEndpoint:
        """
        See L{IStreamServerEndpointStringParser.parseStreamServer}.
        """
        endpoints = import_module("twisted_cluster.endpoints")
        parse = getattr(endpoints, f"{self.prefix}Endpoint")
        endpoint: IStreamServerEndpoint = parse(reactor, *args, **kwargs)
        return endpoint


cluster = ServiceMaker(  # type: ignore[no-untyped-call]
    "cluster",
    "twisted_cluster.tap",
    "Run a Twisted program in many processes.",
    "cluster",
)

clusterEndpointParser = _Parser("cluster")
localEndpointParser = _Parser("local")
