"""
Which workers there should be, and what to do to get there.

The rules:

  1. Nothing but this plan starts or ends a worker that works.  It is told what
     happened, and returns actions; carrying them out is somebody else's.
  2. Until one worker has been ready, only one is ever started: what cannot
     start fails once, and what a program does once is done once.
  3. A restart goes slot by slot.  The old worker of a slot is stopped when the
     new one is ready, never before; the first new one is the canary.  If a new
     one dies before it is ready, the restart ends there, and the old ones that
     are left serve on.  It is done when the last old one is gone.
  4. A restart that is asked for during a restart is queued, once.
  5. Fewer workers are had by giving the highest slots up, and only as far as
     enough others serve.
"""

from __future__ import annotations

from typing import Optional, Union

import attrs

STARTING, READY, STOPPING = "starting", "ready", "stopping"


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
    """

    worker: int
    why: str


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
class _Member:
    worker: int
    slot: int
    generation: int
    state: str = STARTING
    holdsSlot: bool = False


@attrs.define
class Fleet:
    """
    The plan.

    @ivar desired: how many workers there should be.
    @ivar batch: how many slots a restart replaces at a time, after the canary.
    """

    desired: int
    batch: int = 1
    _members: dict[int, _Member] = attrs.field(factory=dict, init=False)
    _pausing: set[int] = attrs.field(factory=set, init=False)
    _lastWorker: int = attrs.field(default=0, init=False)
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
        return sum(m.state == READY for m in self._members.values())

    @property
    def restarting(self) -> bool:
        """
        Whether a restart is under way.
        """
        return self._rolling

    def needs(self, worker: int) -> bool:
        """
        Whether the death of a worker would leave its slot empty.
        """
        member = self._members[worker]
        return (
            member.slot < self.desired
            and (member.state != STOPPING or member.holdsSlot)
            and not any(other.worker != worker for other in self._inSlot(member.slot))
        )

    def start(self) -> list[Action]:
        """
        Begin.
        """
        return self._plan()

    def ready(self, worker: int) -> list[Action]:
        """
        A worker serves.
        """
        member = self._members.get(worker)
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
        member = self._members.get(worker)
        if member is None or member.state != READY:
            return []
        member.state = STOPPING
        if pause and not self._inSlot(member.slot):
            member.holdsSlot = True
            self._pausing.add(member.slot)
        return self._plan()

    def died(self, worker: int, why: str, pause: bool) -> list[Action]:
        """
        A worker's process has ended.

        @param why: for whoever waits for a restart or the start.
        @param pause: whether its slot stays empty until L{resume}; ignored
            when its slot needs no replacement.
        """
        member = self._members.pop(worker)
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
            self._pausing.discard(member.slot)
        if pause and not self._inSlot(member.slot):
            self._pausing.add(member.slot)
        return actions + self._plan()

    def resume(self, slot: int) -> list[Action]:
        """
        The pause of a slot is over.
        """
        self._pausing.discard(slot)
        return self._plan()

    def restart(self) -> list[Action]:
        """
        Replace every worker by one of a new generation; nothing pauses any
        longer, since the program may have been repaired.
        """
        self._queued = True
        self._pausing = {m.slot for m in self._members.values() if m.holdsSlot}
        return self._plan()

    def giveUpRestart(self, why: str) -> list[Action]:
        """
        A slot's workers keep dying: a restart that is under way cannot end
        well.
        """
        if not self._rolling:
            return []
        return [*self._endRestart(why), *self._plan()]

    def scale(self, desired: int) -> list[Action]:
        """
        Change the number of workers.
        """
        self.desired = desired
        self._settled = False
        self._pausing = {slot for slot in self._pausing if slot < desired}
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

    def _inSlot(self, slot: int, generation: Optional[int] = None) -> list[_Member]:
        """
        The members that hold a slot: those that have not been told to stop.
        """
        return [
            member
            for member in self._members.values()
            if member.slot == slot
            and member.state != STOPPING
            and generation in (None, member.generation)
        ]

    def _spawn(self, slot: int) -> Spawn:
        self._lastWorker += 1
        self._members[self._lastWorker] = _Member(
            self._lastWorker, slot, self._generation
        )
        return Spawn(self._lastWorker, slot, self._generation)

    def _stop(self, member: _Member, why: str) -> Stop:
        member.state = STOPPING
        return Stop(member.worker, why)

    def _endRestart(self, why: Optional[str]) -> list[Action]:
        self._rolling = False
        actions: list[Action] = [RestartEnded(why)]
        for member in list(self._members.values()):
            if (
                why is not None
                and member.state == STARTING
                and len(self._inSlot(member.slot)) > 1
            ):
                actions.append(self._stop(member, "the restart has failed"))
        return actions

    def _plan(self) -> list[Action]:
        if self._stopped or self._failed:
            return self._planEnd()
        actions = self._planFewer()
        if not self._confirmed:
            if not self._members:
                actions.append(self._spawn(0))
            return actions
        if self._queued and not self._rolling:
            self._queued, self._rolling = False, True
            self._generation += 1
        for slot in range(self.desired):
            if slot not in self._pausing and not self._inSlot(slot):
                actions.append(self._spawn(slot))
        if self._rolling:
            actions.extend(self._planRestart())
        actions.extend(self._planNews())
        return actions

    def _planFewer(self) -> list[Action]:
        """
        Give the highest slots up, as far as enough others serve.
        """
        surplus = sorted(
            (m for m in self._members.values() if m.slot >= self.desired),
            key=lambda member: -member.slot,
        )
        spare = self.serving - self.desired
        actions: list[Action] = []
        for member in surplus:
            if member.state == STARTING or (member.state == READY and spare > 0):
                spare -= member.state == READY
                actions.append(self._stop(member, "fewer workers are wanted"))
        return actions

    def _planRestart(self) -> list[Action]:
        actions: list[Action] = []
        new = [m for m in self._members.values() if m.generation == self._generation]
        budget = self.batch if any(m.state == READY for m in new) else 1
        budget -= sum(m.state == STARTING for m in new)
        old = [
            member
            for member in sorted(self._members.values(), key=lambda m: m.slot)
            if member.generation < self._generation
            and member.state != STOPPING
            and member.slot < self.desired
        ]
        for member in old:
            replacements = self._inSlot(member.slot, self._generation)
            if any(m.state == READY for m in replacements):
                actions.append(self._stop(member, "it has been replaced"))
            elif not replacements and budget > 0:
                budget -= 1
                actions.append(self._spawn(member.slot))
        gone = not any(
            member.generation < self._generation for member in self._members.values()
        )
        if gone and not self._pausing and self._allReady():
            actions.extend(self._endRestart(None))
            if self._queued:
                actions.extend(self._plan())
        return actions

    def _allReady(self) -> bool:
        return all(
            any(member.state == READY for member in self._inSlot(slot))
            for slot in range(self.desired)
        )

    def _planNews(self) -> list[Action]:
        actions: list[Action] = []
        complete = self._allReady()
        if complete and not self._served:
            self._served = True
            actions.append(Serving())
        settled = complete and len(self._members) == self.desired
        if settled and not self._settled and not self._rolling:
            actions.append(Settled())
        self._settled = settled and not self._rolling
        return actions

    def _planEnd(self) -> list[Action]:
        actions: list[Action] = [
            self._stop(member, "the cluster stops")
            for member in self._members.values()
            if member.state != STOPPING
        ]
        if self._stopped and not self._members and not self._ended:
            self._ended = True
            actions.append(Ended())
        return actions
