"""
Reads the lines that a worker prints from the pipe that is its standard output
or error.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

_log = Logger("twisted_cluster")


MAX_LINE: Final = 64 * 1024
"""
The most bytes of one line; a longer one arrives in parts.
"""

_CHUNK: Final = 64 * 1024
_DRAIN: Final = 1024 * 1024


@implementer(IReadDescriptor)
class LineReader:
    """
    The reading end of one pipe.  It owns the descriptor.

    A wake-up reads at most 64 KiB, and no more than L{MAX_LINE} bytes of a line
    are kept, so that a worker that prints without end, or without newlines,
    takes neither the reactor's time nor memory from the others.
    """

    def __init__(
        self,
        reactor: IReactorFDSet,
        fd: int,
        lineReceived: Callable[[str], None],
        closed: Callable[[], None],
    ) -> None:
        """
        @param fd: the descriptor, which belongs to this object from now on.  It
            is made non-blocking.
        @param lineReceived: called with each line, without its end.  Bytes that
            are no UTF-8 are escaped.
        @param closed: called once, when the descriptor has been closed: nobody
            holds the other end any more, or L{close} was called.
        """
        os.set_blocking(fd, False)
        self._reactor = reactor
        self._fd = fd
        self._lineReceived = lineReceived
        self._closed = closed
        self._partial = b""

    def fileno(self) -> int:
        """
        See C{IFileDescriptor.fileno}: -1 once it is closed.
        """
        return self._fd

    def logPrefix(self) -> str:
        """
        See C{ILoggingContext.logPrefix}.
        """
        return "lines"

    def startReading(self) -> None:
        """
        Have lines delivered from now on.
        """
        if self._fd >= 0:
            self._reactor.addReader(self)

    def stopReading(self) -> None:
        """
        Leave what arrives in the pipe.  When that is full, the worker waits.
        """
        self._reactor.removeReader(self)

    def doRead(self) -> None:
        """
        See C{IReadDescriptor.doRead}.
        """
        self._read(_CHUNK)

    def connectionLost(self, reason: Failure) -> None:
        """
        See C{IFileDescriptor.connectionLost}: the reactor gives up on it.
        """
        self.drain()
        self.close()

    def drain(self) -> None:
        """
        Deliver what is in the pipe now, at most as much as one can hold: the
        last words of a process that has ended, whoever else holds the pipe.
        """
        left = _DRAIN
        while left > 0 and self._fd >= 0:
            count = self._read(min(_CHUNK, left))
            if count == 0:
                return
            left -= count

    def close(self) -> None:
        """
        Deliver an incomplete last line, and close the descriptor.
        """
        if self._fd < 0:
            return
        self._reactor.removeReader(self)
        os.close(self._fd)
        self._fd = -1
        if self._partial:
            line, self._partial = self._partial, b""
            self._deliver(line)
        self._closed()

    def _read(self, size: int) -> int:
        try:
            data = os.read(self._fd, size)
        except BlockingIOError:
            return 0
        except OSError:
            data = b""
        if not data:
            self.close()
            return 0
        *lines, rest = (self._partial + data).split(b"\n")
        self._partial = b""
        for line in lines:
            self._deliver(self._shorten(line))
        self._partial = self._shorten(rest)
        return len(data)

    def _shorten(self, line: bytes) -> bytes:
        """
        Deliver the first parts of a line that is too long, never splitting a
        character.
        """
        while len(line) > MAX_LINE:
            end = MAX_LINE
            while end > MAX_LINE - 3 and line[end] & 0xC0 == 0x80:
                end -= 1
            self._deliver(line[:end])
            line = line[end:]
        return line

    def _deliver(self, line: bytes) -> None:
        text = line.removesuffix(b"\r").decode("utf-8", "backslashreplace")
        try:
            self._lineReceived(text)
        except Exception:
            _log.failure("A line of a worker's output was lost: {line!r}", line=text)
