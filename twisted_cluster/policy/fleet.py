"""
Which workers there should be, and what to do to get there.

The rules:

  1. Nothing but this plan starts or ends a worker that works.  It is told what
     happened, and returns actions; carrying them out is somebody else's.
  2. Until one worker has been ready, only one is ever started: what cannot
     start fails once, and what a program does once is done once.
  3. A slot without a worker gets one at once, unless it pauses.  A worker that
     is replaced while it serves is stopped when its replacement is ready, never
     before, and L{twisted_cluster.policy.replacing} keeps the number of
     workers within a batch beyond those that are wanted.
  4. A restart replaces the worker of every slot; the first new one is the
     canary.  If a new one dies before it is ready, the restart ends there, and
     the old ones that are left serve on.  It is done when the last old one is
     gone.  One that is asked for during a restart is queued, once.
  5. A worker is recycled when no restart is under way, which replaces it anyway.
     A replacement that dies before it is ready is tried again, after its slot's
     pause.
  6. Fewer workers are had by giving the highest slots up, and only as far as
     enough others serve.
"""

from __future__ import annotations

from typing import Optional, Union

import attrs

from twisted_cluster.policy.replacing import (
    recycleNext,
    replaced,
    restartNext,
    surplus,
    vacant,
)
from twisted_cluster.policy.roster import READY, STARTING, STOPPING, Member, Roster


@attrs.frozen
class Spawn:
    """
    Start a worker.
    """

    worker: int
    slot: int
    generation: int


@attrs.frozen
class Stop:
    """
    Have a worker leave, gracefully and within the limit.

    @ivar why: for the log.
    @ivar others: whether others serve on, to which connections can move.
    """

    worker: int
    why: str
    others: bool = True


@attrs.frozen
class Serving:
    """
    For the first time, every slot has a worker that is ready.
    """


@attrs.frozen
class StartFailed:
    """
    The first worker never became ready.
    """

    why: str


@attrs.frozen
class RestartEnded:
    """
    A restart is over.

    @ivar why: why it failed, or L{None}.
    """

    why: Optional[str]


@attrs.frozen
class Settled:
    """
    Every slot has its ready worker, and there are no others.
    """


@attrs.frozen
class Ended:
    """
    The fleet was told to stop, and no worker is left.
    """


Action = Union[Spawn, Stop, Serving, StartFailed, RestartEnded, Settled, Ended]


