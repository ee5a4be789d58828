"""
Listens on a socket that another process binds; see C{servers_parent.py}.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import react
from twisted.logger import Logger
from twisted.python.log import startLogging

from twisted_cluster.sockets import ServerSocketPipeFactory, connect

log = Logger("servers_child")


class Hello(Protocol):
    """
    Says who it is, and hangs up.
    """

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"Hello from process %d!\n" % os.getpid())
        self.transport.loseConnection()


async def main(
    reactor: Any, uri: str, key: str, where: str = "tcp:9337:interface=127.0.0.1"
) -> None:
    """
    Serve until somebody says stop.
    """
    sockets = ServerSocketPipeFactory(reactor, await connect(reactor, uri, key))
    port = await sockets.endpoint(where).listen(Factory.forProtocol(Hello))
    log.info("process {pid} serves at {host}", pid=os.getpid(), host=port.getHost())
    await Deferred[None]()


startLogging(sys.stdout)
react(main, sys.argv[1:])
