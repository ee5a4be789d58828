"""
Ways to ask every single worker, to find free ports, and to change what workers
inherit.
"""

from __future__ import annotations

import os
import random
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Optional, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.integration.support import until
from twisted_cluster.watcher import ClusterWatcher

T = TypeVar("T")


def inThread(function: Callable[..., T], *arguments: Any) -> Deferred[T]:
    """
    Call something that blocks.
    """
    called: Deferred[T] = deferToThread(function, *arguments)
    return called


def state(pid: int) -> str:
    """
    The state of a process, as proc(5) spells it.
    """
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def fromEach(
    watcher: ClusterWatcher, ask: Callable[[], Awaitable[T]]
) -> dict[int, T]:
    """
    Ask each worker while all the others stand still, so that nobody else can
    have answered.

    @return: the answers by pid.
    """
    pids = [worker.pid for worker in watcher.workers]
    answers: dict[int, T] = {}
    for pid in pids:
        others = [other for other in pids if other is not None and other != pid]
        try:
            for other in others:
                os.kill(other, signal.SIGSTOP)
            await until(lambda each=others: all(state(o) == "T" for o in each), 10)  # type: ignore[misc]  # mypy cannot type a lambda with a default
            assert pid is not None
            answers[pid] = await ask()
        finally:
            for other in others:
                os.kill(other, signal.SIGCONT)
    return answers


def freePort() -> int:
    """
    A port of 127.0.0.1 that is free for TCP and for UDP at the moment.
    """
    while True:
        with socket.socket() as stream:
            stream.bind(("127.0.0.1", 0))
            port: int = stream.getsockname()[1]
            with socket.socket(type=socket.SOCK_DGRAM) as datagram:
                try:
                    datagram.bind(("127.0.0.1", port))
                except OSError:
                    continue
                return port


def freeRange(size: int) -> int:
    """
    The first of some ports in a row that are free at the moment, and that the
    system gives to nobody who does not ask for them.
    """
    while True:
        first = random.randrange(20000, 32000)
        try:
            for port in range(first, first + size):
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    with socket.socket(type=kind) as skt:
                        skt.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first


def portsOf(watcher: ClusterWatcher) -> list[int]:
    """
    The TCP ports on 127.0.0.1 that a cluster listens on.
    """
    prefix = "tcp:127.0.0.1:"
    return [
        int(address[len(prefix) :])
        for address in watcher.addresses
        if address.startswith(prefix)
    ]


def setEnvironment(test: TestCase, name: str, value: str) -> None:
    """
    Set a variable of this process's environment, which workers inherit, for the
    length of a test.
    """
    before = os.environ.get(name)

    def restore() -> None:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before

    os.environ[name] = value
    test.addCleanup(restore)


def environment(changes: Optional[Mapping[str, str]] = None) -> dict[str, str]:
    """
    Changes to the environment of a program that writes no bytecode.
    """
    return {"PYTHONDONTWRITEBYTECODE": "1", **(changes or {})}
