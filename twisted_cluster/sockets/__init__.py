"""
Sockets between processes; nothing here knows of clusters.

  - L{ClientSocketSendPipe}, L{ClientSocketReceivePipe}: move client connections,
    with data, to another process (C{clients}).
  - L{ServerSocketPipeProvider}, L{ServerSocketPipeFactory}: listen on sockets that
    another process binds (C{servers}).
  - L{LocalIPCHub}, L{connect}: connect processes that were started by something
    else (C{hub}).

All of them stand on C{wire}, which moves bytes and descriptors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted_cluster.sockets.clients.detach import ConnectionTransferred
    from twisted_cluster.sockets.clients.receiver import ClientSocketReceivePipe
    from twisted_cluster.sockets.clients.sender import ClientSocketSendPipe
    from twisted_cluster.sockets.clients.transferred import TransferredSocket
    from twisted_cluster.sockets.hub.client import connect
    from twisted_cluster.sockets.hub.hub import LocalIPCHub
    from twisted_cluster.sockets.servers.pipes import (
        ServerSocketPipeFactory,
        ServerSocketPipeProvider,
    )

__all__ = [
    "ClientSocketReceivePipe",
    "ClientSocketSendPipe",
    "ConnectionTransferred",
    "LocalIPCHub",
    "ServerSocketPipeFactory",
    "ServerSocketPipeProvider",
    "TransferredSocket",
    "connect",
]

_HOMES = {
    "ClientSocketReceivePipe": "clients.receiver",
    "ClientSocketSendPipe": "clients.sender",
    "ConnectionTransferred": "clients.detach",
    "LocalIPCHub": "hub.hub",
    "ServerSocketPipeFactory": "servers.pipes",
    "ServerSocketPipeProvider": "servers.pipes",
    "TransferredSocket": "clients.transferred",
    "connect": "hub.client",
}
"""
Where the public names are found once they are asked for: a worker pays for what
its program uses.
"""


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
