"""
Writes the log into a pipe or a socket, and does not wait for ever for its
reader: a watcher that waits hears no signal and serves no worker.
"""

from __future__ import annotations

import io
import os
import select
import stat
import threading
from collections.abc import Callable
from time import monotonic
from typing import IO, Any, Final

PATIENCE: Final = 5.0
"""
Seconds that one event waits for a reader that has kept up so far.
"""

_PART: Final = select.PIPE_BUF
"""What a pipe takes without waiting once it can be written to; see poll(2)."""


def isPipe(stream: IO[Any]) -> bool:
    """
    Tell whether a stream leads to another process.
    """
    try:
        mode = os.fstat(stream.fileno()).st_mode
    except (AttributeError, OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


class PipeWriter(io.TextIOBase):
    """
    A text stream over a pipe or a socket, whose descriptor it shares and does
    not close.  What is written has left when C{write} returns, as long as the
    reader keeps up.  When it has not read for a while, what is written is
    dropped until it does again; then it is told how much that was.  Any thread
    may write.
    """

    def __init__(self, stream: IO[Any], report: Callable[[int], str]) -> None:
        """
        @param report: gives the words on events that were dropped, from their
            number.
        """
        stream.flush()
        self._stream = stream
        self._report = report
        self._poll = select.poll()
        self._poll.register(stream, select.POLLOUT)
        self._lock = threading.RLock()
        self._rest = b""
        self._dropped = 0

    def write(self, text: str, /) -> int:
        """
        Write an event.

        @raise OSError: when there is no reader any more.
        """
        with self._lock:
            deadline = monotonic() + (0.0 if self._rest else PATIENCE)
            self._rest = self._send(self._rest, deadline)
            if self._rest:
                self._dropped += 1
                return len(text)
            whole = text
            if self._dropped:
                whole = self._report(self._dropped) + text
                self._dropped = 0
            encoding = getattr(self._stream, "encoding", None) or "utf-8"
            self._rest = self._send(whole.encode(encoding, "replace"), deadline)
        return len(text)

    def _send(self, data: bytes, deadline: float) -> bytes:
        """
        Write until it would take too long.

        @return: what is left.
        """
        while data:
            left = max(deadline - monotonic(), 0.0)
            if not self._poll.poll(left * 1000):
                break
            try:
                data = data[os.write(self._stream.fileno(), data[:_PART]) :]
            except BlockingIOError:
                break
        return data
