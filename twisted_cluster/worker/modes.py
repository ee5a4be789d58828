"""
Carries the word of the C{cluster:} and C{local:} endpoints to the listen that
they make.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, Optional

Mode = Literal["cluster", "local"]

_mode: ContextVar[Optional[Mode]] = ContextVar("twisted_cluster.mode", default=None)


@contextmanager
def listenMode(mode: Mode) -> Iterator[None]:
    """
    Say of every listen within: it is the cluster's, or this process's own.
    """
    token = _mode.set(mode)
    try:
        yield
    finally:
        _mode.reset(token)


def currentMode() -> Optional[Mode]:
    """
    What was said of the listens that happen now, or L{None} for nothing.
    """
    return _mode.get()
