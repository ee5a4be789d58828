"""
What becomes of the watcher's process and of its workers when it is the watcher
that is killed, stopped, or short of something.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError

from tests.integration.balancing import connect
from tests.integration.faults import (
    FILLING,
    PUPPET,
    FaultTestCase,
    childrenOf,
    descriptorsOf,
    memoryOf,
    statusOf,
    tell,
)
from tests.integration.support import Command, isAlive, reactor, until


class CommandFaults(FaultTestCase):
    """
    A cluster in a process of its own.
    """

    async def started(
        self, workers: int, *options: str, code: str = "", **more: Any
    ) -> tuple[Command, int, set[int]]:
        """
        Start one.

        @return: the command, its port, the pids of its workers.
        """
        command = self.puppetCommand("-w", str(workers), *options, code=code, **more)
        port = await self.portOfCommand(command)
        return command, port, await self.workersOf(command, workers)

    async def stop(self, command: Command, status: int = 0) -> None:
        """
        Stop one in good order.
        """
        command.signal(signal.SIGTERM)
        self.assertEqual(await command.whenEnded(), status, command.text)


class Killed(CommandFaults):
    """
    The watcher is killed: its workers leave.
    """

    async def test_atOnce(self) -> None:
        """
        Workers that have nothing to finish are gone at once.
        """
        command, port, workers = await self.started(3)
        command.signal(signal.SIGKILL)
        self.assertEqual(await command.whenEnded(), -signal.SIGKILL)
        await self.gone(workers, 2)
        refused = Deferred.fromCoroutine(tell(port, "1", 5))
        await self.assertFailure(refused, ConnectionRefusedError)

    async def test_helperHoldsPipes(self) -> None:
        """
        Workers notice, though a process that the watcher started holds copies
        of all that the watcher had open.
        """
        path = self.program(PUPPET, "puppet.py")
        driver = self.program(
            f"""
            import os, sys
            from twisted.internet import reactor
            from twisted_cluster import ClusterWatcher
            from twisted.logger import globalLogBeginner, textFileLogObserver
            globalLogBeginner.beginLoggingTo(
                [textFileLogObserver(sys.stdout)], redirectStandardIO=False)
            watcher = ClusterWatcher(reactor, {path!r}, 2)
            def ready(_):
                pid = os.fork()
                if pid == 0:
                    import time
                    time.sleep(3600)
                print("the helper is", pid, flush=True)
            watcher.startService()
            watcher.whenReady().addCallback(ready)
            reactor.run()
            """,
            "driver.py",
        )
        command = self.execute([sys.executable, driver])
        await command.waitFor("the helper is")
        helper = int(command.text.rpartition("the helper is ")[2].split()[0])
        workers = childrenOf(command.pid) - {helper}
        self.assertEqual(len(workers), 2)
        command.signal(signal.SIGKILL)
        await self.gone(workers, 2)
        self.assertTrue(isAlive(helper))
        os.kill(helper, signal.SIGKILL)
        await command.whenEnded()

    async def test_workersHelper(self) -> None:
        """
        Workers notice, though processes that they started hold their pipes.
        """
        command, port, workers = await self.started(1)
        child = await tell(port, "subprocess.Popen(['sleep', '3600']).pid")
        command.signal(signal.SIGKILL)
        await self.gone(workers, 2)
        self.assertTrue(isAlive(child))
        os.kill(child, signal.SIGKILL)
        await command.whenEnded()

    async def test_blocked(self) -> None:
        """
        A worker whose reactor stands still is gone within the shutdown timeout.
        """
        command, port, workers = await self.started(1, "--shutdown-timeout=1")
        await tell(port, "soon(theUsersFunction)")
        await command.waitFor("asleep")
        command.signal(signal.SIGKILL)
        await self.gone(workers, 4)
        await command.whenEnded()

    async def test_busy(self) -> None:
        """
        A worker whose stopping takes for ever is gone within the shutdown
        timeout.
        """
        command, _, workers = await self.started(
            1,
            "--shutdown-timeout=1",
            code="from twisted.internet.defer import Deferred; "
            "reactor.addSystemEventTrigger('before', 'shutdown', Deferred)",
        )
        command.signal(signal.SIGKILL)
        await self.gone(workers, 4)
        await command.whenEnded()

    async def test_whileStarting(self) -> None:
        """
        A worker that has not come to run its reactor is gone at once.
        """
        path = self.program("print('here'); import time; time.sleep(3600)")
        command = self.command("run", "-w", "2", path)
        await command.waitFor("here")
        workers = childrenOf(command.pid)
        self.assertEqual(len(workers), 1)
        command.signal(signal.SIGKILL)
        await self.gone(workers, 2)
        await command.whenEnded()

    async def test_portIsFree(self) -> None:
        """
        The port can be had again once the workers are gone, and the next
        watcher has it.
        """
        command, port, workers = await self.started(2)
        command.signal(signal.SIGKILL)
        await self.gone(workers, 2)
        await command.whenEnded()
        bind = f"tcp:{port}:interface=127.0.0.1"
        again = self.puppetCommand("-w", "1", "--bind", bind)
        await self.portOfCommand(again)
        await self.stop(again)

    async def test_portIsFreeWhileConnectionsEnd(self) -> None:
        """
        The next watcher has the port while a worker of the dead one waits for the end
        of its connection.
        """
        command, port, workers = await self.started(2, "--shutdown-timeout=60")
        client = await connect(port)
        client.say(b"1")
        await self.served(port)
        command.signal(signal.SIGKILL)
        await command.whenEnded()
        await until(lambda: sum(map(isAlive, workers)) == 1)
        await until(lambda: canBind(port))
        bind = f"tcp:{port}:interface=127.0.0.1"
        second = self.puppetCommand("-w", "1", "--bind", bind)
        await self.portOfCommand(second)
        self.assertEqual(sum(map(isAlive, workers)), 1)
        await client.hangUp()
        await self.gone(workers, 10)
        await self.stop(second)

    async def served(self, port: int) -> None:
        """
        Wait until all that has connected before is accepted: a worker that is told
        to leave accepts what waits.
        """
        for _ in range(4):
            await tell(port, "1")


def canBind(port: int) -> bool:
    """
    Whether a server could have a port.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError:
            return False
    return True


