"""
One worker's life.
"""

from __future__ import annotations

from typing import Final, get_args

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.policy.lifecycle import (
    DEAD,
    DRAINING,
    LIFE,
    READY,
    STARTING,
    STOPPING,
    Life,
)
from twisted_cluster.policy.lifewords import (
    AllowDrain,
    AllowTime,
    AnswersLate,
    AskedForRecycling,
    AwaitExit,
    BrokeRules,
    ChannelLost,
    Decision,
    Exited,
    Forget,
    Hangs,
    Input,
    Kill,
    LivesOn,
    NotReadyInTime,
    SaidFailed,
    SaidReady,
    SaidStopping,
    SayTerminate,
    SendTerm,
    ShowStacks,
    TellLeaving,
    TellReady,
    TellRecycling,
    TimeOver,
    ToldToDie,
    ToldToStop,
    Unwatch,
    Warn,
    Watch,
)

STATES: Final = (STARTING, READY, DRAINING, STOPPING, DEAD)

EXAMPLES: Final[tuple[Input, ...]] = (
    SaidReady(),
    SaidFailed(),
    SaidStopping(),
    AskedForRecycling("300 MB"),
    ToldToStop(2.0, False),
    ToldToDie("now"),
    ChannelLost(),
    BrokeRules(),
    LivesOn("mute"),
    NotReadyInTime("is slow", "slow"),
    AnswersLate(3.0),
    Hangs("hangs", "hung", True),
    TimeOver("late"),
    Exited(),
)

STACKS: Final[list[Decision]] = [Unwatch(), ShowStacks("hangs", "hung", True)]
KILL: Final[list[Decision]] = [Unwatch(), Kill("now")]
END: Final[list[Decision]] = [Unwatch(), Forget()]
LOST: Final[list[Decision]] = [Unwatch(), AllowTime(), AwaitExit()]

EXPECTED: Final[dict[str, dict[type[Input], tuple[str, list[Decision]]]]] = {
    STARTING: {
        SaidReady: (READY, [Unwatch(), Watch(), TellReady()]),
        NotReadyInTime: (
            STOPPING,
            [Unwatch(), ShowStacks("is slow", "slow", False)],
        ),
        ToldToStop: (STOPPING, [Unwatch(), AllowTime(), SendTerm()]),
        SaidStopping: (STOPPING, [Unwatch(), AllowTime(), TellLeaving()]),
        ChannelLost: (STOPPING, [*LOST]),
        BrokeRules: (DRAINING, [*LOST]),
        ToldToDie: (STOPPING, [*KILL]),
        Exited: (DEAD, [*END]),
    },
    READY: {
        AnswersLate: (READY, [Warn(3.0)]),
        AskedForRecycling: (READY, [TellRecycling("300 MB")]),
        Hangs: (STOPPING, [*STACKS]),
        ToldToStop: (DRAINING, [AllowDrain(2.0), SayTerminate(2.0, False)]),
        SaidStopping: (DRAINING, [AllowTime(), TellLeaving()]),
        ChannelLost: (STOPPING, [*LOST]),
        BrokeRules: (DRAINING, [*LOST]),
        ToldToDie: (STOPPING, [*KILL]),
        Exited: (DEAD, [*END]),
    },
    DRAINING: {
        AnswersLate: (DRAINING, [Warn(3.0)]),
        Hangs: (STOPPING, [*STACKS]),
        SaidStopping: (STOPPING, [Unwatch()]),
        ChannelLost: (DRAINING, [Unwatch()]),
        LivesOn: (DRAINING, [TellLeaving()]),
        TimeOver: (STOPPING, [Unwatch(), Kill("late")]),
        ToldToDie: (STOPPING, [*KILL]),
        Exited: (DEAD, [*END]),
    },
    STOPPING: {
        LivesOn: (STOPPING, [TellLeaving(), Kill("mute")]),
        TimeOver: (STOPPING, [Kill("late")]),
        ToldToDie: (STOPPING, [Kill("now")]),
        Exited: (DEAD, [Forget()]),
    },
    DEAD: {},
}


