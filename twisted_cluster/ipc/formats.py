"""
Decides what a log format needs in another process to give the same text there.

A I{simple} format names nothing but arguments, C{"{name} took {time:.2f}"}; the
watcher formats it by itself from arguments that are plain data.  Every other
one could look up or call anything that its arguments lead to, so the worker
formats it field by field, and the watcher only joins the texts.
"""

from __future__ import annotations

import re
from functools import lru_cache
from string import Formatter
from typing import Any, Final, Optional

from twisted.logger import formatEvent

UNFORMATTABLE: Final = ("Unable to format event ", "MESSAGE LOST: ")
"""
How the text begins that C{formatEvent} gives for an event that it cannot format.
"""

_SIMPLE: Final = re.compile(
    r"""
    (?: [^{}] | {{ | }}
      | { (?! log_ (?! (?:io|text) \b ) )
          [A-Za-z_] \w*  (?: ! [rs] )?  (?: : [.\d]{0,3} [a-zA-Z%]? )?
        }
    )*
    """,
    re.ASCII | re.VERBOSE,
)
_LENGTH: Final = 8 * 1024
_FIELDS: Final = 64
_parse: Final = Formatter().parse


@lru_cache(4096)
def isSimple(format: str) -> bool:
    """
    Tell whether a format names nothing but arguments, so that formatting it is
    harmless whoever made it.
    """
    return (
        len(format) <= _LENGTH
        and format.count("{") <= _FIELDS
        and _SIMPLE.fullmatch(format) is not None
    )


def flatten(format: str, event: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """
    Format an event field by field.

    @return: the text, and the texts of the fields under the keys that
        C{twisted.logger} looks for in C{log_flattened}.
    @raise ValueError: when a field cannot be formatted, or not by itself.
    """
    scratch = dict(event)
    pieces: list[str] = []
    fields: dict[str, str] = {}
    seen: dict[str, int] = {}
    for literal, name, specification, conversion in _parse(format):
        pieces.append(literal)
        if name is None:
            continue
        if "log_format" in name:
            raise ValueError("the format refers to itself")
        scratch["log_format"] = _field(name, specification, conversion)
        text = formatEvent(scratch)
        if text.startswith(UNFORMATTABLE):
            raise ValueError(text)
        pieces.append(text)
        key = f"{name}!{conversion or 's'}:{specification or ''}"
        seen[key] = seen.get(key, 0) + 1
        fields[key if seen[key] == 1 else f"{key}/{seen[key]}"] = text
    return "".join(pieces), fields


def _field(name: str, specification: Optional[str], conversion: Optional[str]) -> str:
    converted = f"!{conversion}" if conversion else ""
    specified = f":{specification}" if specification else ""
    return f"{{{name}{converted}{specified}}}"