class Stopped(CommandFaults):
    """
    The watcher stands still.
    """

    async def test_nobodyIsReplaced(self) -> None:
        """
        When the watcher was stopped for longer than the heartbeat timeout,
        nobody is replaced.
        """
        command, port, workers = await self.started(2, "--heartbeat-timeout=1")
        command.signal(signal.SIGSTOP)
        end = reactor.seconds() + 2.5
        while reactor.seconds() < end:
            self.assertIn(await tell(port, "os.getpid()"), workers)
        command.signal(signal.SIGCONT)
        end = reactor.seconds() + 2
        while reactor.seconds() < end:
            self.assertIn(await tell(port, "os.getpid()"), workers)
        self.assertEqual(childrenOf(command.pid), workers)
        self.assertNotIn("is replaced", command.text)
        await self.stop(command)

    async def test_hungAllTheSame(self) -> None:
        """
        A worker that hangs is replaced after the watcher was stopped, too.
        """
        command, port, workers = await self.started(1, "--heartbeat-timeout=1")
        await tell(port, "soon(theUsersFunction)")
        await command.waitFor("asleep")
        command.signal(signal.SIGSTOP)
        await until(lambda: "T (stopped)" in statusOf(command.pid))
        command.signal(signal.SIGCONT)
        await command.waitFor("is replaced; its Python stacks follow")
        await self.gone(workers)
        await command.waitFor("worker 2 is ready")
        await self.stop(command)

    async def test_fullPipe(self) -> None:
        """
        A worker that prints to a watcher that stands still waits, and nothing
        is lost when the watcher goes on.
        """
        command, port, workers = await self.started(1, "--heartbeat-timeout=5")
        command.signal(signal.SIGSTOP)
        await tell(
            port,
            "threading.Thread(target=lambda: [print('line', i, 'x' * 990) "
            "for i in range(4000)] and print('the end', flush=True)).start()",
        )
        await tell(port, "time.sleep(0.5)")
        command.signal(signal.SIGCONT)
        await command.waitFor("the end", 60)
        numbers = [int(i) for i in re.findall(r"stdout: line (\d+) x", command.text)]
        self.assertEqual(numbers, list(range(4000)))
        self.assertEqual(childrenOf(command.pid), workers)
        await self.stop(command)

    async def test_logQueue(self) -> None:
        """
        A worker that logs without end to a watcher that stands still serves
        on; its memory is bounded, and when the watcher goes on, it says how
        many events were dropped.
        """
        command, port, workers = await self.started(1, "--heartbeat-timeout=5")
        [pid] = workers
        before = memoryOf(pid)
        command.signal(signal.SIGSTOP)
        for _ in range(10):
            await tell(
                port, "[log.info('{i} ' + 'x' * 1000, i=i) for i in range(4000)][:0]"
            )
        self.assertLess(memoryOf(pid) - before, 30 << 20)
        self.assertEqual(await tell(port, "os.getpid()"), pid)
        command.signal(signal.SIGCONT)
        await command.waitFor("logs too fast")
        await tell(port, "log.info('after the flood')")
        await command.waitFor("after the flood")
        dropped = re.findall(r"logs too fast: (\d+) events", command.text)
        arrived = re.findall(r"__main__: \d+ x", command.text)
        self.assertGreater(sum(map(int, dropped)), 10_000)
        self.assertEqual(sum(map(int, dropped)) + len(arrived), 40_000)
        self.assertEqual(childrenOf(command.pid), workers)
        await self.stop(command)

    async def test_exitMeanwhile(self) -> None:
        """
        A worker that ends while the watcher stands still is replaced when it
        goes on.
        """
        command, _, workers = await self.started(2)
        victim = min(workers)
        command.signal(signal.SIGSTOP)
        os.kill(victim, signal.SIGKILL)
        await self.gone([victim])
        command.signal(signal.SIGCONT)
        await command.waitFor("worker 3 is ready")
        await self.stop(command)


