"""
Messages between real processes.
"""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path
from typing import Any, Optional

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from tests.integration.support import (
    ClusterTestCase,
    LogOfTest,
    isAlive,
    reactor,
    until,
)
from twisted_cluster import cluster
from twisted_cluster.errors import (
    ChannelClosed,
    ChannelFull,
    MessageTooLarge,
    NotAWorker,
    RequestFailed,
    RequestTimeout,
)
from twisted_cluster.ipc import outbox
from twisted_cluster.supervisor.handle import WorkerHandle
from twisted_cluster.watcher import ClusterWatcher

MB = 1024 * 1024

OBEYS = """
import os
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted_cluster import cluster, errors

channel = cluster.channel()

class State:
    count = bytesTaken = 0
    wrong = None
    echo = True

async def consume():
    async for message in channel:
        data = message.data
        if isinstance(data, int):
            if data != State.count:
                State.wrong = State.wrong or (State.count, data)
            State.count += 1
        elif isinstance(data, list):
            number, _ = data
            if number != State.count:
                State.wrong = State.wrong or (State.count, number)
            State.count += 1
        elif isinstance(data, bytes):
            State.bytesTaken = (len(data), data[:1], data[-1:], data.count(b"x"))
        else:
            await channel.send({"echo": data, "sender": message.sender})

async def obey(order):
    do = order.pop("do")
    return await globals()[do](**order)

async def flood(count):
    padding = b"x" * 96
    for start in range(0, count, 1000):
        sent = [channel.send([n, padding]) for n in range(start, start + 1000)]
        for each in sent:
            await each
    return count

async def state():
    return {"count": State.count, "wrong": State.wrong, "bytes": State.bytesTaken}

async def large(size):
    await channel.send(b"a" + b"x" * (size - 2) + b"z")

async def tell(to, data):
    try:
        await channel.send(data, to=to)
    except errors.ChannelError as error:
        return type(error).__name__
    return "told"

async def ask(data, timeout):
    try:
        return ["reply", await channel.request(data, timeout)]
    except errors.ChannelError as error:
        return [type(error).__name__, str(error)]

async def sleepForEver():
    await Deferred()

async def fail():
    raise ValueError("told to")

async def who():
    return [os.getpid(), cluster.workerID()]

channel.responder(obey)
reactor.callWhenRunning(lambda: Deferred.fromCoroutine(consume()))
reactor.run()
"""


