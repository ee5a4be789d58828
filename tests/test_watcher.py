"""
The watcher, with workers that the test plays.
"""

from __future__ import annotations

import os
import signal
import socket
from typing import Any, Optional

from twisted.application.service import IService
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.logger import ILogObserver, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from twisted_cluster.errors import (
    AlreadyStarted,
    ChannelClosed,
    CrashLooping,
    InvalidWorkerCount,
    MessageNotSerializable,
    NotRunning,
    RestartFailed,
    StartFailed,
    Stopped,
)
from twisted_cluster.interfaces import IWorkerHandle, WorkerMessage
from twisted_cluster.ipc import commands
from twisted_cluster.ipc.protocol import ControlProtocol
from twisted_cluster.ipc.settings import STACKS_SIGNAL
from twisted_cluster.sockets.wire.transport import UNIXTransport
from twisted_cluster.supervisor.listeners import Listeners
from twisted_cluster.testing import DescriptorReactor, PlayedProcess
from twisted_cluster.watcher import ClusterWatcher


class PlayedWorker(ControlProtocol):
    """
    A worker's end of the control channel.
    """

    def __init__(self, reactor: DescriptorReactor, process: PlayedProcess) -> None:
        super().__init__()
        self.process = process
        self.reactor = reactor
        self.pings = 0
        self.answering = True
        self.terminated = False
        self.nonsense = lambda failure: None
        self.lost = lambda reason: None
        self.channel = UNIXTransport(
            reactor, process.take(process.settings.control), self
        )
        self.channel.start()

    @commands.Ping.responder
    def ping(self) -> Any:
        self.pings += 1
        return {"delay": 0.0} if self.answering else Deferred()

    @commands.Terminate.responder
    def terminate(self, delay: float, others: bool) -> dict[str, object]:
        self.terminated = True
        return {}

    def say(self, command: Any, **arguments: object) -> None:
        """
        Say something to the watcher.
        """
        self.call(command, **arguments)
        self.reactor.settle()

    def end(self, status: int = 0, signalled: Optional[int] = None) -> None:
        """
        End the process.
        """
        self.channel.discard()
        self.process.end(status, signalled)
        self.reactor.settle()


class WatcherTestCase(SynchronousTestCase):
    """
    A watcher, and its workers.
    """

    def setUp(self) -> None:
        self.reactor: Any = DescriptorReactor()
        self.played: list[PlayedWorker] = []
        self.texts: list[str] = []

        @implementer(ILogObserver)
        def observe(event: dict[str, Any]) -> None:
            self.texts.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        self.addCleanup(self._descriptorsAsBefore, set(os.listdir("/proc/self/fd")))
        self.addCleanup(self._endAll)

    def _descriptorsAsBefore(self, before: set[str]) -> None:
        self.assertEqual(set(os.listdir("/proc/self/fd")), before)

    def _endAll(self) -> None:
        for worker in self.played:
            worker.end(signalled=signal.SIGKILL)
        for process in self.reactor.processes:
            process.end(signalled=signal.SIGKILL)
        self.reactor.settle()

    def watcher(self, workers: int = 2, **options: Any) -> ClusterWatcher:
        """
        Start a watcher.
        """
        watcher = ClusterWatcher(self.reactor, "server.py", workers, **options)
        self.addCleanup(watcher.stopService)
        watcher.startService()
        return watcher

    def play(self, number: int) -> PlayedWorker:
        """
        Play the worker of a number, from 1.
        """
        worker = PlayedWorker(self.reactor, self.reactor.processes[number - 1])
        self.played.append(worker)
        return worker

    def becomeReady(self, *numbers: int) -> list[PlayedWorker]:
        """
        Play workers up to where they are ready.
        """
        workers = []
        for number in numbers:
            worker = self.play(number)
            worker.say(commands.Hello, pid=1, version="1")
            worker.say(commands.Ready)
            workers.append(worker)
        return workers

    def logged(self, text: str) -> int:
        """
        How many events contain a text.
        """
        return sum(text in each for each in self.texts)


