"""
Ports that take turns at accepting.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from twisted.internet import tcp, unix
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.pollreactor import PollReactor
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.selectreactor import SelectReactor
from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase

from tests.sockethelpers import Events, descriptors, shortDirectory
from twisted_cluster.worker import accepting
from twisted_cluster.worker.accepting import takeTurns

PATIENCE = 30.0
METHODS = {"startReading", "stopReading", "doRead"}


class Server(Protocol):
    """
    Tells its factory of each connection.
    """

    def connectionMade(self) -> None:
        cast(Any, self.factory).made(self.transport)


class Servers(Factory):
    """
    Counts its connections, and does something at each.
    """

    protocol = Server
    noisy = False

    def __init__(self) -> None:
        self.count = 0
        self.then: Callable[[], object] = lambda: None
        self.transports: list[Any] = []

    def made(self, transport: Any) -> None:
        self.count += 1
        self.transports.append(transport)
        self.then()


class TurnsTestCase(SynchronousTestCase):
    """
    A port of a reactor that the test turns by hand.
    """

    def setUp(self) -> None:
        tcp._reservedFD.reserve()
        self.addCleanup(self._checkDescriptors, descriptors())
        self.factory = Servers()
        self.clients: list[socket.socket] = []
        self.ports: list[Any] = []

    def _checkDescriptors(self, before: object) -> None:
        self.assertEqual(before, descriptors())

    def epoll(self) -> EPollReactor:
        reactor = EPollReactor()
        self.addCleanup(self._close, reactor, reactor._poller.close)
        return reactor

    def asyncio(self) -> AsyncioSelectorReactor:
        loop = asyncio.SelectorEventLoop()
        reactor = AsyncioSelectorReactor(loop)
        self.addCleanup(self._close, reactor, loop.close)
        return reactor

    def _close(self, reactor: Any, end: Callable[[], None]) -> None:
        for client in self.clients:
            client.close()
        for transport in self.factory.transports:
            transport.stopReading()
            transport.stopWriting()
            transport.socket.close()
        for port in self.ports:
            if port.connected and port.reactor is reactor:
                port.connectionLost(None)
        reactor.removeAll()
        # The waker, which no reactor closes.
        for name in ("i", "o"):
            descriptor = getattr(reactor.waker, name, None)
            if descriptor is not None:
                os.close(descriptor)
        end()

    def port(self, reactor: Any) -> Any:
        port = tcp.Port(0, cast(Any, self.factory), 50, "127.0.0.1", reactor)
        self.ports.append(port)
        return port

    def started(self, reactor: Any) -> Any:
        port = self.port(reactor)
        takeTurns(port)
        port.startListening()
        return port

    def connect(self, port: Any, count: int = 1) -> None:
        host = port.socket.getsockname()
        for _ in range(count):
            skt = socket.socket(port.socket.family)
            self.clients.append(skt)
            skt.settimeout(PATIENCE)
            skt.connect(host)

    def waits(self, poller: select.epoll, port: Any) -> str:
        """
        How a port waits: C{exclusively}, C{ordinarily} or C{not}.
        """
        info = Path(f"/proc/self/fdinfo/{poller.fileno()}").read_text()
        for line in info.splitlines():
            words = line.split()
            if words[:2] == ["tfd:", str(port.fileno())]:
                flags = int(words[3], 16)
                return "exclusively" if flags & 1 << 28 else "ordinarily"
        return "not"


class Epoll(TurnsTestCase):
    """
    Where the reactor waits with epoll.
    """

    def setUp(self) -> None:
        super().setUp()
        self.reactor: Any = self.epoll()

    def assertWaits(self, port: Any, how: str) -> None:
        self.assertEqual(self.waits(self.reactor._poller, port), how)

    def test_exclusively(self) -> None:
        """
        A port waits so that the kernel wakes one worker for a connection, before
        and after it has accepted.
        """
        port = self.started(self.reactor)
        self.assertWaits(port, "exclusively")
        self.connect(port)
        self.reactor.doIteration(PATIENCE)
        self.assertEqual(self.factory.count, 1)
        self.assertWaits(port, "exclusively")

    def test_goesBehind(self) -> None:
        """
        A port that has accepted waits anew.
        """
        port = self.started(self.reactor)
        calls: list[str] = []
        poller = self.reactor._poller

        class Recorder:
            def unregister(self, number: int) -> None:
                calls.append("unregister")
                poller.unregister(number)

            def register(self, number: int, flags: int) -> None:
                calls.append("register")
                poller.register(number, flags)

        port.doRead.__self__._poller = Recorder()
        self.connect(port)
        self.reactor.doIteration(PATIENCE)
        self.assertEqual(calls, ["unregister", "register"])

    def test_aFew(self) -> None:
        """
        A port accepts a few connections at a time, and all in the end.
        """
        port = self.started(self.reactor)
        self.connect(port, 10)
        counts = []
        for _ in range(3):
            self.reactor.doIteration(PATIENCE)
            counts.append(self.factory.count)
        self.assertEqual(counts, [4, 8, 10])

    def test_stopsAndStarts(self) -> None:
        """
        A port that stops reading accepts nothing; once it reads again, it accepts
        what has come meanwhile.
        """
        port = self.started(self.reactor)
        port.stopReading()
        self.assertWaits(port, "not")
        self.connect(port)
        self.reactor.doIteration(0)
        self.assertEqual(self.factory.count, 0)
        port.startReading()
        self.assertWaits(port, "exclusively")
        self.assertIn(port, self.reactor.getReaders())
        self.reactor.doIteration(PATIENCE)
        self.assertEqual(self.factory.count, 1)

    def test_stopsWhileAccepting(self) -> None:
        """
        A port that a protocol stops does not wait again.
        """
        port = self.started(self.reactor)
        self.factory.then = port.stopReading
        self.connect(port)
        self.reactor.doIteration(PATIENCE)
        self.assertWaits(port, "not")

    def test_lostWhileAccepting(self) -> None:
        """
        A port that a protocol takes down is down.
        """
        port = self.started(self.reactor)
        self.factory.then = lambda: port.connectionLost(None)
        self.connect(port)
        self.reactor.doIteration(PATIENCE)
        self.assertNotIn(port, self.reactor.getReaders())
        # Twisted's own loop goes on to accept on what is closed.
        self.flushLoggedErrors(OSError)

    def test_removedFromTheReactor(self) -> None:
        """
        A port that a protocol removes from the reactor itself stays removed.
        """
        port = self.started(self.reactor)
        self.factory.then = lambda: self.reactor.removeReader(port)
        self.connect(port)
        self.reactor.doIteration(PATIENCE)
        self.assertWaits(port, "not")
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_stopListening(self) -> None:
        """
        A port stops listening, and its descriptor is closed.
        """
        port = self.started(self.reactor)
        number = port.fileno()
        stopped = port.stopListening()
        self.assertWaits(port, "not")
        self.reactor.runUntilCurrent()
        self.successResultOf(stopped)
        self.assertFalse(os.path.exists(f"/proc/self/fd/{number}"))

    def test_closedWhileAccepting(self) -> None:
        """
        A port that a protocol closes accepts no more than it would have.
        """
        port = self.started(self.reactor)
        stopped: list[Any] = []

        def close() -> None:
            if not stopped:
                stopped.append(port.stopListening())

        self.factory.then = close
        self.connect(port, 6)
        self.reactor.doIteration(PATIENCE)
        self.assertEqual(self.factory.count, 4)
        self.assertWaits(port, "not")
        self.reactor.runUntilCurrent()
        self.successResultOf(stopped[0])

    def test_lastConnection(self) -> None:
        """
        A port that is closed before it comes to accept what it was woken for
        accepts that, and no more: no other worker was woken.
        """
        port = self.started(self.reactor)
        self.connect(port, 3)
        stopped = port.stopListening()
        self.assertEqual(self.factory.count, 1)
        self.assertWaits(port, "not")
        self.reactor.runUntilCurrent()
        self.successResultOf(stopped)

    def test_closedWhilePaused(self) -> None:
        """
        A port that was paused accepts nothing when it is closed.
        """
        port = self.started(self.reactor)
        port.stopReading()
        self.connect(port)
        stopped = port.stopListening()
        self.assertEqual(self.factory.count, 0)
        self.reactor.runUntilCurrent()
        self.successResultOf(stopped)

    def test_kernelWithout(self) -> None:
        """
        A port on a kernel that does not know to wake one worker accepts
        nevertheless.
        """
        # Together, these are refused as an unknown flag is.
        self.patch(accepting, "_WAITING", select.EPOLLEXCLUSIVE | select.EPOLLONESHOT)
        port = self.started(self.reactor)
        self.assertWaits(port, "ordinarily")
        self.connect(port)
        self.reactor.doIteration(PATIENCE)
        self.assertEqual(self.factory.count, 1)
        self.assertWaits(port, "ordinarily")

    def test_tooMuchWatched(self) -> None:
        """
        A port that the kernel does not watch again is watched later, as soon as the
        kernel does, and may be stopped meanwhile.
        """
        events = Events()
        self.patch(accepting, "_log", Logger(observer=events))
        later: list[Callable[[], None]] = []
        self.patch(self.reactor, "callLater", lambda _, call: later.append(call))
        poller = self.reactor._poller
        full = True

        class Full:
            unregister = poller.unregister

            def register(self, number: int, flags: int) -> None:
                if full:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                poller.register(number, flags)

        port = self.started(self.reactor)
        port.doRead.__self__._poller = Full()
        self.connect(port, 1)
        self.reactor.doIteration(PATIENCE)
        self.assertEqual(self.factory.count, 1)
        self.assertWaits(port, "not")
        self.assertIn("tries again", events.texts[0])
        later.pop()()
        self.assertWaits(port, "not")
        full = False
        later.pop()()
        self.assertWaits(port, "exclusively")
        full = True
        self.connect(port, 1)
        self.reactor.doIteration(PATIENCE)
        full = False
        port.stopReading()
        self.assertNotIn(port, self.reactor.getReaders())
        later.pop()()
        self.assertWaits(port, "not")
        self.assertEqual(later, [])

    def test_unix(self) -> None:
        """
        A UNIX port takes turns as well.
        """
        path = os.path.join(shortDirectory(self), "socket")
        self.reactor = self.epoll()
        port: Any = unix.Port(path.encode(), self.factory, reactor=self.reactor)
        self.ports.append(port)
        takeTurns(port)
        port.startListening()
        self.assertWaits(port, "exclusively")
        self.connect(port, 5)
        self.reactor.doIteration(PATIENCE)
        self.assertEqual(self.factory.count, 4)
        self.assertWaits(port, "exclusively")

    def test_twice(self) -> None:
        """
        A port that is started again is the same as before.
        """
        port = self.port(self.reactor)
        takeTurns(port)
        method = port.doRead
        takeTurns(port)
        self.assertEqual(port.doRead, method)


class Others(TurnsTestCase):
    """
    Other reactors.
    """

    def test_asyncio(self) -> None:
        """
        asyncio's selector waits with epoll, too.
        """
        reactor: Any = self.asyncio()
        poller = reactor._asyncioEventloop._selector._selector
        port = self.started(reactor)
        self.assertEqual(self.waits(poller, port), "exclusively")
        self.connect(port, 5)
        reactor.iterate(0.01)
        self.assertEqual(self.factory.count, 5)
        self.assertEqual(self.waits(poller, port), "exclusively")
        port.stopReading()
        self.assertEqual(self.waits(poller, port), "not")

    def test_notEpoll(self) -> None:
        """
        Where the reactor does not wait with epoll, or is none, nothing changes.
        """
        for kind in (PollReactor, SelectReactor):
            reactor: Any = kind()
            self.addCleanup(self._close, reactor, lambda: None)
            port = self.port(reactor)
            takeTurns(port)
            self.assertEqual(METHODS & set(port.__dict__), set())
        port = self.port(object())
        takeTurns(port)
        self.assertEqual(METHODS & set(port.__dict__), set())

    def test_strangeReactor(self) -> None:
        """
        Where the private parts of the reactor are others, nothing changes.
        """

        class Strange:
            _poller = "poller"
            _asyncioEventloop = None

        port = self.port(Strange())
        takeTurns(port)
        self.assertEqual(METHODS & set(port.__dict__), set())


WORKER = """
import socket, sys
from twisted.internet import epollreactor
epollreactor.install()
from twisted.internet import reactor, tcp
from twisted.internet.protocol import Factory, Protocol
from twisted_cluster.worker.accepting import takeTurns

