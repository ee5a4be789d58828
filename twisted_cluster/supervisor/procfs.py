"""
What the kernel says of a process.
"""

from __future__ import annotations

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
        text = Path(root, str(pid), "status").read_text("ascii", "replace")
        found = dict(line.split(":", 1) for line in text.splitlines())
        return Credentials(
            int(found["Uid"].split()[1]),
            int(found["Gid"].split()[1]),
            tuple(map(int, found["Groups"].split())),
        )
    except (OSError, ValueError, IndexError, KeyError):
        return None


def isStopped(pid: int, root: str = "/proc") -> bool:
    """
    Whether a process has been stopped by a signal (SIGSTOP, SIGTSTP) or by a
    debugger.
    """
    try:
        stat = Path(root, str(pid), "stat").read_text("ascii", "replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[:1] in (["T"], ["t"])
