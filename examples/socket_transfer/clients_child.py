"""
Serves the clients that another process gives to it; see C{clients_parent.py}.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import Any

from twisted.internet.protocol import Factory
from twisted.internet.task import react
from twisted.logger import Logger
from twisted.protocols.basic import LineReceiver
from twisted.python.log import startLogging

from twisted_cluster.errors import ConnectionGone
from twisted_cluster.sockets import ClientSocketReceivePipe, connect

log = Logger("clients_child")


class Host(LineReceiver):
    """
    Greets a client that it knows, and repeats what that says.
    """

    delimiter = b"\n"

    def __init__(self, name: bytes, number: int) -> None:
        self.greeting = b"Hello %s, client %d of process %d!" % (
            name,
            number,
            os.getpid(),
        )

    def connectionMade(self) -> None:
        self.sendLine(self.greeting)

    def lineReceived(self, line: bytes) -> None:
        self.sendLine(b"You said: " + line)


async def main(reactor: Any, uri: str, key: str) -> None:
    """
    Serve clients as long as there is a parent.
    """
    connection = await connect(reactor, uri, key)
    log.info("process {pid} serves", pid=os.getpid())
    async for client in ClientSocketReceivePipe(reactor, connection):
        try:
            client.adopt(Factory.forProtocol(partial(Host, **client.data)))
        except ConnectionGone:
            log.info("client {number} has gone", number=client.data["number"])
    log.info("the parent has gone")


startLogging(sys.stdout)
react(main, sys.argv[1:])
