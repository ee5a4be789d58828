"""
Messages and requests, beside plain AMP; a long message, beside a bare socket.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol

from benchmarks.ampcommands import Echo, Receive, Send, Talker
from benchmarks.measuring import Contender, Result, Taken, compete, measure
from benchmarks.processes import CountingObserver, connect, startCluster
from twisted_cluster.watcher import ClusterWatcher

VALUE = b"x" * 100
WINDOW = 1000
LONG = 10_000_000
Progress = Callable[[str], None]


class Cluster:
    """
    A cluster of one worker that talks.
    """

    def __init__(self, watcher: ClusterWatcher) -> None:
        self.watcher = watcher
        [self.worker] = watcher.workers
        self.received = 0
        self.enough = -1
        self.waiter: Deferred[None] = Deferred()
        watcher.responder(lambda data, worker: None)
        Deferred.fromCoroutine(self.consume())

    async def consume(self) -> None:
        """
        Count what arrives.
        """
        async for _ in self.watcher.messages():
            self.received += 1
            if self.received == self.enough:
                self.waiter.callback(None)

    async def ask(self, do: str, count: int) -> None:
        """
        Have the worker send so many messages, and wait for them.
        """
        self.enough = self.received + count
        self.waiter = Deferred()
        order = {"do": do, "count": count, "value": VALUE}
        await self.worker.request(order, 120)
        await self.waiter

    async def ended(self, count: int, send: Callable[[int], Awaitable[None]]) -> None:
        """
        Send messages, and wait until the worker has them.
        """
        order = {"do": "receive", "count": count}
        received = self.worker.request(order, 120)
        await send(count)
        await received

    async def send(self, count: int) -> None:
        for start in range(0, count, WINDOW):
            send = self.worker.send
            sent = [send(VALUE) for _ in range(min(WINDOW, count - start))]
            for each in sent:
                await each

    async def sendMany(self, count: int) -> None:
        for start in range(0, count, WINDOW):
            await self.worker.sendMany([VALUE] * min(WINDOW, count - start))

    def measured(
        self, work: Callable[[int], Awaitable[object]]
    ) -> Callable[[int], Awaitable[Taken]]:
        """
        Have something measured on both sides.
        """
        pids = [self.worker.pid or 0]
        return lambda count: measure(lambda: work(count), count, lambda: pids)


class Plain:
    """
    A process that talks plain AMP.
    """

    def __init__(self, reactor: Any) -> None:
        self.amp = Talker()
        self.child, self.process = connect(reactor, "amptalker.py", self.amp)

    async def toUs(self, count: int) -> None:
        received = self.amp.expect(count)
        await self.amp.callRemote(Send, count=count, value=VALUE)
        await received

    async def toIt(self, count: int) -> None:
        received = self.amp.callRemote(Receive, count=count)
        await self.amp.sendAll(count, VALUE)
        await received

    def measured(
        self, work: Callable[[int], Awaitable[object]]
    ) -> Callable[[int], Awaitable[Taken]]:
        """
        Have something measured on both sides.
        """
        pids = [self.process.pid]
        return lambda count: measure(lambda: work(count), count, lambda: pids)

    async def close(self) -> None:
        """
        End it.
        """
        assert self.amp.transport is not None
        self.amp.transport.loseConnection()
        await self.child.whenEnded()


async def inFlight(count: int, many: int, ask: Callable[[], Awaitable[object]]) -> None:
    """
    Ask, with so many questions in flight.
    """

    async def asker(count: int) -> None:
        for _ in range(count):
            await ask()

    askers = [Deferred.fromCoroutine(asker(count // many)) for _ in range(many)]
    for each in askers:
        await each


async def messages(reactor: Any, rounds: int, progress: Progress) -> list[Result]:
    """
    Messages of 100 bytes, each way.
    """
    plain = Plain(reactor)
    ours = Cluster(await startCluster(reactor, "talker.py", CountingObserver()))
    try:
        amp = "AMP, one-way commands"
        out = [
            Contender(amp, 20_000, plain.measured(plain.toUs), True),
            Contender("send()", 100_000, ours.measured(lambda n: ours.ask("send", n))),
            Contender(
                "sendMany()", 100_000, ours.measured(lambda n: ours.ask("sendMany", n))
            ),
        ]
        back = [
            Contender(amp, 20_000, plain.measured(plain.toIt), True),
            Contender(
                "send()", 100_000, ours.measured(lambda n: ours.ended(n, ours.send))
            ),
            Contender(
                "sendMany()",
                100_000,
                ours.measured(lambda n: ours.ended(n, ours.sendMany)),
            ),
        ]
        return [
            await compete(title, "messages", contenders, rounds, progress)
            for title, contenders in (
                ("100 bytes, worker to watcher", out),
                ("100 bytes, watcher to worker", back),
            )
        ]
    finally:
        await ours.watcher.stopService()
        await plain.close()


async def requests(reactor: Any, rounds: int, progress: Progress) -> list[Result]:
    """
    Requests of 100 bytes to the worker, answered with the same.
    """
    plain = Plain(reactor)
    ours = Cluster(await startCluster(reactor, "talker.py", CountingObserver()))

    def request() -> Awaitable[object]:
        return ours.worker.request({"do": "echo", "value": VALUE})

    def echo() -> Awaitable[object]:
        answered: Awaitable[object] = plain.amp.callRemote(Echo, data=VALUE)
        return answered

    def contenders(many: int, count: int) -> list[Contender]:
        return [
            Contender(
                "AMP, answered commands",
                count,
                plain.measured(lambda n: inFlight(n, many, echo)),
                True,
            ),
            Contender(
                "request()",
                count,
                ours.measured(lambda n: inFlight(n, many, request)),
            ),
        ]

    try:
        return [
            await compete(title, "requests", contenders(many, count), rounds, progress)
            for title, many, count in (
                ("requests, 100 in flight", 100, 10_000),
                ("requests, one at a time", 1, 2_000),
            )
        ]
    finally:
        await ours.watcher.stopService()
        await plain.close()


class Bare(Protocol):
    """
    Has the other side write, and counts.
    """

    def __init__(self) -> None:
        self._left = 0
        self._waiter: Deferred[None] = Deferred()

    def ask(self, count: int) -> Deferred[None]:
        """
        Have so many bytes written.
        """
        assert self.transport is not None
        self._left = count
        self._waiter = Deferred()
        self.transport.write(b"%d\n" % count)
        return self._waiter

    def dataReceived(self, data: bytes) -> None:
        self._left -= len(data)
        if not self._left:
            self._waiter.callback(None)


async def long(reactor: Any, rounds: int, progress: Progress) -> list[Result]:
    """
    A message of 10 MB.
    """
    bare = Bare()
    child, process = connect(reactor, "barewriter.py", bare)
    ours = Cluster(await startCluster(reactor, "talker.py", CountingObserver()))
    pids = [process.pid, ours.worker.pid or 0]

    async def sendOne() -> None:
        ours.enough = ours.received + 1
        ours.waiter = Deferred()
        await ours.worker.request({"do": "sendOne", "count": LONG}, 120)
        await ours.waiter

    async def times(count: int, work: Callable[[], Awaitable[None]]) -> None:
        for _ in range(count):
            await work()

    def contender(
        name: str, count: int, work: Callable[[], Awaitable[None]], baseline: bool
    ) -> Contender:
        return Contender(
            name,
            count,
            lambda n: measure(lambda: times(n, work), n, lambda: pids),
            baseline,
        )

    try:
        return [
            await compete(
                "10 MB, worker to watcher",
                "messages",
                [
                    contender("bare socket", 50, lambda: bare.ask(LONG), True),
                    contender("send()", 20, sendOne, False),
                ],
                rounds,
                progress,
            )
        ]
    finally:
        await ours.watcher.stopService()
        assert bare.transport is not None
        bare.transport.loseConnection()
        await child.whenEnded()