class StartTests(WatcherTestCase):
    """
    How a cluster starts.
    """

    def test_service(self) -> None:
        """
        A watcher is a service.
        """
        self.assertTrue(verifyObject(IService, self.watcher()))

    def test_oneThenAll(self) -> None:
        """
        The others start when the first is ready, and then all serve.
        """
        watcher = self.watcher(3)
        ready = watcher.whenReady()
        self.assertEqual(len(self.reactor.processes), 1)
        self.becomeReady(1)
        self.assertEqual(len(self.reactor.processes), 3)
        self.becomeReady(2)
        self.assertNoResult(ready)
        self.becomeReady(3)
        self.successResultOf(ready)
        self.assertEqual(self.logged("3 workers serve"), 1)

    def test_handles(self) -> None:
        """
        Workers can be looked at.
        """
        watcher = self.watcher(1)
        [handle] = watcher.workers
        self.assertTrue(verifyObject(IWorkerHandle, handle))
        self.assertEqual(
            (handle.id, handle.slot, handle.generation, handle.state),
            (1, 0, 1, "starting"),
        )
        self.assertEqual(handle.pid, self.reactor.processes[0].pid)
        self.becomeReady(1)
        self.assertEqual(handle.state, "ready")

    def test_words(self) -> None:
        """
        The target reaches the worker as it was written.
        """
        watcher = ClusterWatcher(self.reactor, ["-m", "app", "--x", "ä b"], 1)
        self.addCleanup(watcher.stopService)
        watcher.startService()
        self.assertEqual(
            self.reactor.processes[0].args[-4:], ["-m", "app", "--x", "ä b"]
        )

    def _fails(self, stage: str, status: int) -> StartFailed:
        watcher = self.watcher()
        ready, stopped = watcher.whenReady(), watcher.whenStopped()
        worker = self.play(1)
        worker.say(
            commands.Failed, stage=stage, reason="it is broken", traceback="here"
        )
        worker.end(1)
        self.failureResultOf(ready, StartFailed)
        error = self.failureResultOf(stopped, StartFailed).value
        assert isinstance(error, StartFailed)
        self.assertEqual(error.status, status)
        self.assertEqual(len(self.reactor.processes), 1)
        return error

    def test_doesNotLoad(self) -> None:
        """
        A target that cannot be loaded ends the cluster, and the reason has the
        traceback.
        """
        self.assertIn("it is broken\nhere", str(self._fails("load", 4)))

    def test_refusesOptions(self) -> None:
        """
        So does one that refuses its options.
        """
        self._fails("usage", 2)

    def test_doesNotStart(self) -> None:
        """
        So does one that fails while it starts.
        """
        self._fails("start", 3)

    def test_diesSilently(self) -> None:
        """
        A worker that dies without a word is described by its last lines.
        """
        watcher = self.watcher()
        stopped = watcher.whenStopped()
        self.reactor.processes[0].emit(2, b"Segmentation fault\n")
        self.play(1).end(signalled=signal.SIGSEGV)
        error = self.failureResultOf(stopped, StartFailed).value
        self.assertIn("SIGSEGV", str(error))
        self.assertIn("Segmentation fault", str(error))

    def test_exitsForUsage(self) -> None:
        """
        A program that exits with 2 has refused its options, as argparse does.
        """
        stopped = self.watcher().whenStopped()
        self.reactor.processes[0].emit(2, b"error: no such option --colour\n")
        self.play(1).end(2)
        error = self.failureResultOf(stopped, StartFailed).value
        self.assertEqual(error.status, 2)
        self.assertIn("--colour", str(error))

    def test_exitsAtOnce(self) -> None:
        """
        A program that ends by itself with status 0 is told from one that
        serves, with a hint at programs that go to the background.
        """
        watcher = self.watcher()
        stopped = watcher.whenStopped()
        self.play(1).end(0)
        error = self.failureResultOf(stopped, StartFailed).value
        self.assertIn("background", str(error))

    def test_tooSlow(self) -> None:
        """
        A worker that is not ready in time shows its stacks, and is killed.
        """
        watcher = self.watcher(startTimeout=5.0)
        stopped = watcher.whenStopped()
        self.play(1)
        self.reactor.elapse(5.5)
        self.assertEqual(self.reactor.processes[0].signals, [STACKS_SIGNAL])
        self.reactor.elapse(1.0)
        error = self.failureResultOf(stopped, StartFailed).value
        self.assertIn("--start-timeout", str(error))

    def test_noDescriptors(self) -> None:
        """
        A worker that cannot be spawned for lack of descriptors is a worker
        that died.
        """
        self.reactor.spawnError = OSError(24, "Too many open files")
        stopped = self.watcher().whenStopped()
        self.reactor.settle()
        error = self.failureResultOf(stopped, StartFailed).value
        self.assertIn("Too many open files", str(error))

    def test_noDescriptorsLater(self) -> None:
        """
        A worker that could not be spawned is dead to whoever writes to it.
        """
        watcher = self.watcher(1)
        self.becomeReady(1)
        self.reactor.spawnError = OSError(24, "Too many open files")
        watcher.scale(2).addErrback(lambda _: None)
        unborn = watcher.workers[-1]
        self.failureResultOf(unborn.send("x"), ChannelClosed)
        self.assertEqual(unborn.state, "dead")
        self.reactor.settle()
        self.assertNotIn(unborn, watcher.workers)

    def test_watcherStoodStill(self) -> None:
        """
        Time in which the watcher itself stood still is not counted against a
        worker that starts.
        """
        self.watcher(1, startTimeout=5.0)
        self.play(1)
        for _ in range(2):
            self.reactor.advance(3600)
            self.reactor.settle()
        self.assertEqual(self.reactor.processes[0].signals, [])
        self.reactor.elapse(1.5)
        self.assertEqual(self.reactor.processes[0].signals, [STACKS_SIGNAL])

    def test_readyTooLate(self) -> None:
        """
        A worker that becomes ready while it shows its stacks is ended all the
        same, and for the reason that was given.
        """
        watcher = self.watcher(1, startTimeout=5.0)
        worker = self.play(1)
        self.reactor.elapse(5.5)
        worker.say(commands.Ready)
        self.reactor.elapse(1.0)
        error = self.failureResultOf(watcher.whenReady(), StartFailed).value
        self.assertIn("--start-timeout", str(error))

    def test_othersNeverReady(self) -> None:
        """
        Whoever waits for all workers is told when those of a slot keep dying;
        the others serve on.
        """
        watcher = self.watcher(2)
        ready = watcher.whenReady()
        [first] = self.becomeReady(1)
        for number in range(2, 7):
            while len(self.reactor.processes) < number:
                self.reactor.elapse(0.05, 0.05)
            self.play(number).end(1)
        error = self.failureResultOf(ready, CrashLooping).value
        self.assertIn("slot 1", str(error))
        self.assertFalse(first.terminated)

    def test_otherVersion(self) -> None:
        """
        A worker with another version of this package says what to do.
        """
        self.watcher(1)
        self.play(1).say(commands.Hello, pid=1, version="99")
        self.assertEqual(self.logged("it was upgraded; stop the cluster"), 1)

    def test_raisingPublisher(self) -> None:
        """
        An observer that raises does not harm the worker whose event it got.
        """

        def publisher(event: dict[str, Any]) -> None:
            raise ValueError("broken observer")

        watcher = self.watcher(1, publisher=publisher)
        self.reactor.processes[0].emit(1, b"one\n")
        self.reactor.settle()
        self.becomeReady(1)
        self.assertEqual([h.state for h in watcher.workers], ["ready"])
        self.flushLoggedErrors(ValueError)

    def test_ownDescriptorsStay(self) -> None:
        """
        A program's own inheritable sockets are none of its workers' business.
        """
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        theirs.set_inheritable(True)
        self.watcher(1)
        self.assertEqual(set(self.reactor.processes[0].descriptors), {0, 1, 2, 3, 4, 5})

    def test_once(self) -> None:
        """
        A watcher starts once, also after it has stopped.
        """
        watcher = self.watcher()
        self.assertRaises(AlreadyStarted, watcher.startService)
        watcher.stopService()
        self._endAll()
        self.assertRaises(AlreadyStarted, watcher.startService)

    def test_neverStarted(self) -> None:
        """
        One that was never started can be stopped, and asked nothing.
        """
        watcher = ClusterWatcher(self.reactor, "server.py", 1)
        self.failureResultOf(watcher.restart(), NotRunning)
        self.failureResultOf(watcher.scale(2), NotRunning)
        ready = watcher.whenReady()
        self.successResultOf(watcher.stopService())
        self.failureResultOf(ready, Stopped)

        async def consume() -> None:
            async for _ in watcher.messages():
                pass

        self.successResultOf(Deferred.fromCoroutine(consume()))

    def test_badBind(self) -> None:
        """
        An address that cannot be bound is told before any worker starts.
        """
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            watcher = ClusterWatcher(
                self.reactor,
                "server.py",
                1,
                binds=["tcp:0:interface=127.0.0.1", f"tcp:{port}:interface=127.0.0.1"],
            )
            self.assertRaises(CannotListenError, watcher.startService)
        self.assertEqual(self.reactor.processes, [])
        self.failureResultOf(watcher.whenStopped(), CannotListenError)
        self.successResultOf(watcher.stopService())

    def test_bindsWhilePrivileged(self) -> None:
        """
        Addresses are bound before privileges are shed, once.
        """
        watcher = ClusterWatcher(
            self.reactor, "server.py", 1, binds=["tcp:0:interface=127.0.0.1"]
        )
        self.addCleanup(watcher.stopService)
        watcher.privilegedStartService()
        [address] = watcher.addresses
        self.assertEqual(self.reactor.processes, [])
        watcher.startService()
        self.assertEqual(watcher.addresses, [address])


