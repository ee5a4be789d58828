"""
Serves, and says so: to its watcher, or else by ending.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol

from twisted_cluster import cluster

running: Any = reactor
running.listenTCP(0, Factory.forProtocol(Protocol), interface="127.0.0.1")
if cluster.isWorker():
    running.callWhenRunning(cluster.ready)
else:
    running.callWhenRunning(running.stop)
running.run()
