"""
What the tests with real processes share: clusters, clients, deadlines, and a
look at what was left behind.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Optional, TypeVar

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.protocol import ClientCreator, ProcessProtocol, Protocol
from twisted.internet.task import LoopingCall, deferLater
from twisted.internet.tcp import BaseClient
from twisted.logger import ILogObserver, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from twisted_cluster.watcher import ClusterWatcher

T = TypeVar("T")
reactor: Any = _reactor
ROOT = Path(__file__).resolve().parent.parent.parent
DEADLINE = 30.0


@implementer(ILogObserver)
class LogOfTest:
    """
    Collects events, and lets a test wait for one.
    """

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self._waiting: list[tuple[str, Deferred[dict[str, Any]]]] = []

    def __call__(self, event: dict[str, Any]) -> None:
        self.events.append(event)
        text = formatEvent(event)
        for waiting in self._waiting[:]:
            if waiting[0] in text:
                self._waiting.remove(waiting)
                waiting[1].callback(event)

    @property
    def texts(self) -> list[str]:
        """
        The text of every event so far.
        """
        return [formatEvent(event) for event in self.events]

    def count(self, text: str) -> int:
        """
        In how many events a text occurs.
        """
        return sum(text in each for each in self.texts)

    def waitFor(self, text: str, seconds: float = DEADLINE) -> Deferred[dict[str, Any]]:
        """
        A Deferred of the first event, past or future, with a text.
        """
        for event in self.events:
            if text in formatEvent(event):
                found: Deferred[dict[str, Any]] = Deferred()
                found.callback(event)
                return found
        waiter: Deferred[dict[str, Any]] = Deferred()
        self._waiting.append((text, waiter))
        return waiter.addTimeout(
            seconds, reactor, onTimeoutCancel=lambda _, __: self._missing(text)
        )

    def _missing(self, text: str) -> dict[str, Any]:
        raise AssertionError(
            f"no event with {text!r} among:\n" + "\n".join(self.texts[-60:])
        )


def openDescriptors() -> dict[int, str]:
    """
    This process's open descriptors, and what they are.
    """
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            pass
    return found


def children() -> set[int]:
    """
    The pids of this process's children, zombies included.
    """
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        try:
            found.update(map(int, (task / "children").read_text().split()))
        except OSError:
            pass
    return found


def isAlive(pid: int) -> bool:
    """
    Whether a process exists and is no zombie.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


def until(
    condition: Callable[[], T], seconds: float = DEADLINE, what: str = ""
) -> Deferred[T]:
    """
    A Deferred that fires with a condition's value once that is true.
    """
    result: list[T] = []

    def look() -> None:
        value = condition()
        if value:
            result.append(value)
            loop.stop()

    loop = LoopingCall(look)
    done: Any = loop.start(0.02)
    done.addCallback(lambda _: result[0])

    def late(_: object, __: float) -> T:
        raise AssertionError(f"not within {seconds} s: {what or condition}")

    def stop(passed: Any) -> Any:
        if loop.running:
            loop.stop()
        return passed

    done.addTimeout(seconds, reactor, onTimeoutCancel=late)
    done.addBoth(stop)
    waited: Deferred[T] = done
    return waited


class _Exchange(Protocol):
    """
    Sends something and collects the answer until the other side closes.
    """

    def __init__(self, request: bytes, enough: Optional[Callable[[bytes], bool]]):
        self.request = request
        self.enough = enough
        self.data = b""
        self.done: Deferred[bytes] = Deferred(lambda _: self._abort())

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self.request)

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        if self.enough is not None and self.enough(self.data):
            assert self.transport is not None
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = Failure(ConnectionError())) -> None:  # noqa: B008 - as Twisted has it
        if not self.done.called:
            self.done.callback(self.data)

    def _abort(self) -> None:
        assert self.transport is not None
        self.transport.abortConnection()  # type: ignore[attr-defined]  # TCP and UNIX have it


async def exchange(
    address: Any,
    request: bytes,
    enough: Optional[Callable[[bytes], bool]] = None,
    seconds: float = DEADLINE,
) -> bytes:
    """
    Send a request over a new connection and read the answer to its end.

    @param address: a port on 127.0.0.1, a C{(host, port)} or the path of a
        UNIX socket.
    @param enough: whether an answer is complete; by default it ends with the
        connection.
    """
    creator = ClientCreator(reactor, _Exchange, request, enough)
    if isinstance(address, int):
        connecting = creator.connectTCP("127.0.0.1", address)
    elif isinstance(address, tuple):
        connecting = creator.connectTCP(*address)
    else:
        connecting = creator.connectUNIX(os.fspath(address))
    connected = await connecting.addTimeout(seconds, reactor)
    return bytes(await connected.done.addTimeout(seconds, reactor))


async def get(address: Any, path: str = "/", seconds: float = DEADLINE) -> bytes:
    """
    The body of an HTTP answer.
    """
    request = f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode()
    answer = await exchange(address, request, seconds=seconds)
    head, found, body = answer.partition(b"\r\n\r\n")
    assert found and b" 200 " in head.split(b"\r\n")[0] + b" ", answer[:500]
    return body


async def answersOf(
    ask: Callable[[], Any], count: int, seconds: float = DEADLINE
) -> set[bytes]:
    """
    Ask again and again, some at a time, until so many different answers came.

    @param ask: makes an awaitable of an answer.
    """
    answers: set[bytes] = set()
    end = reactor.seconds() + seconds
    while len(answers) < count:
        if reactor.seconds() > end:
            raise AssertionError(f"only {answers} within {seconds} s")
        asked = [Deferred.fromCoroutine(ask()) for _ in range(8)]
        for each in asked:
            answers.add(await each)
    return answers


