"""
A process at the other end of a pipe for client sockets: it does what its first
argument says, on descriptor 3, and prints what came of it.
"""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from tests.sockethelpers import descriptors
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


async def check() -> None:
    """
    Take all that comes, now and then after a pause; each says which it is, the
    inode that it must have, and how much came along.
    """
    pipe = ClientSocketReceivePipe(reactor, socket.socket(fileno=3))
    chance = random.Random(1)
    before = descriptors()
    count = 0
    wrong: list[Any] = []
    async for taken in pipe:
        number, inode, size, text = taken.data
        found = os.fstat(taken.descriptor).st_ino
        if (number, inode, size) != (count, found, len(text)) or set(text) - {
            number & 255
        }:
            wrong.append([count, found, number, inode, size, len(text)])
        count += 1
        taken.close()
        if chance.random() < 0.0005:
            await deferLater(reactor, chance.random() * 0.002)
    # The pipe itself has been closed.
    say(count=count, wrong=wrong[:10], left=descriptors() - (before - 1))


async def keep(room: str) -> None:
    """
    Take what comes and keep it, with so much room for open files; let go of it
    at SIGUSR1.

    @param room: a number.
    """
    pipe = ClientSocketReceivePipe(reactor, socket.socket(fileno=3))
    kept: list[TransferredSocket] = []
    before = descriptors()

    def letGo() -> None:
        for each in kept:
            each.close()
        kept.clear()
        say(left=descriptors() - before)

    signal.signal(signal.SIGUSR1, lambda *_: reactor.callFromThread(letGo))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # descriptors() opens one itself.
    resource.setrlimit(resource.RLIMIT_NOFILE, (before - 1 + int(room), hard))
    say(ready=True)
    async for taken in pipe:
        kept.append(taken)


async def take(most: str) -> None:
    """
    Take so many, say so, and take no more.

    @param most: a number.
    """
    pipe = ClientSocketReceivePipe(reactor, socket.socket(fileno=3))
    kept: list[TransferredSocket] = []
    say(ready=True)
    if int(most):
        async for taken in pipe:
            kept.append(taken)
            if len(kept) == int(most):
                break
    say(taken=len(kept))
    await Deferred[None]()


async def send(count: str) -> None:
    """
    Send so many sockets, and say how they fare.

    @param count: a number.
    """
    pipe = ClientSocketSendPipe(reactor, socket.socket(fileno=3))
    sent = [pipe.send(0, number) for number in range(int(count))]
    reactor.callLater(0, say, sent=len(sent))
    for each in sent:
        await each
    say(taken=len(sent))


async def crowd(count: str, user: str) -> None:
    """
    Send more sockets than may be on their way, as an ordinary user, and say how
    often the kernel refused.

    @param count: a number.
    @param user: its number, or nothing to stay who one is.
    """
    pipe = ClientSocketSendPipe(reactor, socket.socket(fileno=3))
    refused = 0
    module: Any = transport
    original = module.sendDescriptors

    def sendDescriptors(*what: Any) -> int:
        nonlocal refused
        try:
            sent: int = original(*what)
            return sent
        except OSError as error:
            refused += error.errno == errno.ETOOMANYREFS
            if refused == 1:
                say(refused=True)
            raise

    module.sendDescriptors = sendDescriptors
    if user:
        os.setgroups([])
        os.setgid(int(user))
        os.setuid(int(user))
    before = descriptors()
    sent = [pipe.send(0, number) for number in range(int(count))]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors() // 4, hard))
    for each in sent:
        await each
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    say(taken=len(sent), refused=refused, left=descriptors() - before)


DOINGS: dict[str, Callable[..., Awaitable[None]]] = {
    "check": check,
    "keep": keep,
    "take": take,
    "send": send,
    "crowd": crowd,
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