@attrs.define
class Fleet:
    """
    The plan.

    @ivar desired: how many workers there should be.
    @ivar batch: how many workers are replaced at a time, and by how many there
        may be more than wanted because of that.
    """

    desired: int
    batch: int = 1
    _roster: Roster = attrs.field(factory=Roster, init=False)
    _generation: int = attrs.field(default=1, init=False)
    _confirmed: bool = attrs.field(default=False, init=False)
    _failed: bool = attrs.field(default=False, init=False)
    _served: bool = attrs.field(default=False, init=False)
    _settled: bool = attrs.field(default=False, init=False)
    _rolling: bool = attrs.field(default=False, init=False)
    _queued: bool = attrs.field(default=False, init=False)
    _stopped: bool = attrs.field(default=False, init=False)
    _ended: bool = attrs.field(default=False, init=False)

    @property
    def stopping(self) -> bool:
        """
        Whether the fleet was told to stop.
        """
        return self._stopped

    @property
    def serving(self) -> int:
        """
        How many workers are ready.
        """
        return self._roster.serving

    @property
    def restarting(self) -> bool:
        """
        Whether a restart is under way.
        """
        return self._rolling

    def needs(self, worker: int) -> bool:
        """
        Whether the death of a worker calls for another in its slot, so that it
        may call for a pause before that: the slot would be empty and does not
        pause already, or the worker was to replace one that is recycled.
        """
        member = self._roster.members[worker]
        if member.slot >= self.desired:
            return False
        if member.holdsSlot:
            return not self._roster.others(member)
        if member.state == STOPPING or member.slot in self._roster.pausing:
            return False
        return not self._roster.others(member) or self._recycles(member)

    def start(self) -> list[Action]:
        """
        Begin.
        """
        return self._plan()

    def ready(self, worker: int) -> list[Action]:
        """
        A worker serves.
        """
        member = self._roster.members.get(worker)
        if member is None or member.state != STARTING:
            return []
        member.state = READY
        self._confirmed = True
        return self._plan()

    def leaving(self, worker: int, pause: bool = False) -> list[Action]:
        """
        A worker said that it ends by itself.  One that was not ready yet goes on
        to count as starting until it has died.

        @param pause: whether its slot stays empty until it has died.
        """
        member = self._roster.members.get(worker)
        if member is None or member.state != READY:
            return []
        member.state = STOPPING
        pausing = self._roster.pausing
        if pause and member.slot not in pausing and not self._roster.others(member):
            member.holdsSlot = True
            pausing.add(member.slot)
        return self._plan()

    def died(self, worker: int, why: str, pause: bool) -> list[Action]:
        """
        A worker's process has ended.

        @param why: for whoever waits for a restart or the start.
        @param pause: whether its slot gets no other until L{resume}; ignored
            unless it L{needs} one.
        """
        pause = pause and self.needs(worker)
        member = self._roster.members.pop(worker)
        actions: list[Action] = []
        if not self._confirmed and not self._stopped:
            self._failed = True
            return [StartFailed(why)]
        if (
            self._rolling
            and member.state == STARTING
            and member.generation == self._generation
        ):
            actions.extend(self._endRestart(why))
        if member.holdsSlot:
            self._roster.pausing.discard(member.slot)
        if pause:
            self._roster.pausing.add(member.slot)
        return actions + self._plan()

    def resume(self, slot: int) -> list[Action]:
        """
        The pause of a slot is over.
        """
        self._roster.pausing.discard(slot)
        return self._plan()

    def restart(self) -> list[Action]:
        """
        Replace every worker by one of a new generation; nothing pauses any
        longer, since the program may have been repaired.
        """
        self._queued = True
        members = self._roster.members.values()
        self._roster.pausing = {m.slot for m in members if m.holdsSlot}
        return self._plan()

    def giveUpRestart(self, why: str) -> list[Action]:
        """
        A slot's workers keep dying: a restart that is under way cannot end
        well.
        """
        if not self._rolling:
            return []
        return [*self._endRestart(why), *self._plan()]

    def recycle(self, worker: int, why: str) -> list[Action]:
        """
        Replace one worker by another of the same code, as soon as the batch
        allows.  One that leaves already is replaced anyway.

        @param why: for the log.
        """
        member = self._roster.members.get(worker)
        if member is None or member.state == STOPPING or member.recycle is not None:
            return []
        member.recycle = why
        return self._plan()

    def scale(self, desired: int) -> list[Action]:
        """
        Change the number of workers.
        """
        self.desired = desired
        self._settled = False
        for member in self._roster.members.values():
            member.holdsSlot = member.holdsSlot and member.slot < desired
        self._roster.pausing = {s for s in self._roster.pausing if s < desired}
        return self._plan()

    def stop(self) -> list[Action]:
        """
        End all workers and start no more.
        """
        self._stopped = True
        self._queued = False
        ended = [RestartEnded("the cluster was stopped")] if self._rolling else []
        self._rolling = False
        return [*ended, *self._plan()]

    def _recycles(self, member: Member) -> bool:
        """
        Whether a worker is to replace one that is recycled.
        """
        return (
            not self._rolling
            and member.state == STARTING
            and bool(self._roster.others(member))
        )

    def _spawn(self, slot: int) -> Spawn:
        member = self._roster.add(slot, self._generation)
        return Spawn(member.worker, slot, member.generation)

    def _stop(self, member: Member, why: str, others: bool = True) -> Stop:
        member.state = STOPPING
        return Stop(member.worker, why, others)

    def _beginRestart(self) -> list[Action]:
        actions: list[Action] = [
            self._stop(member, "a restart replaces what it was to replace")
            for member in self._roster.members.values()
            if self._recycles(member)
        ]
        self._queued, self._rolling = False, True
        self._generation += 1
        return actions

    def _endRestart(self, why: Optional[str]) -> list[Action]:
        self._rolling = False
        actions: list[Action] = [RestartEnded(why)]
        for member in reversed(list(self._roster.members.values())):
            if member.state == STARTING and self._roster.others(member):
                actions.append(self._stop(member, "the restart has failed"))
        return actions

    def _plan(self) -> list[Action]:
        if self._stopped or self._failed:
            return self._planEnd()
        actions = self._planStops()
        if not self._confirmed:
            if not self._roster.members:
                actions.append(self._spawn(0))
            return actions
        if self._queued and not self._rolling:
            actions.extend(self._beginRestart())
        slots = vacant(self._roster, self.desired)
        actions.extend(self._spawn(slot) for slot in slots)
        if self._rolling:
            actions.extend(self._planRestart())
        if not self._rolling:
            slots = recycleNext(self._roster, self.desired, self.batch)
            actions.extend(self._spawn(slot) for slot in slots)
        actions.extend(self._planNews())
        return actions

    def _planStops(self) -> list[Action]:
        actions: list[Action] = []
        for member in replaced(self._roster):
            why = "it has been replaced"
            if member.recycle is not None and not self._rolling:
                why = f"it is recycled: {member.recycle}"
            actions.append(self._stop(member, why))
        actions.extend(
            self._stop(member, "fewer workers are wanted")
            for member in surplus(self._roster, self.desired)
        )
        return actions

    def _planRestart(self) -> list[Action]:
        slots = restartNext(self._roster, self._generation, self.desired, self.batch)
        actions: list[Action] = [self._spawn(slot) for slot in slots]
        members = self._roster.members.values()
        gone = all(member.generation == self._generation for member in members)
        if gone and self._roster.complete(self.desired):
            actions.extend(self._endRestart(None))
            if self._queued:
                actions.extend(self._beginRestart())
                actions.extend(self._planRestart())
        return actions

    def _planNews(self) -> list[Action]:
        actions: list[Action] = []
        complete = self._roster.complete(self.desired)
        if complete and not self._served:
            self._served = True
            actions.append(Serving())
        settled = complete and self._roster.living == self.desired
        if settled and not self._settled and not self._rolling:
            actions.append(Settled())
        self._settled = settled and not self._rolling
        return actions

    def _planEnd(self) -> list[Action]:
        actions: list[Action] = [
            self._stop(member, "the cluster stops", others=False)
            for member in self._roster.members.values()
            if member.state != STOPPING
        ]
        if self._stopped and not self._roster.members and not self._ended:
            self._ended = True
            actions.append(Ended())
        return actions
