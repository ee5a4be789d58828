"""
The plan of the fleet.
"""

from __future__ import annotations

from typing import Optional

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.trial.unittest import SynchronousTestCase

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


class StartTests(SynchronousTestCase):
    """
    The first workers.
    """

    def test_oneFirst(self) -> None:
        """
        Only one worker is started until it is ready; then all others.
        """
        fleet = Fleet(3)
        self.assertEqual(fleet.start(), [Spawn(1, 0, 1)])
        self.assertEqual(fleet.ready(1), [Spawn(2, 1, 1), Spawn(3, 2, 1)])

    def test_serving(self) -> None:
        """
        It is said once that all serve, and that nothing is left to do.
        """
        fleet = Fleet(2)
        fleet.start()
        fleet.ready(1)
        self.assertEqual(fleet.ready(2), [Serving(), Settled()])
        self.assertEqual(fleet.ready(2), [])

    def test_firstDies(self) -> None:
        """
        When the first worker dies before it is ready, that is the end, and no
        other is started.
        """
        fleet = Fleet(2)
        fleet.start()
        self.assertEqual(
            fleet.died(1, "no such module", False), [StartFailed("no such module")]
        )
        self.assertEqual(fleet.restart(), [])
        self.assertEqual(fleet.scale(5), [])
        self.assertEqual(fleet.stop(), [Ended()])

    def test_firstLeaves(self) -> None:
        """
        A first worker that announces its end before it is ready is not
        replaced before it is dead.
        """
        fleet = Fleet(2)
        fleet.start()
        self.assertEqual(fleet.leaving(1), [])
        self.assertEqual(fleet.died(1, "exited", False), [StartFailed("exited")])


class DeathTests(SynchronousTestCase):
    """
    Workers that die.
    """

    def setUp(self) -> None:
        self.fleet = Fleet(2)
        self.fleet.start()
        self.fleet.ready(1)
        self.fleet.ready(2)

    def test_replaced(self) -> None:
        """
        A worker that died is replaced in its slot.
        """
        self.assertEqual(self.fleet.died(1, "SIGKILL", False), [Spawn(3, 0, 1)])
        self.assertEqual(self.fleet.ready(3), [Settled()])

    def test_pause(self) -> None:
        """
        A slot that is to pause stays empty until the pause is over.
        """
        self.assertEqual(self.fleet.died(1, "SIGKILL", True), [])
        self.assertEqual(self.fleet.scale(2), [])
        self.assertEqual(self.fleet.resume(0), [Spawn(3, 0, 1)])

    def test_needs(self) -> None:
        """
        A slot that has a replacement already needs none, nor one that is not
        wanted any more.
        """
        self.assertTrue(self.fleet.needs(1))
        self.fleet.restart()
        self.assertFalse(self.fleet.needs(1))
        self.assertTrue(self.fleet.needs(2))
        self.fleet.scale(1)
        self.assertFalse(self.fleet.needs(2))

    def test_leavingIsReplacedAtOnce(self) -> None:
        """
        A worker that announces its end is replaced before it is gone, and its
        death changes nothing more.
        """
        self.assertEqual(self.fleet.leaving(2), [Spawn(3, 1, 1)])
        self.assertEqual(self.fleet.leaving(2), [])
        self.assertEqual(self.fleet.ready(3), [])
        self.assertEqual(self.fleet.died(2, "exited", False), [Settled()])

    def test_leavingAfterAShortLife(self) -> None:
        """
        A worker that leaves after too short a life is replaced when it is
        dead, or after a pause, and does not count as serving meanwhile.
        """
        self.assertEqual(self.fleet.leaving(2, pause=True), [])
        self.assertEqual(self.fleet.scale(2), [])
        self.assertEqual(self.fleet.serving, 1)
        self.assertEqual(self.fleet.died(2, "exited", False), [Spawn(3, 1, 1)])
        self.fleet.ready(3)
        self.assertEqual(self.fleet.leaving(3, pause=True), [])
        self.assertEqual(self.fleet.died(3, "exited", True), [])
        self.assertEqual(self.fleet.resume(1), [Spawn(4, 1, 1)])

    def test_deadBeforeReady(self) -> None:
        """
        Once one worker was ready, another that dies early ends nothing.
        """
        self.fleet.died(1, "SIGKILL", False)
        self.assertEqual(self.fleet.died(3, "exited", True), [])
        self.assertEqual(self.fleet.resume(0), [Spawn(4, 0, 1)])


