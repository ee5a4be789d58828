"""
Whether it was the kernel that killed a worker, for want of memory.

The kernel does not say so to the parent: SIGKILL is all there is.  But it counts
such kills, for each control group and for the machine, before it sends the signal.
A count that has moved just when a worker was killed tells most likely, or perhaps,
why.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Optional

import attrs
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from twisted_cluster.supervisor.cgroups import controlGroups, linesOf

_FILES: Final = {1: "memory.oom_control", 2: "memory.events"}
"""Where a control group of that version says how many were killed in it."""


_LOOK_EVERY: Final = 5.0
"""Seconds between two looks."""


@attrs.define
class _Count:
    """
    One of the kernel's counts.

    Two looks are remembered, so that the last but one is some time ago whenever the
    count is compared with it: a kill that is counted and then looked at before
    the worker's death is known counts as new.

    @ivar path: the file that has it, in a line C{oom_kill N}.
    """

    path: Path
    _before: int
    _last: int

    @classmethod
    def found(cls, path: Path) -> Optional[_Count]:
        """
        Begin with what a file says now.

        @return: L{None} when it does not say.
        """
        number = _read(path)
        return None if number is None else cls(path, number, number)

    def look(self) -> None:
        """
        Remember the count of this moment.
        """
        self._before, self._last = self._last, _read(self.path) or self._last

    def take(self) -> bool:
        """
        Whether the count has moved since the last look but one.  If so, one of
        these kills is accounted for.
        """
        moved = (_read(self.path) or 0) > self._before
        if moved:
            self._before += 1
            self._last = max(self._last, self._before)
        return moved


class KillCounts:
    """
    How many processes the kernel has killed for want of memory, in the control group
    of this process, which is that of the workers, and on the machine.
    """

    def __init__(self, root: str = "/") -> None:
        """
        @param root: where C{proc} and the mounted control groups are looked for.
        """
        self._root = Path(root)
        self._found = False
        self._machine: Optional[_Count] = None
        self._group: Optional[_Count] = None

    def look(self) -> None:
        """
        Remember the counts.  To be called before the first worker is started, and
        then every few seconds: what moved before the last call but one is
        forgotten, so that it is not taken for the reason of a death that comes
        much later.
        """
        if not self._found:
            self._found = True
            self._machine = _Count.found(self._root / "proc/vmstat")
            self._group = self._findGroup()
        for count in (self._machine, self._group):
            if count is not None:
                count.look()

    def hint(self) -> str:
        """
        Say whether the kernel may have killed the worker whose death by SIGKILL is
        known now.  Each kill that the kernel counted explains one death.

        @return: what follows after C{was ended by SIGKILL, }; nothing when no
            count moved.
        """
        machine = self._machine is not None and self._machine.take()
        if self._group is not None and self._group.take():
            sure, whose = "most likely", "this control group"
        elif machine:
            sure, whose = "perhaps", "another control group"
            if self._group is None:
                whose = "this machine"
        else:
            return ""
        return (
            f"{sure} by the kernel for want of memory: it killed a process of {whose} "
            f"at that time"
        )

    def _findGroup(self) -> Optional[_Count]:
        counts = (
            _Count.found(group.directory / _FILES[group.version])
            for group in controlGroups(self._root, "memory")
            if group.isOurs
        )
        return next(filter(None, counts), None)


class KillWatch:
    """
    Looks at the counts from time to time.
    """

    def __init__(self, clock: IReactorTime, root: str = "/") -> None:
        self._clock = clock
        self._counts = KillCounts(root)
        self._next: Optional[IDelayedCall] = None

    def start(self) -> None:
        """
        Begin, before the first worker is started.
        """
        self._counts.look()
        self._next = self._clock.callLater(_LOOK_EVERY, self.start)

    def stop(self) -> None:
        """
        Look no more.
        """
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def hint(self) -> str:
        """
        See L{KillCounts.hint}.
        """
        return self._counts.hint()


def _read(path: Path) -> Optional[int]:
    for line in linesOf(path):
        words = line.split()
        if len(words) == 2 and words[0] == "oom_kill" and words[1].isdecimal():
            return int(words[1])
    return None
