"""
A world in which a fleet's plan is carried out, and held to its promises.

Workers become ready, leave and die as a test says; the plan's actions are
carried out at once, and each is judged, as is what is left after all.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted_cluster.policy.fleet import (
    Action,
    Ended,
    Fleet,
    RestartEnded,
    Serving,
    Settled,
    Spawn,
    StartFailed,
    Stop,
)

STARTING, READY, LEAVING = "starting", "ready", "leaving"


class World:
    """
    The workers of a fleet.

    @ivar states: of the workers that live.
    @ivar slots: of all workers that ever lived, as are the generations.
    @ivar held: the workers that leave, and whose slots wait for their death.
    @ivar pauses: the slots whose pause is to be ended by L{resume}.
    @ivar asked: the workers that were asked to be recycled.
    """

    def __init__(self, desired: int, batch: int) -> None:
        self.fleet = Fleet(desired, batch)
        self.desired = desired
        self.batch = batch
        self.states: dict[int, str] = {}
        self.slots: dict[int, int] = {}
        self.generations: dict[int, int] = {}
        self.held: set[int] = set()
        self.pauses: set[int] = set()
        self.asked: set[int] = set()
        self.generation = 1
        self.ended = 0
        self.rolling = self.queued = False
        self.confirmed = self.failed = self.stopped = False
        self.served = self.over = self.mayFail = False
        self.carryOut(self.fleet.start(), 0)

    # What happens.

    def step(self, number: int) -> None:
        """
        Let one of the things happen that can.

        @param number: 20 random bits, which say what, and to whom.
        """
        kind, number = number % 32, number // 32
        flag, number = number % 2 == 1, number // 2
        if kind < 9:
            self._toOne(STARTING, number, self.becomesReady)
        elif kind < 14:
            self._toOne(LEAVING, number, self.leaves)
        elif kind < 18:
            self._toOne(None, number, lambda worker: self.dies(worker, flag))
        elif kind < 20:
            self._toOne(READY, number, lambda worker: self.announces(worker, flag))
        elif kind < 23:
            self.resume(number)
        elif kind < 26:
            self.restart()
        elif kind < 28:
            self.scale(1 + number % 5)
        elif kind < 30:
            self._toOne(None, number, self.recycle)
        elif kind == 30:
            self.giveUp()
        elif number % 8 == 0:
            self.stop()

    def _toOne(
        self, state: str | None, number: int, happens: Callable[[int], None]
    ) -> None:
        found = [w for w, s in self.states.items() if state in (None, s)]
        if found:
            happens(found[number % len(found)])

    def becomesReady(self, worker: int) -> None:
        """
        A worker that is starting serves.
        """
        before = self.serving
        self.states[worker] = READY
        if not (self.stopped or self.failed):
            self.confirmed = True
            self._begin()
        self.carryOut(self.fleet.ready(worker), before)

    def leaves(self, worker: int) -> None:
        """
        A worker that was told to leave has left, or one that said it would.
        """
        self.dies(worker, False)

    def dies(self, worker: int, early: bool) -> None:
        """
        A worker dies.

        @param early: whether its slot then pauses, if it may.
        """
        before = self.serving
        slot = self.slots[worker]
        early = early and self.fleet.needs(worker)
        state = self.states.pop(worker)
        before -= state == READY
        self.mayFail = state == STARTING and self.generations[worker] == self.generation
        self.held.discard(worker)
        self.asked.discard(worker)
        if early and self.confirmed and not self.stopped:
            assert slot not in self.pauses, "a slot pauses once"
            self.pauses.add(slot)
        self.carryOut(self.fleet.died(worker, "it died", early), before)
        self.mayFail = False

    def announces(self, worker: int, early: bool) -> None:
        """
        A worker that is ready says that it leaves.

        @param early: whether its slot waits for its death, if it may.
        """
        slot = self.slots[worker]
        self.states[worker] = LEAVING
        if early and slot not in self.pauses and not self._holders(slot):
            self.held.add(worker)
        self.carryOut(self.fleet.leaving(worker, early), self.serving)

    def resume(self, number: int) -> None:
        """
        The pause of a slot is over.
        """
        if self.pauses:
            slot = sorted(self.pauses)[number % len(self.pauses)]
            self.pauses.remove(slot)
            self.carryOut(self.fleet.resume(slot), self.serving)

    def restart(self) -> None:
        """
        Somebody asks for a restart.
        """
        if not self.stopped:
            self.pauses.clear()
            self.queued = True
            self._begin()
            self.carryOut(self.fleet.restart(), self.serving)

    def scale(self, desired: int) -> None:
        """
        Somebody asks for a number of workers.
        """
        if not self.stopped:
            self.desired = desired
            self.pauses = {slot for slot in self.pauses if slot < desired}
            self.held = {each for each in self.held if self.slots[each] < desired}
            self.carryOut(self.fleet.scale(desired), self.serving)

    def recycle(self, worker: int) -> None:
        """
        A worker is to be replaced.
        """
        if self.states.get(worker) in (STARTING, READY):
            self.asked.add(worker)
        self.carryOut(self.fleet.recycle(worker, "it is old"), self.serving)

    def giveUp(self) -> None:
        """
        A crash loop is found.
        """
        self.mayFail = True
        self.carryOut(self.fleet.giveUpRestart("they keep dying"), self.serving)
        self.mayFail = False

    def stop(self) -> None:
        """
        Somebody asks for the end.
        """
        self.stopped, self.queued = True, False
        self.carryOut(self.fleet.stop(), self.serving)

    def finish(self) -> None:
        """
        The world turns kind, until nothing is left to do, and then the fleet
        is stopped.
        """
        for _ in range(300):
            if STARTING in self.states.values():
                self._toOne(STARTING, 0, self.becomesReady)
            elif LEAVING in self.states.values():
                self._toOne(LEAVING, 0, self.leaves)
            elif self.pauses:
                self.resume(0)
            else:
                break
        else:
            raise AssertionError("it does not come to rest")
        if not (self.stopped or self.failed):
            self._settled()
            assert not self.asked, "who was asked to be recycled, is"
        self.stop()
        for worker in list(self.states):
            self.dies(worker, True)
        assert self.over
        assert self.ended == self.generation - 1, "every restart ends, once"

    # What the plan says.

    def carryOut(self, actions: list[Action], before: int) -> None:
        """
        Do what the plan says, and judge it.

        @param before: how many were serving before, without those that are
            lost by nobody's order.
        """
        for action in actions:
            if isinstance(action, Spawn):
                self._spawn(action)
            elif isinstance(action, Stop):
                self._tell(action)
            elif isinstance(action, RestartEnded):
                assert self.rolling, "only what has begun ends"
                self.rolling = False
                self.ended += 1
                if action.why is None:
                    assert {self.generations[w] for w in self.states} == {
                        self.generation
                    }
                    assert self._complete()
                else:
                    assert self.mayFail or self.stopped
                self._begin()
            elif isinstance(action, StartFailed):
                assert not self.confirmed and not self.failed and not self.stopped
                self.failed = True
            elif isinstance(action, Serving):
                assert self._complete() and not self.served
                self.served = True
            elif isinstance(action, Settled):
                self._settled()
            elif isinstance(action, Ended):
                assert self.stopped and not self.states and not self.over
                self.over = True
        self._judge(before)

    def _spawn(self, action: Spawn) -> None:
        assert not self.stopped and not self.failed
        assert action.worker not in self.slots, "ids are never reused"
        assert action.slot < self.desired
        assert action.generation == self.generation
        assert action.slot not in self.pauses, "a slot that pauses gets no worker"
        replaces = bool(self._holders(action.slot))
        self.states[action.worker] = STARTING
        self.slots[action.worker] = action.slot
        self.generations[action.worker] = action.generation
        if replaces:
            assert len(self.states) <= self.desired + self.batch, "too many live"
            doubled = [
                slot for slot in range(self.desired) if len(self._holders(slot)) > 1
            ]
            assert len(doubled) <= self.batch, "one batch at a time"
            assert len(self._holders(action.slot)) == 2, "one replaces one"

    def _tell(self, action: Stop) -> None:
        state = self.states[action.worker]
        assert state != LEAVING, "told once"
        assert action.others is not self.stopped
        self.states[action.worker] = LEAVING
        self.asked.discard(action.worker)
        if state == READY and not self.stopped and self.serving < self.desired:
            slot = self.slots[action.worker]
            assert any(
                self.states[other] == READY and other > action.worker
                for other in self._holders(slot)
            ), "its replacement is ready, or enough others are"

    def _judge(self, before: int) -> None:
        assert self.fleet.restarting == self.rolling
        assert self.fleet.serving == self.serving
        if self.stopped or self.failed:
            assert LEAVING in self.states.values() or not self.states
            return
        assert self.serving >= min(self.desired, before), "nobody is missed"
        if self.confirmed:
            covered = {
                self.slots[worker]
                for worker, state in self.states.items()
                if state != LEAVING or worker in self.held
            }
            covered |= self.pauses
            assert covered.issuperset(range(self.desired)), "no slot is forgotten"

    def _begin(self) -> None:
        if self.queued and self.confirmed and not (self.rolling or self.stopped):
            self.queued, self.rolling = False, True
            self.generation += 1

    @property
    def serving(self) -> int:
        """
        How many workers serve, that nobody told to leave.
        """
        return list(self.states.values()).count(READY)

    def _holders(self, slot: int) -> list[int]:
        return [
            worker
            for worker, state in self.states.items()
            if self.slots[worker] == slot and state != LEAVING
        ]

    def _complete(self) -> bool:
        slots = {self.slots[w] for w, state in self.states.items() if state == READY}
        return slots.issuperset(range(self.desired))

    def _settled(self) -> None:
        assert self._complete() and len(self.states) == self.desired
        assert not self.rolling and not self.queued
