"""
Decides what is a copy: whether what is logged or printed while this thread
publishes an event that was relayed repeats that event.

Rules:

  - An event is a copy if it is the one that is being published, or if it comes
    from the other logging system (an observer hands Twisted's events to
    C{logging}, a handler does the reverse), repeats the text and is not graver.
  - What Twisted's and C{logging}'s own file observers write of an event that is
    being published is a copy.
  - Whatever else is printed is compared with the events' texts: line by line, or
    several writes together until a line is complete.  What may be the beginning
    of a copy waits until that is known, or the event has been published.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final, Optional

from twisted.logger import FileLogObserver
from twisted.python import log

from twisted_cluster.ipc.logs import levelBelow, levelNumber
from twisted_cluster.worker.copies import COMPLETE, Event, Known, Original

_WRITERS: Final = {
    function.__code__: function.__code__.co_varnames[1]
    for function in (
        FileLogObserver.__call__,
        log.FileLogObserver.emit,
        log.DefaultObserver.emit,
        logging.StreamHandler.emit,
    )
}
"""
The functions that write an event to a file, and what they call the event.
"""

_SERIOUS: Final = 40


class _Here(threading.local):
    """
    What this thread is doing.

    @ivar publications: the events that are being published, the innermost last.
    @ivar encoding: whether this thread is formatting an event for the watcher:
        what an argument's C{__repr__} logs then, it logs to observers, too.
    @ivar paused: what the two were when the garbage collector started.
    """

    def __init__(self) -> None:
        self.publications: list[Publication] = []
        self.encoding = False
        self.paused: tuple[list[Publication], bool] = ([], False)


class _Parts:
    """
    What may become a copy, in parts.

    @ivar line: what has been written of a line.
    @ivar write: what writes it.
    @ivar known: what the parts were found to be so far.
    @ivar waiting: what publishes the parts after all.
    """

    def __init__(self) -> None:
        self.line = ""
        self.write: Callable[[str], object] = str
        self.known: Known = COMPLETE
        self.waiting: list[Callable[[], object]] = []

    def release(self) -> None:
        """
        It has become none.
        """
        self.known = COMPLETE
        while self.waiting:
            self.waiting.pop(0)()


class Publication:
    """
    An event while it is being published; a context manager.
    """

    _original: Optional[Original] = None
    _parts: Optional[dict[Hashable, _Parts]] = None

    def __init__(self, event: Optional[Event]) -> None:
        """
        @param event: the event; L{None} to regard all that happens as a copy.
        """
        self._event = event

    def __enter__(self) -> None:
        self._publications = here.publications
        self._publications.append(self)

    def __exit__(self, *exception: object) -> None:
        try:
            if self._parts is not None:
                self._end(self._parts)
        finally:
            self._publications.pop()

    def print(
        self, stream: Hashable, text: str, write: Callable[[str], object]
    ) -> None:
        """
        Write some text to a stream, unless it is a copy.
        """
        parts = self._partsOf(stream)
        parts.write = write
        parts.line += text
        if parts.line.endswith("\n"):
            self._complete(stream, parts)

    def _partsOf(self, stream: Hashable) -> _Parts:
        if self._parts is None:
            self._parts = {}
        return self._parts.setdefault(stream, _Parts())

    def _complete(self, stream: Hashable, parts: _Parts) -> None:
        line, parts.line = parts.line, ""
        unlessCopied(stream, line, lambda: parts.write(line))

    def takes(self, stream: Hashable, text: str, publish: Callable[[], object]) -> bool:
        """
        Tell whether a text is this event's copy, or may become one.

        @param publish: is called later if it becomes none.
        """
        if self._event is None:
            return True
        parts = self._partsOf(stream)
        known = self.original().compare(text, parts.known)
        if known is None and parts.waiting:
            parts.release()
            known = self.original().compare(text, COMPLETE)
        if known is None:
            return False
        parts.known = known
        if known:
            parts.waiting.append(publish)
        else:
            parts.waiting.clear()
        return True

    def isRepeatedBy(self, event: Event) -> bool:
        """
        Tell whether another event is this one or its copy.
        """
        mine = self._event
        if mine is None or mine is event:
            return True
        if isinstance(mine, dict) is isinstance(event, dict):
            moment = _momentOf(mine)
            return moment[0] is not None and moment == _momentOf(event)
        if _gravity(event) > _gravity(mine):
            return False
        return self.original().isRepeatedBy(_originalOf(event).words)

    def original(self) -> Original:
        """
        What copies are compared with.
        """
        if self._original is None:
            event = self._event
            assert event is not None
            self._original = _originalOf(event)
        return self._original

    def _end(self, streams: dict[Hashable, _Parts]) -> None:
        """
        What has become no copy by now is none.
        """
        for stream, parts in list(streams.items()):
            with suppress(Exception):
                if parts.line:
                    self._complete(stream, parts)
            with suppress(Exception):
                parts.release()


here = _Here()
_active = False


def unlessCopied(stream: Hashable, text: str, publish: Callable[[], object]) -> None:
    """
    Publish some text, now or later, unless it is a copy.

    @param stream: where it was printed.
    """
    for publication in reversed(here.publications):
        if publication.takes(stream, text, publish):
            return
    publish()


def isWrittenCopy(frame: Optional[FrameType]) -> bool:
    """
    Tell whether a function, or the one that called it, is an observer that
    writes an event which is being published.
    """
    for _ in range(2):
        if frame is None:
            return False
        name = _WRITERS.get(frame.f_code)
        if name is not None:
            event = frame.f_locals.get(name)
            return isinstance(event, (dict, logging.LogRecord)) and isCopy(event)
        frame = frame.f_back
    return False


def isCopy(event: Event) -> bool:
    """
    Tell whether an event is a copy.
    """
    for publication in reversed(here.publications):
        if publication.isRepeatedBy(event):
            return True
    return False


def relaying() -> bool:
    """
    Tell whether what this thread logs and prints now may repeat an event that
    was relayed.
    """
    return _active and bool(here.publications)


@contextmanager
def original() -> Iterator[None]:
    """
    Regard what this thread logs and prints as new, wherever it is.
    """
    before, here.publications = here.publications, []
    try:
        yield
    finally:
        here.publications = before


def activate(active: bool) -> None:
    """
    Say whether events are relayed in this process.
    """
    global _active
    _active = active


def isActive() -> bool:
    """
    Tell whether events are relayed in this process: not in one that a worker
    forked.
    """
    return _active


def collecting(phase: str, info: dict[str, int]) -> None:
    """
    For C{gc.callbacks}: what is logged while garbage is collected, an error
    that no Deferred handled above all, is new, wherever the collector happened
    to start.
    """
    if phase == "start":
        here.paused = (here.publications, here.encoding)
        here.publications, here.encoding = [], False
    else:
        here.publications, here.encoding = here.paused


def _momentOf(event: Event) -> tuple[object, ...]:
    if isinstance(event, dict):
        return event.get("log_time"), event.get("log_format"), event.get("log_system")
    return event.created, event.msg, event.name


def _gravity(event: Event) -> int:
    if isinstance(event, dict):
        return min(levelNumber(event), _SERIOUS)
    return min(levelBelow(event.levelno), _SERIOUS)


def _originalOf(event: Event) -> Original:
    """
    Prepare an event for comparison, without relaying what an argument's
    C{__repr__} logs.  An event that cannot be formatted has no copies.
    """
    before, here.encoding = here.encoding, True
    try:
        return Original(event)
    except Exception:
        return Original({})
    finally:
        here.encoding = before


os.register_at_fork(after_in_child=lambda: activate(False))
