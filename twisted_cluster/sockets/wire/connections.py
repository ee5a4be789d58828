"""
Which connections between processes can carry sockets.
"""

from __future__ import annotations

import socket

from twisted_cluster.errors import UsageError


def checkConnection(connection: socket.socket) -> None:
    """
    Close what cannot be a connection that carries sockets.

    @raise UsageError: then.
    """
    if connection.fileno() < 0:
        raise UsageError(f"{connection!r} was closed, and cannot carry sockets")
    if (connection.family, connection.type) != (socket.AF_UNIX, socket.SOCK_STREAM):
        connection.close()
        raise UsageError(
            f"{connection!r} cannot carry sockets: connect a UNIX stream socket, "
            "with socket.socketpair() or a LocalIPCHub"
        )
