"""
Looks at the first bytes of a connection, and leaves them where they are.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Final, Optional

from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

_AGAIN: Final = 0.01
"""Seconds until bytes that were not enough are looked at again: the kernel would
say at once that there are some."""


@implementer(IReadDescriptor)
class Peek:
    """
    One connection that is being looked at.
    """

    def __init__(
        self,
        reactor: Any,
        skt: socket.socket,
        most: int,
        patience: float,
        seen: Callable[[bytes, bool], bool],
        done: Callable[[], None],
    ) -> None:
        """
        @param skt: the connection.  It is the caller's once C{seen} has said so,
            or C{done} was called; it is closed when its client has gone.
        @param most: how many bytes to look at, at most.
        @param patience: seconds until no more is waited for.
        @param seen: called with what is there, and whether that is all there
            will be; says whether it is enough.
        @param done: called once, when nothing is looked at any more.
        """
        self._reactor = reactor
        self._socket = skt
        self._most = most
        self._patience = patience
        self._seen = seen
        self._done = done
        self._limit: Optional[IDelayedCall] = None
        self._again: Optional[IDelayedCall] = None

    def start(self) -> None:
        """
        Look, and wait for what is not there yet.
        """
        self._socket.setblocking(False)
        self._limit = self._reactor.callLater(self._patience, self._look, True)
        self._look(False)

    def close(self) -> None:
        """
        Look no more, and close the connection.
        """
        self._stop()
        self._socket.close()

    def fileno(self) -> int:
        """
        The connection's descriptor.
        """
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """
        What looks.
        """
        return "peek"

    def doRead(self) -> None:
        """
        There is something.
        """
        self._reactor.removeReader(self)
        self._look(False)

    def connectionLost(self, reason: Failure) -> None:
        """
        The reactor ends, or cannot watch the connection.
        """
        self.close()
        self._done()

    def _look(self, final: bool) -> None:
        self._again = None
        try:
            data = self._socket.recv(self._most, socket.MSG_PEEK)
            ended = not data
        except (BlockingIOError, InterruptedError):
            data, ended = b"", False
        except OSError:
            self.close()
            self._done()
            return
        waits = not data and not ended and not final
        if waits:
            self._reactor.addReader(self)
        elif self._seen(data, final or ended or len(data) >= self._most):
            self._stop()
            self._done()
        else:
            self._again = self._reactor.callLater(_AGAIN, self._look, False)

    def _stop(self) -> None:
        for call in (self._limit, self._again):
            if call is not None and call.active():
                call.cancel()
        self._reactor.removeReader(self)