class LifeTests(WatcherTestCase):
    """
    What happens to workers.
    """

    def test_replaced(self) -> None:
        """
        A worker that dies after a healthy life is replaced at once.
        """
        self.watcher(2)
        [first, _] = self.becomeReady(1, 2)
        self.reactor.elapse(10)
        first.end(signalled=signal.SIGKILL)
        self.assertEqual(len(self.reactor.processes), 3)
        self.assertEqual(self.reactor.processes[2].settings.slot, 0)
        self.assertEqual(self.logged("was ended by SIGKILL"), 1)

    def test_pausesGrow(self) -> None:
        """
        A worker that keeps dying is replaced after growing pauses.
        """
        self.watcher(2)
        [first, _] = self.becomeReady(1, 2)
        pauses = []
        dying = first
        for number in range(3, 8):
            dying.end(1)
            before = self.reactor.seconds()
            while len(self.reactor.processes) < number:
                self.reactor.elapse(0.05, 0.05)
            pauses.append(self.reactor.seconds() - before)
            [dying] = self.becomeReady(number)
        self.assertEqual(pauses, sorted(pauses))
        self.assertGreater(pauses[-1], 4 * pauses[0])
        self.assertEqual(self.logged("keep dying"), 1)

    def test_socketOfItsOwn(self) -> None:
        """
        When a later worker finds an address taken that it opens behind the
        reactor's back, the log gives a hint, once.
        """
        self.watcher(2)
        self.becomeReady(1)
        for number in (2, 3):
            while len(self.reactor.processes) < number:
                self.reactor.elapse(0.05, 0.05)
            worker = self.play(number)
            worker.say(
                commands.Failed,
                stage="load",
                reason="server.py: OSError: [Errno 98] Address already in use",
                traceback="",
            )
            worker.end(1)
        self.assertEqual(self.logged("have the reactor listen"), 1)

    def test_refusedAddress(self) -> None:
        """
        An address that the watcher could not open gets no such hint.
        """
        self.watcher(2)
        self.becomeReady(1)
        worker = self.play(2)
        reason = "Couldn't listen on any:80: [Errno 98] Address already in use."
        worker.say(commands.Failed, stage="start", reason=reason, traceback="")
        worker.end(1)
        self.assertEqual(self.logged("have the reactor listen"), 0)

    def test_crashLoop(self) -> None:
        """
        Where that is wanted, a crash loop ends the cluster.
        """
        watcher = self.watcher(1, exitOnCrashLoop=True)
        stopped = watcher.whenStopped()
        for number in range(1, 6):
            while len(self.reactor.processes) < number:
                self.reactor.elapse(0.05, 0.05)
            [worker] = self.becomeReady(number)
            worker.end(1)
        self.failureResultOf(stopped, CrashLooping)

    def test_hangs(self) -> None:
        """
        A worker that does not answer shows its stacks, is killed and replaced.
        """
        self.watcher(2, heartbeatTimeout=6.0)
        [first, _] = self.becomeReady(1, 2)
        first.answering = False
        self.reactor.elapse(9)
        process = self.reactor.processes[0]
        self.assertEqual(process.signals, [STACKS_SIGNAL, signal.SIGKILL])
        self.assertEqual(len(self.reactor.processes), 3)
        self.assertEqual(self.logged("has not answered for"), 2)
        self.assertEqual(self.logged("its Python stacks follow"), 1)

    def test_answers(self) -> None:
        """
        A worker that answers is left in peace.
        """
        self.watcher(1, heartbeatTimeout=6.0)
        [worker] = self.becomeReady(1)
        self.reactor.elapse(60)
        self.assertGreater(worker.pings, 10)
        self.assertEqual(self.reactor.processes[0].signals, [])

    def test_watcherStoodStill(self) -> None:
        """
        When it was the watcher that stood still, nobody is replaced.
        """
        self.watcher(1, heartbeatTimeout=6.0)
        self.becomeReady(1)
        for _ in range(5):
            self.reactor.advance(3600)
            self.reactor.settle()
        self.assertEqual(self.reactor.processes[0].signals, [])

    def test_garbage(self) -> None:
        """
        A worker whose channel carries nonsense is told to leave by the end of
        that channel, and killed if it stays.
        """
        self.watcher(2, shutdownTimeout=3.0)
        [first, _] = self.becomeReady(1, 2)
        first.channel.write(b"\xff\xff\xff\xff" * 100)
        self.reactor.settle()
        self.assertEqual(self.logged("carried nonsense"), 1)
        self.reactor.elapse(3.5)
        self.assertEqual(self.reactor.processes[0].signals, [signal.SIGKILL])
        self.flushLoggedErrors()

    def test_mute(self) -> None:
        """
        A worker that closes its channel and lives on is ended soon, with the
        likely reasons.
        """
        self.watcher(2)
        [first, _] = self.becomeReady(1, 2)
        first.channel.discard()
        self.reactor.elapse(1.5)
        self.assertEqual(self.reactor.processes[0].signals, [signal.SIGKILL])
        self.assertGreaterEqual(self.logged("closed all its descriptors"), 1)

    def test_endsUnasked(self) -> None:
        """
        An end that nobody asked for is told from others, even with status 0.
        """
        self.watcher(1)
        [first] = self.becomeReady(1)
        first.end(0)
        self.assertEqual(self.logged("status 0: the program ended by itself"), 1)

    def test_output(self) -> None:
        """
        Lines that the process prints arrive as events of that worker, the last
        without its end too.
        """
        events: list[dict[str, Any]] = []
        self.watcher(1, publisher=events.append)
        process = self.reactor.processes[0]
        process.emit(1, b"one\ntw")
        self.reactor.settle()
        process.emit(1, b"o\nthree")
        self.play(1).end(1)
        self.assertEqual(
            [(formatEvent(e), e["log_namespace"], e["cluster_worker"]) for e in events],
            [("one", "stdout", 1), ("two", "stdout", 1), ("three", "stdout", 1)],
        )


