"""
Makes plain data of whatever a log event holds, so that MessagePack and JSON
can express it.

Rules:

  - C{None}, C{bool}, C{float}, C{str}, C{bytes}, C{int} of 64 bits, and lists
    and dicts of these stay what they are.
  - Tuples and sets become lists, keys of dicts become text.
  - Everything else becomes text, whatever its C{__repr__} raises.
  - The result is bounded, in depth, in items and in characters; what was left
    out says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from datetime import date, time
from decimal import Decimal
from pathlib import PurePath
from typing import Any, Final
from uuid import UUID

SCALARS: Final = frozenset((str, int, float, bool, type(None), bytes))
"""
The types whose values stay what they are, as long as MessagePack takes them.
"""

_INT_MIN: Final = -(2**63)
_INT_MAX: Final = 2**64 - 1
_DEPTH: Final = 16
_ITEMS: Final = 4096
_CHARACTERS: Final = 128 * 1024
_TEXT: Final = 16 * 1024


def cut(text: str, limit: int) -> str:
    """
    Shorten a text and say by how much.

    @param limit: the most characters to keep.
    """
    if len(text) <= limit:
        return text
    return f"{text[:limit]}… [{len(text) - limit} characters cut]"


def scrub(text: str) -> str:
    """
    Replace lone surrogates, which UTF-8 cannot express, by their escapes.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text


def safeText(value: object, convert: Callable[[object], str] = repr) -> str:
    """
    Convert anything to text, whatever its own code raises.

    @param convert: C{repr} or C{str}.
    """
    try:
        return scrub(str.__str__(convert(value)))
    except BaseException as error:
        kind = type(value)
        reason = type(error).__name__
        return f"<{kind.__module__}.{kind.__qualname__}, whose text raised {reason}>"


class _Plain:
    """
    One conversion, with what is left of its budget.

    @ivar exact: whether nothing had to be changed so far.
    """

    def __init__(self) -> None:
        self.exact = True
        self._items = _ITEMS
        self._characters = _CHARACTERS

    def convert(self, value: object, depth: int = 0) -> Any:
        kind = type(value)
        if kind is str:
            return self._text(value)  # type: ignore[arg-type]
        if kind is bytes:
            return self._bytes(value)  # type: ignore[arg-type]
        if value is None or kind is bool or kind is float:
            return value
        if kind is int and _INT_MIN <= value <= _INT_MAX:  # type: ignore[operator]
            return value
        if depth < _DEPTH:
            if kind is list:
                return self._list(value, depth)
            if isinstance(value, dict):
                self.exact = self.exact and kind is dict
                return self._dict(value, depth)
            if isinstance(value, (list, tuple, Set)):
                self.exact = False
                return self._list(value, depth)
        self.exact = False
        return self._other(value)

    def _text(self, text: str) -> str:
        result = scrub(cut(text, max(self._characters, 0)))
        self._characters -= len(result)
        if result != text:
            self.exact = False
        return result

    def _bytes(self, data: bytes) -> bytes:
        left = max(self._characters, 0)
        if len(data) > left:
            self.exact = False
            data = data[:left]
        self._characters -= len(data)
        return data

    def _list(self, values: Any, depth: int) -> list[Any]:
        result: list[Any] = []
        for value in values:
            self._items -= 1
            if self._items < 0:
                self.exact = False
                result.append("…")
                break
            result.append(self.convert(value, depth + 1))
        return result

    def _dict(self, values: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in values.items():
            self._items -= 1
            if self._items < 0:
                self.exact = False
                result["…"] = "…"
                break
            if type(key) is not str:
                self.exact = False
                key = safeText(key, str)
            result[self._text(key)] = self.convert(value, depth + 1)
        return result

    def _other(self, value: object) -> Any:
        if isinstance(value, (bytearray, memoryview)):
            return self._bytes(bytes(value))
        if isinstance(value, (date, time)):
            text = safeText(value, lambda moment: moment.isoformat())  # type: ignore[attr-defined]
        elif isinstance(value, (str, Decimal, UUID, PurePath)):
            text = safeText(value, str)
        else:
            text = safeText(value)
        return self._text(cut(text, _TEXT))


def plainData(value: object) -> tuple[Any, bool]:
    """
    Make plain data of anything.  Never raises.

    @return: the plain data, and whether it is equal to what was given, to the
        last type.
    """
    conversion = _Plain()
    try:
        return conversion.convert(value), conversion.exact
    except BaseException:
        return safeText(value), False
