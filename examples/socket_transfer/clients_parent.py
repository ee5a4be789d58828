"""
Accepts clients, asks who they are, and gives them to another process.

    python examples/socket_transfer/clients_parent.py
    python examples/socket_transfer/clients_child.py URI KEY    # as the parent says
    nc localhost 1337

The two processes are started by themselves, and meet through a hub.  A client speaks
with the parent first, and then, over the same connection, with the child.
"""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path
from typing import Any

from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory
from twisted.internet.task import react
from twisted.logger import Logger
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from twisted.python.log import startLogging

from twisted_cluster.sockets import ClientSocketSendPipe, LocalIPCHub

log = Logger("clients_parent")
CHILD = Path(__file__).with_name("clients_child.py")


class Doorman(LineReceiver):
    """
    Asks for a name, and passes the connection on with what it was told.
    """

    delimiter = b"\n"
    numbers = count(1)

    def __init__(self, pipe: ClientSocketSendPipe) -> None:
        self.pipe = pipe

    def connectionMade(self) -> None:
        self.sendLine(b"What is your name?")

    def lineReceived(self, line: bytes) -> None:
        assert self.transport is not None
        data = {"name": line.strip(), "number": next(self.numbers)}
        # What the client has said already after its name is the child's to hear.
        sent = self.pipe.send(self.transport, data, unread=self.clearLineBuffer())
        sent.addErrback(self.stays)

    def stays(self, failure: Failure) -> None:
        """
        The child did not take it.
        """
        assert self.transport is not None
        log.failure("a client stays here", failure)
        self.transport.loseConnection()


async def main(reactor: Any, where: str = "tcp:1337:interface=127.0.0.1") -> None:
    """
    Accept clients as long as there is a child.
    """
    hub = LocalIPCHub(reactor)
    await hub.listen()
    key = hub.generateKey()
    log.info("run python {child} {uri} {key}", child=CHILD, uri=hub.uri, key=key)
    pipe = ClientSocketSendPipe(reactor, await hub.accept(key, timeout=600))
    factory = Factory.forProtocol(lambda: Doorman(pipe))
    port = await serverFromString(reactor, where).listen(factory)
    log.info("accepting at {host}", host=port.getHost())
    await pipe.whenClosed()
    log.info("the child has gone")


startLogging(sys.stdout)
react(main, sys.argv[1:])
