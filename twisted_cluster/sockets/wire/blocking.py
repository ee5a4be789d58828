"""
Bytes over a connected UNIX stream socket, without a reactor.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterable
from typing import Optional

from twisted.internet import interfaces
from twisted.internet.address import UNIXAddress
from zope.interface import implementer

_WRITE = 256 * 1024

Identity = tuple[int, int]
"""
What tells one open socket from another, whatever its number.
"""


def identify(skt: socket.socket) -> Identity:
    """
    Find out which socket a descriptor is.

    @raise OSError: when it is closed.
    """
    found = os.fstat(skt.fileno())
    return found.st_dev, found.st_ino


def isStill(skt: socket.socket, identity: Identity) -> bool:
    """
    Tell whether a descriptor is still the socket that it was.  A program that
    closes all descriptors, as daemons do, gets the same numbers again for
    sockets of its own.
    """
    try:
        return identify(skt) == identity
    except OSError:
        return False


@implementer(interfaces.ITransport)
class BlockingTransport:
    """
    Writes to a connected UNIX stream socket and waits until that is done: for
    a process whose reactor does not run yet, or no longer.

    It never reads, and it never owns the socket.
    """

    def __init__(
        self,
        skt: socket.socket,
        patience: float,
        identity: Optional[Identity] = None,
    ) -> None:
        """
        @param patience: seconds that one write may wait for a peer that does
            not read; after that, or once the peer is gone, everything written
            is discarded.
        @param identity: what the socket was when it was known to be the right
            one, if that was earlier than now.
        """
        self._socket = skt
        self._identity = identity or identify(skt)
        self._patience = patience
        self._broken = False

    def write(self, data: bytes) -> None:
        """
        Write all of the data, or give the peer up.  What is not the same socket
        any more is not written to.
        """
        left = memoryview(data)
        poll = select.poll()
        while left and not self._broken:
            if not isStill(self._socket, self._identity):
                self._broken = True
                return
            try:
                left = left[self._socket.send(left[:_WRITE], socket.MSG_DONTWAIT) :]
            except (BlockingIOError, InterruptedError):
                poll.register(self._socket, select.POLLOUT)
                if not poll.poll(self._patience * 1000):
                    self._broken = True
            except OSError:
                self._broken = True

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """
        Write several pieces as one.
        """
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """
        Write nothing more.
        """
        self._broken = True

    def getPeer(self) -> interfaces.IAddress:
        """
        An address without a name, as socket pairs have.
        """
        return UNIXAddress(None)

    def getHost(self) -> interfaces.IAddress:
        """
        An address without a name, as socket pairs have.
        """
        return UNIXAddress(None)
