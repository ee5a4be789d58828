"""
Answers each connection with its process's id, in four bytes: to a connection
on the first port, which is closed then, and to one on the second, which stays
open until the client closes it.
"""

from __future__ import annotations

import os
import struct
import sys
from typing import Any

from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol

from twisted_cluster import cluster

ANSWER = struct.pack("!i", os.getpid())
running: Any = reactor


class Short(Protocol):
    """
    Answers and closes.
    """

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(ANSWER)
        self.transport.loseConnection()


class Long(Protocol):
    """
    Answers and stays.
    """

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(ANSWER)


def listen(port: int, protocol: type[Protocol]) -> None:
    """
    Serve on a port, with a backlog that no burst of the benchmarks fills.
    """
    factory = Factory.forProtocol(protocol)
    factory.noisy = False
    running.listenTCP(port, factory, backlog=4096, interface="127.0.0.1")


listen(int(sys.argv[1]), Short)
listen(int(sys.argv[2]), Long)
if cluster.isWorker():
    running.callWhenRunning(cluster.ready)
running.run()