class RestartTests(SynchronousTestCase):
    """
    Restarts.
    """

    def setUp(self) -> None:
        self.fleet = Fleet(2)
        self.fleet.start()
        self.fleet.ready(1)
        self.fleet.ready(2)

    def test_slotBySlot(self) -> None:
        """
        Each old worker is stopped when its replacement is ready, one slot after
        another.
        """
        fleet = self.fleet
        self.assertEqual(fleet.restart(), [Spawn(3, 0, 2)])
        self.assertEqual(
            fleet.ready(3), [Stop(1, "it has been replaced"), Spawn(4, 1, 2)]
        )
        self.assertEqual(fleet.died(1, "exited", False), [])
        self.assertEqual(fleet.ready(4), [Stop(2, "it has been replaced")])

    def test_done(self) -> None:
        """
        A restart is over when every slot has its new worker and the old ones
        are gone.
        """
        fleet = self.fleet
        fleet.restart()
        fleet.ready(3)
        fleet.ready(4)
        self.assertEqual(fleet.died(1, "exited", False), [])
        self.assertEqual(
            fleet.died(2, "exited", False), [RestartEnded(None), Settled()]
        )

    def test_canaryDies(self) -> None:
        """
        When the canary dies before it is ready, no old worker is touched.
        """
        self.fleet.restart()
        self.assertEqual(
            self.fleet.died(3, "SyntaxError", True),
            [RestartEnded("SyntaxError"), Settled()],
        )
        self.assertFalse(self.fleet.restarting)

    def test_canaryLeaves(self) -> None:
        """
        A canary that announces its end before it is ready has not started
        either.
        """
        self.fleet.restart()
        self.assertEqual(self.fleet.leaving(3, pause=True), [])
        self.assertEqual(
            self.fleet.died(3, "exited", False), [RestartEnded("exited"), Settled()]
        )

    def test_endsAPause(self) -> None:
        """
        A restart does not wait for the pause of a slot whose workers kept
        dying: the program may have been repaired.
        """
        self.fleet.died(1, "exited", True)
        self.assertEqual(self.fleet.restart(), [Spawn(3, 0, 2)])
        self.assertEqual(self.fleet.ready(3), [Spawn(4, 1, 2)])

    def test_givenUp(self) -> None:
        """
        A restart during which the workers of a slot keep dying fails, and says
        why.
        """
        self.fleet.restart()
        self.fleet.ready(3)
        self.fleet.died(3, "exited", True)
        self.assertEqual(
            self.fleet.giveUpRestart("they keep dying"),
            [RestartEnded("they keep dying"), Stop(4, "the restart has failed")],
        )
        self.assertEqual(self.fleet.giveUpRestart("again"), [])

    def test_toldToStop(self) -> None:
        """
        The death of a worker that was told to stop leaves no slot empty: that
        is its successor's affair.
        """
        self.fleet.restart()
        self.fleet.ready(3)
        self.fleet.died(3, "SIGKILL", True)
        self.assertFalse(self.fleet.needs(1))

    def test_repaired(self) -> None:
        """
        After a failed restart, another replaces all old workers.
        """
        self.fleet.restart()
        self.fleet.died(3, "SyntaxError", True)
        self.assertEqual(self.fleet.restart(), [Spawn(4, 0, 3)])

    def test_queued(self) -> None:
        """
        Two restarts asked for during a restart are one, which follows it.
        """
        fleet = self.fleet
        fleet.restart()
        self.assertEqual(fleet.restart(), [])
        self.assertEqual(fleet.restart(), [])
        fleet.ready(3)
        fleet.ready(4)
        fleet.died(1, "exited", False)
        self.assertEqual(
            fleet.died(2, "exited", False), [RestartEnded(None), Spawn(5, 0, 3)]
        )

    def test_beforeTheFirstIsReady(self) -> None:
        """
        A restart that is asked for during the start follows the start.
        """
        fleet = Fleet(1)
        fleet.start()
        self.assertEqual(fleet.restart(), [])
        self.assertEqual(fleet.ready(1), [Spawn(2, 0, 2), Serving()])

    def test_stoppedMeanwhile(self) -> None:
        """
        To stop ends the restart too.
        """
        self.fleet.restart()
        self.assertEqual(
            self.fleet.stop(),
            [
                RestartEnded("the cluster was stopped"),
                Stop(1, "the cluster stops"),
                Stop(2, "the cluster stops"),
                Stop(3, "the cluster stops"),
            ],
        )


class ScaleTests(SynchronousTestCase):
    """
    More workers, and fewer.
    """

    def test_more(self) -> None:
        """
        New slots get workers.
        """
        fleet = Fleet(1)
        fleet.start()
        fleet.ready(1)
        self.assertEqual(fleet.scale(2), [Spawn(2, 1, 1)])

    def test_fewer(self) -> None:
        """
        The highest slots are given up.
        """
        fleet = Fleet(2)
        fleet.start()
        fleet.ready(1)
        fleet.ready(2)
        self.assertEqual(fleet.scale(1), [Stop(2, "fewer workers are wanted")])
        self.assertEqual(fleet.died(2, "exited", False), [Settled()])

    def test_same(self) -> None:
        """
        As many as there are already is settled at once.
        """
        fleet = Fleet(1)
        fleet.start()
        fleet.ready(1)
        self.assertEqual(fleet.scale(1), [Settled()])


