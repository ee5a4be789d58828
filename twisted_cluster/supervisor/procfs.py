"""
What the kernel says of a process.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Optional

import attrs


@attrs.frozen
class Credentials:
    """
    Whose rights a process has.

    @ivar uid: its effective user id.
    @ivar gid: its effective group id.
    @ivar groups: its supplementary groups.
    """

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


def processCredentials(pid: int, root: str = "/proc") -> Optional[Credentials]:
    """
    Find whose rights another process has at this moment.

    @return: its credentials, or L{None} when it is gone or the system does not
        tell.
    """
    try:
        found = tableOf(pid, "status", root)
        return Credentials(
            int(found["Uid"].split()[1]),
            int(found["Gid"].split()[1]),
            tuple(map(int, found["Groups"].split())),
        )
    except (ValueError, IndexError, KeyError):
        return None


def isStopped(pid: int, root: str = "/proc") -> bool:
    """
    Whether a process has been stopped by a signal (SIGSTOP, SIGTSTP) or by a
    debugger.
    """
    return _state(tableOf(pid, "status", root)) in ("T", "t")


def whyHangs(pid: int, root: str = "/proc") -> str:
    """
    Say what keeps a process from running, for the log: what its own stacks would not
    show.

    It is a look at one moment: a process that really hangs is still in that state,
    one that works hard may be in it now and then.  Only what the kernel tells
    without waiting for that process is asked.

    @return: what comes after C{worker 3 has not answered: }, or nothing when it
        could run, is gone, or the system does not tell.
    """
    status = tableOf(pid, "status", root)
    state = _state(status)
    if state == "T":
        return "it is stopped (SIGSTOP)"
    if state == "t":
        return "it is being traced"
    if (memoryIn(status, "VmSwap") or 0) > (memoryIn(status, "VmRSS") or 0):
        return "most of it is swapped out"
    if state == "D":
        return "it waits for a disk (state D)"
    return ""


def tableOf(pid: int, name: str, root: str = "/proc") -> dict[str, str]:
    """
    Read one of the files of a process that consist of lines C{name: value}.

    @param name: the file's, such as C{status}.
    @return: the values by their names; nothing when the process is gone, or the
        system does not tell.
    """
    try:
        text = Path(root, str(pid), name).read_text("ascii", "replace")
    except OSError:
        return {}
    return dict(line.split(":", 1) for line in text.split("\n") if ":" in line)


def memoryIn(table: Mapping[str, str], name: str) -> Optional[int]:
    """
    Find an amount of memory in what L{tableOf} returned.

    @return: bytes, or L{None} when it is not there.
    """
    words = table.get(name, "").split()
    return int(words[0]) * 1024 if words and words[0].isdecimal() else None


def _state(status: Mapping[str, str]) -> str:
    return status.get("State", "").strip()[:1]
