"""
A web server that runs in a cluster, and alone.

    twisted-cluster run -w 2 examples/http_server.py
    python examples/http_server.py
    curl localhost:8080

An argument says where else to listen: C{tcp:9000}, C{unix:/run/web.sock}, ….
"""

from __future__ import annotations

import os
import sys
from typing import Any

from twisted.internet.task import react
from twisted.logger import Logger
from twisted.python.log import startLogging
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from twisted_cluster import cluster

log = Logger("http_server")


class Hello(Resource):
    """
    Tells which process answers.
    """

    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        request.setHeader(b"content-type", b"text/plain; charset=utf-8")
        return b"Hello from process %d!\n" % os.getpid()


async def main(reactor: Any, where: str = "tcp:8080:interface=127.0.0.1") -> None:
    """
    Serve until somebody says stop.
    """
    endpoint = cluster.serverEndpoint(reactor, where)
    await endpoint.listen(Site(Hello()))
    log.info("process {pid} serves", pid=os.getpid())
    await cluster.whenStopping()
    log.info("was told to stop")


# What is printed here is seen when the program runs alone.  In a cluster it is in the
# watcher's log already, and does not come twice.
startLogging(sys.stdout)
react(main, sys.argv[1:])
