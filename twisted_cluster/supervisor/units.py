"""
How durations, sizes and fractions are written on a command line: C{1h30m},
C{256M}, C{10%}.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final

_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?")
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:I?B)?", re.IGNORECASE)
_POWER: Final = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def parseDuration(text: str) -> float:
    """
    Read a duration.

    @param text: a number of seconds (C{30}, C{0.5}), or numbers with the units
        d, h, m, s and ms, the larger first: C{1h30m}, C{500ms}.
    @return: seconds.
    @raise ValueError: when the text is something else; it says what may be
        written.
    """
    stripped = text.strip().lower()
    if _NUMBER.fullmatch(stripped):
        return float(stripped)
    parts = _PART.findall(stripped)
    units = [_SECONDS[unit] for _, unit in parts]
    if (
        not parts
        or "".join(number + unit for number, unit in parts) != stripped
        or any(low >= high for high, low in pairwise(units))
    ):
        raise ValueError(
            f"{text!r} is not a duration, such as 30 (seconds), 500ms or 1h30m"
        )
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def parseSize(text: str) -> int:
    """
    Read a number of bytes.

    @param text: a number, alone or followed by K, M, G or T, which are powers
        of 1024: C{256M}, C{1.5G}, C{4096}, C{64KiB}.
    @raise ValueError: when the text is something else, or less than one byte;
        it says what may be written.
    """
    match = _SIZE.fullmatch(text.strip())
    size = 0
    if match is not None:
        number, unit = match.groups()
        size = int(float(number) * 1024 ** _POWER[unit.upper()])
    if size < 1:
        raise ValueError(f"{text!r} is not a size, such as 256M, 1.5G or 4096 (bytes)")
    return size


def parseFraction(text: str) -> float:
    """
    Read a part of something.

    @param text: a percentage, C{10%}, or a number, C{0.1}.
    @return: from 0 to less than 1.
    @raise ValueError: when the text is something else, or the whole and more; it
        says what may be written.
    """
    number, percent, rest = text.strip().partition("%")
    number = number.rstrip()
    value = 1.0
    if _NUMBER.fullmatch(number) and not rest:
        value = float(number) / (100 if percent else 1)
    if value >= 1:
        raise ValueError(
            f"{text!r} is not a fraction, such as 10% or 0.1, of less than the whole"
        )
    return value