class TooManyFiles(CommandFaults):
    """
    The watcher has too many open files.
    """

    async def _filling(self) -> tuple[Command, int, set[int]]:
        """
        Start a watcher of two workers that opens all the files that it may at
        USR1, and closes them at USR2.

        @return: as L{started}.
        """
        path = self.program(PUPPET, "puppet.py")
        driver = self.program(FILLING % f"{path!r}, 2", "driver.py")
        command = self.execute([sys.executable, driver])
        await command.waitFor("ready\n")
        port = int(command.text.rpartition("port ")[2].split()[0])
        workers = await self.workersOf(command, 2)
        return command, port, workers

    async def test_replacement(self) -> None:
        """
        A watcher that cannot start a replacement says so, tries again, and goes
        on when it can.
        """
        command, port, workers = await self._filling()
        before = len(descriptorsOf(command.pid))
        command.signal(signal.SIGUSR1)
        await command.waitFor("full: ")
        os.kill(min(workers), signal.SIGKILL)
        await until(lambda: command.text.count("cannot be started: [Errno 24]") >= 2)
        self.assertEqual(await tell(port, "os.getpid()"), max(workers))
        command.signal(signal.SIGUSR2)
        await command.waitFor("empty")
        again = await self.workersOf(command, 2)
        self.assertIn(max(workers), again)
        await until(lambda: command.text.count("is ready after") == 3)
        await until(lambda: len(descriptorsOf(command.pid)) == before, 5)
        command.signal(signal.SIGTERM)
        self.assertEqual(await command.whenEnded(), 0, command.text)
        self.assertNotIn("Traceback", command.text)

    async def test_question(self) -> None:
        """
        A watcher that cannot take the socket of a worker's question refuses it with
        that errno; the worker serves on, and is given a socket later.
        """
        command, port, workers = await self._filling()
        command.signal(signal.SIGUSR1)
        await command.waitFor("full: ")
        answer = await tell(port, "(os.getpid(), attempt('cluster'))")
        self.assertIn("[Errno 24] Too many open files", answer[1])
        command.signal(signal.SIGUSR2)
        await command.waitFor("empty")
        again = await tell(port, "(os.getpid(), attempt('cluster'))")
        self.assertNotIn("Errno", str(again[1]))
        self.assertIn(answer[0], workers)
        self.assertEqual(childrenOf(command.pid), workers)
        await self.stop(command)

    async def test_fromTheStart(self) -> None:
        """
        A watcher that has too few descriptors for its first worker ends with
        status 3 and says why.
        """
        path = self.program(PUPPET, "puppet.py")
        command = self.execute(
            [
                "/bin/sh",
                "-c",
                'ulimit -n 12; exec "$@"',
                "sh",
                sys.executable,
                "-m",
                "twisted_cluster.cli",
                "run",
                "-w",
                "2",
                path,
            ]
        )
        self.assertEqual(await command.whenEnded(), 3, command.text)
        self.assertIn("cannot be started: [Errno 24]", command.text)

    async def test_someOnly(self) -> None:
        """
        A watcher that has enough descriptors for some of its workers serves
        with these, says why there are no more, and stops in good order.
        """
        path = self.program(PUPPET, "puppet.py")
        command = self.execute(
            [
                "/bin/sh",
                "-c",
                'ulimit -n 28; exec "$@"',
                "sh",
                sys.executable,
                "-m",
                "twisted_cluster.cli",
                "run",
                "-w",
                "6",
                path,
            ]
        )
        await command.waitFor("cannot be started: [Errno 24]")
        await command.waitFor("is ready after")
        port = int(command.text.rpartition("port ")[2].split()[0])
        self.assertIn(await tell(port, "os.getpid()"), childrenOf(command.pid))
        await self.stop(command)


