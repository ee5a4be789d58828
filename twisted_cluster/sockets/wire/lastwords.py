"""
A transport that reads all that the other side has written before it ends,
however it ends.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import Any

from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_cluster.sockets.wire.transport import UNIXTransport

_log = Logger("twisted_cluster")


class LastWords(UNIXTransport):
    """
    A transport whose protocol misses nothing that the other side believes to
    have said: before the connection ends, be it aborted, broken or closed by
    either side, the other side is kept from writing, and what it wrote is read.

    @ivar borrowed: how many descriptors that were given to C{writeWith()} have not
        left, or never will; the other side cannot have these.
    """

    def __init__(self, *args: Any) -> None:
        """
        See L{UNIXTransport}.
        """
        super().__init__(*args)
        self._written = 0
        self._unsent = 0
        self._ending = False
        self.borrowed = 0
        self._pid = os.getpid()

    @property
    def sent(self) -> int:
        """
        How many bytes the kernel has taken, from the start.
        """
        return self._written - (self.pending or self._unsent)

    def connectionLost(self, reason: Failure) -> None:
        """
        Read what there is, then end; the protocol may end the connection
        meanwhile without effect.  In a process that was forked from the one that
        made this, whose connection it is, just end.
        """
        if not self._connected or self._ending:
            return
        self._ending = True
        if os.getpid() == self._pid:
            self._readAll()
        self._unsent = self.pending
        super().connectionLost(reason)

    def _readAll(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)
        try:
            while self._readMore():
                pass
        except Exception:
            _log.failure("what the other side said last was not understood")

    def _readMore(self) -> bool:
        result = self._receiveSome()
        return isinstance(result, int) and result > 0

    def _write(self, data: bytes, descriptors: list[int], ours: bool) -> None:
        self._written += len(data)
        if not ours:
            self.borrowed += len(descriptors)
        super()._write(data, descriptors, ours)

    def _sendPart(self, chunk: memoryview, descriptors: list[int], ours: bool) -> int:
        before = len(descriptors)
        sent = super()._sendPart(chunk, descriptors, ours)
        if not ours:
            self.borrowed -= before - len(descriptors)
        return sent
