"""
What the tests of faults share: programs that do as they are told, and a closer
look at what was left behind.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher

from tests.integration.support import (
    ClusterTestCase,
    Command,
    LogOfTest,
    exchange,
    isAlive,
    reactor,
    until,
)
from twisted_cluster.errors import StartFailed
from twisted_cluster.watcher import ClusterWatcher

PUPPET = """
import os, re, signal, socket, subprocess, sys, threading, time
from contextlib import nullcontext
from twisted.internet import reactor
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted_cluster import cluster
from twisted_cluster.worker import context
from twisted_cluster.worker.modes import listenMode

log = Logger()

def settings():
    return context.current().settings

def theUsersFunction():
    print("asleep")
    time.sleep(3600)

def soon(function, *args):
    reactor.callLater(0.1, function, *args)

def attempt(mode=None):
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = free.getsockname()[1]
    try:
        with listenMode(mode) if mode else nullcontext():
            port = reactor.listenTCP(number, Factory(), interface="127.0.0.1")
    except CannotListenError as error:
        return str(error)
    return str(port.getHost().port)

class Puppet(LineOnlyReceiver):
    delimiter = b"\\n"
    MAX_LENGTH = 1 << 20
    def lineReceived(self, line):
        self.sendLine(repr(eval(line)).encode())
        self.transport.loseConnection()

if cluster.isWorker():
    cluster.channel().responder(lambda code: repr(eval(code)))
port = reactor.listenTCP(0, Factory.forProtocol(Puppet), interface="127.0.0.1")
print("port", port.getHost().port)
exec(" ".join(sys.argv[1:]))
reactor.run()
"""
"""
Evaluates what it is sent, by a client in a line or by its watcher in a request,
and first of all executes its arguments.
"""

QUICK = """
import sys
from twisted.internet import reactor
from twisted.internet.protocol import Factory
reactor.listenTCP(0, Factory(), interface="127.0.0.1")
reactor.run()
"""


def portOf(watcher: ClusterWatcher) -> int:
    """
    The port of the only TCP address that a cluster listens on.
    """
    [address] = watcher.addresses
    return int(address.rpartition(":")[2])


async def tell(port: int, code: str, seconds: float = 30) -> Any:
    """
    Have one of the puppets at a port evaluate something.
    """
    answer = await exchange(port, code.encode() + b"\n", seconds=seconds)
    if not answer:
        raise ConnectionError("no answer")
    return eval(answer)


def statusOf(pid: int) -> str:
    """
    What the kernel says of a process, or an empty text when it is gone.
    """
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return ""


def memoryOf(pid: int) -> int:
    """
    How many bytes of memory a process has resident.
    """
    for line in statusOf(pid).splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def descriptorsOf(pid: int) -> list[str]:
    """
    What a process has open, without the descriptor that reads this.
    """
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
        except OSError:
            pass
    return found


def childrenOf(pid: int) -> set[int]:
    """
    The pids of a process's children, zombies included.
    """
    found: set[int] = set()
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found.update(map(int, path.read_text().split()))
        except OSError:
            pass
    return found


FILLING = """
import os, resource, signal, sys
from twisted.internet import reactor
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted_cluster import ClusterWatcher
globalLogBeginner.beginLoggingTo(
    [textFileLogObserver(sys.stdout)], redirectStandardIO=False)
watcher = ClusterWatcher(reactor, %s)
files = []
def fill():
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 4096))
    try:
        while True:
            files.append(open(os.devnull))
    except OSError as error:
        print("full:", error, flush=True)
def empty():
    while files:
        files.pop().close()
    print("empty", flush=True)
def command(number, frame):
    reactor.callFromThread(fill if number == signal.SIGUSR1 else empty)
