"""
A connection on its way to a worker.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Final

import attrs

from twisted_cluster.interfaces import Connection

GONE: Final = {
    errno.ECONNABORTED,
    errno.EPERM,
    errno.ENETDOWN,
    errno.EPROTO,
    errno.ENOPROTOOPT,
    errno.EHOSTDOWN,
    errno.ENONET,
    errno.EHOSTUNREACH,
    errno.EOPNOTSUPP,
    errno.ENETUNREACH,
}
"""What C{accept} says of a connection that is gone already, or forbidden."""


@attrs.define(eq=False)
class Accepted:
    """
    A connection that no worker has taken yet; see
    L{twisted_cluster.supervisor.intake.Held}.

    @ivar socket: it, owned by this object.
    @ivar again: called when it needs another worker.
    @ivar unread: what a worker that had it before has read from it and not used.
    """

    socket: socket.socket
    connection: Connection
    again: Callable[[Accepted], object]
    unread: bytes = b""

    def taken(self) -> None:
        """
        A worker has it.
        """
        self.socket.close()

    def returned(self) -> None:
        """
        No worker has it.
        """
        self.connection = attrs.evolve(self.connection, final=True)
        self.again(self)
