"""
A process at the other end of a pipe for client sockets, which is to be brought
into trouble: it does what its first argument says, on descriptor 3, and prints
what came of it, and how many descriptors more it has than before.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from twisted.python.failure import Failure

from tests.sockethelpers import descriptors, room
from twisted_cluster.errors import ConnectionGone, ProtocolError
from twisted_cluster.sockets.clients.receiver import ClientSocketReceivePipe
from twisted_cluster.sockets.clients.sender import ClientSocketSendPipe
from twisted_cluster.sockets.clients.transferred import TransferredSocket
from twisted_cluster.sockets.wire import transport

reactor: Any = _reactor


def say(**words: Any) -> None:
    """
    Tell the test something.
    """
    print(json.dumps(words), flush=True)


def onSignal(number: int, do: Callable[[], object]) -> None:
    """
    Do something in the reactor whenever a signal comes.
    """
    signal.signal(number, lambda *_: reactor.callFromThread(do))


class Fates:
    """
    What became of sockets that were sent, told when it is known of all.
    """

    def __init__(self, sent: list[Deferred[None]]) -> None:
        self.count = len(sent)
        self.fates: Counter[str] = Counter()
        self.known: Deferred[None] = Deferred()
        for each in sent:
            each.addCallbacks(lambda _: "taken", self._failed).addCallback(self._add)

    def _failed(self, failure: Failure) -> str:
        return f"{type(failure.value).__name__}: {failure.getErrorMessage()}"

    def _add(self, fate: str) -> None:
        self.fates[fate] += 1
        if self.fates.total() == self.count:
            self.known.callback(None)


async def receive(*words: str) -> None:
    """
    Take what comes, and close it at the end; at SIGUSR1, say that the reactor turns.

    @param words: C{"close"} to close each at once, C{"full"} for a process that
        may open nothing any more.
    """
    before = descriptors()
    pipe = ClientSocketReceivePipe(reactor, socket.socket(fileno=3))
    kept: list[TransferredSocket] = []
    count = 0
    pings = iter(range(10**9))
    onSignal(signal.SIGUSR1, lambda: say(ping=next(pings), count=count))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if "full" in words:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1, limits[1]))
    say(ready=True)
    why = None
    try:
        async for taken in pipe:
            count += 1
            if "close" in words:
                taken.close()
            else:
                kept.append(taken)
    except ProtocolError as error:
        why = f"{type(error).__name__}: {error}"
    await pipe.whenClosed()
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    data = [each.data for each in kept]
    for each in kept:
        each.close()
    # Descriptor 3 has gone with the pipe.
    left = descriptors() - (before - 1)
    say(ended=why, count=count, data=data, closed=pipe.closed, left=left)


async def wait() -> None:
    """
    Take nothing before SIGUSR2, then all; at SIGUSR1, say that the reactor turns.
    """
    before = descriptors()
    pipe = ClientSocketReceivePipe(reactor, socket.socket(fileno=3))
    go: Deferred[None] = Deferred()
    pings = iter(range(10**9))
    onSignal(signal.SIGUSR1, lambda: say(ping=next(pings), open=descriptors() - before))
    onSignal(signal.SIGUSR2, lambda: go.callback(None))
    say(ready=True)
    await go
    sizes = []
    async for taken in pipe:
        sizes.append([taken.data[0], len(taken.data[1])])
        taken.close()
    say(sizes=sizes, left=descriptors() - (before - 1))


async def adopt() -> None:
    """
    Take one, and adopt it at SIGUSR1.
    """
    before = descriptors()
    pipe = ClientSocketReceivePipe(reactor, socket.socket(fileno=3))
    go: Deferred[None] = Deferred()
    onSignal(signal.SIGUSR1, lambda: go.callback(None))
    say(ready=True)
    gone = 0
    async for taken in pipe:
        say(taken=taken.data)
        await go
        try:
            taken.adopt(Factory.forProtocol(Protocol))
        except ConnectionGone:
            gone += 1
        break
    say(gone=gone, descriptor=taken.descriptor, more=descriptors() - before)
    await pipe.whenClosed()
    say(left=descriptors() - (before - 1))


async def send(count: str, size: str = "0", free: str = "", user: str = "") -> None:
    """
    Send sockets, and say how they fare.

    @param count: how many.
    @param size: how many bytes of data each has.
    @param free: how many descriptors may be opened for that, if not any number.
    @param user: the number of the user to become before, who may not have all
        of them on their way.
    """
    before = descriptors()
    pipe = ClientSocketSendPipe(
        reactor, socket.socket(fileno=3), windowBytes=1 << 30, maxQueued=10**6
    )
    data = b"x" * int(size)

    def sendAll() -> list[Deferred[None]]:
        return [pipe.send(0, [number, data]) for number in range(int(count))]

    if user:
        tellRefusal()
    if user and int(user) != os.geteuid():
        os.setgroups([])
        os.setgid(int(user))
        os.setuid(int(user))
    if free:
        with room(int(free)):
            sent = sendAll()
    else:
        sent = sendAll()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if user:
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors() // 4, hard))
    fates = Fates(sent)
    reactor.callLater(0, say, sent=len(sent))
    await fates.known
    say(fates=fates.fates, closed=pipe.closed)
    await pipe.close(timeout=5)
    if user:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    say(left=descriptors() - (before - 1), closed=pipe.closed)


def tellRefusal() -> None:
    """
    Say when the kernel refuses, since too many are on their way.
    """
    module: Any = transport
    original = module.sendDescriptors

    def sendDescriptors(*what: Any) -> int:
        try:
            sent: int = original(*what)
            return sent
        except OSError as error:
            say(refused=error.errno)
            raise

    module.sendDescriptors = sendDescriptors


async def live(port: str) -> None:
    """
    Connect, and send that connection when it has been greeted.

    @param port: where.
    """
    pipe = ClientSocketSendPipe(reactor, socket.socket(fileno=3))

    class Greeted(Protocol):
        transport: Any

        def dataReceived(self, data: bytes) -> None:
            self.transport.write(b"x" * len(data))
            pipe.send(self.transport, "live", data)
            sayOnce()

    def sayOnce() -> None:
        # What left the queue leaves the process by the end of the turn.
        if pipe.waiting:
            reactor.callLater(0.01, sayOnce)
        else:
            reactor.callLater(0, reactor.callLater, 0, say, sent=True)

    reactor.connectTCP("127.0.0.1", int(port), ClientFactory.forProtocol(Greeted))
    await pipe.whenClosed()


DOINGS: dict[str, Callable[..., Awaitable[None]]] = {
    "receive": receive,
    "wait": wait,
    "adopt": adopt,
    "send": send,
    "live": live,
}


async def main() -> None:
    """
    Do it, and end.
    """
    try:
        await DOINGS[sys.argv[1]](*sys.argv[2:])
    finally:
        if reactor.running:
            reactor.stop()


if __name__ == "__main__":
    reactor.callWhenRunning(
        lambda: Deferred.fromCoroutine(main()).addErrback(
            lambda failure: failure.printTraceback()
        )
    )
    reactor.run()
