"""
Who has said a key at a hub, and waits until somebody waits for it.
"""

from __future__ import annotations

import socket
from typing import Optional

from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_cluster.sockets.hub.handshake import HubReactor


@implementer(IReadDescriptor)
class Guest:
    """
    A connection on which a key was said.  It owns the socket until L{release}, and
    closes it when the other side hangs up before.
    """

    def __init__(self, reactor: HubReactor, skt: socket.socket) -> None:
        """
        @param skt: is non-blocking.
        """
        self._reactor = reactor
        self._socket: Optional[socket.socket] = skt

    def watch(self) -> None:
        """
        Notice when it hangs up.
        """
        self._reactor.addReader(self)

    def release(self) -> Optional[socket.socket]:
        """
        Leave the connection to the caller.

        @return: its socket, or L{None} when it has hung up.
        """
        if self._socket is not None:
            self._reactor.removeReader(self)
        skt, self._socket = self._socket, None
        return skt

    def fileno(self) -> int:
        """
        The connection's descriptor, or -1.
        """
        return -1 if self._socket is None else self._socket.fileno()

    def logPrefix(self) -> str:
        """
        Whose descriptor this is.
        """
        return "LocalIPCHub"

    def doRead(self) -> None:
        """
        Look whether it has hung up.  What it says, although it was to wait, is
        left to those who will be joined; it is not watched any more then.
        """
        assert self._socket is not None
        try:
            gone = not self._socket.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            gone = True
        if gone:
            self._close()
        else:
            self._reactor.removeReader(self)

    def connectionLost(self, reason: Failure) -> None:
        """
        It has hung up, or the reactor stops.
        """
        self._close()

    def _close(self) -> None:
        skt = self.release()
        if skt is not None:
            skt.close()
