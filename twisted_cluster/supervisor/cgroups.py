"""
Where the control groups of this process lie in the file system, in version 1 and 2
of cgroups.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import attrs


@attrs.frozen
class ControlGroup:
    """
    A control group that this process is in, where it is mounted.

    @ivar version: 1 or 2.
    @ivar directory: the group's own, or the mount point when the group lies outside
        of what is mounted.
    @ivar point: the mount point.
    @ivar isOurs: whether the directory is the group's own.
    """

    version: int
    directory: Path
    point: Path
    isOurs: bool

    def upwards(self) -> Iterator[Path]:
        """
        Iterate over the directories of the group and of those above it, as far as
        they can be seen.
        """
        for place in (self.directory, *self.directory.parents):
            yield place
            if place == self.point:
                break


def controlGroups(root: Path, controller: str) -> Iterator[ControlGroup]:
    """
    Find our group in each hierarchy that may have a controller: that of version 1
    which does, and that of version 2.

    What cannot be read is not there.

    @param root: where C{proc} and the mounted control groups are looked for.
    @param controller: C{cpu}, C{memory} …
    """
    groups = dict(_ourGroups(root, controller))
    for version, top, point in _mounts(root, controller):
        group = groups.get(version)
        if group is None:
            continue
        below = os.path.relpath(group, top)
        isOurs = ".." not in (*group.split("/"), *below.split("/"))
        directory = point / below if isOurs else point
        yield ControlGroup(version, directory, point, isOurs)


def linesOf(path: Path) -> list[str]:
    """
    Read a file of the kernel's.

    @return: its lines, or none when it cannot be read.
    """
    try:
        return path.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return []


def _ourGroups(root: Path, controller: str) -> Iterator[tuple[int, str]]:
    for line in linesOf(root / "proc/self/cgroup"):
        number, controllers, group = [*line.split(":", 2), "", ""][:3]
        if number == "0" and not controllers:
            yield 2, group
        elif controller in controllers.split(","):
            yield 1, group


def _mounts(root: Path, controller: str) -> Iterator[tuple[int, str, Path]]:
    """
    Iterate over the mounted hierarchies: their version, the group that the mount
    point shows, as the kernel names it, and the mount point.
    """
    for line in linesOf(root / "proc/self/mountinfo"):
        mount, _, kind = line.partition(" - ")
        fields = [_unescape(field) for field in mount.split()]
        words = kind.split()
        if len(fields) < 5 or len(words) < 3:
            continue
        point = root / fields[4].lstrip("/")
        if words[0] == "cgroup2":
            yield 2, fields[3], point
        elif words[0] == "cgroup" and controller in words[2].split(","):
            yield 1, fields[3], point


def _unescape(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)
