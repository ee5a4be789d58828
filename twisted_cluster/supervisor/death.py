"""
How a worker ended, in words.
"""

from __future__ import annotations

import errno
import signal
from collections.abc import Callable, Sequence
from typing import Optional

import attrs


@attrs.frozen
class Exit:
    """
    How a process ended.

    @ivar status: its exit status, or L{None} when a signal ended it.
    @ivar signal: the number of that signal, or L{None}.
    """

    status: Optional[int]
    signal: Optional[int]

    def __str__(self) -> str:
        if self.signal is None:
            return f"exited with status {self.status}"
        try:
            name = signal.Signals(self.signal).name
        except ValueError:
            name = f"signal {self.signal}"
        return f"was ended by {name}"


@attrs.frozen
class Failing:
    """
    Why a worker was never ready, in its own words.

    @ivar stage: C{load}, C{usage}, C{help}, C{checked} or C{start}.
    """

    stage: str
    reason: str
    traceback: str

    def __str__(self) -> str:
        return f"{self.reason}\n{self.traceback}".strip()


@attrs.frozen
class Death:
    """
    The end of a worker.

    @ivar how: what happened, for the log.
    @ivar status: its exit status, or L{None} when there is none.
    @ivar failing: what the worker itself said, if it was never ready.
    @ivar lifetime: seconds from its start to its end.
    @ivar wasReady: whether it had served.
    @ivar expected: whether it ended as it was told to or as it announced.
    """

    how: str
    status: Optional[int]
    failing: Optional[Failing]
    lifetime: float
    wasReady: bool
    expected: bool


def foundAddressTaken(why: str) -> bool:
    """
    Whether a worker ended because an address was taken which it had not asked
    the watcher for: what the watcher refuses raises C{CannotListenError}.

    @param why: how it ended, in words.
    """
    taken = f"[Errno {errno.EADDRINUSE}]"
    return any(
        taken in line and "Couldn't listen on" not in line for line in why.splitlines()
    )


def explain(
    how: Exit,
    *,
    killedFor: Optional[str],
    unasked: bool,
    wasReady: bool,
    lastLines: Sequence[str],
    whoKilled: Callable[[], str] = lambda: "",
) -> str:
    """
    Say how a worker ended.

    @param killedFor: why the watcher killed it, if it did.
    @param unasked: whether nobody told it to end, and it did not say why.
    @param wasReady: whether it had served.
    @param lastLines: what it wrote to its stderr last.
    @param whoKilled: asked when it was ended by a SIGKILL that the watcher did not
        send; says who may have sent it, or nothing.
    """
    if killedFor is not None:
        return f"{how}: {killedFor}"
    hint = whoKilled() if how.signal == signal.SIGKILL else ""
    by = f", {hint}" if hint else ""
    if wasReady or not unasked:
        alone = unasked and how.status == 0
        return f"{how}: the program ended by itself" if alone else f"{how}{by}"
    if how.status == 0:
        return (
            f"{how} before it was ready: the program ended by itself (if it goes to "
            f"the background, tell it to stay in the foreground)"
        )
    text = f"{how} before it was ready{by}"
    return "\n".join([f"{text}; its last words:", *lastLines]) if lastLines else text
