"""
The plan of the fleet, under random histories.

L{tests.policy.fleetworld} says what is promised, and notices when it is not kept.
"""

from __future__ import annotations

import os
import random
from typing import Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from twisted.trial.unittest import SynchronousTestCase

from tests.policy.fleetworld import LEAVING, READY, STARTING, World

HISTORIES: Final = 25_000
"""In each of four tests."""


def history(number: int, desired: int) -> None:
    """
    Live through a random history, up to its end.

    @param number: which one.
    @param desired: how many workers there should be at first.
    """
    bits = random.Random(number).getrandbits
    world = World(desired, batch=1 + bits(1))
    for _ in range(8 + bits(4) + bits(3)):
        world.step(bits(20))
    world.finish()


class ManyHistoriesTests(SynchronousTestCase):
    """
    So many histories that rare ones are among them.  Whatever happens in whatever
    order, the promises hold.

    To see a history that fails again, call L{history} as the failure says.
    """

    def _live(self, desired: int) -> None:
        first = int.from_bytes(os.urandom(6), "big")
        for number in range(first, first + HISTORIES):
            try:
                history(number, desired)
            except Exception as error:
                raise AssertionError(f"history({number}, {desired}) failed") from error

    def test_oneWorker(self) -> None:
        """
        A fleet of one.
        """
        self._live(1)

    def test_twoWorkers(self) -> None:
        """
        A fleet of two.
        """
        self._live(2)

    def test_threeWorkers(self) -> None:
        """
        A fleet of three.
        """
        self._live(3)

    def test_fourWorkers(self) -> None:
        """
        A fleet of four.
        """
        self._live(4)


class FleetMachine(RuleBasedStateMachine):
    """
    The same world, a history of which is made short when it fails.
    """

    @initialize(desired=st.integers(1, 5), batch=st.integers(1, 3))
    def begin(self, desired: int, batch: int) -> None:
        self.world = World(desired, batch)

    def _some(self, index: int, *states: str) -> int | None:
        found = [w for w, state in self.world.states.items() if state in states]
        return found[index % len(found)] if found else None

    @rule(index=st.integers(0, 9))
    def ready(self, index: int) -> None:
        worker = self._some(index, STARTING)
        if worker is not None:
            self.world.becomesReady(worker)

    @rule(index=st.integers(0, 9), early=st.booleans())
    def dies(self, index: int, early: bool) -> None:
        worker = self._some(index, STARTING, READY, LEAVING)
        if worker is not None:
            self.world.dies(worker, early)

    @rule(index=st.integers(0, 9))
    def leaves(self, index: int) -> None:
        worker = self._some(index, LEAVING)
        if worker is not None:
            self.world.leaves(worker)

    @rule(index=st.integers(0, 9), early=st.booleans())
    def announces(self, index: int, early: bool) -> None:
        worker = self._some(index, READY)
        if worker is not None:
            self.world.announces(worker, early)

    @rule(index=st.integers(0, 9))
    def resumes(self, index: int) -> None:
        self.world.resume(index)

    @rule()
    def restart(self) -> None:
        self.world.restart()

    @rule(desired=st.integers(1, 5))
    def scale(self, desired: int) -> None:
        self.world.scale(desired)

    @rule(worker=st.integers(1, 30))
    def recycle(self, worker: int) -> None:
        self.world.recycle(worker)

    @rule()
    def giveUp(self) -> None:
        self.world.giveUp()

    @rule()
    def stop(self) -> None:
        self.world.stop()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.finish()


FleetMachine.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None
)


class ShrinkingTests(FleetMachine.TestCase):  # type: ignore[misc,valid-type]  # made at run time
    """
    The promises, with a short history when one is broken.
    """
