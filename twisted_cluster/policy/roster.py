"""
The workers that live, and the slots that they hold.
"""

from __future__ import annotations

from typing import Final, Optional

import attrs

STARTING: Final = "starting"
READY: Final = "ready"
STOPPING: Final = "stopping"


@attrs.define
class Member:
    """
    A worker that lives.

    @ivar state: L{STARTING}, L{READY} or L{STOPPING}.
    @ivar holdsSlot: whether its slot stays empty until it has died, though it
        is leaving.
    @ivar recycle: why it is to be replaced, if somebody has asked for that.
    """

    worker: int
    slot: int
    generation: int
    state: str = STARTING
    holdsSlot: bool = False
    recycle: Optional[str] = None


@attrs.define
class Roster:
    """
    All workers, by id.

    A worker I{holds} its slot unless it leaves.  Two do while one is to take the
    other's place.

    @ivar members: those that live.
    @ivar pausing: the slots that get no new worker at the moment, since theirs
        have died early.
    """

    members: dict[int, Member] = attrs.field(factory=dict)
    pausing: set[int] = attrs.field(factory=set)
    _lastWorker: int = attrs.field(default=0, init=False)

    def add(self, slot: int, generation: int) -> Member:
        """
        Make a new worker known.
        """
        self._lastWorker += 1
        member = Member(self._lastWorker, slot, generation)
        self.members[member.worker] = member
        return member

    @property
    def living(self) -> int:
        """
        How many workers there are, those that leave included.
        """
        return len(self.members)

    @property
    def serving(self) -> int:
        """
        How many workers are ready.
        """
        return sum(member.state == READY for member in self.members.values())

    def others(self, member: Member) -> list[Member]:
        """
        Find the other workers that hold a worker's slot.
        """
        return [
            other
            for other in self.members.values()
            if other.slot == member.slot
            and other.state != STOPPING
            and other is not member
        ]

    def complete(self, slots: int) -> bool:
        """
        Whether each of so many slots has a worker that is ready.
        """
        ready = {m.slot for m in self.members.values() if m.state == READY}
        return ready.issuperset(range(slots))
