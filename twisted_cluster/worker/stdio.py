"""
The standard streams of a worker: lines that reach the pipe to the watcher as
soon as they are complete, without those that repeat an event of the log.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Optional, TextIO

from twisted_cluster.worker.publications import here, isWrittenCopy, relaying


class _Pipe(io.FileIO):
    """
    A standard descriptor.  When nobody reads it any more, what is written is
    lost: the watcher has died, and the program is to finish its work in peace.
    """

    def write(self, data: object) -> int:
        """
        See C{io.RawIOBase.write}.
        """
        try:
            return super().write(data)  # type: ignore[arg-type]
        except BrokenPipeError:
            return memoryview(data).nbytes  # type: ignore[arg-type]


class WorkerStream(io.TextIOWrapper):
    """
    Standard output or standard error.

    Text that repeats an event which is being published, and was relayed, is
    dropped; bytes written to C{buffer} never are, nor is what an argument prints
    while an event is formatted for the watcher.
    """

    def write(self, text: str, /) -> int:
        """
        See C{io.TextIOBase.write}.
        """
        if not relaying() or not isinstance(text, str):
            return super().write(text)
        if not isWrittenCopy(sys._getframe(1)):
            if here.encoding:
                return super().write(text)
            here.publications[-1].print(self, text, super().write)
        return super().write("") + len(text)


def installStreams() -> None:
    """
    Replace the standard streams by line-buffered ones over the same
    descriptors.  What was written before is flushed first; a stream that this
    process was started without stays missing.
    """
    sys.stdout = sys.__stdout__ = _replace(sys.stdout, 1, "<stdout>")  # type: ignore[assignment, misc]
    sys.stderr = sys.__stderr__ = _replace(sys.stderr, 2, "<stderr>")  # type: ignore[assignment, misc]


def _replace(before: Optional[TextIO], fd: int, name: str) -> Optional[TextIO]:
    if before is None:
        return None
    try:
        before.flush()
        os.fstat(fd)
    except (OSError, ValueError):
        return before
    raw = _Pipe(fd, "w", closefd=False)
    raw.name = name
    unbuffered = getattr(before, "write_through", False)
    stream = WorkerStream(
        raw if unbuffered else io.BufferedWriter(raw),
        encoding=before.encoding,
        errors=before.errors,
        newline="\n",
        line_buffering=True,
        write_through=unbuffered,
    )
    stream.mode = "w"  # type: ignore[misc]
    return stream
