"""
A worker that sends, receives and answers what the benchmark asks for.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from twisted_cluster import cluster
from twisted_cluster.interfaces import IChannel

WINDOW = 1000
log = Logger()


class Talker:
    """
    Does what requests say.
    """

    def __init__(self, channel: IChannel) -> None:
        self.channel = channel
        self.received = 0
        self.enough = 0
        self.waiter: Deferred[None] = Deferred()

    async def consume(self) -> None:
        async for _ in self.channel:
            self.received += 1
            if self.received == self.enough:
                self.waiter.callback(None)

    def answer(self, data: Any) -> Any:
        return data["value"] if data["do"] == "echo" else self.obey(data)

    async def obey(self, data: Any) -> None:
        do = data["do"]
        count: int = data["count"]
        if do == "send":
            await self.send(count, data["value"])
        elif do == "sendMany":
            await self.sendMany(count, data["value"])
        elif do == "sendOne":
            await self.channel.send(bytes(count))
        elif do == "receive":
            self.enough = self.received + count
            self.waiter = Deferred()
            await self.waiter
        elif do == "log":
            await self.log(count)

    async def send(self, count: int, value: bytes) -> None:
        for start in range(0, count, WINDOW):
            send = self.channel.send
            sent = [send(value) for _ in range(min(WINDOW, count - start))]
            for each in sent:
                await each

    async def sendMany(self, count: int, value: bytes) -> None:
        for start in range(0, count, WINDOW):
            await self.channel.sendMany([value] * min(WINDOW, count - start))

    async def log(self, count: int) -> None:
        for start in range(0, count, WINDOW):
            for number in range(start, min(start + WINDOW, count)):
                log.info(
                    "request {number} of {peer} took {seconds:.3f} s",
                    number=number,
                    peer="192.0.2.1",
                    seconds=0.25,
                )
            await self.channel.request(None)


def main() -> None:
    running: Any = reactor
    channel = cluster.channel()
    talker = Talker(channel)
    channel.responder(talker.answer)
    Deferred.fromCoroutine(talker.consume())
    running.callWhenRunning(cluster.ready)
    running.run()


main()
