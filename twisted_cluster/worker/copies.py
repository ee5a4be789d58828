"""
Decides whether a text repeats an event.

Observers write an event as they like: with the time in front, indented, in
colours, as JSON.  What an observer says for itself while it observes, that it
could not send an alert, say, is no copy, also where it quotes the event.

Rules, white space and colours aside:

  - A copy of a line is anything, that line, and nothing but punctuation,
    brackets, C{key=value} or C{file:line} after it: C{12:00 text (server.py:7)}.
  - A copy of an event is a copy of its text, of the text's lines in their order,
    or of those of its traceback; or else an object or a dict that contains the
    text or the format, quoted.
"""

from __future__ import annotations

import json
import logging
import re
import traceback
from typing import Any, Final, Optional, Union

from twisted.logger import formatEvent
from twisted.python.failure import Failure

from twisted_cluster.ipc.plain import safeText

Event = Union[dict[str, Any], logging.LogRecord]
"""
An event of C{twisted.logger} or of C{logging}.
"""

Known = frozenset[tuple[int, int]]
"""
Which lines of the event, or of its traceback, may come next.
"""

COMPLETE: Final[Known] = frozenset()
"""
Whatever comes next is another copy.
"""

_COLOURS: Final = re.compile("\x1b\\[[0-9;]*m")
_AFTER: Final = re.compile(
    r"""
    \W* (?: \s [\[({<] .*  |  (?: \s \w+ = \S* )+  |  \s \S+ : \d+
          |  (?: Traceback | Stack ) \s \( .* )?
    """,
    re.VERBOSE,
)


def words(text: str) -> str:
    """
    Leave nothing of a text but what is to be compared.
    """
    return " ".join(_COLOURS.sub("", text).split())


def repeats(text: str, original: str) -> bool:
    """
    Tell whether a text is a copy of a line.

    @param text: the L{words} of the one.
    @param original: the L{words} of the other.
    """
    at = text.rfind(original)
    if at < 0 or not original:
        return False
    end = at + len(original)
    return (
        not (at and _isWord(text[at - 1]) and _isWord(original[0]))
        and not (text[end : end + 1].isalnum() and _isWord(original[-1]))
        and _AFTER.fullmatch(text, end) is not None
    )


def _isWord(character: str) -> bool:
    return character.isalnum() or character == "_"


class Original:
    """
    An event, as its copies are to be compared with it.

    @ivar words: its text.
    """

    def __init__(self, event: Event) -> None:
        text, format, *appendices = _partsOf(event)
        self.words = words(text)
        sequences = map(_linesOf, (text, *appendices))
        self._sequences = [lines for lines in sequences if lines]
        self._starts = frozenset((index, 0) for index in range(len(self._sequences)))
        self._quoted = [
            quoted
            for each in (text, format)
            if each
            for quoted in (
                json.dumps(each),
                json.dumps(each, ensure_ascii=False),
                repr(each),
            )
        ]

    def isRepeatedBy(self, text: str) -> bool:
        """
        Tell whether the whole of a text is a copy.
        """
        bare = words(text)
        if not self.words:
            return not bare
        return repeats(bare, self.words) or self._isQuotedBy(text)

    def compare(self, text: str, known: Known) -> Optional[Known]:
        """
        Compare the next part of what may be a copy that is written in parts.

        @param known: what the parts before were found to be.
        @return: what the parts are found to be now, L{COMPLETE} when they are
            copies, or L{None} when they are none.
        """
        if self.words and self.isRepeatedBy(text):
            return COMPLETE
        lines = _linesOf(text)
        if not lines:
            return known or None
        for line in lines:
            known = frozenset(
                (index, (at + 1) % len(self._sequences[index]))
                for index, at in known or self._starts
                if repeats(line, self._sequences[index][at])
            )
            if not known:
                return None
            if any(at == 0 for _, at in known):
                known = COMPLETE
        return known

    def _isQuotedBy(self, text: str) -> bool:
        bare = _COLOURS.sub("", text).strip(" \t\r\n\x1e")
        return bare[:1] + bare[-1:] == "{}" and any(
            map(bare.__contains__, self._quoted)
        )


def _linesOf(text: str) -> list[str]:
    return [line for line in map(words, text.splitlines()) if line]


def _partsOf(event: Event) -> tuple[str, ...]:
    """
    Give an event's text, its format, and what may follow on the text, in each
    of the forms that it may have.
    """
    if isinstance(event, dict):
        text, format = formatEvent(event), event.get("log_format")
        failure = event.get("log_failure") or event.get("failure")
        tracebacks = [""]
        if isinstance(failure, Failure):
            tracebacks = [
                safeText(failure, lambda _: failure.getTraceback()),
                safeText(failure.value, _tracebackOf),
            ]
    else:
        text, format = messageOf(event), event.msg
        tracebacks = [event.stack_info or ""]
        if event.exc_info and event.exc_info[1] is not None:
            tracebacks.append(safeText(event.exc_info[1], _tracebackOf))
    return text, format if isinstance(format, str) else "", *tracebacks


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


def _tracebackOf(error: Any) -> str:
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))
