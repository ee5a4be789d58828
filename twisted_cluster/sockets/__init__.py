"""
Sockets between processes; nothing here knows of clusters.

  - L{ClientSocketSendPipe}, L{ClientSocketReceivePipe}: move client connections,
    with data, to another process (C{clientsender}, C{clientreceiver}; C{handover}
    and what is below it).
  - L{ServerSocketPipeProvider}, L{ServerSocketPipeFactory}: listen on sockets that
    another process binds (C{servers}; C{answering}, C{asking}, C{sharing}).
  - L{LocalIPCHub}, L{connect}: connect processes that were started by something
    else (C{hub}).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted_cluster.sockets.clientreceiver import ClientSocketReceivePipe
    from twisted_cluster.sockets.clientsender import ClientSocketSendPipe
    from twisted_cluster.sockets.detach import ConnectionTransferred
    from twisted_cluster.sockets.hub import LocalIPCHub
    from twisted_cluster.sockets.hubclient import connect
    from twisted_cluster.sockets.servers import (
        ServerSocketPipeFactory,
        ServerSocketPipeProvider,
    )
    from twisted_cluster.sockets.transferred import TransferredSocket

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
    "ClientSocketReceivePipe": "clientreceiver",
    "ClientSocketSendPipe": "clientsender",
    "ConnectionTransferred": "detach",
    "LocalIPCHub": "hub",
    "ServerSocketPipeFactory": "servers",
    "ServerSocketPipeProvider": "servers",
    "TransferredSocket": "transferred",
    "connect": "hubclient",
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
