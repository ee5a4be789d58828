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
    Parses endpoint strings of one prefix by a class that is imported when it
    is first needed.
    """

    def __init__(self, prefix: str, className: str) -> None:
        self.prefix = prefix
        self._className = className

    def parseStreamServer(
        self, reactor: Any, *args: Any, **kwargs: Any
    ) -> IStreamServerEndpoint:
        """
        See L{IStreamServerEndpointStringParser.parseStreamServer}.
        """
        endpoints = import_module("twisted_cluster.endpoints")
        parser = getattr(endpoints, self._className)()
        endpoint: IStreamServerEndpoint = parser.parseStreamServer(
            reactor, *args, **kwargs
        )
        return endpoint


cluster = ServiceMaker(  # type: ignore[no-untyped-call]
    "cluster",
    "twisted_cluster.tap",
    "Run a Twisted program in many processes.",
    "cluster",
)

clusterEndpointParser = _Parser("cluster", "ClusterEndpointParser")
localEndpointParser = _Parser("local", "LocalEndpointParser")
