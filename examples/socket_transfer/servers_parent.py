"""
Binds the sockets that other processes listen on.

    python examples/socket_transfer/servers_parent.py
    python examples/socket_transfer/servers_child.py URI KEY    # twice, as it says
    nc localhost 9337

The processes are started by themselves, and meet through a hub.  Both children listen
on the same port, and whichever is free takes the next connection.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import react
from twisted.logger import Logger
from twisted.python.log import startLogging

from twisted_cluster.sockets import LocalIPCHub, ServerSocketPipeProvider

log = Logger("servers_parent")
CHILD = Path(__file__).with_name("servers_child.py")


async def provide(hub: LocalIPCHub, provider: ServerSocketPipeProvider) -> None:
    """
    Wait for a child, and bind what it asks for until it ends.
    """
    key = hub.generateKey()
    log.info("run python {child} {uri} {key}", child=CHILD, uri=hub.uri, key=key)
    connection = await hub.accept(key, timeout=600)
    log.info("a child has come")
    await provider.provideFor(connection)
    log.info("a child has gone; still bound: {bound}", bound=provider.addresses)


async def main(reactor: Any, children: str = "2") -> None:
    """
    Provide for some children until all have ended.
    """
    hub = LocalIPCHub(reactor)
    await hub.listen()
    provider = ServerSocketPipeProvider(reactor)
    provided = [provide(hub, provider) for _ in range(int(children))]
    await gatherResults(map(Deferred.fromCoroutine, provided))


startLogging(sys.stdout)
react(main, sys.argv[1:])