class StopTests(WatcherTestCase):
    """
    How a cluster ends.
    """

    def test_graceful(self) -> None:
        """
        All workers are told to leave; when they have, it is over.
        """
        watcher = self.watcher(2)
        workers = self.becomeReady(1, 2)
        stopped, over = watcher.stopService(), watcher.whenStopped()
        self.reactor.settle()
        self.assertEqual([worker.terminated for worker in workers], [True, True])
        workers[0].end(0)
        self.assertNoResult(stopped)
        workers[1].end(0)
        self.successResultOf(stopped)
        self.successResultOf(over)

    def test_refuses(self) -> None:
        """
        When none of the workers accepts any more, connections are refused, not before;
        one that is dead does not count.
        """
        watcher = self.watcher(3)
        workers = self.becomeReady(1, 2, 3)
        refused: list[bool] = []
        self.patch(Listeners, "refuse", lambda _: refused.append(True))
        workers[0].say(commands.Draining)
        watcher.stopService()
        self.reactor.settle()
        workers[1].say(commands.Draining)
        self.assertEqual(refused, [])
        workers[2].end(0)
        self.assertTrue(refused)
        for worker in workers[:2]:
            worker.end(0)

    def test_limit(self) -> None:
        """
        A worker that does not leave in time is killed, and that is said.
        """
        watcher = self.watcher(1, shutdownTimeout=3.0)
        self.becomeReady(1)
        stopped = watcher.stopService()
        self.reactor.elapse(2.5)
        self.assertNoResult(stopped)
        self.reactor.elapse(1.0)
        self.successResultOf(stopped)
        self.assertEqual(self.logged("did not stop within 3 s"), 1)

    def test_whileStarting(self) -> None:
        """
        A worker that is not ready yet is ended by SIGTERM, and whoever waits
        for the start is told.
        """
        watcher = self.watcher(1)
        ready = watcher.whenReady()
        watcher.stopService()
        self.assertEqual(self.reactor.processes[0].signals, [signal.SIGTERM])
        self.play(1).end(signalled=signal.SIGTERM)
        self.failureResultOf(ready, Stopped)
        self.successResultOf(watcher.whenStopped())

    def test_now(self) -> None:
        """
        To stop now kills at once.
        """
        watcher = self.watcher(2)
        self.becomeReady(1, 2)
        watcher.stopNow()
        self.reactor.settle()
        self.successResultOf(watcher.whenStopped())

    def test_selfEnd(self) -> None:
        """
        A worker that announces its end and leaves is no error.
        """
        self.watcher(2)
        [first, _] = self.becomeReady(1, 2)
        self.reactor.elapse(10)
        first.say(commands.Stopping)
        self.assertEqual(len(self.reactor.processes), 3)
        first.end(0)
        self.assertEqual(self.logged("worker 1 exited with status 0"), 1)