signal.signal(signal.SIGUSR1, command)
signal.signal(signal.SIGUSR2, command)
watcher.startService()
watcher.whenReady().addCallback(lambda _: print("ready", flush=True))
reactor.addSystemEventTrigger("before", "shutdown", watcher.stopService)
reactor.run()
"""
"""
A watcher, given what it is made with besides the reactor, that uses up its
descriptors at SIGUSR1 and gives them back at SIGUSR2.
"""


class FaultTestCase(ClusterTestCase):
    """
    A test that causes a fault, at whose end descriptors, children, files, and
    all processes that have to do with the test's directory, are as before.

    The watcher's own events are in C{self.logged} with those of its workers.
    """

    def setUp(self) -> Any:
        self._files: set[str] = set()
        done = super().setUp()
        globalLogPublisher.addObserver(self.logged)
        self.addCleanup(globalLogPublisher.removeObserver, self.logged)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.directory)
        return done

    def program(self, source: str, name: str = "program.py") -> str:
        """
        Write a program, a file that may be left behind.
        """
        self._files.add(name)
        return super().program(source, name)

    def file(self, name: str, content: str = "") -> Path:
        """
        Write a file that may be left behind.
        """
        self._files.add(name)
        path = self.directory / name
        path.write_text(content)
        return path

    def processes(self) -> list[int]:
        """
        The processes that run a program of this test, or run where it lives;
        this one excepted.
        """
        found = []
        directory = os.fsencode(self.directory)
        for name in os.listdir("/proc"):
            if not name.isdigit() or int(name) == os.getpid():
                continue
            try:
                words = Path("/proc", name, "cmdline").read_bytes()
                where = os.fsencode(os.readlink(f"/proc/{name}/cwd"))
            except OSError:
                continue
            if directory in words or where.startswith(directory):
                found.append(int(name))
        return found

    def tearDown(self) -> None:
        """
        Nothing: trial tears down after the clean-up, which looks already.
        """

    def _removeDirectory(self) -> Any:
        remove = super()._removeDirectory
        looked = Deferred.fromCoroutine(self._leaveNothing())
        return looked.addBoth(lambda result: remove() or result)

    def _leftOver(self) -> list[str]:
        left = super()._leftOver()
        if left:
            return left
        left = [f"process {pid}" for pid in self.processes()]
        files = {path.name for path in self.directory.iterdir()}
        left += [f"file {name}" for name in files - self._files - {"__pycache__"}]
        return left

    async def failing(self, target: Any, **options: Any) -> StartFailed:
        """
        Start a cluster that cannot start.

        @return: why it could not.
        """
        watcher = self.cluster(target, **options)
        try:
            await watcher.whenReady().addTimeout(60, reactor)
        except StartFailed as error:
            await self.assertFailure(watcher.whenStopped(), StartFailed)
            return error
        raise AssertionError("it started")

    async def puppets(
        self, workers: int = 2, *, code: str = "", **options: Any
    ) -> ClusterWatcher:
        """
        Start a cluster of puppets.

        @param code: what each executes at its start.
        """
        return await self.serving(
            [self.program(PUPPET, "puppet.py"), code], workers, **options
        )

    async def full(self, watcher: ClusterWatcher, seconds: float = 30) -> list[int]:
        """
        Wait until a cluster has all its workers, all ready.

        @return: their pids.
        """

        def pids() -> list[int]:
            ready = [w.pid for w in watcher.workers if w.state == "ready" and w.pid]
            return ready if len(ready) == watcher.desired else []

        return await until(pids, seconds, "all workers are ready")

    async def replaced(
        self, watcher: ClusterWatcher, victim: int, seconds: float = 30
    ) -> list[int]:
        """
        Wait until a worker is gone and has been replaced.

        @return: the pids of those that are there now.
        """
        await self.gone([victim], seconds)
        await until(lambda: victim not in [w.pid for w in watcher.workers])
        pids = await self.full(watcher, seconds)
        self.assertNotIn(victim, pids)
        return pids

    def puppetCommand(self, *options: str, code: str = "", **more: Any) -> Command:
        """
        Run C{twisted-cluster run} with puppets.
        """
        path = self.program(PUPPET, "puppet.py")
        return self.command("run", *options, path, code, **more)

    async def portOfCommand(self, command: Command) -> int:
        """
        Wait until a command's puppets serve.

        @return: their port.
        """
        await until(
            lambda: (
                command.status is not None
                or re.search("workers? serves? ", command.text)
            ),
            what="the workers serve",
        )
        self.assertIsNone(command.status, command.text)
        return int(command.text.rpartition("port ")[2].split()[0])

    async def workersOf(self, command: Command, count: int) -> set[int]:
        """
        Wait until a command has so many children, all told.

        @return: their pids.
        """

        def pids() -> set[int]:
            found = childrenOf(command.pid)
            return found if len(found) == count else set()

        return await until(pids, what=f"{count} workers")

    async def gone(self, pids: Any, seconds: float = 10) -> None:
        """
        Wait until processes have ended.
        """
        await until(lambda: not any(map(isAlive, pids)), seconds, f"{pids} have ended")


def pauses(log: LogOfTest) -> list[float]:
    """
    The pauses before replacements, as the log tells them.
    """
    return [
        event["delay"]
        for event in log.events
        if "gets its next worker" in str(event.get("log_format"))
    ]


def failed(waiting: Deferred[Any]) -> Deferred[Any]:
    """
    A Deferred of the exception that another fails with.
    """
    return waiting.addCallbacks(
        lambda result: AssertionError(f"no failure but {result!r}"),
        lambda reason: reason.value,
    )
