"""
A socket that came from another process, until somebody takes it on.
"""

from __future__ import annotations

import os
import warnings
from typing import Any, Optional

from twisted.internet.interfaces import IProtocol, IProtocolFactory

from twisted_cluster.errors import NotTransferable, UsageError
from twisted_cluster.interfaces import Data
from twisted_cluster.sockets.clients.attach import NoDescriptor, attach


class TransferredSocket:
    """
    A socket that was taken over from another process, with what came along.

    It owns its descriptor until one of L{adopt}, L{detach} and L{close} is
    called.  Call one: a socket that is merely forgotten keeps its client waiting
    until the garbage collector finds it, which closes it with a
    C{ResourceWarning}.

    @ivar descriptor: the socket, close-on-exec, or -1 when it was given away.
    @ivar data: what was sent along.
    @ivar unread: what the sender had read from the connection and not consumed.
    """

    __slots__ = ("_reactor", "data", "descriptor", "unread")

    def __init__(
        self, reactor: Any, descriptor: int, data: Data, unread: bytes
    ) -> None:
        """
        @param reactor: what L{adopt} uses.
        @param descriptor: this object's from now on.
        """
        self._reactor = reactor
        self.descriptor = descriptor
        self.data = data
        self.unread = unread

    def adopt(self, factory: IProtocolFactory) -> Optional[IProtocol]:
        """
        Let a factory's protocol go on with the connection, on the reactor of the
        pipe that it came from.  What is L{unread} is the first that its
        C{dataReceived} is given, before anything that is still in the kernel;
        when it pauses its transport in C{connectionMade}, after it resumed.

        @return: the protocol, or L{None} when the factory wants none; the
            connection is closed then.
        @raise ConnectionGone: when the client has gone already; the descriptor
            is closed.
        @raise NotTransferable: when it is no connected stream socket of TCP or
            UNIX; the descriptor is still this object's.
        @raise OSError: when this process is at its limit of open files, of which
            this takes one for a moment (C{EMFILE}, C{ENFILE}).  The descriptor is
            still this object's: adopt it later, or L{close} it.
        @raise UsageError: when it was given away or closed before.
        @raise Exception: what the factory or its protocol raises.
        """
        descriptor = self.detach()
        try:
            return attach(self._reactor, descriptor, factory, self.unread)
        except (NotTransferable, NoDescriptor):
            self.descriptor = descriptor
            raise

    def detach(self) -> int:
        """
        Give the descriptor away.

        @return: it; it is the caller's.
        @raise UsageError: when it was given away or closed before.
        """
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor < 0:
            raise UsageError("this socket was adopted, detached or closed before")
        return descriptor

    def close(self) -> None:
        """
        Close the descriptor, unless it was given away or closed before.
        """
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        if self.descriptor >= 0:
            warnings.warn(
                f"a transferred socket, descriptor {self.descriptor}, was neither "
                "adopted nor detached nor closed",
                ResourceWarning,
                source=self,
                stacklevel=2,
            )
            self.close()