def rss(pid: Optional[int] = None) -> int:
    """
    The resident memory of a process, in bytes.
    """
    statm = Path(f"/proc/{pid or os.getpid()}/statm").read_text()
    return int(statm.split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _atLeast(items: list[Any], count: int) -> bool:
    return len(items) >= count


class Highest:
    """
    Watches the resident memory of this process and of another while it runs.
    """

    def __init__(self, pid: int) -> None:
        self.pids = (os.getpid(), pid)
        self.first = self.last = [rss(each) for each in self.pids]
        self._loop = LoopingCall(self._look)
        self._loop.start(0.05)

    def _look(self) -> None:
        self.last = [
            max(before, rss(pid))
            for before, pid in zip(self.last, self.pids, strict=True)
        ]

    def stop(self) -> list[int]:
        """
        @return: by how many bytes each process grew at most.
        """
        self._look()
        self._loop.stop()
        return [last - first for last, first in zip(self.last, self.first, strict=True)]


class MessagesTestCase(ClusterTestCase):
    """
    Clusters whose messages are collected.
    """

    def consume(self, watcher: ClusterWatcher) -> list[Any]:
        """
        Collect what workers send.
        """
        messages: list[Any] = []

        async def run() -> None:
            async for message in watcher.messages():
                messages.append(message)

        Deferred.fromCoroutine(run())
        return messages

    async def obedient(self, workers: int = 1, **options: Any) -> ClusterWatcher:
        """
        A cluster whose workers do what requests say.
        """
        return await self.serving(self.program(OBEYS), workers, **options)

    async def order(self, worker: WorkerHandle, do: str, **order: Any) -> Any:
        """
        Have a worker do something.
        """
        return await worker.request(dict(order, do=do), 60)


class AsInAmphp(MessagesTestCase):
    """
    What C{amphp/cluster} tests.
    """

    async def test_receiving(self) -> None:
        """
        A worker's message arrives, with the worker that sent it.
        """
        program = self.program(
            """
            from twisted.internet import reactor
            from twisted_cluster import cluster
            reactor.callWhenRunning(cluster.channel().send, {"hello": ["watcher"]})
            reactor.run()
            """
        )
        watcher = self.cluster(program, 1)
        async for message in watcher.messages():
            self.assertEqual(message.data, {"hello": ["watcher"]})
            self.assertIs(message.worker, watcher.workers[0])
            self.assertEqual(message.worker.id, 1)
            break
        await watcher.whenReady()

    async def test_selfTermination(self) -> None:
        """
        A worker that ends itself when it is told to sends what it sends before
        that, ends with status 0 and is replaced.
        """
        program = self.program(
            """
            from twisted.internet import reactor
            from twisted.internet.defer import Deferred
            from twisted_cluster import cluster

            async def main():
                async for message in cluster.channel():
                    cluster.channel().send("Initiating shutdown")
                    cluster.shutdown()

            reactor.callWhenRunning(lambda: Deferred.fromCoroutine(main()))
            reactor.run()
            """
        )
        watcher = await self.serving(program, 2)
        messages = self.consume(watcher)
        old = watcher.workers
        await watcher.broadcast("go").addTimeout(30, reactor)
        await until(lambda: not any(isAlive(each.pid or 0) for each in old))
        await until(lambda: len(messages) == 2)
        self.assertEqual(
            {(each.data, each.worker) for each in messages},
            {("Initiating shutdown", each) for each in old},
        )
        self.assertFalse([e for e in self.logged.texts if "error" in e.lower()])
        await until(
            lambda: (
                [each.id for each in watcher.workers if each.state == "ready"] == [3, 4]
            )
        )

    async def test_lastMessage(self) -> None:
        """
        When the watcher ends a worker, what that sends last arrives.
        """
        program = self.program(
            """
            from twisted.internet import reactor
            from twisted_cluster import cluster

            def leaving(_):
                cluster.channel().send("Adios")

            cluster.whenStopping().addCallback(leaving)
            reactor.run()
            """
        )
        watcher = await self.serving(program, 2)
        messages = self.consume(watcher)
        workers = {each.id for each in watcher.workers}
        await watcher.stopService().addTimeout(30, reactor)
        self.assertEqual([each.data for each in messages], ["Adios", "Adios"])
        self.assertEqual({each.worker.id for each in messages}, workers)

    def test_observerOutside(self) -> None:
        """
        There is no observer that relays, and no channel, outside a worker.
        """
        self.assertRaises(NotAWorker, cluster.logObserver)
        self.assertRaises(NotAWorker, cluster.channel)

    async def test_observerInside(self) -> None:
        """
        Inside a worker, the observer relays what a publisher of one's own
        gives it.
        """
        program = self.program(
            """
            from twisted.internet import reactor
            from twisted.logger import Logger, LogPublisher
            from twisted_cluster import cluster
            publisher = LogPublisher(cluster.logObserver())
            log = Logger("my.namespace", observer=publisher)
            reactor.callWhenRunning(log.warn, "{what} is {how}", what="it", how="so")
            reactor.run()
            """
        )
        await self.serving(program, 1)
        event = await self.logged.waitFor("it is so")
        self.assertEqual(event["log_namespace"], "my.namespace")
        self.assertEqual(event["log_level"].name, "warn")
        self.assertEqual((event["what"], event["how"]), ("it", "so"))
        self.assertEqual(self.logged.count("it is so"), 1)

    async def test_watcherInside(self) -> None:
        """
        A worker cannot start a cluster of its own.
        """
        program = self.program(
            """
            from twisted.internet import reactor
            from twisted_cluster import ClusterWatcher, cluster
            from twisted_cluster.errors import InsideWorker
            try:
                ClusterWatcher(reactor, "server.py", 2)
            except InsideWorker as error:
                cluster.channel().send(str(error))
            reactor.run()
            """
        )
        watcher = self.cluster(program, 1)
        messages = self.consume(watcher)
        await until(lambda: messages)
        self.assertIn("is a worker", messages[0].data)
        await watcher.whenReady()


class Conversing(MessagesTestCase):
    """
    Messages and requests in every direction.
    """

    async def test_reply(self) -> None:
        """
        A message is answered through the worker that it names.
        """
        watcher = await self.obedient(2)
        messages = self.consume(watcher)
        for worker in watcher.workers:
            await worker.send({"to": worker.id})
        await until(lambda: len(messages) == 2)
        for message in messages[:]:
            self.assertEqual(message.data["echo"], {"to": message.worker.id})
            await message.worker.send({"again": message.worker.id})
        await until(lambda: len(messages) == 4)
        for message in messages[2:]:
            self.assertEqual(message.data["echo"], {"again": message.worker.id})
            self.assertIsNone(message.data["sender"])

    async def test_broadcast(self) -> None:
        """
        A broadcast reaches every worker; what cannot be sent fails.
        """
        watcher = await self.obedient(3)
        messages = self.consume(watcher)
        await watcher.broadcast({"flush": True}).addTimeout(30, reactor)
        await until(lambda: len(messages) == 3)
        self.assertEqual({each.worker.id for each in messages}, {1, 2, 3})
        with self.assertRaises(TypeError):
            await watcher.broadcast(object())

    async def test_requests(self) -> None:
        """
        Both sides ask and are answered, or told why not, within the time.
        """
        watcher = await self.obedient(2)
        [worker, other] = watcher.workers
        self.assertEqual(await self.order(worker, "who"), [worker.pid, worker.id])
        with self.assertRaises(RequestFailed) as caught:
            await self.order(worker, "fail")
        self.assertEqual(str(caught.exception), "ValueError: told to")
        await self.logged.waitFor("a responder failed")
        with self.assertRaises(RequestTimeout):
            await worker.request({"do": "sleepForEver"}, 0.2)

        found = await self.order(worker, "ask", data=1, timeout=5)
        self.assertEqual(found[0], "RequestFailed")
        watcher.responder(lambda data, asker: [data, asker.id])
        for each in (worker, other):
            found = await self.order(each, "ask", data={"a": 1}, timeout=5)
            self.assertEqual(found, ["reply", [{"a": 1}, each.id]])
        forever: Deferred[None] = Deferred()
        watcher.responder(lambda data, asker: forever)
        found = await self.order(worker, "ask", data=1, timeout=0.2)
        self.assertEqual(found[0], "RequestTimeout")

        async def fails(data: Any, asker: Any) -> None:
            raise LookupError(f"nothing for {asker.id}")

        watcher.responder(fails)
        found = await self.order(worker, "ask", data=1, timeout=5)
        self.assertEqual(
            found, ["RequestFailed", f"LookupError: nothing for {worker.id}"]
        )
        self.assertEqual(len(self.flushLoggedErrors(LookupError)), 1)

    async def test_dying(self) -> None:
        """
        Who waits for a worker that dies is told.
        """
        watcher = await self.obedient(1)
        [worker] = watcher.workers
        asked = worker.request({"do": "sleepForEver"}, 60)
        os.kill(worker.pid or 0, signal.SIGKILL)
        with self.assertRaises(ChannelClosed):
            await asked.addTimeout(30, reactor)
        with self.assertRaises(ChannelClosed):
            await worker.send(1)

    async def test_workerToWorker(self) -> None:
        """
        A worker sends to another by its id, which learns who it was; an
        unknown id fails at the sender.
        """
        watcher = await self.obedient(2)
        messages = self.consume(watcher)
        [one, two] = watcher.workers
        told = await self.order(one, "tell", to=two.id, data={"hi": 1})
        self.assertEqual(told, "told")
        await until(lambda: messages)
        self.assertIs(messages[0].worker, two)
        self.assertEqual(messages[0].data, {"echo": {"hi": 1}, "sender": one.id})
        unknown = await self.order(one, "tell", to=99, data={"hi": 1})
        self.assertEqual(unknown, "UnknownWorker")

    async def test_workerToFullWorker(self) -> None:
        """
        Who sends to a worker that stands still is told that too much waits for
        it, and not that there is none.
        """
        watcher = await self.obedient(2, heartbeatTimeout=60.0)
        self.patch(outbox, "LIMIT", 1_000_000)
        [one, two] = watcher.workers
        os.kill(two.pid or 0, signal.SIGSTOP)
        try:
            told: list[str] = []
            while "ChannelFull" not in told:
                self.assertEqual(told, ["told"] * len(told))
                self.assertTrue(len(told) < 20)
                told.append(
                    await self.order(one, "tell", to=two.id, data=b"x" * 100_000)
                )
        finally:
            os.kill(two.pid or 0, signal.SIGCONT)
        await until(lambda: two.conversation._messages.queued == 0)
        self.assertEqual(await self.order(one, "tell", to=two.id, data=b"x"), "told")

    async def test_orderlyExit(self) -> None:
        """
        What a program sends right before it ends arrives, however much: when
        its reactor stops, and when it never runs one.
        """
        stops = self.program(
            """
            from twisted.internet import reactor
            from twisted_cluster import cluster

            def main():
                for number in range(20_000):
                    cluster.channel().send([number, "x" * 100])
                reactor.stop()

            reactor.callWhenRunning(main)
            reactor.run()
            """,
            "stops.py",
        )
        never = self.program(
            """
            from twisted_cluster import cluster
            for number in range(20_000):
                cluster.channel().send([number, "x" * 100])
            """,
            "never.py",
        )
        for program in (stops, never):
            watcher = self.cluster(program, 1)
            messages = self.consume(watcher)
            await until(partial(_atLeast, messages, 20_000))
            watcher.stopNow()
            await watcher.stopService().addTimeout(30, reactor)
            first = messages[0].worker
            self.assertEqual(
                [each.data[0] for each in messages if each.worker is first],
                list(range(20_000)),
            )
            self.flushLoggedErrors()

    async def test_nobodyReads(self) -> None:
        """
        Where a program's watcher reads no messages, they are counted and
        dropped, the log says so once, and no worker waits for ever.
        """
        said = LogOfTest()
        from twisted.logger import globalLogPublisher

        globalLogPublisher.addObserver(said)
        self.addCleanup(globalLogPublisher.removeObserver, said)
        watcher = await self.obedient(2)
        highest = Highest(watcher.workers[0].pid or 0)
        for worker in watcher.workers:
            self.assertEqual(await self.order(worker, "flood", count=50_000), 50_000)
        self.assertTrue(max(highest.stop()) < 40 * MB)
        self.assertEqual(said.count("nobody reads"), 1)
        self.assertEqual(said.count("iterate over watcher.messages()"), 1)
        self.assertTrue(watcher._inbox.dropped > 80_000)

    async def test_readsNoLonger(self) -> None:
        """
        Where a program's watcher has left its loop over the messages, no worker
        waits for ever either; who begins another loop gets what was kept.
        """
        watcher = await self.obedient(2)
        first, second = watcher.workers
        left: Deferred[int] = Deferred()
        goOn: Deferred[None] = Deferred()

        async def readOne() -> None:
            async for message in watcher.messages():
                await goOn
                left.callback(message.data[0])
                break

        reading = Deferred.fromCoroutine(readOne())
        flooding = Deferred.fromCoroutine(self.order(first, "flood", count=50_000))
        await until(lambda: watcher._inbox._full)
        self.assertFalse(flooding.called)
        goOn.callback(None)
        self.assertEqual(await left, 0)
        await reading
        self.assertEqual(await flooding, 50_000)
        self.assertEqual(await self.order(second, "flood", count=50_000), 50_000)
        self.assertTrue(watcher._inbox.dropped > 80_000)
        messages = self.consume(watcher)
        numbers = [message.data[0] for message in messages]
        self.assertEqual(numbers, list(range(1, len(numbers) + 1)))
        self.assertTrue(len(numbers) > 5000)
        self.assertEqual(await self.order(second, "flood", count=1000), 1000)
        self.assertEqual(len(messages), len(numbers) + 1000)


class Large(MessagesTestCase):
    """
    Much, and long.
    """

    async def test_long(self) -> None:
        """
        A message of 100 MB arrives whole, both ways, while requests are
        answered in time and the heartbeat of 2 s misses nobody.
        """
        watcher = await self.obedient(1, heartbeatTimeout=2.0)
        messages = self.consume(watcher)
        [worker] = watcher.workers
        latencies: list[float] = []
        going = True

        async def ping() -> None:
            while going:
                begun = reactor.seconds()
                await worker.request({"do": "who"}, 20)
                latencies.append(reactor.seconds() - begun)

        pinging = Deferred.fromCoroutine(ping())
        await self.order(worker, "large", size=100_000_000)
        await until(lambda: messages)
        [message] = messages
        messages.clear()
        data, message = message.data, None
        self.assertEqual((len(data), data[:1], data[-1:]), (100_000_000, b"a", b"z"))
        await worker.send(data).addTimeout(60, reactor)
        state = await self.order(worker, "state")
        self.assertEqual(state["bytes"], [100_000_000, b"a", b"z", 99_999_998])
        going = False
        await pinging
        self.assertTrue(max(latencies) < 2.0, max(latencies))
        self.assertEqual(self.logged.count("has not answered"), 0)
        self.assertEqual([each.id for each in watcher.workers], [worker.id])

    async def test_tooLarge(self) -> None:
        """
        A message over the limit fails at the sender, and the channel lives.
        """
        watcher = await self.obedient(1, maxMessageSize=1_000_000)
        messages = self.consume(watcher)
        [worker] = watcher.workers
        with self.assertRaises(MessageTooLarge):
            await worker.send(b"x" * 1_000_001)
        with self.assertRaises(RequestFailed) as caught:
            await self.order(worker, "large", size=1_000_001)
        self.assertIn("--max-message-size", str(caught.exception))
        await worker.send({"still": "alive"})
        await until(lambda: messages)

    async def test_million(self) -> None:
        """
        A million messages of 100 bytes arrive each way in order, none lost,
        while the memory of neither process grows.
        """
        count = 1_000_000
        watcher = await self.obedient(1)
        [worker] = watcher.workers
        taken = 0
        wrong: list[Any] = []

        async def run() -> None:
            nonlocal taken
            async for message in watcher.messages():
                if message.data[0] != taken:
                    wrong.append((taken, message.data[0]))
                taken += 1

        Deferred.fromCoroutine(run())
        await self.order(worker, "flood", count=1000)
        taken = 0
        highest = Highest(worker.pid or 0)
        await self.order(worker, "flood", count=count)
        self.assertEqual((taken, wrong[:3]), (count, []))
        grown = highest.stop()
        self.assertTrue(max(grown) < 60 * MB, grown)

        padding = b"x" * 96
        highest = Highest(worker.pid or 0)
        for start in range(0, count, 1000):
            sent = [worker.send([n, padding]) for n in range(start, start + 1000)]
            for each in sent:
                await each
        state = await self.order(worker, "state")
        self.assertEqual((state["count"], state["wrong"]), (count, None))
        grown = highest.stop()
        self.assertTrue(max(grown) < 60 * MB, grown)

    async def test_stopsReading(self) -> None:
        """
        A worker that stands still does not grow the watcher: at the bound,
        send() fails with ChannelFull; when the worker goes on, what was taken
        arrives, in order.
        """
        watcher = await self.obedient(1, heartbeatTimeout=60.0)
        [worker] = watcher.workers
        os.kill(worker.pid or 0, signal.SIGSTOP)
        highest = Highest(worker.pid or 0)
        accepted: list[Deferred[None]] = []
        padding = b"x" * 10_000
        try:
            while True:
                sent = worker.send([len(accepted), padding])
                if sent.called:
                    break
                accepted.append(sent)
                if len(accepted) % 500 == 0:
                    turn: Deferred[None] = Deferred()
                    reactor.callLater(0, turn.callback, None)
                    await turn
                self.assertTrue(len(accepted) < 20_000)
            with self.assertRaises(ChannelFull):
                await sent
            self.assertTrue(5000 < len(accepted) < 7000, len(accepted))
            self.assertTrue(highest.stop()[0] < 110 * MB)
        finally:
            os.kill(worker.pid or 0, signal.SIGCONT)
        for each in accepted:
            await each.addTimeout(60, reactor)
        state = await self.order(worker, "state")
        self.assertEqual((state["count"], state["wrong"]), (len(accepted), None))
