"""
A server that runs, its workers, and what it printed.
"""

from __future__ import annotations

import os
import signal
import socket
from collections import deque
from pathlib import Path
from typing import Any, Final, Optional

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ProcessDone, ProcessTerminated
from twisted.internet.protocol import ClientCreator, ProcessProtocol, Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from benchmarks.peers import Peer, environment

LINES: Final = 20_000
WORKERS: Final = 2
START: Final = 30.0
_STEP: Final = 0.01
_ASK: Final = b"GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class DidNotStart(Exception):
    """
    A server did not serve; the message is what it printed.
    """


class _Asking(Protocol):
    """
    Asks who answers.
    """

    def __init__(self, path: bytes) -> None:
        self._path = path
        self.data = b""
        self.done: Deferred[Optional[int]] = Deferred(lambda _: self._abort())

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(_ASK % self._path)

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure = Failure(ConnectError())) -> None:  # noqa: B008 - as Twisted has it
        if not self.done.called:
            words = self.data.rpartition(b"\r\n\r\n")[2].split()
            self.done.callback(int(words[1]) if len(words) == 2 else None)

    def _abort(self) -> None:
        assert self.transport is not None
        self.transport.abortConnection()  # type: ignore[attr-defined]  # TCP has it


def freePort() -> int:
    """
    A port that nobody listens on.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def born(pid: int) -> Optional[int]:
    """
    When a process was started, in the kernel's ticks, which with its number
    tells it from any other; None if it does not run.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else int(fields[19])


def isAlive(pid: int) -> bool:
    """
    Whether a process runs.
    """
    return born(pid) is not None


def descendants(pid: int) -> set[int]:
    """
    The processes that a process has started, and those that they have.
    """
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        for path in Path(f"/proc/{waiting.pop()}/task").glob("*/children"):
            try:
                children = set(map(int, path.read_text().split()))
            except OSError:
                continue
            waiting.extend(children - found)
            found |= children
    return found


class Server(ProcessProtocol):
    """
    A server that runs.

    @ivar status: its exit status, negative for a signal; None while it runs.
    @ivar lines: the last ones that it printed.
    @ivar coldStart: seconds from its start to its first answer.
    """

    def __init__(self, reactor: Any, peer: Peer, app: Path) -> None:
        """
        @param app: the file with the application's changing part.
        """
        self._reactor = reactor
        self._known: dict[int, Optional[int]] = {}
        self._ended: list[Deferred[None]] = []
        self._rest = b""
        self.peer = peer
        self.port = freePort()
        self.status: Optional[int] = None
        self.lines: deque[str] = deque(maxlen=LINES)
        self.coldStart = 0.0
        command = [*peer.command(self.port, app)]
        self._process = reactor.spawnProcess(
            self,
            command[0],
            command,
            env=environment(app),
            path=str(app.parent),
            childFDs={0: "w", 1: "r", 2: "r"},
        )
        self.pid: int = self._process.pid

    def outReceived(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        self.lines.extend(each.decode("utf-8", "replace") for each in lines)

    def errReceived(self, data: bytes) -> None:
        self.outReceived(data)

    def processExited(self, reason: Failure) -> None:
        # Not when its pipes close: a worker that is left may hold them.
        value: Any = reason.value
        assert isinstance(value, (ProcessDone, ProcessTerminated))
        self.status = -value.signal if value.signal is not None else value.exitCode
        waiting, self._ended = self._ended, []
        for each in waiting:
            each.callback(None)

    async def whenServing(self) -> set[int]:
        """
        Wait until all workers answer.

        @return: their processes.
        @raise DidNotStart: they did not in time, or it ended.
        """
        begun = self._reactor.seconds()
        found: set[int] = set()
        while len(found) < WORKERS:
            if self.status is not None or self._reactor.seconds() > begun + START:
                raise DidNotStart("\n".join(self.lines) or "it printed nothing")
            found |= await self.ask()
            if found and not self.coldStart:
                self.coldStart = self._reactor.seconds() - begun
        return found

    async def ask(self, count: int = 4, seconds: float = 2.0) -> set[int]:
        """
        Ask, over some connections at once, who answers.
        """
        asked = [
            Deferred.fromCoroutine(self._askOnce(b"/?n=0", seconds))
            for _ in range(count)
        ]
        found = {await each for each in asked} - {None}
        self._look()
        await deferLater(self._reactor, _STEP)
        return {each for each in found if each is not None}

    def _look(self) -> None:
        for pid in descendants(self.pid):
            if pid not in self._known:
                self._known[pid] = born(pid)

    async def _askOnce(self, path: bytes, seconds: float) -> Optional[int]:
        try:
            connecting = ClientCreator(self._reactor, _Asking, path).connectTCP(
                "127.0.0.1", self.port
            )
            asking = await connecting.addTimeout(seconds, self._reactor)
            found: Optional[int] = await asking.done.addTimeout(seconds, self._reactor)
        except Exception:
            return None
        return found

    def askFor(self, path: bytes, seconds: float = 20.0) -> None:
        """
        Ask for something, whatever comes of it.
        """
        Deferred.fromCoroutine(self._askOnce(path, seconds))

    def signal(self, number: int) -> None:
        """
        Send it a signal, if it still runs.
        """
        if self.status is None:
            os.kill(self.pid, number)

    def whenEnded(self) -> Deferred[None]:
        """
        A Deferred that fires when it has exited.
        """
        waiter: Deferred[None] = Deferred()
        if self.status is None:
            self._ended.append(waiter)
        else:
            waiter.callback(None)
        return waiter

    async def end(self, seconds: float = 5.0) -> None:
        """
        End it, and all that it has started.
        """
        self._look()
        self.signal(signal.SIGTERM)
        end = self._reactor.seconds() + seconds
        while self.status is None and self._reactor.seconds() < end:
            self._look()
            await deferLater(self._reactor, _STEP)
        self.signal(signal.SIGKILL)
        for pid, moment in self._known.items():
            if moment is not None and born(pid) == moment:
                os.kill(pid, signal.SIGKILL)
        await self.whenEnded()
        self._process.loseConnection()
