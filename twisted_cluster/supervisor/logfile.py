"""
A log file that other programs may rotate: when it was moved or removed, the
next line goes to a new file of its name.
"""

from __future__ import annotations

import os
from threading import Lock
from typing import TextIO


def _append(path: str) -> TextIO:
    return open(path, "a", encoding="utf-8", errors="backslashreplace", buffering=1)


class LogFile:
    """
    A text file to append to, which notices that it was moved.  Writing is safe
    from any thread.

    @ivar path: its name.
    """

    def __init__(self, path: str, file: TextIO) -> None:
        self.path = path
        self._lock = Lock()
        self._file = file

    @classmethod
    def open(cls, path: str) -> LogFile:
        """
        Open the file, which is made if there is none.  Whoever calls this is
        to L{close} it.

        @raise OSError: when that is impossible.
        """
        path = os.path.abspath(path)
        return cls(path, _append(path))

    def write(self, text: str) -> int:
        """
        Append text.  Each whole line is on its way to the disk when this
        returns.

        @raise OSError: when it cannot be written: a full disk, say.
        """
        with self._lock:
            if self._wasMoved():
                self._reopen()
            return self._file.write(text)

    def flush(self) -> None:
        """
        Have incomplete lines written, too.
        """
        with self._lock:
            self._file.flush()

    def isatty(self) -> bool:
        """
        Tell whether this is a terminal.
        """
        return self._file.isatty()

    def close(self) -> None:
        """
        Close the file.
        """
        with self._lock:
            self._file.close()

    def _wasMoved(self) -> bool:
        try:
            there = os.stat(self.path)
        except OSError:
            return True
        here = os.fstat(self._file.fileno())
        return (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino)

    def _reopen(self) -> None:
        try:
            file = _append(self.path)
        except OSError:
            return
        self._file.close()
        self._file = file
