"""
A web server that counts the visits of each site in its worker's memory.

    cd examples/routing
    twisted-cluster run -w 3 --balance routing:ByHost server.py
    curl localhost:8080 red.localhost:8080 yellow.localhost:8080    # again and again

C{routing.py} sends all connections for one site to the same worker, so each count goes
up by one each time.  Without C{--balance} any worker answers, and each has its counts.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.python.log import startLogging
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from twisted_cluster import cluster

reactor: Any = _reactor
visits: Counter[bytes] = Counter()


class Visit(Resource):
    """
    Counts, and tells who counts.
    """

    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        site = request.getRequestHostname()
        visits[site] += 1
        worker = str(cluster.workerID()).encode()
        return b"%s: visit %d in worker %s\n" % (site, visits[site], worker)


startLogging(sys.stdout)
number = int(sys.argv[1]) if len(sys.argv) > 1 else 8080
reactor.listenTCP(number, Site(Visit()), interface="127.0.0.1")
reactor.run()
