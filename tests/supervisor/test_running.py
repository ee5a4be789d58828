"""
One run of a watcher, from the reactor's start to the exit status.
"""

from __future__ import annotations

import signal
import sys
from io import StringIO
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import CannotListenError, ReactorNotRunning
from twisted.trial.unittest import SynchronousTestCase

from tests.doubles import FakeWatcher
from twisted_cluster.errors import (
    CrashLooping,
    InsideWorker,
    InvalidEndpoint,
    PIDFileInUse,
    StartFailed,
    Stopped,
    TargetLoadError,
    TargetStartError,
    TargetUsageError,
)
from twisted_cluster.supervisor.running import ClusterRun, statusOf
from twisted_cluster.supervisor.signals import SIGNALS


class StoppableReactor:
    """
    The part of a reactor that starts and stops: a shutdown is over when all
    that was to be done before it is done.

    @ivar stopped: whether it is over.
    """

    def __init__(self) -> None:
        self.stopping = False
        self.stopped = False
        self._triggers: dict[str, list[Any]] = {"before": [], "after": []}

    def addSystemEventTrigger(
        self, phase: str, event: str, function: Any, *args: Any
    ) -> None:
        """
        Keep it for the shutdown.
        """
        self._triggers[phase].append((function, args))

    def callFromThread(self, function: Any, *args: Any) -> None:
        """
        Call it at once.
        """
        function(*args)

    def stop(self) -> None:
        """
        Begin the shutdown.
        """
        if self.stopping:
            raise ReactorNotRunning()
        self.stopping = True
        waits = []
        for function, args in self._triggers["before"]:
            result = function(*args)
            if isinstance(result, Deferred) and not result.called:
                waits.append(result)
        if waits:
            waits[0].addBoth(lambda _: self._finish())
        else:
            self._finish()

    def _finish(self) -> None:
        for function, args in self._triggers["after"]:
            function(*args)
        self.stopped = True


class ClusterRunTests(SynchronousTestCase):
    """
    L{ClusterRun}.
    """

    def setUp(self) -> None:
        for number in SIGNALS:
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        self.reactor = StoppableReactor()
        self.watcher = FakeWatcher()
        self.complaints: list[str] = []
        self.run_ = ClusterRun(self.reactor, self.complaints.append)

    def start(self) -> None:
        """
        Start the run.
        """
        self.run_.start(lambda: self.watcher)

    def assertOver(self, status: int, *complaints: str) -> None:
        """
        Fail unless the reactor has stopped, with this status and these
        complaints.
        """
        self.assertTrue(self.reactor.stopped)
        self.assertEqual(self.run_.status, status)
        self.assertEqual(self.complaints, list(complaints))

    def test_stopped(self) -> None:
        """
        A TERM stops the watcher; when that is over, so is all, with status 0.
        """
        self.start()
        signal.raise_signal(signal.SIGTERM)
        self.assertEqual(
            self.watcher.calls,
            ["privilegedStartService", "startService", "stopService"],
        )
        self.assertFalse(self.reactor.stopped)
        self.watcher.end()
        self.assertOver(0)

    def test_stoppedTwice(self) -> None:
        """
        A second INT ends the workers now.
        """
        self.start()
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        self.assertEqual(self.watcher.calls[-2:], ["stopService", "stopNow"])
        self.watcher.end()
        self.assertOver(0)

    def test_signalsGivenBack(self) -> None:
        """
        When it is over, the signals are as they were.
        """
        before = signal.getsignal(signal.SIGHUP)
        self.start()
        self.assertNotEqual(signal.getsignal(signal.SIGHUP), before)
        self.watcher.end()
        self.assertEqual(signal.getsignal(signal.SIGHUP), before)

    def test_endedByItself(self) -> None:
        """
        A cluster that ends without an error stops the reactor.
        """
        self.start()
        self.watcher.end()
        self.assertOver(0)
        self.assertNotIn("stopService", self.watcher.calls)

    def test_startFailed(self) -> None:
        """
        The status of a failed start is that of its error, which is told once.
        """
        self.start()
        self.watcher.end(StartFailed("there is no such module", 4))
        self.assertOver(4, "there is no such module")

    def test_nothingToDo(self) -> None:
        """
        A target that printed its help and wants no more is no error.
        """
        self.start()
        self.watcher.end(StartFailed("help", 0))
        self.assertOver(0)

    def test_failedWhileStopping(self) -> None:
        """
        What went wrong during a stop that was asked for is told, too.
        """
        self.start()
        signal.raise_signal(signal.SIGTERM)
        self.watcher.end(CrashLooping("slot 0"))
        self.assertOver(5, "slot 0")

    def test_cannotListen(self) -> None:
        """
        A bind that fails is told in one line, with status 1.
        """
        self.watcher.startError = CannotListenError("", 80, OSError(13, "denied"))
        self.start()
        self.assertOver(1, "Couldn't listen on any:80: [Errno 13] denied.")
        self.assertNotIn("stopService", self.watcher.calls)

    def test_internal(self) -> None:
        """
        An error that nobody foresaw is told with its traceback.
        """
        self.watcher.startError = ZeroDivisionError("oh")
        self.start()
        self.assertEqual(self.run_.status, 70)
        [complaint] = self.complaints
        self.assertIn("internal error", complaint)
        self.assertIn("ZeroDivisionError: oh", complaint)

    def test_checked(self) -> None:
        """
        A target that loads is told on standard output, with status 0.
        """
        stdout = StringIO()
        self.patch(sys, "stdout", stdout)
        self.run_.check(lambda: succeed(None), lambda: "ok: it loads")
        self.assertOver(0)
        self.assertEqual(stdout.getvalue(), "ok: it loads\n")

    def test_checkFailed(self) -> None:
        """
        A target that does not is told in one line, with status 4: its
        traceback is in the log.
        """
        checking: Deferred[None] = Deferred()
        self.run_.check(lambda: checking, lambda: "ok")
        self.assertFalse(self.reactor.stopping)
        checking.errback(TargetLoadError("no module x", "Traceback …"))
        self.assertOver(4, "no module x")

    def test_described(self) -> None:
        """
        Where the log does not show the traceback, it is told.
        """
        self.run_ = ClusterRun(self.reactor, self.complaints.append, str)
        self.start()
        self.watcher.end(TargetLoadError("no module x", "Traceback …"))
        self.assertOver(4, "no module x\nTraceback …")

    def test_checkRaises(self) -> None:
        """
        A check that cannot even begin is told.
        """

        def check() -> Deferred[None]:
            raise InsideWorker("in a worker")

        self.run_.check(check, lambda: "ok")
        self.assertOver(1, "in a worker")

    def test_checkInterrupted(self) -> None:
        """
        A check that was interrupted did not find the target good.
        """
        checking: Deferred[None] = Deferred()
        self.run_.check(lambda: checking, lambda: "ok")
        self.reactor.stop()
        self.assertOver(4)


class StatusTests(SynchronousTestCase):
    """
    L{statusOf}.
    """

    def test_statuses(self) -> None:
        """
        Each kind of error has its status.
        """
        for error, status in [
            (Stopped(), 0),
            (CannotListenError("", 80, OSError()), 1),
            (PIDFileInUse("x", 1), 1),
            (InsideWorker(), 1),
            (InvalidEndpoint(), 2),
            (TargetUsageError("x"), 2),
            (StartFailed("x", 2), 2),
            (StartFailed("x"), 3),
            (TargetStartError("x"), 3),
            (TargetLoadError("x"), 4),
            (CrashLooping(), 5),
            (RuntimeError(), 70),
        ]:
            self.assertEqual(statusOf(error), status, repr(error))
