"""
How a worker begins to leave, and when its reactor stops.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any, Optional, cast

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.ipc.settings import WorkerSettings
from twisted_cluster.testing import DescriptorReactor
from twisted_cluster.worker.context import Worker

SETTINGS = WorkerSettings(1, 0, 1, 1, -1, -1, -1)


class Reactor(DescriptorReactor):
    """
    A reactor that notes when it is stopped.
    """

    def __init__(self, told: list[str]) -> None:
        super().__init__()
        self._told = told
        self._stopped = False

    def stop(self) -> None:
        """
        Stop, once.
        """
        assert not self._stopped
        self._stopped = True
        self._told.append("reactor stops")

    def sigTerm(self, *arguments: object) -> None:
        """
        What Twisted does by itself.
        """
        self._told.append("Twisted's own")


class Drain:
    """
    A drain that is over when the test says so.
    """

    def __init__(self, told: list[str]) -> None:
        self._told = told
        self.over: Deferred[None] = Deferred()
        self.onBegin: Callable[[], object] = lambda: None

    def begin(self, reactor: Any, others: bool) -> Deferred[None]:
        """
        Note it.
        """
        self._told.append(f"drains, others={others}")
        self.onBegin()
        return self.over


class Link:
    """
    Notes what the watcher is told.
    """

    def __init__(self, told: list[str]) -> None:
        self._told = told

    def stopping(self) -> None:
        """
        The worker leaves by itself.
        """
        self._told.append("says that it stops")

    def draining(self) -> None:
        """
        The worker's connections begin to end.
        """


class Incoming:
    """
    Notes that it is stopped.
    """

    def __init__(self, told: list[str]) -> None:
        self._told = told

    def stop(self) -> None:
        """
        Take nothing more.
        """
        self._told.append("takes nothing")


class ContextTestCase(SynchronousTestCase):
    """
    A worker.

    @ivar told: what happened, in order.
    """

    def setUp(self) -> None:
        self.told: list[str] = []
        self.reactor: Any = Reactor(self.told)
        self.drain: Optional[Drain] = Drain(self.told)
        self.worker = self.make(self.drain)

    def make(self, drain: Optional[Drain]) -> Worker:
        return Worker(
            SETTINGS,
            cast(Any, Link(self.told)),
            cast(Any, None),
            cast(Any, Incoming(self.told)),
            drain=cast(Any, drain),
        )

    def end(self) -> None:
        """
        The last connection has ended.
        """
        assert self.drain is not None
        self.drain.over.callback(None)

    def note(self, text: str) -> Callable[[object], None]:
        return lambda _: self.told.append(text)


class StopTests(ContextTestCase):
    """
    What a worker does when it is to leave.
    """

    def test_order(self) -> None:
        """
        Those who wait for it hear first; then the connections end; then the reactor
        stops.
        """
        self.worker.reactorRuns(self.reactor)
        for name in ("one", "two"):
            self.worker.whenStopping().addCallback(self.note(name))
        self.worker.stop(asked=True, others=True)
        self.assertEqual(self.told, ["one", "two", "drains, others=True"])
        self.reactor.elapse(60)
        self.assertEqual(len(self.told), 3)
        self.end()
        self.assertEqual(self.told[3:], ["reactor stops"])

    def test_askedLater(self) -> None:
        """
        Who asks when it has begun hears at once.
        """
        self.worker.reactorRuns(self.reactor)
        self.worker.stop(asked=True)
        self.successResultOf(self.worker.whenStopping())
        self.assertEqual(self.told, ["drains, others=False"])

    def test_waiterFails(self) -> None:
        """
        One who fails on it keeps nothing from happening.
        """
        self.worker.reactorRuns(self.reactor)

        def fail(_: object) -> None:
            raise LookupError("no")

        failing = self.worker.whenStopping().addCallback(fail)
        self.worker.whenStopping().addCallback(self.note("two"))
        self.worker.stop(asked=True)
        self.failureResultOf(failing, LookupError)
        self.assertEqual(self.told, ["two", "drains, others=False"])

    def test_byItself(self) -> None:
        """
        A worker that leaves by itself says so to the watcher before all else.
        """
        self.worker.reactorRuns(self.reactor)
        self.worker.whenStopping().addCallback(self.note("one"))
        self.worker.stop(asked=False, others=True)
        self.assertEqual(
            self.told, ["says that it stops", "one", "drains, others=True"]
        )

    def test_delay(self) -> None:
        """
        With a delay, those who wait hear at once, and it serves on meanwhile.
        """
        self.worker.reactorRuns(self.reactor)
        self.worker.whenStopping().addCallback(self.note("one"))
        self.worker.stop(asked=True, delay=5.0)
        self.reactor.elapse(4.5)
        self.assertEqual(self.told, ["one"])
        self.reactor.elapse(1.0)
        self.assertEqual(self.told, ["one", "drains, others=False"])

    def test_twice(self) -> None:
        """
        The second word changes nothing, whoever says it.
        """
        self.worker.reactorRuns(self.reactor)
        self.worker.stop(asked=True, others=True)
        self.worker.stop(asked=True)
        self.worker.stop(asked=False)
        self.assertEqual(self.told, ["drains, others=True"])
        self.end()
        self.assertEqual(self.told[1:], ["reactor stops"])

    def test_programStops(self) -> None:
        """
        A program that stops the reactor as it hears of it, as most do, does not cut
        the connections that are still to end.
        """
        self.worker.reactorRuns(self.reactor)
        self.worker.whenStopping().addCallback(lambda _: self.reactor.stop())
        self.worker.stop(asked=True)
        self.assertEqual(self.told, ["drains, others=False"])
        self.reactor.stop()
        self.end()
        self.assertEqual(self.told[1:], ["reactor stops"])

    def test_nothingToDrain(self) -> None:
        """
        A worker without connections to know of stops its reactor at once.
        """
        self.worker = self.make(None)
        self.worker.reactorRuns(self.reactor)
        self.worker.stop(asked=True)
        self.assertEqual(self.told, ["reactor stops"])


class ReactorTests(ContextTestCase):
    """
    The reactor's life.
    """

    def test_before(self) -> None:
        """
        What is said before the reactor runs is done when it does, without delay.
        """
        stopping = self.worker.whenStopping()
        self.worker.stop(asked=True, delay=60.0, others=True)
        self.successResultOf(stopping)
        self.assertEqual(self.told, [])
        self.worker.reactorRuns(self.reactor)
        self.assertEqual(self.told, ["drains, others=True"])
        self.end()
        self.assertEqual(self.told[1:], ["reactor stops"])

    def test_stopsByItself(self) -> None:
        """
        When the program stops the reactor unasked, the watcher is told, and so are
        those who wait; nothing more is taken, and nothing is drained.
        """
        self.worker.reactorRuns(self.reactor)
        self.worker.whenStopping().addCallback(self.note("one"))
        self.worker.reactorStops()
        self.assertEqual(self.told, ["says that it stops", "one", "takes nothing"])

    def test_stopsMeanwhile(self) -> None:
        """
        When it stops during the drain, by whatever way, it is not stopped again.
        """
        self.worker.reactorRuns(self.reactor)
        self.worker.stop(asked=True)
        self.worker.reactorStops()
        self.end()
        self.assertEqual(
            self.told, ["drains, others=False", "says that it stops", "takes nothing"]
        )

    def test_stopsDuringDelay(self) -> None:
        """
        When it stops before the drain begins, none does.
        """
        self.worker.reactorRuns(self.reactor)
        self.worker.stop(asked=True, delay=5.0)
        self.worker.reactorStops()
        self.reactor.elapse(6.0)
        self.assertEqual(self.told, ["says that it stops", "takes nothing"])

    def test_neverRan(self) -> None:
        """
        Nothing happens to a reactor that does not run any more.
        """
        self.reactor.running = False
        self.worker.reactorRuns(self.reactor)
        self.worker.stop(asked=True)
        self.end()
        self.assertEqual(self.told, ["drains, others=False"])


class TerminateTests(ContextTestCase):
    """
    TERM, which somebody sends to this worker alone.
    """

    def setUp(self) -> None:
        super().setUp()
        before = signal.getsignal(signal.SIGTERM)
        self.addCleanup(signal.signal, signal.SIGTERM, before)

    def raiseTerm(self) -> None:
        signal.raise_signal(signal.SIGTERM)
        self.reactor.settle()

    def test_drains(self) -> None:
        """
        Where Twisted's own handler is in place, the worker leaves by itself, while
        others serve on.
        """
        signal.signal(signal.SIGTERM, self.reactor.sigTerm)
        self.worker.reactorRuns(self.reactor)
        self.raiseTerm()
        self.assertEqual(self.told, ["says that it stops", "drains, others=True"])
        self.raiseTerm()
        self.assertEqual(len(self.told), 2)

    def test_inReactor(self) -> None:
        """
        Nothing happens within the handler itself, whatever it interrupted.
        """
        signal.signal(signal.SIGTERM, self.reactor.sigTerm)
        self.worker.reactorRuns(self.reactor)
        signal.raise_signal(signal.SIGTERM)
        self.assertEqual(self.told, [])
        self.reactor.settle()
        self.assertEqual(len(self.told), 2)

    def test_programsOwn(self) -> None:
        """
        A program's own handler wins.
        """
        own: Any = lambda signum, frame: self.told.append("the program's")  # noqa: E731
        signal.signal(signal.SIGTERM, own)
        self.worker.reactorRuns(self.reactor)
        self.assertIs(signal.getsignal(signal.SIGTERM), own)
        self.raiseTerm()
        self.assertEqual(self.told, ["the program's"])

    def test_none(self) -> None:
        """
        A reactor that was run without signal handlers gets none.
        """
        for handler in (signal.SIG_DFL, signal.SIG_IGN):
            signal.signal(signal.SIGTERM, handler)
            self.worker.reactorRuns(self.reactor)
            self.assertEqual(signal.getsignal(signal.SIGTERM), handler)

    def test_leavingAlready(self) -> None:
        """
        A worker that began to leave before its reactor ran needs none.
        """
        signal.signal(signal.SIGTERM, self.reactor.sigTerm)
        self.worker.stop(asked=True)
        self.worker.reactorRuns(self.reactor)
        self.assertEqual(signal.getsignal(signal.SIGTERM), self.reactor.sigTerm)

    def test_afterwards(self) -> None:
        """
        One that comes when the reactor has stopped does nothing.
        """
        signal.signal(signal.SIGTERM, self.reactor.sigTerm)
        self.worker.reactorRuns(self.reactor)
        self.worker.reactorStops()
        self.told.clear()
        self.raiseTerm()
        self.assertEqual(self.told, [])
