"""
What the values of options mean.  Each function takes the text that somebody
typed; its L{ValueError} quotes the text and says what may be written instead.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Optional

from twisted.application.reactors import getReactorTypes
from twisted.logger import LogLevel
from twisted.python.util import gidFromString, uidFromString

from twisted_cluster.policy.balance import KERNEL
from twisted_cluster.supervisor.balancers import loadBalancer
from twisted_cluster.supervisor.units import parseDuration

AUTO = 0
"""
The number of workers that stands for "as many as there are processors".
"""


def workers(text: str) -> int:
    """
    Read a number of workers, or C{auto}.
    """
    if text.strip().lower() == "auto":
        return AUTO
    try:
        count = int(text)
    except ValueError:
        count = 0
    if count < 1:
        raise ValueError(
            f"{text!r} is not a whole number of one or more, nor 'auto'"
        ) from None
    return count


def positive(text: str) -> int:
    """
    Read a whole number of one or more.
    """
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise ValueError(f"{text!r} is not a whole number of one or more")
    return number


def balance(text: str) -> str:
    """
    Read a way of balancing; code of the user's is found in the working directory,
    too.
    """
    if text != KERNEL:
        loadBalancer(text, os.getcwd())
    return text


def timeout(text: str) -> float:
    """
    Read a duration of more than nothing.
    """
    seconds = parseDuration(text)
    if seconds <= 0:
        raise ValueError(f"{text!r} leaves no time at all")
    return seconds


def something(text: str) -> str:
    """
    Read text that must not be empty.
    """
    if not text.strip():
        raise ValueError("an empty value means nothing here")
    return text


def oneOf(*choices: str) -> Callable[[str], str]:
    """
    Make a function that reads one of several words.
    """

    def choose(text: str) -> str:
        word = text.strip().lower()
        if word not in choices:
            raise ValueError(f"{text!r} is none of {', '.join(choices)}")
        return word

    return choose


def logLevel(text: str) -> LogLevel:
    """
    Read the name of a log level.
    """
    names = [level.name for level in LogLevel.iterconstants()]
    word = text.strip().lower()
    word = {"warning": "warn"}.get(word, word)
    if word not in names:
        raise ValueError(f"{text!r} is none of {', '.join(names)}")
    level: LogLevel = LogLevel.lookupByName(word)
    return level


def user(text: str) -> int:
    """
    Read a user's name or number.
    """
    return _number(text, uidFromString, "user")


def group(text: str) -> int:
    """
    Read a group's name or number.
    """
    return _number(text, gidFromString, "group")


def _number(text: str, lookUp: Callable[[str], int], kind: str) -> int:
    number: Optional[int]
    try:
        number = lookUp(text)
    except (KeyError, ValueError):
        number = None
    if number is None or number < 0:
        raise ValueError(f"there is no {kind} {text!r} on this system")
    return number


def reactor(text: str) -> str:
    """
    Read the short name of one of Twisted's reactors.
    """
    names = sorted(each.shortName for each in getReactorTypes())
    if text not in names:
        raise ValueError(f"{text!r} is none of {', '.join(names)}")
    return text