def living(state: str) -> Life:
    """
    Make a life that is in some state.
    """
    life = Life()
    life.state = state
    return life


class TableTests(SynchronousTestCase):
    """
    Each state, and each input.
    """

    def test_examples(self) -> None:
        """
        The examples leave no input out, nor the expectations a state.
        """
        self.assertEqual({type(example) for example in EXAMPLES}, set(get_args(Input)))
        self.assertEqual(set(EXPECTED), set(STATES))

    def test_all(self) -> None:
        """
        What happens in a state leads where it should, and what is not expected
        there changes nothing.
        """
        for state in STATES:
            for example in EXAMPLES:
                life = living(state)
                decisions = life.hear(example)
                self.assertEqual(
                    (life.state, decisions),
                    EXPECTED[state].get(type(example), (state, [])),
                    f"{example} when {state}",
                )

    def test_values(self) -> None:
        """
        Every decision finds its values in the input.
        """
        for (_, kind), (_, decisions) in LIFE.items():
            names = {field.name for field in attrs.fields(kind)}
            for decision in decisions:
                needed = {field.name for field in attrs.fields(decision)}
                self.assertTrue(needed <= names, f"{decision} for {kind}")

    def test_onlyForward(self) -> None:
        """
        No life goes back.
        """
        for (state, _), (following, _) in LIFE.items():
            self.assertGreaterEqual(STATES.index(following), STATES.index(state))


class EndTests(SynchronousTestCase):
    """
    How an end is judged.
    """

    def test_told(self) -> None:
        """
        A worker that was told to stop was asked to, ready or not.
        """
        for state in (STARTING, READY):
            life = living(state)
            life.hear(ToldToStop(0.0, True))
            self.assertTrue(life.told and life.asked)

    def test_toldTooLate(self) -> None:
        """
        One that is being ended for another reason was not.
        """
        life = living(READY)
        life.hear(Hangs("hangs", "hung", False))
        self.assertEqual(life.hear(ToldToStop(0.0, True)), [])
        self.assertFalse(life.told or life.asked)

    def test_announced(self) -> None:
        """
        One that says it stops was asked only if it has served.
        """
        life = Life()
        life.hear(SaidStopping())
        self.assertEqual((life.asked, life.wasReady), (False, False))
        life = Life()
        life.hear(SaidReady())
        life.hear(SaidStopping())
        self.assertEqual((life.asked, life.wasReady), (True, True))


class HistoryTests(SynchronousTestCase):
    """
    Whatever happens to a worker, in whatever order.
    """

    @given(st.lists(st.sampled_from(EXAMPLES)))
    def test_promises(self, history: list[Input]) -> None:
        """
        Whoever is to leave has one limit or is being killed, and is asked whether
        it lives only while it can answer; what is said to it is said once; the
        dead are left in peace.
        """
        life = Life()
        limits = watched = farewells = 0
        ending = False
        for happened in history:
            dead = life.state == DEAD
            decisions = life.hear(happened)
            self.assertFalse(dead and decisions)
            for decision in decisions:
                limits += isinstance(decision, (AllowTime, AllowDrain))
                farewells += isinstance(decision, (SayTerminate, SendTerm))
                ending = ending or isinstance(decision, (ShowStacks, Kill))
                if isinstance(decision, Watch):
                    watched = 1
                elif isinstance(decision, Unwatch):
                    watched = 0
            self.assertLessEqual(limits, 1)
            self.assertLessEqual(farewells, 1)
            if life.state in (DRAINING, STOPPING):
                self.assertTrue(limits or ending)
            if life.state in (STARTING, STOPPING, DEAD):
                self.assertFalse(watched)
            if life.state == READY:
                self.assertTrue(watched)
        life.hear(Exited())
        self.assertEqual(life.state, DEAD)
