"""
Decides what is a copy: whether what is logged or printed while this thread
publishes an event that was relayed repeats that event.

Rules:

  - An event is a copy if it is the one that is being published, or if it comes
    from the other logging system (an observer hands Twisted's events to
    C{logging}, a handler does the reverse), repeats the text and is not graver.
  - What Twisted's and C{logging}'s own file observers write of an event that is
    being published is a copy.
  - Whatever else is printed is compared with the texts that were relayed: line by
    line, or several writes together until a line is complete.  What may be the
    beginning of a copy waits until that is known, or the event has been
    published.  An event that was not relayed, for its level, has no such copies.
  - Nothing is formatted here, and nobody waits: what an argument's C{__repr__}
    prints may come in the midst of anything.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final, Optional

from twisted.logger import FileLogObserver
from twisted.python import log

from twisted_cluster.ipc.logs import LogRecord
from twisted_cluster.worker.copies import COMPLETE, Event, Original

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
        self.known = COMPLETE
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

    def __init__(
        self, event: Optional[Event], record: Optional[LogRecord] = None
    ) -> None:
        """
        @param event: the event; L{None} to regard all that happens as a copy.
        @param record: what was relayed of it, if anything was.
        """
        self._event = event
        self._record = record
        self._parts: dict[Hashable, _Parts] = defaultdict(_Parts)

    def __enter__(self) -> None:
        self._publications = here.publications
        self._publications.append(self)

    def __exit__(self, *exception: object) -> None:
        try:
            if self._parts:
                self._end()
        finally:
            self._publications.pop()

    def print(
        self, stream: Hashable, text: str, write: Callable[[str], object]
    ) -> None:
        """
        Write some text to a stream, unless it is a copy.
        """
        parts = self._parts[stream]
        parts.write = write
        parts.line += text
        if parts.line.endswith("\n"):
            self._complete(stream, parts)

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
        original = self._originalOf()
        if original is None:
            return False
        parts = self._parts[stream]
        known = original.compare(text, parts.known)
        if known is None and parts.waiting:
            parts.release()
            known = original.compare(text, COMPLETE)
        if known is None:
            return False
        parts.known = known
        if known:
            parts.waiting.append(publish)
        else:
            parts.waiting.clear()
        return True

    def publishes(self, event: Event) -> bool:
        """
        Tell whether this is an event's publication, or that of a changed copy.
        """
        mine = self._event
        if mine is None or mine is event:
            return True
        if isinstance(mine, dict) is not isinstance(event, dict):
            return False
        moment = _momentOf(mine)
        return moment[0] is not None and moment == _momentOf(event)

    def isRepeatedBy(self, event: Event, record: LogRecord) -> bool:
        """
        Tell whether an event of the other logging system repeats this one.

        @param record: describes the other event.
        """
        mine = self._record
        if mine is None or isinstance(self._event, dict) is isinstance(event, dict):
            return False
        if min(record.level, _SERIOUS) > mine.level:
            return False
        original = self._originalOf()
        return original is not None and original.isRepeatedBy(record.text)

    def _originalOf(self) -> Optional[Original]:
        """
        Give what copies are compared with.
        """
        if self._original is None and self._record and self._event is not None:
            self._original = Original(self._event, self._record)
        return self._original

    def _end(self) -> None:
        """
        What has become no copy by now is none.
        """
        for stream, parts in list(self._parts.items()):
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
    if not any(each.takes(stream, text, publish) for each in here.publications[::-1]):
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
            return isinstance(event, (dict, logging.LogRecord)) and isPublished(event)
        frame = frame.f_back
    return False


def isPublished(event: Event) -> bool:
    """
    Tell whether this thread is publishing an event.
    """
    return any(each.publishes(event) for each in here.publications)


def isCopy(event: Event, record: LogRecord) -> bool:
    """
    Tell whether an event repeats one of the other logging system.

    @param record: describes the event.
    """
    return any(each.isRepeatedBy(event, record) for each in here.publications)


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


os.register_at_fork(after_in_child=lambda: activate(False))