class ClusterTestCase(TestCase):
    """
    A test with clusters, at whose end nothing may be left behind.
    """

    timeout = 110

    def setUp(self) -> Any:
        self.directory = Path(tempfile.mkdtemp(prefix="tc-"))
        self.addCleanup(self._removeDirectory)
        self.logged = LogOfTest()
        self.watchers: list[ClusterWatcher] = []
        # Twisted opens some descriptors once for the life of the process.
        warm = deferLater(reactor, 0, lambda: None)

        def remember(_: object) -> None:
            self._descriptors = openDescriptors()
            self._children = children()

        return warm.addCallback(remember)

    def tearDown(self) -> Any:
        return Deferred.fromCoroutine(self._leaveNothing())

    async def _leaveNothing(self) -> None:
        # Workers would wait for their clients.
        for transport in [*reactor.getReaders(), *reactor.getWriters()]:
            if isinstance(transport, BaseClient) and transport.connected:
                transport.abortConnection()
        for watcher in self.watchers:
            await watcher.stopService().addTimeout(DEADLINE, reactor)
        await until(lambda: not self._leftOver(), 10, "nothing may be left behind")
        self.assertEqual(self._leftOver(), [])

    def _leftOver(self) -> list[str]:
        left = [f"child {pid}" for pid in children() - self._children]
        for number, what in openDescriptors().items():
            if number not in self._descriptors and "/proc" not in what:
                left.append(f"descriptor {number}: {what}")
        return left

    def _removeDirectory(self) -> None:
        import shutil

        shutil.rmtree(self.directory, ignore_errors=True)

    def program(self, source: str, name: str = "program.py") -> str:
        """
        Write a program into the test's directory.

        @return: its path.
        """
        path = self.directory / name
        path.write_text(textwrap.dedent(source))
        return str(path)

    def cluster(self, target: Any, workers: int = 2, **options: Any) -> ClusterWatcher:
        """
        Start a cluster in this process; it is stopped when the test ends.
        """
        options.setdefault("publisher", self.logged)
        options.setdefault("startTimeout", 30.0)
        options.setdefault("shutdownTimeout", 10.0)
        watcher = ClusterWatcher(reactor, target, workers, **options)
        self.watchers.append(watcher)
        watcher.startService()
        return watcher

    async def serving(
        self, target: Any, workers: int = 2, **options: Any
    ) -> ClusterWatcher:
        """
        Start a cluster and wait until all workers are ready.
        """
        watcher = self.cluster(target, workers, **options)
        await watcher.whenReady().addTimeout(60, reactor)
        return watcher

    def command(self, *words: str, **options: Any) -> Command:
        """
        Run C{twisted-cluster} in a process of its own, which is ended when the
        test ends.
        """
        return self.execute(
            [sys.executable, "-m", "twisted_cluster.cli", *words], **options
        )

    def execute(self, words: Sequence[str], **options: Any) -> Command:
        """
        Run a command in a process of its own, ended when the test ends.
        """
        command = Command(words, self.directory, **options)
        self.addCleanup(command.end)
        return command


class Command(ProcessProtocol):
    """
    A command that runs in a process of its own, its stdout and stderr as one.

    @ivar ended: fires with its exit status, negative for a signal, once.
    """

    def __init__(
        self,
        words: Sequence[str],
        directory: Path,
        environment: Optional[dict[str, str]] = None,
        childFDs: Optional[dict[int, Any]] = None,
    ) -> None:
        self.output = b""
        self.status: Optional[int] = None
        self._ended: list[Deferred[int]] = []
        env = dict(os.environ, PYTHONPATH=str(ROOT))
        env.pop("PYTHONUNBUFFERED", None)
        env.update(environment or {})
        self.transport = reactor.spawnProcess(
            self,
            words[0],
            list(words),
            env=env,
            path=str(directory),
            childFDs=childFDs,
        )
        self.pid: int = self.transport.pid

    def outReceived(self, data: bytes) -> None:
        self.output += data

    def errReceived(self, data: bytes) -> None:
        self.output += data

    @property
    def text(self) -> str:
        """
        What it printed so far.
        """
        return self.output.decode("utf-8", "backslashreplace")

    def processEnded(self, reason: Failure) -> None:
        value: Any = reason.value
        assert isinstance(value, (ProcessDone, ProcessTerminated))
        self.status = -value.signal if value.signal is not None else value.exitCode
        waiting, self._ended = self._ended, []
        for waiter in waiting:
            waiter.callback(self.status or 0)

    def whenEnded(self, seconds: float = DEADLINE) -> Deferred[int]:
        """
        A Deferred of the exit status.
        """
        waiter: Deferred[int] = Deferred()
        if self.status is not None:
            waiter.callback(self.status)
            return waiter
        self._ended.append(waiter)

        def late(_: object, __: float) -> int:
            raise AssertionError(f"still running after {seconds} s:\n{self.text}")

        return waiter.addTimeout(seconds, reactor, onTimeoutCancel=late)

    def waitFor(self, text: str, seconds: float = DEADLINE) -> Deferred[bool]:
        """
        A Deferred that fires when a text has been printed.
        """
        waited = until(
            lambda: text in self.text or self.status is not None, seconds, text
        )

        def check(passed: Any) -> Any:
            if text not in self.text:
                raise AssertionError(f"no {text!r} in:\n{self.text}")
            return True

        return waited.addBoth(check)

    def signal(self, number: int) -> None:
        """
        Send it a signal.
        """
        os.kill(self.pid, number)

    def end(self) -> Any:
        """
        Kill it, if it still runs, and what it started in its name.
        """
        if self.status is None:
            self.signal(signal.SIGKILL)
        return self.whenEnded()
