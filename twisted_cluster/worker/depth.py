"""
Decides what is a copy: whether this thread is publishing an event that was
relayed, so that what happens meanwhile (an observer that prints the event, a
handler that hands it to another logging system) repeats it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Depth(threading.local):
    """
    How deep in the publishing of events this thread is.

    @ivar value: 0 where an event is new.
    @ivar encoding: whether this thread is formatting an event for the watcher:
        what an argument's C{__repr__} logs then, it logs to observers, too.
    @ivar paused: what the two were when the garbage collector started.
    """

    value = 0
    encoding = False
    paused = (0, False)


depth = Depth()
_active = False


def relaying() -> bool:
    """
    Tell whether what this thread logs and prints now repeats an event that was
    relayed.
    """
    return depth.value > 0 and _active


@contextmanager
def repeating() -> Iterator[None]:
    """
    Regard what this thread logs and prints as a copy.
    """
    depth.value += 1
    try:
        yield
    finally:
        depth.value -= 1


@contextmanager
def original() -> Iterator[None]:
    """
    Regard what this thread logs and prints as new, wherever it is.
    """
    before, depth.value = depth.value, 0
    try:
        yield
    finally:
        depth.value = before


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
        depth.paused = (depth.value, depth.encoding)
        depth.value, depth.encoding = 0, False
    else:
        depth.value, depth.encoding = depth.paused


os.register_at_fork(after_in_child=lambda: activate(False))
