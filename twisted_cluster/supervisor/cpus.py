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
import re
from collections.abc import Callable, Iterator
from math import ceil
from pathlib import Path
from typing import Optional

import attrs

from twisted_cluster.errors import InvalidWorkerCount


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


@attrs.frozen
class _Mount:
    """
    A mounted hierarchy of control groups that may limit processor time.

    @ivar version: 1 or 2.
    @ivar top: the group that the mount point shows, as the kernel names it.
    @ivar point: the mount point.
    """

    version: int
    top: str
    point: Path


def cgroupQuotas(root: Path) -> Iterator[float]:
    """
    Iterate over the limits, in processors, of our control group and of each
    above it, as far as they can be seen.
    """
    groups = dict(_ourGroups(root))
    for mount in _mounts(root):
        group = groups.get(mount.version)
        if group is None:
            continue
        below = os.path.relpath(group, mount.top)
        directory = mount.point
        if not below.startswith(".."):
            directory = mount.point / below
        for place in (directory, *directory.parents):
            quota = _quotaAt(place, mount.version)
            if quota is not None:
                yield quota
            if place == mount.point:
                break


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return []


def _ourGroups(root: Path) -> Iterator[tuple[int, str]]:
    for line in _lines(root / "proc/self/cgroup"):
        number, controllers, group = [*line.split(":", 2), "", ""][:3]
        if number == "0" and not controllers:
            yield 2, group
        elif "cpu" in controllers.split(","):
            yield 1, group


def _mounts(root: Path) -> Iterator[_Mount]:
    for line in _lines(root / "proc/self/mountinfo"):
        mount, _, kind = line.partition(" - ")
        fields = [_unescape(field) for field in mount.split()]
        words = kind.split()
        if len(fields) < 5 or len(words) < 3:
            continue
        point = root / fields[4].lstrip("/")
        if words[0] == "cgroup2":
            yield _Mount(2, fields[3], point)
        elif words[0] == "cgroup" and "cpu" in words[2].split(","):
            yield _Mount(1, fields[3], point)


def _unescape(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)


def _quotaAt(directory: Path, version: int) -> Optional[float]:
    if version == 2:
        words = " ".join(_lines(directory / "cpu.max")).split()
    else:
        words = [
            *_lines(directory / "cpu.cfs_quota_us"),
            *_lines(directory / "cpu.cfs_period_us"),
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
