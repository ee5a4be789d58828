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
from typing import IO, Any, Final, Optional

PATIENCE: Final = 5.0
"""
Seconds that a reader which has kept up so far is waited for, in all.
"""

REGAINED: Final = PATIENCE / 60
"""
Seconds of patience that come back with each second in which nothing waits.
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
    reader keeps up.  One that does not is waited for, until the patience is used
    up, which comes back slowly.  Then what is written is dropped while there is no
    room, and the reader is told how much that was.  Any thread may write.
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
        self._patience = PATIENCE
        self._keptUpSince: Optional[float] = monotonic()

    def write(self, text: str, /) -> int:
        """
        Write an event.

        @raise OSError: when there is no reader any more.
        """
        with self._lock:
            self._regain()
            self._rest = self._send(self._rest)
            if self._rest:
                self._dropped += 1
                return len(text)
            whole = text
            if self._dropped:
                whole = self._report(self._dropped) + text
                self._dropped = 0
            encoding = getattr(self._stream, "encoding", None) or "utf-8"
            self._rest = self._send(whole.encode(encoding, "replace"))
        return len(text)

    def _regain(self) -> None:
        """
        Count the time since the last write, if that had not to wait.
        """
        now = monotonic()
        if self._keptUpSince is not None:
            gained = (now - self._keptUpSince) * REGAINED
            self._patience = min(self._patience + gained, PATIENCE)
        self._keptUpSince = now

    def _hasRoom(self) -> bool:
        """
        Wait for the reader as long as there is patience, and use that up.
        """
        if self._poll.poll(0):
            return True
        self._keptUpSince = None
        began = monotonic()
        ready = self._poll.poll(self._patience * 1000)
        self._patience = max(self._patience - (monotonic() - began), 0.0)
        return bool(ready)

    def _send(self, data: bytes) -> bytes:
        """
        Write until it would take too long.

        @return: what is left.
        """
        while data:
            if not self._hasRoom():
                break
            try:
                data = data[os.write(self._stream.fileno(), data[:_PART]) :]
            except BlockingIOError:
                break
        return data
