"""
The processes that benchmarks run: a cluster of one worker, and programs that
do without.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any, Optional

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import ProcessProtocol, Protocol, ServerFactory
from twisted.logger import ILogObserver, LogEvent
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_cluster.watcher import ClusterWatcher

PROGRAMS = Path(__file__).parent / "programs"
ROOT = Path(__file__).parent.parent


@implementer(ILogObserver)
class CountingObserver:
    """
    Counts events, and says when there are enough.
    """

    def __init__(self, then: Optional[ILogObserver] = None) -> None:
        """
        @param then: where the events go.
        """
        self.count = 0
        self._then = then
        self._enough = 0
        self._waiter: Optional[Deferred[None]] = None

    def __call__(self, event: LogEvent) -> None:
        self.count += 1
        if self._then is not None:
            self._then(event)
        if self._waiter is not None and self.count >= self._enough:
            waiter, self._waiter = self._waiter, None
            waiter.callback(None)

    def expect(self, count: int) -> Deferred[None]:
        """
        A Deferred that fires when so many more events have come.
        """
        self._enough = self.count + count
        self._waiter = Deferred()
        return self._waiter


async def startCluster(
    reactor: Any, program: str, publisher: ILogObserver
) -> ClusterWatcher:
    """
    Run one of the programs in a cluster of one worker.
    """
    watcher = ClusterWatcher(
        reactor, str(PROGRAMS / program), 1, publisher=publisher, waitReady=True
    )
    watcher.startService()
    await watcher.whenReady()
    return watcher


class Child(ProcessProtocol):
    """
    One of the programs, run alone.

    @ivar output: what it printed.
    """

    def __init__(self) -> None:
        self.output = b""
        self._ended: Deferred[bytes] = Deferred()

    def outReceived(self, data: bytes) -> None:
        self.output += data

    def errReceived(self, data: bytes) -> None:
        sys.stderr.buffer.write(data)

    def processEnded(self, reason: Failure) -> None:
        if reason.check(ProcessDone):
            self._ended.callback(self.output)
        else:
            self._ended.errback(reason)

    def whenEnded(self) -> Deferred[bytes]:
        """
        A Deferred of what it printed, once it has ended with status 0.
        """
        return self._ended


def spawn(
    reactor: Any, program: str, *words: str, peer: Optional[int] = None
) -> tuple[Child, Any]:
    """
    Run one of the programs alone.

    @param peer: a descriptor that it gets as number 3.
    @return: the protocol and the process's transport.
    """
    child = Child()
    childFDs: dict[int, Any] = {0: "w", 1: "r", 2: "r"}
    if peer is not None:
        childFDs[3] = peer
    path = str(PROGRAMS / program)
    process = reactor.spawnProcess(
        child,
        sys.executable,
        [sys.executable, path, *words],
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        childFDs=childFDs,
    )
    return child, process


def connect(reactor: Any, program: str, protocol: Protocol) -> tuple[Child, Any]:
    """
    Run one of the programs alone, connected by a pair of UNIX sockets with a
    protocol on Twisted's own transport.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        child, process = spawn(reactor, program, peer=theirs.fileno())
        factory = ServerFactory.forProtocol(lambda: protocol)
        reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, factory)
    return child, process


async def report(reactor: Any, program: str, *words: str) -> dict[str, float]:
    """
    Run one of the programs to its end, and return the JSON that it printed.
    """
    child, _ = spawn(reactor, program, *words)
    found: dict[str, float] = json.loads(await child.whenEnded())
    return found
