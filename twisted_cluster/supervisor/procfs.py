"""
What the kernel says of a process.
"""

from __future__ import annotations

from pathlib import Path


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
