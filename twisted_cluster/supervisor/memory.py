"""
How much memory a process takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Optional

from twisted_cluster.supervisor.procfs import memoryIn, tableOf


def memoryOf(pid: int, above: int = 0, root: str = "/proc") -> Optional[int]:
    """
    Measure a process: its proportional share (PSS, where pages that several
    processes have are divided among them), or its resident size (RSS) where the
    kernel does not tell the share: to another user, say.  What is swapped out counts
    as well: it is what leaked that lies there first.

    To find the share, the kernel walks through all the pages, and waits for a process
    that is changing its mappings; the resident size it just knows.

    @param above: the size from which on the share matters: a process whose resident
        size is no more, which is never less than the share, is not asked for it.
    @return: bytes, or L{None} when the process is gone or the system does not tell.
    """
    resident = _sum(tableOf(pid, "status", root), "VmRSS", "VmSwap")
    if resident is None or resident <= above:
        return resident
    share = _sum(tableOf(pid, "smaps_rollup", root), "Pss", "SwapPss")
    return resident if share is None else share


def _sum(table: Mapping[str, str], kept: str, swapped: str) -> Optional[int]:
    size = memoryIn(table, kept)
    return None if size is None else size + (memoryIn(table, swapped) or 0)
