"""
What the commands do with a watcher.
"""

from __future__ import annotations

from typing import cast

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ReactorNotRunning
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.doubles import FakeWatcher
from twisted_cluster.errors import NotRunning, RestartFailed
from twisted_cluster.supervisor.actions import WatcherActions, stopReactor, summary


class WatcherActionsTests(SynchronousTestCase):
    """
    L{WatcherActions}.
    """

    def setUp(self) -> None:
        self.watcher = FakeWatcher(desired=2)
        self.stops: list[None] = []
        self.actions = WatcherActions(self.watcher, lambda: self.stops.append(None))
        self.events: list[LogEvent] = []
        observer = cast(ILogObserver, self.events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def test_stop(self) -> None:
        """
        A graceful stop is a stop of the process, which stops the watcher.
        """
        self.actions.stop()
        self.assertEqual((self.stops, self.watcher.calls), ([None], []))

    def test_stopNow(self) -> None:
        """
        A stop at once ends the workers, and the process then.
        """
        self.actions.stopNow()
        self.assertEqual((self.stops, self.watcher.calls), ([None], ["stopNow"]))

    def test_restart(self) -> None:
        """
        The watcher restarts.  It tells itself when that fails.
        """
        self.watcher.result = fail(RestartFailed("not loaded"))
        self.actions.restart()
        self.assertEqual(self.watcher.calls, ["restart"])
        self.assertEqual(self.events, [])

    def test_size(self) -> None:
        """
        One more, one fewer, counted from what is wanted, not from what has
        come about.
        """
        self.watcher.result = Deferred()
        self.actions.more()
        self.actions.more()
        self.actions.fewer()
        self.assertEqual(self.watcher.calls, ["scale 3", "scale 4", "scale 3"])

    def test_lastWorker(self) -> None:
        """
        The last worker stays, and the log says so.
        """
        self.watcher.desired = 1
        self.actions.fewer()
        self.assertEqual(self.watcher.calls, [])
        self.assertEqual(len(self.events), 1)

    def test_refused(self) -> None:
        """
        What the watcher refuses is logged with its reason.
        """
        self.watcher.result = fail(NotRunning("no cluster"))
        self.actions.more()
        [event] = self.events
        self.assertEqual(event["reason"], "no cluster")

    def test_summary(self) -> None:
        """
        A text of several lines is told by its first; one that announces what
        follows, with the last, too; one that is empty, by its kind.
        """
        for text, line in {
            "no module x\nTraceback …\nImportError": "no module x",
            "last words:\nTraceback …\n  OSError: 5\n": "last words: OSError: 5",
            "last words:": "last words:",
            "": "NotRunning",
        }.items():
            self.assertEqual(summary(NotRunning(text)), line)

    def test_stopReactor(self) -> None:
        """
        A reactor that is stopping already is let be.
        """

        class Reactor:
            def stop(self) -> None:
                raise ReactorNotRunning()

        stopReactor(Reactor())