class FleetMachine(RuleBasedStateMachine):
    """
    Whatever happens in whatever order, the promises hold.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fleet = Fleet(3, batch=2)
        self.alive: dict[int, str] = {}
        self.slots: dict[int, int] = {}
        self.paused: set[int] = set()
        self.holding: set[int] = set()
        self.wasServing = False
        self.failed = False
        self.stopped = False
        self.ended = False
        self.most = 3
        self.do(self.fleet.start())

    def do(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Spawn):
                assert action.worker not in self.slots, "ids are never reused"
                assert not self.stopped and not self.failed
                self.alive[action.worker] = "starting"
                self.slots[action.worker] = action.slot
            elif isinstance(action, Stop):
                assert self.alive[action.worker] != "stopping", "told once"
                ready = [
                    worker
                    for worker, state in self.alive.items()
                    if state == "ready" and worker != action.worker
                ]
                if not self.stopped and self.alive[action.worker] == "ready":
                    assert ready, "the last that serves is never stopped"
                self.alive[action.worker] = "stopping"
            elif isinstance(action, Ended):
                assert not self.alive
                self.ended = True
            elif isinstance(action, StartFailed):
                assert not self.wasServing
                self.failed = True

    def some(self, state: Optional[str], index: int) -> Optional[int]:
        found = [w for w, s in self.alive.items() if state in (None, s)]
        return found[index % len(found)] if found else None

    @rule(index=st.integers(0, 9))
    def ready(self, index: int) -> None:
        worker = self.some("starting", index)
        if worker is not None:
            self.alive[worker] = "ready"
            self.wasServing = True
            self.do(self.fleet.ready(worker))

    @rule(index=st.integers(0, 9), pause=st.booleans())
    def dies(self, index: int, pause: bool) -> None:
        worker = self.some(None, index)
        if worker is not None:
            needed = self.fleet.needs(worker)
            del self.alive[worker]
            if pause and needed:
                self.paused.add(self.slots[worker])
            self.do(self.fleet.died(worker, "why", pause and needed))

    @rule(index=st.integers(0, 9))
    def stopIsDone(self, index: int) -> None:
        worker = self.some("stopping", index)
        if worker is not None:
            del self.alive[worker]
            self.do(self.fleet.died(worker, "as told", False))

    @rule(index=st.integers(0, 9), pause=st.booleans())
    def leaves(self, index: int, pause: bool) -> None:
        worker = self.some("ready", index)
        if worker is not None:
            self.alive[worker] = "stopping"
            if pause:
                self.holding.add(worker)
            self.do(self.fleet.leaving(worker, pause))

    @rule()
    def resumes(self) -> None:
        if self.paused:
            self.do(self.fleet.resume(self.paused.pop()))

    @precondition(lambda self: not self.stopped)
    @rule()
    def restart(self) -> None:
        self.do(self.fleet.restart())

    @precondition(lambda self: not self.stopped)
    @rule(count=st.integers(1, 5))
    def scale(self, count: int) -> None:
        self.most = max(self.most, count)
        self.do(self.fleet.scale(count))

    @rule()
    def stop(self) -> None:
        self.stopped = True
        self.do(self.fleet.stop())

    @invariant()
    def boundedCrowd(self) -> None:
        """
        There are never more than so many that were not told to stop.
        """
        holding = [w for w, s in self.alive.items() if s != "stopping"]
        assert len(holding) <= self.most + self.fleet.batch

    @invariant()
    def noSlotForgotten(self) -> None:
        """
        A slot without a worker is pausing, or the fleet has not begun or ends.
        """
        if self.stopped or self.failed or not self.wasServing:
            return
        held = {
            self.slots[w]
            for w, s in self.alive.items()
            if s != "stopping" or w in self.holding
        }
        assert set(range(self.fleet.desired)) <= held | self.paused

    def teardown(self) -> None:
        """
        It always ends: told to stop, and with everybody dead, it is over.
        """
        if not self.stopped:
            self.stop()
        for worker in list(self.alive):
            del self.alive[worker]
            self.do(self.fleet.died(worker, "as told", False))
        assert self.ended


FleetMachine.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None
)


class PropertyTests(FleetMachine.TestCase):  # type: ignore[misc,valid-type]  # made at run time
    """
    The promises under random histories.
    """
