"""
Decides whether a text repeats an event that was relayed.

What an observer says for itself while it observes, that it could not send an
alert, say, is no copy, also where it quotes the event.  In doubt a text is none:
an event that appears twice is better than one that is lost.

Rules, white space, case and colours aside:

  - A copy of a line is that line.  In front of it and after it there may be
    punctuation, times, and words and numbers from what loggers say of the event
    beside its text: its level, its logger's name, its process and thread, its
    place in the source.
  - A copy of an event is a copy of the lines of its text in their order, or of
    those of its traceback.

Nothing here calls the program's own code: an event's arguments were formatted
when it was relayed.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Iterator
from typing import Any, Final, Optional, Union

from twisted_cluster.ipc.logs import LogRecord
from twisted_cluster.ipc.plain import safeText

Event = Union[dict[str, Any], logging.LogRecord]
"""
An event of C{twisted.logger} or of C{logging}.
"""

COMPLETE: Final = 0
"""
What comes next is another copy, or none.
"""

_COLOURS: Final = re.compile("\x1b\\[[0-9;]*m")
_WORD: Final = re.compile(r"\w+")
_DATE: Final = r"\d+[-/.]\d+[-/.]\d+"
_TIME: Final = r"\d+:\d+(?::\d+)?(?:[.,]\d+)?"
_MOMENT: Final = re.compile(
    rf"(?<!\w)(?:{_DATE}[t ]{_TIME}|{_DATE}|{_TIME})(?:z|[ ]?[+-]\d\d:?\d\d)?(?!\w)"
)
_LEVELS: Final = {
    10: "debug",
    20: "info",
    30: "warn warning",
    40: "error",
    50: "critical fatal",
}
_OF_EVENTS: Final = ("log_namespace", "log_system", "system")
_OF_RECORDS: Final = (
    "name",
    "levelname",
    "levelno",
    "process",
    "processName",
    "thread",
    "threadName",
    "pathname",
    "filename",
    "module",
    "funcName",
    "lineno",
)


class Original:
    """
    An event, as its copies are to be compared with it.
    """

    def __init__(self, event: Event, record: LogRecord) -> None:
        """
        @param event: the event.
        @param record: what was relayed of it.
        """
        text = _linesOf(record.text) or [""]
        traceback = _linesOf(record.traceback or "")
        self._lines = text + traceback
        self._starts = frozenset((0, len(text)))
        self._ends = frozenset((len(text), len(self._lines)))
        self._names = frozenset(_namesOf(event, record.level))

    def isRepeatedBy(self, text: str) -> bool:
        """
        Tell whether the whole of a text is a copy.
        """
        if not _linesOf(text):
            return not self._lines[0]
        return self.compare(text, COMPLETE) == COMPLETE

    def compare(self, text: str, known: int) -> Optional[int]:
        """
        Compare the next part of what may be a copy that is written in parts.

        @param known: which line of the event comes next, as far as the parts
            before show; L{COMPLETE} where there were none.
        @return: which one comes next now, L{COMPLETE} when the parts are copies,
            or L{None} when they are none.
        """
        lines = _linesOf(text)
        if not lines:
            return known or None
        for line in lines:
            starts = (known,) if known else self._starts
            for at in starts:
                if at < len(self._lines) and self._isCopy(line, self._lines[at]):
                    known = at + 1
                    break
            else:
                return None
            if known in self._ends:
                known = COMPLETE
        return known

    def _isCopy(self, line: str, original: str) -> bool:
        before, found, after = line.rpartition(original) if original else (line, 1, "")
        if not found:
            return False
        around = _MOMENT.sub(" ", before) + "\n" + _MOMENT.sub(" ", after)
        return self._names.issuperset(_WORD.findall(around))


def _linesOf(text: str) -> list[str]:
    lines = _COLOURS.sub("", text).lower().splitlines()
    return [line for line in (" ".join(line.split()) for line in lines) if line]


def _namesOf(event: Event, level: int) -> Iterator[str]:
    """
    Find the words that loggers put beside an event's text.
    """
    values: list[Any] = [_LEVELS.get(level)]
    if isinstance(event, dict):
        values += [os.getpid(), threading.current_thread().name]
        values += map(event.get, _OF_EVENTS)
    else:
        values += [getattr(event, name, None) for name in _OF_RECORDS]
    for value in values:
        if type(value) is str or type(value) is int:
            yield from _WORD.findall(str(value).lower())


def messageOf(record: logging.LogRecord) -> str:
    """
    Format a record of C{logging}.  Never raises.
    """
    try:
        return record.getMessage()
    except BaseException as error:
        return (
            f"unable to format {safeText(record.msg)} "
            f"with {safeText(record.args)}: {safeText(error)}"
        )
