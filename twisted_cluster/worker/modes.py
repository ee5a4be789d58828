"""
Carries the word of the C{cluster:} and C{local:} endpoints to the listen that
they make: whose it is, and how its connections are balanced.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, Optional

Mode = Literal["cluster", "local"]

_mode: ContextVar[Optional[Mode]] = ContextVar("twisted_cluster.mode", default=None)
_balance: ContextVar[str] = ContextVar("twisted_cluster.balance", default="")


@contextmanager
def listenMode(mode: Mode, balance: str = "") -> Iterator[None]:
    """
    Say of every listen within: it is the cluster's, or this process's own.

    @param balance: how its connections are balanced; empty for the default.
    """
    tokens = _mode.set(mode), _balance.set(balance)
    try:
        yield
    finally:
        _mode.reset(tokens[0])
        _balance.reset(tokens[1])


def currentMode() -> Optional[Mode]:
    """
    What was said of the listens that happen now, or L{None} for nothing.
    """
    return _mode.get()


def currentBalance() -> str:
    """
    How the connections of the listens that happen now are to be balanced.
    """
    return _balance.get()