class Server(Protocol):
    def connectionMade(self):
        self.transport.write(sys.argv[2].encode())
    def dataReceived(self, data):
        print("busy", flush=True)
        sys.stdin.readline()

port = tcp.Port._fromListeningDescriptor(
    reactor, int(sys.argv[1]), socket.AF_INET, Factory.forProtocol(Server))
takeTurns(port)
port.startListening()
reactor.callWhenRunning(print, "ready", flush=True)
reactor.run()
"""


class Workers(SynchronousTestCase):
    """
    Several processes that accept on one socket.
    """

    def setUp(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.listener.setblocking(False)
        self.addCleanup(self.listener.close)
        self.workers = [self.start(str(number)) for number in range(4)]
        for each in self.workers:
            assert each.stdout is not None
            self.assertEqual(each.stdout.readline(), "ready\n")

    def start(self, name: str) -> subprocess.Popen[str]:
        number = self.listener.fileno()
        worker = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(number), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=[number],
            cwd=Path(__file__).parents[2],
        )
        self.addCleanup(self.end, worker)
        return worker

    def end(self, worker: subprocess.Popen[str]) -> None:
        worker.kill()
        worker.communicate(timeout=PATIENCE)

    def connect(self) -> socket.socket:
        skt = socket.create_connection(self.listener.getsockname(), PATIENCE)
        self.addCleanup(skt.close)
        return skt

    def test_shares(self) -> None:
        """
        Workers that are idle take turns.
        """
        shares = Counter(self.connect().recv(9) for _ in range(200))
        self.assertEqual(len(shares), 4)

    def test_busy(self) -> None:
        """
        Connections do not wait for a worker that is busy.
        """
        client = self.connect()
        name = client.recv(9)
        client.sendall(b"be busy until you are told")
        busy = self.workers[int(name)]
        assert busy.stdout is not None
        self.assertEqual(busy.stdout.readline(), "busy\n")
        others = {self.connect().recv(9) for _ in range(40)}
        self.assertEqual(others, {b"0", b"1", b"2", b"3"} - {name})
        assert busy.stdin is not None
        busy.stdin.write("that is enough\n")
        busy.stdin.flush()

    def test_stopped(self) -> None:
        """
        A worker that was stopped while it was idle costs one connection the
        time until the next one comes, and no more.
        """
        stopped = self.workers[0]
        stopped.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, stopped.pid, os.WSTOPPED | os.WNOWAIT)
        clients = [self.connect() for _ in range(12)]
        names = {each.recv(9) for each in clients}
        self.assertLessEqual(names, {b"1", b"2", b"3"})

    def test_killed(self) -> None:
        """
        When workers die, the others get every later connection.
        """
        for each in self.workers[:3]:
            each.kill()
            each.wait(PATIENCE)
        self.assertEqual({self.connect().recv(9) for _ in range(40)}, {b"3"})