class Signals(CommandFaults):
    """
    Signals to a watcher whose workers do not leave.
    """

    ENDLESS = (
        "from twisted.internet.defer import Deferred; "
        "reactor.addSystemEventTrigger('before', 'shutdown', "
        "lambda: print('for ever') or Deferred())"
    )

    async def _second(self, first: int, second: int) -> None:
        command, _, workers = await self.started(2, code=self.ENDLESS)
        command.signal(first)
        await command.waitFor("for ever")
        command.signal(second)
        self.assertEqual(await command.whenEnded(5), 0, command.text)
        await self.gone(workers, 1)

    async def test_secondTerm(self) -> None:
        """
        A second TERM ends a graceful stop.
        """
        await self._second(signal.SIGTERM, signal.SIGTERM)

    async def test_secondInt(self) -> None:
        """
        So does an INT after a TERM.
        """
        await self._second(signal.SIGTERM, signal.SIGINT)

    async def test_quitAfterInt(self) -> None:
        """
        So does QUIT.
        """
        await self._second(signal.SIGINT, signal.SIGQUIT)

    async def test_quit(self) -> None:
        """
        QUIT waits for nobody.
        """
        command, _, workers = await self.started(2, code=self.ENDLESS)
        command.signal(signal.SIGQUIT)
        self.assertEqual(await command.whenEnded(5), 0, command.text)
        await self.gone(workers, 1)

    async def test_limit(self) -> None:
        """
        A graceful stop ends after the shutdown timeout, and the log says who
        did not leave.
        """
        command, _, workers = await self.started(
            2, "--shutdown-timeout=1", code=self.ENDLESS
        )
        command.signal(signal.SIGTERM)
        self.assertEqual(await command.whenEnded(10), 0, command.text)
        self.assertEqual(command.text.count("it did not stop within 1 s"), 2)
        await self.gone(workers, 1)


class PIDFiles(CommandFaults):
    """
    The pid file.
    """

    async def test_liveOwner(self) -> None:
        """
        A second watcher with the pid file of one that lives refuses to start,
        with status 1, names the owner, and does it no harm.
        """
        path = self.directory / "watcher.pid"
        command, port, _ = await self.started(1, f"--pid-file={path}")
        second = self.puppetCommand("-w", "1", f"--pid-file={path}")
        self.assertEqual(await second.whenEnded(), 1)
        self.assertIn(f"process {command.pid} runs", second.text)
        self.assertEqual(path.read_text(), f"{command.pid}\n")
        await tell(port, "1")
        await self.stop(command)
        self.assertFalse(path.exists())

    async def test_deadOwner(self) -> None:
        """
        The pid file of a watcher that was killed is taken over.
        """
        path = self.directory / "watcher.pid"
        command, _, workers = await self.started(1, f"--pid-file={path}")
        command.signal(signal.SIGKILL)
        await command.whenEnded()
        await self.gone(workers)
        self.assertTrue(path.exists())
        second, _, _ = await self.started(1, f"--pid-file={path}")
        self.assertEqual(path.read_text(), f"{second.pid}\n")
        await self.stop(second)
        self.assertFalse(path.exists())

    async def test_failedStart(self) -> None:
        """
        A watcher that cannot start removes its pid file.
        """
        path = self.directory / "watcher.pid"
        command = self.command("run", f"--pid-file={path}", "./missing.py")
        self.assertEqual(await command.whenEnded(), 4)
        self.assertFalse(path.exists())

    async def test_nowhere(self) -> None:
        """
        A pid file that cannot be written is a failure of the configuration.
        """
        path = self.directory / "nowhere" / "watcher.pid"
        command = self.puppetCommand("-w", "1", f"--pid-file={path}")
        self.assertEqual(await command.whenEnded(), 1)
        self.assertIn(str(path), command.text)
