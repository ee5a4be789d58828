"""
Faults while the watcher accepts: what no worker has taken is lost by none of
them, and served once.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import sys

import pytest

from tests.integration.balancing import TCP, TOKENS, Account, StormTestCase, shares
from tests.integration.faults import FILLING, childrenOf, descriptorsOf, portOf
from tests.integration.support import openDescriptors, until
from twisted_cluster.supervisor.intake import WINDOW
from twisted_cluster.watcher import ClusterWatcher

HTTP = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n" * 20


class Kills(StormTestCase):
    """
    Workers that are killed while connections come.
    """

    async def _kill(self, times: int, rate: int) -> None:
        """
        Kill one worker after another, always the oldest, every second one after it
        has stood still for some time.
        """
        watcher = await self.tokens(4, pause=0.01)
        gone: dict[int, int] = {}
        self.storm.start(portOf(watcher), rate)
        for time in range(times):
            await self.full(watcher, 60)
            await self.storm.more(50)
            victim = min(watcher.workers, key=lambda worker: worker.id)
            assert victim.pid is not None
            gone[victim.id] = victim.pid
            if time % 2:
                os.kill(victim.pid, signal.SIGSTOP)
                await self.storm.more(40)
            self.storm.killed = victim.id
            os.kill(victim.pid, signal.SIGKILL)
            await self.replaced(watcher, victim.pid, 60)
        await self.storm.end()
        failures = self.storm.check(self, gone)
        made = self.storm.pidsThatMade()
        for each in failures:
            pid = gone.get(each.killed)
            self.assertEqual(self.storm.taken.get(each.peer), [each.killed], each)
            self.assertEqual(made.get(each.peer, [pid]), [pid], each)
        print(
            f"{len(self.storm.accounts)} connections in {self.storm.seconds:.1f} s, "
            f"{self.storm.returned} came back, {len(failures)} failed, of which "
            f"{sum(each.peer not in made for each in failures)} were taken and had "
            f"not reached the program"
        )
        self.assertGreater(self.storm.returned, times // 2)
        self.assertLess(len(failures), times * 25)

    async def test_three(self) -> None:
        """
        When workers are killed at 500 connections per second, only connections fail
        that the worker which was killed at that moment had taken; every other is
        answered exactly once.
        """
        await self._kill(4, 500)

    @pytest.mark.slow
    @pytest.mark.timeout(500)
    async def test_thirty(self) -> None:
        """
        The same, thirty times in a row.
        """
        await self._kill(30, 500)

    test_thirty.timeout = 400  # type: ignore[attr-defined]  # trial's


class StandingStill(StormTestCase):
    """
    Workers that do not take what they were handed.
    """

    async def _othersOver(
        self, watcher: ClusterWatcher, calls: list[Account], most: int = WINDOW
    ) -> list[Account]:
        """
        Wait until the first of two workers is passed over, and all that it was not
        handed are answered.

        @param most: how many it may have been handed.
        @return: those, one at least.
        """
        await self.passedOver(watcher, 0)
        held = self.intakes(watcher)[0]
        await until(
            lambda: sum(call.over for call in calls) == len(calls) - held.unanswered
        )
        waiting = [call for call in calls if not call.over]
        self.assertEqual(len(waiting), held.unanswered)
        self.assertIn(len(waiting), range(1, most + 1))
        return waiting

    async def test_stopped(self) -> None:
        """
        A worker that is stopped by SIGSTOP is handed few connections and then
        passed over; when it is killed for it, these reach others, and each is
        answered once.
        """
        watcher = await self.tokens(2, heartbeatTimeout=4.0)
        port = portOf(watcher)
        [victim, other] = await self.full(watcher)
        os.kill(victim, signal.SIGSTOP)
        calls = self.storm.calls(port, 200)
        waiting = await self._othersOver(watcher, calls)
        self.assertEqual({call.pid for call in calls if call.over}, {other})
        await self.storm.over(self.storm.calls(port, 50), 3)
        self.assertFalse(any(call.over for call in waiting))
        self.assertIn(other, await self.replaced(watcher, victim))
        await self.storm.end()
        self.assertEqual(self.storm.check(self, {}), [])
        self.assertEqual(self.storm.returned, len(waiting))

    async def test_stoppedWhileQuiet(self) -> None:
        """
        When connections come one by one, a single one waits for such a worker.
        """
        watcher = await self.tokens(2)
        port = portOf(watcher)
        [victim, other] = await self.full(watcher)
        os.kill(victim, signal.SIGSTOP)
        calls = self.storm.calls(port, 2)
        await self.passedOver(watcher, 0)
        for _ in range(50):
            calls.append(self.storm.call(port))
            await self.storm.over(calls[-1:])
        await self._othersOver(watcher, calls, 1)
        self.assertEqual({call.pid for call in calls if call.over}, {other})
        os.kill(victim, signal.SIGKILL)
        self.assertIn(other, await self.replaced(watcher, victim))
        await self.storm.end()
        self.assertEqual(self.storm.check(self, {}), [])
        self.assertEqual(self.storm.returned, 1)

    async def test_blocked(self) -> None:
        """
        A worker whose reactor stands still is passed over, and takes what it was
        handed when it goes on.
        """
        watcher = await self.tokens(2)
        port = portOf(watcher)
        [victim, other] = await self.full(watcher)
        await watcher.workers[0].request("soon(standStill, 4)")
        await self.logged.waitFor("it stands still")
        waiting = await self._othersOver(watcher, self.storm.calls(port, 200))
        await self.storm.over(self.storm.calls(port, 50), 3)
        await self.storm.end()
        self.assertEqual(self.storm.check(self, {}), [])
        answered = shares(call.pid for call in self.storm.accounts)
        self.assertEqual(answered[victim], len(waiting))
        self.assertEqual(set(answered), {victim, other})
        await until(lambda: sum(self.connections(watcher)) == 0)
        calls = self.storm.calls(port, 40)
        await self.storm.over(calls)
        self.assertEqual(shares(call.pid for call in calls), {victim: 20, other: 20})

    async def test_allBlocked(self) -> None:
        """
        When no worker takes any, the watcher accepts no more, and the backlog holds
        what comes; all are answered when they go on.
        """
        watcher = await self.tokens(2)
        port = portOf(watcher)
        pids = await self.full(watcher)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        before = len(openDescriptors())
        calls = self.storm.calls(port, 300)
        for place in (0, 1):
            await self.passedOver(watcher, place)
        await until(lambda: backlogOf(port) + sum(self.connections(watcher)) == 300)
        for count in self.connections(watcher):
            self.assertIn(count, range(1, WINDOW + 1))
        self.assertLessEqual(len(openDescriptors()) - before, 300 + 2 * WINDOW)
        self.assertFalse(any(call.over for call in calls))
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        await self.storm.end()
        self.assertEqual(self.storm.check(self, {}), [])
        self.assertEqual({call.pid for call in calls}, set(pids))


class Limits(StormTestCase):
    """
    Processes that have too many open files.
    """

    async def test_worker(self) -> None:
        """
        A worker at its limit gives back what it cannot hold, others get it, and it
        is given some again when it has closed files.
        """
        watcher = await self.tokens(2)
        [victim, other] = await self.full(watcher)
        await watcher.workers[0].request("soon(fill)")
        await self.logged.waitFor("full: [Errno 24]")
        self.storm.start(portOf(watcher), 200)
        await self.storm.more(500)
        full = self.storm.accounts[:]
        await self.storm.over(full)
        self.assertEqual({account.pid for account in full}, {other})
        self.assertGreater(self.storm.returned, 0)
        await watcher.workers[0].request("files.clear()")
        await until(
            lambda: any(each.pid == victim for each in self.storm.accounts[-100:]), 10
        )
        await self.storm.end()
        self.assertEqual(self.storm.check(self, {}), [])
        self.assertEqual(await self.full(watcher), [victim, other])

    async def test_watcher(self) -> None:
        """
        A watcher at its limit leaves connections in the backlog, says so, and
        accepts them when it has closed files.
        """
        words = [self.program(TOKENS), self.storm.made, self.storm.served, TCP, 0]
        arguments = f'{list(map(str, words))!r}, 2, balance="round-robin"'
        driver = self.program(FILLING % arguments, "driver.py")
        command = self.execute([sys.executable, driver])
        await command.waitFor("ready\n")
        text = command.text.partition("The watcher accepts on tcp:127.0.0.1:")[2]
        port = int(text.split()[0])
        workers = await self.workersOf(command, 2)
        before = len(descriptorsOf(command.pid))
        command.signal(signal.SIGUSR1)
        await command.waitFor("full: ")
        calls = self.storm.calls(port, 200)
        await command.waitFor("No connection can be accepted on")
        await until(lambda: backlogOf(port) == 200)
        self.assertFalse(any(call.over for call in calls))
        command.signal(signal.SIGUSR2)
        await self.storm.end()
        self.assertEqual(self.storm.check(self, {}), [])
        self.assertEqual({call.pid for call in calls}, workers)
        self.assertEqual(childrenOf(command.pid), workers)
        self.assertEqual(command.text.count("No connection can be accepted on"), 1)
        await until(lambda: len(descriptorsOf(command.pid)) == before, 5)
        command.signal(signal.SIGTERM)
        self.assertEqual(await command.whenEnded(), 0, command.text)
        self.assertNotIn("Traceback", command.text)


CLOSED = "The client-socket channel of worker 1 is closed"


class Channel(StormTestCase):
    """
    Programs that meddle with the channel by which connections come.
    """

    async def _meddle(self, code: str, expected: str, lost: int = 0) -> ClusterWatcher:
        """
        Have one of two workers do something while connections come, and check that
        each is answered, by the other worker in the end.

        @param lost: how many that the worker had been handed may be cut.
        """
        watcher = await self.tokens(2)
        [victim, other] = await self.full(watcher)
        self.storm.start(portOf(watcher), 200)
        await self.storm.more(50)
        await watcher.workers[0].request(f"soon({code})")
        await self.logged.waitFor(expected)
        await self.storm.more(100)
        last = self.storm.accounts[-100:]
        await self.storm.end()
        failures = self.storm.check(self, {1: victim} if lost else {})
        self.assertLessEqual(len(failures), lost)
        self.assertEqual({account.pid for account in last}, {other})
        self.assertEqual(await self.full(watcher), [victim, other])
        os.kill(victim, signal.SIGTERM)
        await self.replaced(watcher, victim)
        again = self.storm.calls(portOf(watcher), 10)
        await self.storm.over(again)
        self.assertEqual(sorted(shares(each.pid for each in again).values()), [5, 5])
        return watcher

    async def test_garbage(self) -> None:
        """
        Of a worker that writes something else than frames nothing is believed any
        more: the log says so and why, and the cluster serves on.  What it was handed
        and had not said to have taken, no other worker gets.
        """
        await self._meddle(f"os.write, channel(), {HTTP!r}", CLOSED, WINDOW)

    async def test_falseWords(self) -> None:
        """
        Likewise of one that takes what it was not given.
        """
        await self._meddle(
            "os.write, channel(), frames.encodeTaken(1000)", CLOSED, WINDOW
        )
        self.assertEqual(self.logged.count("answers to what was never sent"), 1)

    async def test_wrongNote(self) -> None:
        """
        Likewise of one whose note says nothing.
        """
        await self._meddle(
            "os.write, channel(), frames.encodeNote(b'?')", CLOSED, WINDOW
        )

    async def test_closed(self) -> None:
        """
        A worker whose program closes the channel's descriptor gets no more, and
        somebody says so.
        """
        await self._meddle("os.close, channel()", "connections from the watcher")

    async def test_closesEverything(self) -> None:
        """
        When a program closes all its channels, the cluster is whole again soon, and
        only what that worker had is cut.
        """
        watcher = await self.tokens(2, heartbeatTimeout=3.0, shutdownTimeout=1.0)
        [victim, _] = await self.full(watcher)
        self.storm.start(portOf(watcher), 200)
        await self.storm.more(50)
        await watcher.workers[0].request("soon(os.closerange, 512, 1024)")
        await self.replaced(watcher, victim)
        await self.storm.end()
        failures = self.storm.check(self, self.left(watcher))
        self.assertLess(len(failures), 20)
        self.flushLoggedErrors()


class Ends(StormTestCase):
    """
    The end of others.
    """

    async def test_watcherKilled(self) -> None:
        """
        When the watcher is killed its workers leave, though it accepted for them.
        """
        words = [self.program(TOKENS), self.storm.made, self.storm.served, TCP, 0]
        command = self.command(
            "run", "--balance=round-robin", "-w", "3", *map(str, words)
        )
        await command.waitFor("3 workers serve")
        text = command.text.partition("The watcher accepts on tcp:127.0.0.1:")[2]
        port = int(text.split()[0])
        workers = await self.workersOf(command, 3)
        calls = self.storm.calls(port, 30)
        await self.storm.over(calls)
        self.assertEqual(shares(each.pid for each in calls), dict.fromkeys(workers, 10))
        command.signal(signal.SIGKILL)
        self.assertEqual(await command.whenEnded(), -signal.SIGKILL)
        await self.gone(workers, 3)
        refused = self.storm.call(port)
        await self.storm.over([refused])
        self.assertIn("refused", refused.error)

    async def test_resetBeforeAdoption(self) -> None:
        """
        A client that resets its connection before the worker takes it disturbs
        nobody, and is not counted any more.
        """
        watcher = await self.tokens(1, balance="least-connections")
        port = portOf(watcher)
        [pid] = await self.full(watcher)
        os.kill(pid, signal.SIGSTOP)
        clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
        await until(lambda: self.connections(watcher) == [20])
        for client in clients:
            client.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            client.close()
        os.kill(pid, signal.SIGCONT)
        calls = self.storm.calls(port, 10)
        await self.storm.end()
        self.assertEqual(self.storm.check(self, {}), [])
        self.assertEqual({call.pid for call in calls}, {pid})
        await until(lambda: self.connections(watcher) == [0])
        self.assertEqual([t for t in self.logged.texts if "Traceback" in t], [])


def backlogOf(port: int) -> int:
    """
    How many connections to a port of 127.0.0.1 wait to be accepted.
    """
    with open("/proc/net/tcp") as file:
        for line in file:
            words = line.split()
            if words[1] == f"0100007F:{port:04X}" and words[3] == "0A":
                return int(words[4].partition(":")[2], 16)
    return 0
