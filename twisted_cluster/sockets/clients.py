"""
Moves client connections, with data, from one process to another.
"""

from __future__ import annotations

from twisted_cluster.sockets.clientreceiver import ClientSocketReceivePipe
from twisted_cluster.sockets.clientsender import ClientSocketSendPipe
from twisted_cluster.sockets.detach import ConnectionTransferred
from twisted_cluster.sockets.transferred import TransferredSocket

__all__ = [
    "ClientSocketReceivePipe",
    "ClientSocketSendPipe",
    "ConnectionTransferred",
    "TransferredSocket",
]
