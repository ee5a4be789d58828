"""
A worker as the watcher sees it.
"""

from __future__ import annotations

import signal

from tests.test_watcher import PlayedWorker, WatcherTestCase
from twisted_cluster.ipc import commands
from twisted_cluster.ipc.settings import STACKS_SIGNAL
from twisted_cluster.supervisor.handle import WorkerHandle


class LateWorker(PlayedWorker):
    """
    A worker whose reactor was late, and that remembers how it was told to leave.
    """

    farewell: tuple[float, bool] | None = None

    @commands.Ping.responder
    def late(self) -> dict[str, object]:
        return {"delay": 0.25}

    @commands.Terminate.responder
    def leave(self, delay: float, others: bool) -> dict[str, object]:
        self.farewell = (delay, others)
        return {}


class DrainTests(WatcherTestCase):
    """
    A worker that leaves.
    """

    def one(self) -> tuple[PlayedWorker, WorkerHandle]:
        """
        Start a watcher with one worker, which is ready.
        """
        watcher = self.watcher(1, heartbeatTimeout=6.0, shutdownTimeout=20.0)
        [worker] = self.becomeReady(1)
        [handle] = watcher.workers
        return worker, handle

    def signals(self) -> list[int]:
        """
        What the first worker was sent.
        """
        sent: list[int] = self.reactor.processes[0].signals
        return sent

    def test_serveOnFirst(self) -> None:
        """
        A worker that is told to serve on for a while is killed at the end of that
        and of the limit.
        """
        worker, handle = self.one()
        handle.stop("it is old", delay=10.0)
        self.reactor.settle()
        self.assertTrue(worker.terminated)
        self.assertEqual(handle.state, "draining")
        self.reactor.elapse(29.0)
        self.assertEqual(self.signals(), [])
        self.reactor.elapse(1.5)
        self.assertEqual(self.signals(), [signal.SIGKILL])
        self.assertEqual(self.logged("it did not stop within 30 s"), 1)

    def test_howItIsTold(self) -> None:
        """
        The worker hears for how long to serve on, and whether others do.
        """
        watcher = self.watcher(1)
        worker = LateWorker(self.reactor, self.reactor.processes[0])
        self.played.append(worker)
        worker.say(commands.Ready)
        [handle] = watcher.workers
        handle.stop("it is old", delay=1.5, others=False)
        self.reactor.settle()
        self.assertEqual(worker.farewell, (1.5, False))

    def test_delay(self) -> None:
        """
        By how much a worker's reactor was late is known from its answers.
        """
        watcher = self.watcher(1)
        worker = LateWorker(self.reactor, self.reactor.processes[0])
        self.played.append(worker)
        [handle] = watcher.workers
        self.assertEqual(handle.delay, 0.0)
        worker.say(commands.Ready)
        self.assertEqual(handle.delay, 0.25)

    def test_beforeItIsReady(self) -> None:
        """
        One that is not ready yet has nothing to serve.
        """
        watcher = self.watcher(1, shutdownTimeout=3.0)
        [handle] = watcher.workers
        handle.stop("it is old", delay=10.0)
        self.assertEqual(handle.state, "stopping")
        self.reactor.elapse(3.5)
        self.assertEqual(self.signals(), [signal.SIGTERM, signal.SIGKILL])

    def test_hangsWhileItDrains(self) -> None:
        """
        One that does not answer any more while it drains shows its stacks and is
        killed, long before the limit.
        """
        worker, handle = self.one()
        handle.stop("it is old")
        worker.answering = False
        self.reactor.elapse(9.0)
        self.assertEqual(self.signals(), [STACKS_SIGNAL, signal.SIGKILL])
        self.assertEqual(self.logged("and is ended; its Python stacks follow"), 1)

    def test_answersWhileItDrains(self) -> None:
        """
        One that answers has all the time there is.
        """
        worker, handle = self.one()
        before = worker.pings
        handle.stop("it is old")
        self.reactor.elapse(19.0)
        self.assertGreater(worker.pings, before)
        self.assertEqual(self.signals(), [])
        self.reactor.elapse(1.5)
        self.assertEqual(self.signals(), [signal.SIGKILL])

    def test_reactorHasStopped(self) -> None:
        """
        One that has drained and said that it stops is not asked any more, and has
        what is left of the limit.
        """
        worker, handle = self.one()
        handle.stop("it is old")
        worker.answering = False
        worker.say(commands.Stopping)
        self.assertEqual(handle.state, "stopping")
        self.reactor.elapse(19.0)
        self.assertEqual(self.signals(), [])
        self.reactor.elapse(1.5)
        self.assertEqual(self.signals(), [signal.SIGKILL])

    def test_leavesByItself(self) -> None:
        """
        One that says it leaves drains, within the same limit, and is asked
        whether it lives meanwhile.
        """
        worker, handle = self.one()
        worker.say(commands.Stopping)
        self.assertEqual(handle.state, "draining")
        before = worker.pings
        self.reactor.elapse(19.0)
        self.assertGreater(worker.pings, before)
        self.assertEqual(self.signals(), [])
        self.reactor.elapse(1.5)
        self.assertEqual(self.signals(), [signal.SIGKILL])

    def test_channelEndsWhileItDrains(self) -> None:
        """
        One whose channel ends while it drains is not asked any more, and has what
        is left of the limit.
        """
        worker, handle = self.one()
        handle.stop("it is old")
        self.reactor.settle()
        worker.channel.discard()
        self.reactor.elapse(19.0)
        self.assertEqual(self.signals(), [])
        self.reactor.elapse(1.5)
        self.assertEqual(self.signals(), [signal.SIGKILL])

    def test_stoppedOnce(self) -> None:
        """
        One that leaves is told no second time, and nothing but its being killed
        comes before its limit.
        """
        _, handle = self.one()
        handle.stop("it is old")
        handle.stop("it is very old")
        self.assertEqual(self.logged("is told to stop"), 1)
        handle.kill("now")
        self.assertEqual(handle.state, "dead")
        self.assertEqual(self.signals(), [signal.SIGKILL])

    def test_wantsRecycling(self) -> None:
        """
        A worker that wants to be replaced is, when its replacement is ready.
        """
        worker, _ = self.one()
        worker.say(commands.Recycle, why="it has had 100 connections")
        self.becomeReady(2)
        self.reactor.settle()
        self.assertTrue(worker.terminated)
        self.assertEqual(self.logged("it is recycled: it has had 100 connections"), 1)
