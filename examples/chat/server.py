"""
A chat over TCP whose users sit in different processes; see C{watcher.py}.

Each worker knows its own users only.  What one of them says goes to the watcher, which
tells all workers.  Alone, C{python examples/chat/server.py} is a chat in one process.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, connectionDone
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure

from twisted_cluster import cluster

reactor: Any = _reactor
users: set[User] = set()


class User(LineReceiver):
    """
    Somebody who is connected to this process.
    """

    delimiter = b"\n"

    def connectionMade(self) -> None:
        users.add(self)
        self.sendLine(b"welcome to worker %s" % str(cluster.workerID()).encode())

    def lineReceived(self, line: bytes) -> None:
        if cluster.isWorker():
            cluster.channel().send(line)
        else:
            tellAll(line)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        users.discard(self)


def tellAll(line: bytes) -> None:
    """
    Tell all users of this process.
    """
    for user in users:
        user.sendLine(line)


async def listen() -> None:
    """
    Pass on what the watcher says.
    """
    async for message in cluster.channel():
        tellAll(message.data)


number = int(sys.argv[1]) if len(sys.argv) > 1 else 1337
port = reactor.listenTCP(number, Factory.forProtocol(User), interface="127.0.0.1")
if cluster.isWorker():
    Deferred.fromCoroutine(listen())
print(f"chatting on port {port.getHost().port}", flush=True)
reactor.run()