class RestartTests(WatcherTestCase):
    """
    Restarts, and scaling.
    """

    def test_replacesAll(self) -> None:
        """
        Each old worker is told to leave when its replacement is ready.
        """
        watcher = self.watcher(2)
        old = self.becomeReady(1, 2)
        restarted = watcher.restart()
        self.assertEqual([worker.terminated for worker in old], [False, False])
        self.becomeReady(3)
        self.reactor.settle()
        self.assertEqual([worker.terminated for worker in old], [True, False])
        old[0].end(0)
        self.becomeReady(4)
        self.reactor.settle()
        self.assertEqual([worker.terminated for worker in old], [True, True])
        self.assertNoResult(restarted)
        old[1].end(0)
        self.successResultOf(restarted)
        self.assertEqual([h.generation for h in watcher.workers], [2, 2])

    def test_brokenCode(self) -> None:
        """
        A new worker that does not start leaves the old ones alone, and the
        outcome says why.
        """
        watcher = self.watcher(2)
        old = self.becomeReady(1, 2)
        restarted = watcher.restart()
        worker = self.play(3)
        worker.say(
            commands.Failed, stage="load", reason="SyntaxError", traceback="line 3"
        )
        worker.end(1)
        error = self.failureResultOf(restarted, RestartFailed).value
        self.assertIn("SyntaxError\nline 3", str(error))
        self.assertEqual(self.logged("2 of 2 workers serve: SyntaxError"), 1)
        self.assertEqual([worker.terminated for worker in old], [False, False])
        self.reactor.elapse(60)
        self.assertEqual(len(self.reactor.processes), 3)

    def test_during(self) -> None:
        """
        A restart during a restart is another one, after it.
        """
        watcher = self.watcher(1)
        [first] = self.becomeReady(1)
        one, two, three = watcher.restart(), watcher.restart(), watcher.restart()
        [second] = self.becomeReady(2)
        first.end(0)
        self.successResultOf(one)
        self.assertNoResult(two)
        self.becomeReady(3)
        second.end(0)
        self.successResultOf(two)
        self.successResultOf(three)
        self.assertEqual(len(self.reactor.processes), 3)

    def test_repairedMeanwhile(self) -> None:
        """
        A restart does not wait for a pause.
        """
        watcher = self.watcher(1)
        for number in range(1, 6):
            while len(self.reactor.processes) < number:
                self.reactor.elapse(0.05, 0.05)
            [worker] = self.becomeReady(number)
            worker.end(1)
        restarted = watcher.restart()
        self.assertEqual(len(self.reactor.processes), 6)
        self.becomeReady(6)
        self.successResultOf(restarted)
        self.reactor.elapse(60)
        self.assertEqual(len(self.reactor.processes), 6)

    def test_restartWhenToldOfALoop(self) -> None:
        """
        Whoever is told that workers keep dying may restart at once: no pause
        is left behind that would start another worker.
        """
        watcher = self.watcher(2)

        def restart(_: object) -> None:
            watcher.restart().addErrback(lambda reason: reason.trap(Stopped))

        ready = watcher.whenReady().addErrback(restart)
        [first] = self.becomeReady(1)
        for number in range(2, 7):
            while len(self.reactor.processes) < number:
                self.reactor.elapse(0.05, 0.05)
            self.play(number).end(1)
        self.successResultOf(ready)
        spawned = len(self.reactor.processes)
        self.assertGreater(spawned, 6)
        self.assertFalse(
            [
                call
                for call in self.reactor.getDelayedCalls()
                if getattr(call.func, "__name__", "") == "_resume"
            ]
        )
        self.assertFalse(first.terminated)

    def test_oldDiesInAPause(self) -> None:
        """
        The death of an old worker while its slot pauses changes nothing about
        the pause.
        """
        watcher = self.watcher(1)
        [old] = self.becomeReady(1)
        restarted = watcher.restart()
        [new] = self.becomeReady(2)
        new.end(1)
        old.end(0)
        self.assertNoResult(restarted)
        while len(self.reactor.processes) < 3:
            self.reactor.elapse(0.05, 0.05)
        self.becomeReady(3)
        self.successResultOf(restarted)
        self.reactor.elapse(60)
        self.assertEqual(len(self.reactor.processes), 3)

    def test_stoppedMeanwhile(self) -> None:
        """
        To stop fails a restart that is under way, and what is queued.
        """
        watcher = self.watcher(1)
        self.becomeReady(1)
        one, two = watcher.restart(), watcher.restart()
        watcher.stopService()
        self.failureResultOf(one, Stopped)
        self._endAll()
        self.failureResultOf(two, Stopped)

    def test_scale(self) -> None:
        """
        More workers are started, fewer are told to leave.
        """
        watcher = self.watcher(1)
        [first] = self.becomeReady(1)
        more = watcher.scale(2)
        [second] = self.becomeReady(2)
        self.successResultOf(more)
        fewer = watcher.scale(1)
        self.reactor.settle()
        self.assertEqual((first.terminated, second.terminated), (False, True))
        second.end(0)
        self.successResultOf(fewer)
        self.assertRaises(InvalidWorkerCount, watcher.scale, 0)
        self.successResultOf(watcher.scale(1))


