"""
The start of a worker, and the reactor that its program chooses.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import default, main
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from twisted_cluster.errors import UsageError
from twisted_cluster.interfaces import IStartup
from twisted_cluster.policy.readiness import Readiness
from twisted_cluster.worker.reactor import chooseReactor, followReactor
from twisted_cluster.worker.startup import Startup


class StartupTests(SynchronousTestCase):
    """
    What is said of the start, and when.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.said: list[Any] = []
        self.startup = self.make(Readiness(waitReady=False, isService=False))

    def make(self, readiness: Readiness) -> Startup:
        """
        A start that writes down what it says.
        """
        return Startup(
            readiness,
            lambda: self.said.append("ready"),
            lambda *why: self.said.append(why),
        )

    def test_interface(self) -> None:
        """
        It is what the parts of a worker expect.
        """
        self.assertTrue(verifyObject(IStartup, self.startup))

    def test_ready(self) -> None:
        """
        It is said once that the worker is ready, and before that whoever waits
        for it is called.
        """
        self.startup.whenReady(lambda: self.said.append("accept"))
        self.startup.portOpened()
        self.startup.reactorRuns(self.clock)
        self.assertEqual(self.said, [])
        self.clock.advance(0.2)
        self.assertEqual(self.said, ["accept", "ready"])
        self.startup.saysReady()
        self.clock.advance(5)
        self.assertEqual(self.said, ["accept", "ready"])
        self.startup.whenReady(lambda: self.said.append("late"))
        self.assertEqual(self.said[-1], "late")

    def test_laterPort(self) -> None:
        """
        Another port that is opened meanwhile prolongs the wait.
        """
        self.startup.reactorRuns(self.clock)
        self.startup.portOpened()
        self.clock.advance(0.08)
        self.startup.portOpened()
        self.clock.advance(0.08)
        self.assertEqual(self.said, [])
        self.clock.advance(0.05)
        self.assertEqual(self.said, ["ready"])

    def test_failedOnce(self) -> None:
        """
        The first failure counts, and a worker that has failed is never ready.
        """
        self.startup.failed("start", "first", "")
        self.startup.failed("start", "second", "")
        self.startup.reactorRuns(self.clock)
        self.clock.advance(5)
        self.assertEqual(self.said, [("start", "first", "")])

    def test_failureAfterReady(self) -> None:
        """
        A worker that is ready has not failed to start, whatever comes.
        """
        self.startup.reactorRuns(self.clock)
        self.clock.advance(5)
        self.startup.failed("start", "late", "")
        self.assertEqual(self.said, ["ready"])


class FakeReactor:
    """
    A reactor that is installed, and remembers.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.triggers: list[tuple[Any, ...]] = []

    def callWhenRunning(self, call: Any, *args: Any) -> None:
        self.calls.append((call, *args))

    def addSystemEventTrigger(self, phase: str, event: str, call: Any) -> None:
        self.triggers.append((phase, event, call))


class ReactorTests(SynchronousTestCase):
    """
    How a worker learns of its reactor.
    """

    def test_everyInstalled(self) -> None:
        """
        Every reactor that is installed is followed; the one that runs counts.
        """
        installed: list[Any] = []
        self.patch(main, "installReactor", installed.append)
        runs, stops, stopped = (lambda _: None), (lambda: None), (lambda: None)
        undo = followReactor(runs, stops, stopped)
        first, second = FakeReactor(), FakeReactor()
        main.installReactor(first)
        main.installReactor(second)
        self.assertEqual(installed, [first, second])
        self.assertEqual(second.calls, [(runs, second)])
        self.assertEqual(
            first.triggers,
            [("before", "shutdown", stops), ("after", "shutdown", stopped)],
        )
        undo()
        main.installReactor(third := FakeReactor())
        self.assertEqual(third.calls, [])

    def test_chosen(self) -> None:
        """
        A chosen reactor is what C{default.install} installs.
        """
        import twisted.internet.selectreactor as module

        done: list[str] = []
        self.patch(default, "install", default.install)
        self.patch(module, "install", lambda: done.append("select"))
        chooseReactor("select")
        default.install()
        self.assertEqual(done, ["select"])

    def test_noSuchReactor(self) -> None:
        """
        A name that no reactor has is refused, and those there are are named.
        """
        error = self.assertRaises(UsageError, chooseReactor, "warp")
        self.assertIn("'warp'", str(error))
        self.assertIn("epoll", str(error))
