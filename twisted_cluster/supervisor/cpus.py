"""
How many processors this process may use, which is the number of workers that
C{--workers auto} starts.

Two limits count: the processors that the scheduler may put us on (affinity),
and the share of processor time that the control groups above us leave (quota,
in version 1 and 2 of cgroups).  The quota is rounded up: of one and a half
processors, one worker could not use the half.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from math import ceil
from pathlib import Path
from typing import Optional

from twisted_cluster.errors import InvalidWorkerCount
from twisted_cluster.supervisor.cgroups import controlGroups, linesOf


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def availableCPUs(root: str = "/", affinity: Callable[[], int] = _affinity) -> int:
    """
    Count the processors that may be used.

    What cannot be read limits nothing.

    @param root: where C{proc} and the mounted control groups are looked for.
    @param affinity: counts the processors that the scheduler allows.
    @return: a whole number of one or more.
    """
    quotas = [ceil(quota) for quota in cgroupQuotas(Path(root))]
    return max(1, min([affinity(), *quotas]))


def cgroupQuotas(root: Path) -> Iterator[float]:
    """
    Iterate over the limits, in processors, of our control group and of each
    above it, as far as they can be seen.
    """
    for group in controlGroups(root, "cpu"):
        for place in group.upwards():
            quota = _quotaAt(place, group.version)
            if quota is not None:
                yield quota


def _quotaAt(directory: Path, version: int) -> Optional[float]:
    if version == 2:
        words = " ".join(linesOf(directory / "cpu.max")).split()
    else:
        words = [
            *linesOf(directory / "cpu.cfs_quota_us"),
            *linesOf(directory / "cpu.cfs_period_us"),
        ]
    try:
        quota, period = (int(word) for word in words)
    except ValueError:
        return None
    if quota <= 0 or period <= 0:
        return None
    return quota / period


def checkedCount(count: int, what: str = "number of workers") -> int:
    """
    Give back a number, if it is a whole number of one or more.

    @raise InvalidWorkerCount: if it is not.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise InvalidWorkerCount(
            f"the {what} is {count!r}: it must be a whole number of one or more"
        )
    return count