class MessageTests(WatcherTestCase):
    """
    Messages, as the watcher's user sees them.
    """

    def test_receive(self) -> None:
        """
        Messages come with the worker that sent them, which can be answered.
        """
        watcher = self.watcher(1)
        [worker] = self.becomeReady(1)
        received: list[WorkerMessage] = []

        async def consume() -> None:
            async for message in watcher.messages():
                received.append(message)

        done = Deferred.fromCoroutine(consume())
        worker.say(commands.Messages, kind=b"m", data=b"\x91\xa2hi", more=False)
        [message] = received
        self.assertEqual((message.data, message.worker.id), ("hi", 1))
        watcher.stopNow()
        self.reactor.settle()
        self.successResultOf(done)

    def test_broadcast(self) -> None:
        """
        A broadcast is done when every worker has it, or has died.
        """
        watcher = self.watcher(2)
        [first, second] = self.becomeReady(1, 2)
        got: list[tuple[int, Any]] = []
        for worker in (first, second):
            worker.conversation = _Recorder(worker, got)  # type: ignore[assignment]  # a double
        done = watcher.broadcast("all")
        second.end(signalled=signal.SIGKILL)
        self.reactor.settle()
        self.successResultOf(done)
        self.assertEqual(got, [(1, b"\xdd\x00\x00\x00\x01\xa3all")])
        self.failureResultOf(watcher.broadcast(object()), MessageNotSerializable)

    def test_toTheDead(self) -> None:
        """
        What is sent to a worker that has died fails.
        """
        watcher = self.watcher(1)
        [worker] = self.becomeReady(1)
        [handle] = watcher.workers
        worker.end(signalled=signal.SIGKILL)
        self.failureResultOf(handle.send("x"), ChannelClosed)
        self.failureResultOf(handle.request("x"), ChannelClosed)


class _Recorder:
    def __init__(self, worker: PlayedWorker, got: list[tuple[int, Any]]) -> None:
        self.worker = worker
        self.got = got

    def received(self, kind: bytes, data: bytes, more: bool) -> tuple[int, ...]:
        self.got.append((self.worker.process.settings.worker, data))
        return ()
