"""
The small policies: pauses, heartbeats, readiness.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.policy.backoff import exponentialBackoff
from twisted_cluster.policy.heartbeat import Ask, Heartbeat, Hung, Late, Wait
from twisted_cluster.policy.readiness import LookAgain, NotYet, Now, Readiness
from twisted_cluster.policy.restarts import CrashLoop, Respawn, RestartPolicy


class BackoffTests(SynchronousTestCase):
    """
    Pauses between tries.
    """

    def test_doubles(self) -> None:
        """
        Each failure doubles the pause, up to the limit.
        """
        backoff = exponentialBackoff(0.5, 4.0, jitter=lambda: 0.0)
        self.assertEqual(
            [backoff(n) for n in (1, 2, 3, 4, 5, 5000)], [0.5, 1.0, 2.0, 4.0, 4.0, 4.0]
        )

    def test_spread(self) -> None:
        """
        The pause is lengthened by up to a fifth.
        """
        self.assertEqual(exponentialBackoff(1.0, jitter=lambda: 1.0)(1), 1.2)


class RestartPolicyTests(SynchronousTestCase):
    """
    What follows a death.
    """

    def test_earlyDeathsBackOff(self) -> None:
        """
        Each early death waits longer than the one before, and one healthy
        life forgets them all.
        """
        policy = RestartPolicy(healthyAfter=5.0, maxDeaths=3, backoff=float)
        self.assertEqual(policy.workerDied(lifetime=0.1), Respawn(1.0))
        self.assertEqual(policy.workerDied(lifetime=0.1), Respawn(2.0))
        self.assertEqual(policy.workerDied(lifetime=5.0), Respawn(0.0))
        self.assertEqual(policy.workerDied(lifetime=0.1), Respawn(1.0))

    def test_crashLoop(self) -> None:
        """
        From so many early deaths in a row on, it is said that this is a loop.
        """
        policy = RestartPolicy(healthyAfter=5.0, maxDeaths=2, backoff=float)
        policy.workerDied(lifetime=0.1)
        self.assertEqual(policy.workerDied(lifetime=0.1), CrashLoop(2.0, 2))
        self.assertEqual(policy.workerDied(lifetime=0.1), CrashLoop(3.0, 3))


class HeartbeatTests(SynchronousTestCase):
    """
    When a worker is called hung.
    """

    def setUp(self) -> None:
        self.heartbeat = Heartbeat(timeout=4.0, interval=1.0)

    def test_answers(self) -> None:
        """
        A worker that answers is asked again at each look.
        """
        for now in range(5):
            self.assertEqual(self.heartbeat.tick(now), Ask())
            self.heartbeat.answered()

    def test_silence(self) -> None:
        """
        Silence is waited for, warned of once at half of the limit, and called
        a hang at the limit.
        """
        self.assertEqual(
            [self.heartbeat.tick(now) for now in (0.0, 1.0, 2.0, 3.0, 4.0)],
            [Ask(), Wait(), Late(2.0), Wait(), Hung(4.0)],
        )

    def test_watcherStoodStill(self) -> None:
        """
        A gap in the watcher's own running is not held against the worker.
        """
        self.heartbeat.tick(0.0)
        self.assertEqual(self.heartbeat.tick(3600.0), Late(2.0))
        self.heartbeat.answered()
        self.assertEqual(self.heartbeat.tick(3601.0), Ask())

    def test_lateAnswerCounts(self) -> None:
        """
        After an answer, the silence begins anew.
        """
        for now in (0.0, 1.0, 2.0, 3.0):
            self.heartbeat.tick(now)
        self.heartbeat.answered()
        self.assertEqual(self.heartbeat.tick(4.0), Ask())
        self.assertEqual(self.heartbeat.tick(5.0), Wait())


class ReadinessTests(SynchronousTestCase):
    """
    When a worker is ready.
    """

    def test_programWithPort(self) -> None:
        """
        A program is ready when its reactor runs, a port is open, and no other
        followed for a tenth of a second.
        """
        readiness = Readiness(waitReady=False, isService=False)
        readiness.portOpened(0.0)
        self.assertEqual(readiness.decide(5.0), NotYet())
        readiness.reactorRuns(10.0)
        self._lookAgain(readiness, 10.0, 0.1)
        readiness.portOpened(10.0625)
        self._lookAgain(readiness, 10.125, 0.0375)
        self.assertEqual(readiness.decide(10.25), Now())

    def _lookAgain(self, readiness: Readiness, now: float, seconds: float) -> None:
        decision = readiness.decide(now)
        assert isinstance(decision, LookAgain)
        self.assertAlmostEqual(decision.seconds, seconds)

    def test_programWithoutPort(self) -> None:
        """
        A program that opens no port is ready after a second.
        """
        readiness = Readiness(waitReady=False, isService=False)
        readiness.reactorRuns(10.0)
        self.assertEqual(readiness.decide(10.25), LookAgain(0.75))
        self.assertEqual(readiness.decide(11.0), Now())

    def test_service(self) -> None:
        """
        A service is ready when it has started and the reactor runs.
        """
        readiness = Readiness(waitReady=False, isService=True)
        readiness.reactorRuns(0.0)
        self.assertEqual(readiness.decide(60.0), NotYet())
        readiness.serviceStarted()
        self.assertEqual(readiness.decide(60.0), Now())

    def test_startedBeforeReactor(self) -> None:
        """
        A service that has started waits for the reactor.
        """
        readiness = Readiness(waitReady=False, isService=True)
        readiness.serviceStarted()
        self.assertEqual(readiness.decide(0.0), NotYet())

    def test_waitReady(self) -> None:
        """
        Where the program is to say so itself, nothing else counts.
        """
        readiness = Readiness(waitReady=True, isService=True)
        readiness.reactorRuns(0.0)
        readiness.serviceStarted()
        readiness.portOpened(0.0)
        self.assertEqual(readiness.decide(60.0), NotYet())
        readiness.saysReady()
        self.assertEqual(readiness.decide(60.0), Now())
