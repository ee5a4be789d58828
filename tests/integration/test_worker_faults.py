"""
What becomes of workers that die, hang, hold on, flood or leave others behind:
they are replaced, the log says why, and the other workers serve on.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from tests.integration.faults import (
    PUPPET,
    QUICK,
    FaultTestCase,
    memoryOf,
    pauses,
    portOf,
    tell,
)
from tests.integration.support import (
    children,
    isAlive,
    openDescriptors,
    reactor,
    until,
)
from twisted_cluster.errors import ChannelClosed, CrashLooping
from twisted_cluster.watcher import ClusterWatcher


class Deaths(FaultTestCase):
    """
    Workers that die.
    """

    async def test_beforeReady(self) -> None:
        """
        When the first worker dies before it is ready, no other is started, and
        the reason says how it died and what it said last.
        """
        error = await self.failing(
            self.program(
                "import os; print('oh', file=__import__('sys').stderr); "
                "os.kill(os.getpid(), 9)"
            )
        )
        self.assertEqual(error.status, 3)
        self.assertIn("was ended by SIGKILL before it was ready", str(error))
        self.assertIn("oh", str(error))
        self.assertEqual(self.logged.count("started: slot"), 1)

    async def test_replacementBeforeReady(self) -> None:
        """
        When a replacement dies before it is ready, the next one comes after a
        pause, and the cluster is whole again when the program is.
        """
        watcher = await self.puppets(2)
        [victim, other] = await self.full(watcher)
        self.program("raise SystemExit(1)", "puppet.py")
        os.kill(victim, signal.SIGKILL)
        await until(lambda: len(pauses(self.logged)) >= 3)
        self.assertEqual(await tell(portOf(watcher), "os.getpid()"), other)
        self.program(PUPPET, "puppet.py")
        self.assertIn(other, await self.replaced(watcher, victim))

    async def test_exit(self) -> None:
        """
        A worker that exits is replaced, and its status is in the log.
        """
        watcher = await self.puppets(2)
        [victim, other] = await self.full(watcher)
        asked = watcher.workers[0].request("os._exit(7)")
        await self.assertFailure(asked, ChannelClosed)
        self.assertIn(other, await self.replaced(watcher, victim))
        self.assertEqual(self.logged.count("worker 1 exited with status 7"), 1)

    async def test_cleanExit(self) -> None:
        """
        A worker that stops its reactor is replaced, too.
        """
        watcher = await self.puppets(2)
        [victim, _] = await self.full(watcher)
        await watcher.workers[0].request("soon(reactor.stop)")
        await self.replaced(watcher, victim)

    async def test_kill(self) -> None:
        """
        A worker that is killed is replaced, in its slot, on its port, while the
        others serve on without a refused connection.
        """
        watcher = await self.puppets(2)
        port = portOf(watcher)
        [victim, other] = await self.full(watcher)
        os.kill(victim, signal.SIGKILL)
        await self.gone([victim])
        for _ in range(20):
            self.assertEqual(await tell(port, "os.getpid()"), other)
            if len(watcher.workers) == 2 and watcher.workers[1].state == "ready":
                break
        await self.replaced(watcher, victim)
        self.assertEqual(sorted(w.slot for w in watcher.workers), [0, 1])
        self.assertEqual(portOf(watcher), port)
        self.assertEqual(self.logged.count("worker 1 was ended by SIGKILL"), 1)

    async def test_growingPause(self) -> None:
        """
        Between workers that keep dying the pauses grow, the log says once that
        they keep dying, and the other slot serves on.
        """
        watcher = await self.puppets(
            2, code="cluster.slot() == 0 and reactor.callLater(0.3, os._exit, 7)"
        )
        await until(lambda: len(pauses(self.logged)) >= 5)
        [*_, a, b, c, d, e] = pauses(self.logged)
        self.assertLess(a, b)
        self.assertLess(b, c)
        self.assertLess(c, d)
        self.assertLess(d, e)
        self.assertEqual(self.logged.count("keep dying: 5 early deaths"), 1)
        self.assertEqual(self.logged.count("keep dying"), 1)
        self.assertEqual(await tell(portOf(watcher), "cluster.slot()"), 1)

    async def test_pauseOfCleanExits(self) -> None:
        """
        Workers that keep ending in good order are not started anew without a
        pause either.
        """
        await self.puppets(1, code="reactor.callLater(0.3, reactor.stop)")
        await until(lambda: len(pauses(self.logged)) >= 3)
        [a, b, c] = pauses(self.logged)[:3]
        self.assertLess(a, b)
        self.assertLess(b, c)

    async def test_exitOnCrashLoop(self) -> None:
        """
        With C{exitOnCrashLoop}, a crash loop ends the cluster.
        """
        watcher = await self.puppets(
            1, code="reactor.callLater(0.3, os._exit, 7)", exitOnCrashLoop=True
        )
        await self.assertFailure(
            watcher.whenStopped().addTimeout(60, reactor), CrashLooping
        )

    async def test_crashLoopStatus(self) -> None:
        """
        With C{--exit-on-crash-loop}, the command ends with status 5.
        """
        command = self.puppetCommand(
            "-w",
            "1",
            "--exit-on-crash-loop",
            code="reactor.callLater(0.3, os._exit, 7)",
        )
        self.assertEqual(await command.whenEnded(60), 5)
        self.assertIn("keep dying: 5 early deaths in a row", command.text)

    async def test_stopDuringPause(self) -> None:
        """
        A cluster that is stopped while a slot waits for its next worker stops
        at once.
        """
        watcher = await self.puppets(1, code="reactor.callLater(0.3, os._exit, 7)")
        await until(lambda: len(pauses(self.logged)) >= 3)
        await watcher.stopService().addTimeout(5, reactor)
        self.assertEqual(watcher.workers, [])


class Hangs(FaultTestCase):
    """
    Workers that do not answer.
    """

    async def test_stopped(self) -> None:
        """
        A worker that is stopped by SIGSTOP is replaced after the heartbeat
        timeout, and the log says that it is stopped.
        """
        watcher = await self.puppets(2, heartbeatTimeout=1.5)
        [victim, other] = await self.full(watcher)
        os.kill(victim, signal.SIGSTOP)
        await self.logged.waitFor("and is replaced; it is stopped (SIGSTOP)")
        self.assertIn(other, await self.replaced(watcher, victim))
        self.assertEqual(self.logged.count("(--heartbeat-timeout)"), 1)

    async def test_blocked(self) -> None:
        """
        A worker whose reactor stands still is replaced after the heartbeat
        timeout, and the log shows in which function of the program it stood.
        """
        watcher = await self.puppets(2, heartbeatTimeout=1.5)
        [victim, other] = await self.full(watcher)
        await watcher.workers[0].request("soon(theUsersFunction)")
        await self.logged.waitFor("and is replaced; its Python stacks follow")
        self.assertIn(other, await self.replaced(watcher, victim))
        stack = [text for text in self.logged.texts if "theUsersFunction" in text]
        self.assertIn("puppet.py", stack[0])

    async def test_blockedInC(self) -> None:
        """
        A worker that holds the interpreter's lock is replaced, too.
        """
        watcher = await self.puppets(2, heartbeatTimeout=1.5)
        [victim, other] = await self.full(watcher)
        await watcher.workers[0].request("soon(re.match, '(a+)+$', 'a' * 60 + 'b')")
        self.assertIn(other, await self.replaced(watcher, victim))

    async def test_ignoresTerminate(self) -> None:
        """
        A worker whose service never stops is killed after the shutdown
        timeout, and the log says so.
        """
        self.program(
            """
            from twisted.application.service import Service
            from twisted.internet.defer import Deferred
            class Endless(Service):
                def stopService(self):
                    return Deferred()
            """,
            "module.py",
        )
        watcher = await self.serving("module:Endless", 2, shutdownTimeout=1.0)
        began = reactor.seconds()
        await watcher.stopService().addTimeout(20, reactor)
        self.assertGreaterEqual(reactor.seconds() - began, 1.0)
        self.assertEqual(self.logged.count("it did not stop within 1 s"), 2)

    async def test_ignoresSignals(self) -> None:
        """
        A program that ignores TERM while it starts is killed after the shutdown
        timeout.
        """
        path = self.program(
            """
            import signal, time
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            print("deaf")
            time.sleep(3600)
            """
        )
        watcher = self.cluster(path, 1, shutdownTimeout=1.0)
        await self.logged.waitFor("deaf")
        await watcher.stopService().addTimeout(10, reactor)
        self.assertEqual(self.logged.count("it did not stop within 1 s"), 1)

    async def test_blockedAtStop(self) -> None:
        """
        A worker whose reactor stands still when it is told to stop is killed
        after the shutdown timeout.
        """
        watcher = await self.puppets(2, shutdownTimeout=1.0)
        await watcher.workers[0].request("soon(theUsersFunction)")
        await self.logged.waitFor("asleep")
        await watcher.stopService().addTimeout(10, reactor)
        self.assertEqual(self.logged.count("it did not stop within 1 s"), 1)

    async def test_stopNow(self) -> None:
        """
        C{stopNow()} waits for nobody.
        """
        watcher = await self.puppets(2)
        pids = await self.full(watcher)
        os.kill(pids[0], signal.SIGSTOP)
        await watcher.workers[1].request("soon(theUsersFunction)")
        await self.logged.waitFor("asleep")
        watcher.stopNow()
        await watcher.whenStopped().addTimeout(5, reactor)
        await self.gone(pids, 1)


class Limits(FaultTestCase):
    """
    Workers that run out of something, or have too much of it.
    """

    async def test_tooManyFiles(self) -> None:
        """
        A worker that has too many open files serves on when it has closed
        some.
        """
        watcher = await self.puppets(1)
        [pid] = await self.full(watcher)
        worker = watcher.workers[0]
        await worker.request("exec('import resource; files = []', globals())")
        await worker.request("resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))")
        await worker.request(
            "soon(exec, '''\ntry:\n    while True: files.append(open(os.devnull))\n"
            "except OSError as error:\n    log.info('full: {e}', e=error)''', "
            "globals())"
        )
        await self.logged.waitFor("full: [Errno 24]")
        waiting = tell(portOf(watcher), "os.getpid()")
        self.assertEqual(await worker.request("len(files) > 20"), "True")
        await worker.request("log.info('still here')")
        await self.logged.waitFor("still here")
        await worker.request("files.clear()")
        self.assertEqual(await waiting, pid)
        self.assertEqual(await self.full(watcher), [pid])

    async def test_tooManyFilesToListen(self) -> None:
        """
        A program that has too many open files to take a socket over meets
        C{EMFILE}, and what it opens later works.
        """
        path = self.program(
            """
            import errno, os, resource
            from twisted.internet import reactor
            from twisted.internet.error import CannotListenError
            from twisted.internet.protocol import Factory
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
            files = []
            try:
                while True:
                    files.append(open(os.devnull))
            except OSError:
                pass
            for spare in range(4):
                try:
                    port = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
                except CannotListenError as error:
                    print("spare", spare, errno.errorcode[error.socketError.errno])
                except OSError as error:
                    print("spare", spare, errno.errorcode[error.errno])
                else:
                    print("spare", spare, "port", port.getHost().port)
                    break
                files.pop().close()
            files.clear()
            reactor.run()
            """
        )
        watcher = self.cluster(path, 1)
        await watcher.whenReady().addTimeout(30, reactor)
        said = [text for text in self.logged.texts if text.startswith("spare ")]
        self.assertEqual(said[0], "spare 0 EMFILE")
        self.assertIn(" port ", said[-1])
        self.assertEqual(len(watcher.addresses), 1)

    async def test_outOfMemory(self) -> None:
        """
        A worker that is out of memory says so and is replaced.
        """
        watcher = await self.puppets(2)
        [victim, other] = await self.full(watcher)
        await watcher.workers[0].request(
            "exec('import resource; resource.setrlimit("
            "resource.RLIMIT_AS, (400 << 20, 400 << 20))', globals())"
        )
        await watcher.workers[0].request(
            "soon(exec, 'try: bytearray(1 << 30)\\n"
            'except MemoryError: log.failure("too much"); os._exit(1)\', globals())'
        )
        await self.gone([victim])
        self.assertIn(other, await self.full(watcher))
        self.assertEqual(self.logged.count("too much"), 1)

    async def test_prints50MB(self) -> None:
        """
        A worker that prints 50 MB at once neither stops the watcher's heart nor
        loses a line, and the watcher's memory stays flat.
        """
        watcher = await self.puppets(1, heartbeatTimeout=5.0)
        [pid] = await self.full(watcher)
        logged = self.logged
        before = memoryOf(os.getpid())
        lines = 50_000
        self.patch(logged, "events", _Counting())
        await watcher.workers[0].request(
            f"threading.Thread(target=lambda: [print('x' * 1000) "
            f"for _ in range({lines})] and print('the end', flush=True)).start()"
        )
        await logged.waitFor("the end", 60)
        counted: Any = logged.events
        self.assertEqual(counted.long, lines)
        self.assertEqual(await self.full(watcher), [pid])
        self.assertLess(memoryOf(os.getpid()) - before, 50 << 20)

    async def test_flood(self) -> None:
        """
        A worker that logs faster than the watcher takes it drops the newest of
        the lowest level, says how many, and its memory is bounded.
        """
        watcher = await self.puppets(1)
        [pid] = await self.full(watcher)
        before = memoryOf(pid)
        await watcher.workers[0].request(
            'soon(exec, \'for i in range(60000): log.info("{i} " + "x" * 1000, i=i)'
            '\\nlog.error("the last word")\', globals())'
        )
        await self.logged.waitFor("the last word", 60)
        event = await self.logged.waitFor("logs too fast")
        self.assertGreater(event["dropped"], 10_000)
        self.assertLess(memoryOf(pid) - before, 60 << 20)
        numbers = [e["i"] for e in self.logged.events if "i" in e]
        self.assertEqual(numbers, sorted(set(numbers)))
        self.assertEqual(await self.full(watcher), [pid])


class _Counting(list[dict[str, Any]]):
    """
    Events that are counted rather than kept, when they are long.
    """

    long = 0

    def append(self, event: dict[str, Any]) -> None:
        if len(str(event.get("log_text", ""))) >= 900:
            self.long += 1
        else:
            super().append(event)


class Families(FaultTestCase):
    """
    Workers that have children of their own.
    """

    async def test_subprocessOutlives(self) -> None:
        """
        A process that a worker started, and that outlives it with the worker's
        stdout in its hands, delays neither the worker's replacement nor the
        watcher's end.
        """
        watcher = await self.puppets(1)
        [victim] = await self.full(watcher)
        started = await watcher.workers[0].request(
            "subprocess.Popen(['sleep', '3600']).pid"
        )
        child = int(str(started))
        self.addCleanup(_kill, child)
        os.kill(victim, signal.SIGKILL)
        await self.gone([victim])
        [pid] = await until(lambda: _without(watcher, victim))
        self.assertTrue(isAlive(child))
        await watcher.stopService().addTimeout(5, reactor)
        await self.gone([pid], 1)
        self.assertTrue(isAlive(child))

    async def test_forkOutlives(self) -> None:
        """
        A fork of a worker, which holds copies of all that the worker has but
        the channels, delays neither its replacement nor the watcher's end; and
        what it logs does not reach the worker's channel.
        """
        watcher = await self.puppets(1)
        [victim] = await self.full(watcher)
        worker = watcher.workers[0]
        await worker.request(
            "exec('''\nimport multiprocessing\n"
            "def child():\n"
            "    log.error('from the fork')\n"
            "    import logging; logging.error('from the fork, too')\n"
            "    print('printed by the fork', flush=True)\n"
            "    time.sleep(3600)\n"
            "fork = multiprocessing.get_context('fork').Process(target=child)\n"
            "fork.start()''', globals())"
        )
        child = int(str(await worker.request("fork.pid")))
        self.addCleanup(_kill, child)
        await self.logged.waitFor("printed by the fork")
        await worker.request("log.info('by the worker itself')")
        await self.logged.waitFor("by the worker itself")
        self.assertEqual(await self.full(watcher), [victim])
        self.assertEqual(self.logged.count("nonsense"), 0)
        os.kill(victim, signal.SIGKILL)
        await self.gone([victim])
        [pid] = await until(lambda: _without(watcher, victim))
        self.assertTrue(isAlive(child))
        await watcher.stopService().addTimeout(5, reactor)
        await self.gone([pid], 1)

    async def test_channelsAreNotInherited(self) -> None:
        """
        Neither a process that a worker executes nor a fork of it has the
        worker's channels.
        """
        watcher = await self.puppets(1)
        worker = watcher.workers[0]
        executed = await worker.request(
            "subprocess.run([sys.executable, '-c', 'import os; print(*["
            'os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")'
            ' if os.path.exists(f"/proc/self/fd/{n}")])\'], '
            "capture_output=True, text=True, close_fds=False).stdout"
        )
        self.assertNotIn("socket:", str(executed))


class Repetition(FaultTestCase):
    """
    Fifty restarts in a row.
    """

    async def test_restarts(self) -> None:
        """
        After fifty restarts in a row the watcher has as many descriptors and
        children, and about as much memory, as before.
        """
        watcher = await self.serving(self.program(QUICK), 1)

        async def restart(times: int) -> tuple[int, int, int]:
            for _ in range(times):
                await watcher.restart().addTimeout(30, reactor)
                self.logged.events.clear()
            await until(lambda: len(watcher.workers) == 1)
            await until(lambda: len(children() - self._children) == 1)
            return len(openDescriptors()), len(children()), memoryOf(os.getpid())

        descriptors, processes, memory = await restart(10)
        later = await restart(40)
        self.assertEqual(later[:2], (descriptors, processes))
        self.assertLess(later[2] - memory, 10 << 20)

    async def test_deaths(self) -> None:
        """
        Workers that are killed one after the other leave nothing behind.
        """
        watcher = await self.serving(self.program(QUICK), 2, heartbeatTimeout=5)
        await self.full(watcher)
        before = len(openDescriptors())
        for _ in range(4):
            for pid in await self.full(watcher):
                os.kill(pid, signal.SIGKILL)
                await self.gone([pid])
            await until(
                lambda: (
                    all(w.pid and isAlive(w.pid) for w in watcher.workers)
                    and len(watcher.workers) == 2
                )
            )
        await self.full(watcher)
        self.assertEqual(len(openDescriptors()), before)


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def _without(watcher: ClusterWatcher, victim: int) -> list[int]:
    return [
        worker.pid
        for worker in watcher.workers
        if worker.state == "ready" and worker.pid not in (None, victim)
    ]
