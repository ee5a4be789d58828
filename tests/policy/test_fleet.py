"""
The plan of the fleet.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.policy.fleet import (
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
        another: the next begins when the old one is gone.
        """
        fleet = self.fleet
        self.assertEqual(fleet.restart(), [Spawn(3, 0, 2)])
        self.assertEqual(fleet.ready(3), [Stop(1, "it has been replaced")])
        self.assertEqual(fleet.died(1, "exited", False), [Spawn(4, 1, 2)])
        self.assertEqual(fleet.ready(4), [Stop(2, "it has been replaced")])

    def test_done(self) -> None:
        """
        A restart is over when every slot has its new worker and the old ones
        are gone.
        """
        fleet = self.fleet
        fleet.restart()
        fleet.ready(3)
        fleet.died(1, "exited", False)
        self.assertEqual(fleet.ready(4), [Stop(2, "it has been replaced")])
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
        self.fleet.died(1, "exited", False)
        self.fleet.died(3, "exited", True)
        self.assertEqual(
            self.fleet.giveUpRestart("they keep dying"),
            [RestartEnded("they keep dying"), Stop(4, "the restart has failed")],
        )
        self.assertEqual(self.fleet.giveUpRestart("again"), [])

    def test_newOnesDieEarly(self) -> None:
        """
        While new workers die early, no more old ones are replaced.
        """
        fleet = self.fleet
        fleet.restart()
        fleet.ready(3)
        self.assertEqual(fleet.died(3, "exited", True), [])
        self.assertEqual(fleet.died(1, "exited", False), [])
        self.assertEqual(fleet.resume(0), [Spawn(4, 0, 2)])
        self.assertEqual(fleet.ready(4), [Spawn(5, 1, 2)])

    def test_batch(self) -> None:
        """
        When the canary is ready, the others go a batch at a time.  There are
        never more than a batch of workers beyond those that are wanted.
        """
        fleet = Fleet(4, batch=2)
        fleet.start()
        for worker in (1, 2, 3, 4):
            fleet.ready(worker)
        self.assertEqual(fleet.restart(), [Spawn(5, 0, 2)])
        self.assertEqual(
            fleet.ready(5), [Stop(1, "it has been replaced"), Spawn(6, 1, 2)]
        )
        self.assertEqual(fleet.died(1, "exited", False), [Spawn(7, 2, 2)])
        self.assertEqual(fleet.ready(6), [Stop(2, "it has been replaced")])
        self.assertEqual(fleet.ready(7), [Stop(3, "it has been replaced")])
        self.assertEqual(fleet.died(2, "exited", False), [Spawn(8, 3, 2)])

    def test_vacancyMeanwhile(self) -> None:
        """
        What dies in a restart is replaced at once, however many still leave,
        and by the new generation.
        """
        fleet = self.fleet
        fleet.restart()
        fleet.ready(3)
        self.assertEqual(fleet.died(2, "SIGKILL", False), [Spawn(4, 1, 2)])

    def test_fewerMeanwhile(self) -> None:
        """
        Of the two workers of a slot that is being replaced, one counts: giving
        another slot up waits until enough serve.
        """
        fleet = Fleet(3)
        fleet.start()
        for worker in (1, 2, 3):
            fleet.ready(worker)
        fleet.died(2, "SIGKILL", True)
        self.assertEqual(fleet.scale(2), [])
        self.assertEqual(fleet.restart(), [Spawn(4, 1, 2)])
        self.assertEqual(fleet.ready(4), [Stop(3, "fewer workers are wanted")])

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
        fleet.died(1, "exited", False)
        fleet.ready(4)
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
        To stop ends the restart too, and there is nobody to move connections to.
        """
        self.fleet.restart()
        self.assertEqual(
            self.fleet.stop(),
            [
                RestartEnded("the cluster was stopped"),
                Stop(1, "the cluster stops", others=False),
                Stop(2, "the cluster stops", others=False),
                Stop(3, "the cluster stops", others=False),
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


class RecycleTests(SynchronousTestCase):
    """
    Workers that are to be replaced.
    """

    def setUp(self) -> None:
        self.fleet = Fleet(2)
        self.fleet.start()
        self.fleet.ready(1)
        self.fleet.ready(2)

    def test_replacementFirst(self) -> None:
        """
        The worker is stopped when its replacement, of the same generation and
        in the same slot, is ready.
        """
        fleet = self.fleet
        self.assertEqual(fleet.recycle(2, "300 MB"), [Spawn(3, 1, 1)])
        self.assertEqual(fleet.ready(3), [Stop(2, "it is recycled: 300 MB")])
        self.assertEqual(fleet.died(2, "exited", False), [Settled()])

    def test_twiceIsOnce(self) -> None:
        """
        To ask again changes nothing; nor does it to ask for one that leaves
        already, or that is not known.
        """
        fleet = self.fleet
        fleet.recycle(2, "300 MB")
        self.assertEqual(fleet.recycle(2, "400 MB"), [])
        self.assertEqual(fleet.ready(3), [Stop(2, "it is recycled: 300 MB")])
        self.assertEqual(fleet.recycle(2, "500 MB"), [])
        self.assertEqual(fleet.recycle(9, "who?"), [])
        self.assertEqual(fleet.died(2, "exited", False), [Settled()])

    def test_oneBatch(self) -> None:
        """
        A second one waits until the first is gone.
        """
        fleet = self.fleet
        self.assertEqual(fleet.recycle(1, "old"), [Spawn(3, 0, 1)])
        self.assertEqual(fleet.recycle(2, "old"), [])
        self.assertEqual(fleet.ready(3), [Stop(1, "it is recycled: old")])
        self.assertEqual(fleet.died(1, "exited", False), [Spawn(4, 1, 1)])

    def test_oneBatchThoughASlotIsEmpty(self) -> None:
        """
        A slot that pauses makes no room for a second one.
        """
        fleet = Fleet(3)
        fleet.start()
        for worker in (1, 2, 3):
            fleet.ready(worker)
        fleet.died(3, "exited", True)
        self.assertEqual(fleet.recycle(1, "old"), [Spawn(4, 0, 1)])
        self.assertEqual(fleet.recycle(2, "old"), [])

    def test_beforeItIsReady(self) -> None:
        """
        One that is not ready yet is replaced when it has been.
        """
        fleet = self.fleet
        fleet.scale(3)
        self.assertEqual(fleet.recycle(3, "old"), [])
        self.assertEqual(fleet.ready(3), [Spawn(4, 2, 1)])

    def test_diesMeanwhile(self) -> None:
        """
        When the worker dies first, its replacement is what fills its slot.
        """
        fleet = self.fleet
        fleet.recycle(2, "old")
        self.assertFalse(fleet.needs(2))
        self.assertEqual(fleet.died(2, "SIGKILL", False), [])
        self.assertEqual(fleet.ready(3), [Settled()])

    def test_replacementDies(self) -> None:
        """
        When the replacement dies before it is ready, the worker serves on, and
        another is tried when its slot's pause is over.
        """
        fleet = self.fleet
        fleet.recycle(2, "old")
        self.assertTrue(fleet.needs(3))
        self.assertEqual(fleet.died(3, "SyntaxError", True), [Settled()])
        self.assertEqual(fleet.recycle(2, "old"), [])
        self.assertEqual(fleet.recycle(1, "old"), [Spawn(4, 0, 1)])
        fleet.ready(4)
        self.assertEqual(fleet.died(1, "exited", False), [Settled()])
        self.assertEqual(fleet.resume(1), [Spawn(5, 1, 1)])

    def test_diesInThePause(self) -> None:
        """
        A worker that dies while its slot pauses is replaced after the pause,
        and makes no second one.
        """
        fleet = self.fleet
        fleet.recycle(2, "old")
        fleet.died(3, "SyntaxError", True)
        self.assertFalse(fleet.needs(2))
        self.assertEqual(fleet.died(2, "SIGKILL", False), [])
        self.assertEqual(fleet.resume(1), [Spawn(4, 1, 1)])

    def test_duringARestart(self) -> None:
        """
        The restart replaces it anyway; one of the new generation waits for the
        restart's end.
        """
        fleet = self.fleet
        fleet.restart()
        self.assertEqual(fleet.recycle(2, "old"), [])
        fleet.ready(3)
        self.assertEqual(fleet.recycle(3, "300 MB"), [])
        self.assertEqual(fleet.died(1, "exited", False), [Spawn(4, 1, 2)])
        self.assertEqual(fleet.ready(4), [Stop(2, "it has been replaced")])
        self.assertEqual(
            fleet.died(2, "exited", False), [RestartEnded(None), Spawn(5, 0, 2)]
        )

    def test_restartFails(self) -> None:
        """
        What was asked for during a restart that failed is done then.
        """
        fleet = self.fleet
        fleet.restart()
        fleet.recycle(2, "old")
        self.assertEqual(
            fleet.died(3, "SIGKILL", False), [RestartEnded("SIGKILL"), Spawn(4, 1, 2)]
        )

    def test_aRestartComes(self) -> None:
        """
        A restart takes the place of the recycling that is under way.
        """
        fleet = self.fleet
        fleet.recycle(2, "old")
        self.assertEqual(
            fleet.restart(), [Stop(3, "a restart replaces what it was to replace")]
        )
        self.assertEqual(fleet.died(3, "exited", False), [Spawn(4, 0, 2)])

    def test_fewerMeanwhile(self) -> None:
        """
        When its slot is given up, both are stopped.
        """
        self.fleet.recycle(2, "old")
        self.assertEqual(
            self.fleet.scale(1),
            [Stop(2, "fewer workers are wanted"), Stop(3, "fewer workers are wanted")],
        )

    def test_stopped(self) -> None:
        """
        Once told to stop, the fleet recycles nobody.
        """
        self.fleet.stop()
        self.assertEqual(self.fleet.recycle(2, "old"), [])
