"""
Sockets handed to another process with an integer each, beside a plain blocking
loop that passes one descriptor a message.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred

from benchmarks.measuring import Contender, Result, compete, measure
from benchmarks.processes import Child, spawn
from twisted_cluster.sockets import ClientSocketSendPipe

INTEGER: Final = struct.Struct("!I")
COUNT = 100_000
"""How many one run sends."""
BURST: Final = 200
"""How many are sent before the ones before are awaited."""


def _spawn(reactor: Any, program: str) -> tuple[Child, int, socket.socket]:
    ours, theirs = socket.socketpair()
    with theirs:
        child, process = spawn(reactor, program, peer=theirs.fileno())
    return child, process.pid, ours


async def plainly(peer: socket.socket, descriptor: int, count: int) -> None:
    """
    Pass so many descriptors, in a blocking loop.
    """
    peer.sendall(INTEGER.pack(count))
    for number in range(count):
        socket.send_fds(peer, [INTEGER.pack(number)], [descriptor])
    peer.recv(1)


async def through(pipe: ClientSocketSendPipe, descriptor: int, count: int) -> None:
    """
    Send so many sockets, and wait until each has been taken.
    """
    send = pipe.send
    before: list[Deferred[None]] = []
    for start in range(0, count, BURST):
        end = min(start + BURST, count)
        sent = [send(descriptor, number) for number in range(start, end)]
        await _taken(before)
        before = sent
    await _taken(before)


async def _taken(sent: list[Deferred[None]]) -> None:
    # They are taken in order, so there is one to wait for.
    for each in reversed(sent):
        await each


async def transfers(
    reactor: Any, rounds: int, progress: Callable[[str], None]
) -> list[Result]:
    """
    Sockets taken over by another process, one integer attached to each.
    """
    bareChild, barePid, peer = _spawn(reactor, "barereceiver.py")
    pipeChild, pipePid, connection = _spawn(reactor, "receiver.py")
    pipe = ClientSocketSendPipe(reactor, connection)
    with socket.socket() as skt:
        descriptor = skt.fileno()
        await pipe.send(descriptor, 0)
        try:
            return [
                await compete(
                    "sockets with an integer, to another process",
                    "sockets",
                    [
                        Contender(
                            "blocking send_fds loop",
                            COUNT,
                            lambda n: measure(
                                lambda: plainly(peer, descriptor, n),
                                n,
                                lambda: [barePid],
                            ),
                            True,
                        ),
                        Contender(
                            "ClientSocketSendPipe.send()",
                            COUNT,
                            lambda n: measure(
                                lambda: through(pipe, descriptor, n),
                                n,
                                lambda: [pipePid],
                            ),
                        ),
                    ],
                    rounds,
                    progress,
                )
            ]
        finally:
            peer.close()
            await pipe.close()
            await bareChild.whenEnded()
            await pipeChild.whenEnded()
