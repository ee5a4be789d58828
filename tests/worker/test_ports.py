"""
Twisted's own ports on the cluster's sockets.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable
from typing import Any, Optional, cast
from unittest import skipIf

from twisted.internet import tcp, udp, unix
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IReactorTime
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import Logger
from twisted.names import client as names
from twisted.names import dns

from tests.sockethelpers import shortDirectory
from tests.worker.watching import PATIENCE, FakeStartup, WatchedTestCase
from twisted_cluster.errors import ClusterError
from twisted_cluster.sockets.addresses import Address, BindRequest, SocketRequest
from twisted_cluster.worker import asking, socketclient
from twisted_cluster.worker.connections import Connections
from twisted_cluster.worker.modes import listenMode
from twisted_cluster.worker.ports import installPorts
from twisted_cluster.worker.socketclient import SocketClient


class Reactor(MemoryReactorClock):
    """
    A reactor that starts real ports, which the test makes accept by hand.
    """

    def listenTCP(
        self, port: Any, factory: Any, backlog: Any = 50, interface: Any = ""
    ) -> Any:
        started = tcp.Port(port, factory, backlog, interface, cast(Any, self))
        started.startListening()
        return started

    def listenUNIX(
        self,
        address: Any,
        factory: Any,
        backlog: Any = 50,
        mode: Any = 0o666,
        wantPID: Any = 0,
    ) -> Any:
        started = unix.Port(address, factory, backlog, mode, self, wantPID)
        started.startListening()
        return started

    def listenUDP(
        self, port: Any, protocol: Any, interface: Any = "", maxPacketSize: Any = 8192
    ) -> Any:
        started = udp.Port(port, protocol, interface, maxPacketSize, cast(Any, self))
        started.startListening()
        return started

    def adoptUNIX(self, skt: socket.socket, factory: Any) -> Any:
        started = unix.Port._fromListeningDescriptor(self, skt.fileno(), factory)
        started.startListening()
        return started


class Greeting(Protocol):
    """
    Says who it is, and leaves.
    """

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"hello")
        cast(Any, self.transport).doWrite()
        cast(Any, self.transport).socket.close()


class Datagrams(DatagramProtocol):
    """
    Keeps what arrives.
    """

    def __init__(self) -> None:
        self.received: list[bytes] = []

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.received.append(datagram)


def failureOf(call: Callable[[], object]) -> Exception:
    """
    Find out what a call raises.
    """
    try:
        call()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


class HookedTestCase(WatchedTestCase):
    """
    A worker, whose ports are hooked while the test runs.
    """

    def setUp(self) -> None:
        tcp._reservedFD.reserve()  # Twisted keeps it once it has listened
        super().setUp()
        self.patch(asking, "_log", Logger(observer=self.events))
        self.reactor = Reactor()
        self.ports: list[Any] = []
        self.connections = Connections()
        self.restore: Optional[Any] = None
        self.addCleanup(self.stopWorker)
        self.startWorker(1)

    def startWorker(self, worker: int, ready: bool = False) -> None:
        """
        Be another worker from now on.  What the former has opened stays open.
        """
        if self.restore is not None:
            self.restore()
        self.startup = FakeStartup(ready)
        self.socketClient: SocketClient = self.client(worker)
        self.restore = installPorts(
            self.socketClient, self.startup, self.incoming(), self.connections
        )

    def stopWorker(self) -> None:
        for port in self.ports:
            if port.connected:
                port.stopListening()
        self.reactor.advance(0)
        if self.restore is not None:
            self.restore()

    def factory(self) -> Factory:
        return Factory.forProtocol(Greeting)

    def tcp(
        self, port: int = 0, interface: str = "127.0.0.1", backlog: int = 50
    ) -> Any:
        started = self.reactor.listenTCP(port, self.factory(), backlog, interface)
        self.ports.append(started)
        return started

    def unix(self, path: Any, **kw: Any) -> Any:
        started = self.reactor.listenUNIX(path, self.factory(), **kw)
        self.ports.append(started)
        return started

    def udp(self, port: int, protocol: Optional[DatagramProtocol] = None) -> Any:
        started = self.reactor.listenUDP(port, protocol or Datagrams(), "127.0.0.1")
        self.ports.append(started)
        return started

    def stop(self, port: Any) -> None:
        port.stopListening()
        self.reactor.advance(0)

    def freePort(self, kind: Any = "tcp") -> int:
        with socket.socket(
            type=socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM
        ) as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    def assertAnswers(self, port: Any, family: int = socket.AF_INET) -> None:
        """
        Connect to a port, have it accept, and hear what it says.
        """
        with socket.socket(family) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(port.socket.getsockname())
            port.doRead()
            self.assertEqual(b"hello", connection.recv(100))
        self.reactor.removeAll()

    def settled(self) -> list[str]:
        """
        What the watcher listens on, now that it has read everything.
        """
        with socket.socket() as skt:
            self.socketClient.request(
                SocketRequest(BindRequest(Address("tcp", "127.0.0.1"))), skt
            )
        return self.addresses()

    def assertSameError(self, listen: Any) -> Exception:
        """
        A listen fails in a worker exactly as it does alone.
        """
        clustered = failureOf(listen)
        assert self.restore is not None
        self.restore()
        alone = failureOf(listen)
        self.startWorker(3)
        self.assertIs(type(alone), type(clustered))
        self.assertEqual(str(alone), str(clustered))
        for name in ("interface", "port"):
            self.assertEqual(getattr(alone, name, None), getattr(clustered, name, None))
        reasons = [getattr(each, "socketError", None) for each in (alone, clustered)]
        self.assertIs(type(reasons[0]), type(reasons[1]))
        self.assertEqual(
            *(getattr(each, "errno", None) for each in reasons),
        )
        return clustered


class TCPTests(HookedTestCase):
    """
    C{tcp.Port}.
    """

    def test_shared(self) -> None:
        """
        Two workers that listen on one port share the watcher's socket, and
        both accept from it.
        """
        number = self.freePort()
        first = self.tcp(number)
        self.startWorker(2)
        second = self.tcp(number)
        self.assertEqual([f"tcp:127.0.0.1:{number}"], self.addresses())
        self.assertAnswers(first)
        self.assertAnswers(second)

    def test_getHost(self) -> None:
        """
        A port tells where it listens, and is what it always was.
        """
        port = self.tcp()
        host = port.getHost()
        self.assertEqual(IPv4Address("TCP", "127.0.0.1", host.port), host)
        self.assertEqual(host.port, port._realPortNumber)
        self.assertTrue(IListeningPort.providedBy(port))
        self.assertIs(Greeting, port.factory.protocol)
        self.assertEqual([f"tcp:127.0.0.1:{host.port}"], self.addresses())

    def test_samePortZero(self) -> None:
        """
        Port 0 is the same port in every worker, in the order of the listens.
        """
        first = [self.tcp(0).getHost() for _ in range(3)]
        self.startWorker(2)
        self.assertEqual(first, [self.tcp(0).getHost() for _ in range(3)])

    def test_ipv6(self) -> None:
        """
        IPv6 is shared likewise.
        """
        first = self.tcp(0, "::1").getHost()
        self.startWorker(2)
        port = self.tcp(0, "::1")
        self.assertEqual(first, port.getHost())
        self.assertEqual(IPv6Address("TCP", "::1", first.port), first)
        self.assertAnswers(port, socket.AF_INET6)

    def test_hostName(self) -> None:
        """
        An interface may be a name, as alone.
        """
        port = self.tcp(0, "localhost")
        self.assertEqual("127.0.0.1", port.getHost().host)

    def test_everyInterface(self) -> None:
        """
        No interface is all of IPv4.
        """
        port = self.tcp(0, "")
        self.assertEqual("0.0.0.0", port.getHost().host)
        self.assertAnswers(port)

    def test_nothingBeforeReady(self) -> None:
        """
        A port that was opened during the start accepts once the worker is
        ready, unless it was closed by then.
        """
        port, closed = self.tcp(), self.tcp()
        self.assertEqual([], self.reactor.getReaders())
        self.stop(closed)
        self.startup.becomeReady()
        self.assertEqual([port], self.reactor.getReaders())
        self.assertEqual(2, self.startup.ports)
        later = self.tcp()
        self.assertIn(later, self.reactor.getReaders())

    def test_stopListening(self) -> None:
        """
        One worker's stop leaves the other's port working: nothing is shut
        down.  The watcher closes the socket after the last.
        """
        first = self.tcp()
        number = first.getHost().port
        self.startWorker(2)
        second = self.tcp()
        self.stop(second)
        self.assertAnswers(first)
        self.startWorker(1)
        self.assertEqual([f"tcp:127.0.0.1:{number}"], self.settled())

    def test_lastStop(self) -> None:
        """
        When the last worker stops, the address is free; to listen on it again
        works as ever, also much later.
        """
        number = self.freePort()
        port = self.tcp(number)
        self.startup.becomeReady()
        self.stop(port)
        self.assertEqual([], self.settled())
        with socket.create_server(("127.0.0.1", number)):
            pass
        port.startListening()
        self.assertEqual([f"tcp:127.0.0.1:{number}"], self.settled())
        self.assertAnswers(port)

    def test_errors(self) -> None:
        """
        What fails raises what it raises alone: a taken port, a name that does
        not resolve, an address of another machine, numbers that are none.
        """
        with socket.create_server(("127.0.0.1", 0)) as other:
            taken = other.getsockname()[1]
            error = self.assertSameError(lambda: self.tcp(taken))
            self.assertEqual(errno.EADDRINUSE, cast(Any, error).socketError.errno)
        self.assertSameError(lambda: self.tcp(0, "no.such.name.invalid"))
        self.assertSameError(lambda: self.tcp(0, "192.0.2.1"))
        self.assertSameError(lambda: self.tcp(0, "2001:db8::1"))
        self.assertSameError(lambda: self.tcp(70000))
        self.assertSameError(lambda: self.tcp(-1))
        self.assertSameError(lambda: self.tcp(cast(Any, "80")))
        self.assertSameError(lambda: self.tcp(0, backlog=2**40))

    def test_hunt(self) -> None:
        """
        A program that hunts for a free port meets EADDRINUSE on its own first,
        as alone.
        """
        number = self.freePort()
        self.tcp(number)
        error = self.assertRaises(CannotListenError, self.tcp, number)
        self.assertEqual(errno.EADDRINUSE, error.socketError.errno)

    def test_late(self) -> None:
        """
        What is opened when the worker is ready is its own, be it a named port
        or any; the cluster's ports are shared even then.
        """
        self.startup.becomeReady()
        number = self.tcp().getHost().port
        for late in (0, self.freePort()):
            port = self.tcp(late)
            self.assertAnswers(port)
        self.assertEqual([f"tcp:127.0.0.1:{number}"], self.addresses())
        self.startWorker(2, ready=True)
        self.tcp(number)
        self.assertEqual([f"tcp:127.0.0.1:{number}"], self.addresses())

    def test_firstListen(self) -> None:
        """
        A worker's first port is the cluster's whenever it comes; one that
        could not be opened does not count.
        """
        self.startup.becomeReady()
        with socket.create_server(("127.0.0.1", 0)) as other:
            self.assertRaises(CannotListenError, self.tcp, other.getsockname()[1])
        number = self.tcp().getHost().port
        self.assertEqual([f"tcp:127.0.0.1:{number}"], self.addresses())

    def test_secondServerLate(self) -> None:
        """
        A second server that is opened late fails in the second worker as
        loudly as alone, and the log names the remedy.
        """
        self.startup.becomeReady()
        self.tcp()
        number = self.tcp(self.freePort()).getHost().port
        self.startWorker(2, ready=True)
        self.tcp()
        del self.events[:]
        error = self.assertRaises(CannotListenError, self.tcp, number)
        self.assertEqual(errno.EADDRINUSE, error.socketError.errno)
        (text,) = self.events.texts
        self.assertIn(f"the endpoint cluster:tcp:{number}, or --bind", text)

    def test_modes(self) -> None:
        """
        A listen that is named as the cluster's is shared at any time; one that
        is named as local never is, and does not wait.
        """
        self.startup.becomeReady()
        self.tcp()
        with listenMode("cluster"):
            number = self.tcp().getHost().port
        self.assertIn(f"tcp:127.0.0.1:{number}", self.addresses())
        self.startWorker(2)
        with listenMode("local"):
            local = self.tcp()
        self.assertIn(local, self.reactor.getReaders())
        self.assertNotIn(f"tcp:127.0.0.1:{local.getHost().port}", self.addresses())
        self.assertFalse(self.socketClient.opened)

    def test_known(self) -> None:
        """
        Ports on sockets that other workers have, too, are known as long as they
        listen; those of this worker alone are not.
        """
        shared = self.tcp()
        with socket.create_server(("127.0.0.1", 0)) as skt:
            adopted = tcp.Port._fromListeningDescriptor(
                self.reactor, skt.fileno(), skt.family, self.factory()
            )
        adopted.startListening()
        self.ports.append(adopted)
        with listenMode("local"):
            self.tcp()
        self.assertEqual(self.connections.ports, {shared, adopted})
        for port in (shared, adopted):
            self.stop(port)
        self.assertEqual(self.connections.ports, set())

    def test_backlog(self) -> None:
        """
        The program's backlog is honoured if it is the larger.
        """
        for asked, expected in ((5, 64), (100, 100)):
            info = self.tcp(0, backlog=asked).socket.getsockopt(
                socket.IPPROTO_TCP, socket.TCP_INFO, 104
            )
            self.assertEqual(expected, info[28])

    def test_programsOptions(self) -> None:
        """
        The options that the program sets on its socket are the shared
        socket's.
        """

        class KeepAlive(tcp.Port):
            def createInternetSocket(self) -> socket.socket:
                skt: socket.socket = super().createInternetSocket()
                skt.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                return skt

        port = KeepAlive(0, self.factory(), 50, "127.0.0.1", self.reactor)
        self.ports.append(port)
        port.startListening()
        self.assertEqual(
            1, port.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        )
        self.assertEqual(1, len(self.addresses()))

    def test_adopted(self) -> None:
        """
        A port that adopts a descriptor is left as Twisted has it, and waits
        for the start like any other.
        """
        with socket.create_server(("127.0.0.1", 0)) as skt:
            skt.setblocking(False)
            port = tcp.Port._fromListeningDescriptor(
                self.reactor, skt.fileno(), socket.AF_INET, self.factory()
            )
            self.ports.append(port)
            port.startListening()
            self.assertEqual(([], 1), (self.reactor.getReaders(), self.startup.ports))
            self.assertEqual([], self.addresses())
            self.startup.becomeReady()
            self.assertAnswers(port)

    def test_failingFactory(self) -> None:
        """
        A factory that raises when it is started gives the socket back.
        """

        class Broken(Factory):
            def doStart(self) -> None:
                raise ZeroDivisionError

        self.assertRaises(
            ZeroDivisionError, self.reactor.listenTCP, 0, Broken(), 50, "127.0.0.1"
        )
        self.assertEqual([], self.settled())

    def test_endOfProgram(self) -> None:
        """
        What a program closes while it ends is not released: its replacement
        listens there.
        """
        port = self.tcp()
        number = port.getHost().port
        for trigger in self.reactor.triggers["before"]["shutdown"]:
            trigger[0](*trigger[1], **trigger[2])
        self.stop(port)
        self.assertEqual([f"tcp:127.0.0.1:{number}"], self.settled())

    def test_silentWatcher(self) -> None:
        """
        A watcher that does not answer in time makes the listen fail, with an
        errno.
        """
        ours, theirs = self.channel()
        assert self.restore is not None
        self.restore()
        client = SocketClient(theirs.detach(), 0.05)
        self.addCleanup(client.close)
        self.restore = installPorts(
            client, self.startup, self.incoming(), self.connections
        )
        error = self.assertRaises(CannotListenError, self.tcp)
        self.assertEqual(errno.ETIMEDOUT, error.socketError.errno)
        ours.close()

    def test_deepDirectory(self) -> None:
        """
        A relative path is shared where the absolute one is too long, and the
        port knows its address; its user's name for it is what must fit.
        """
        before = os.getcwd()
        self.addCleanup(os.chdir, before)
        deep = os.path.join(shortDirectory(self), "d" * 100)
        os.mkdir(deep)
        os.chdir(deep)
        for worker in (1, 2):
            self.startWorker(worker)
            port = self.unix(b"s")
            self.assertEqual(UNIXAddress(os.fsencode(deep) + b"/s"), port.getHost())
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(PATIENCE)
                connection.connect("s")
                port.doRead()
                self.assertEqual(b"hello", connection.recv(100))
            self.reactor.removeAll()
        self.assertEqual([f"unix:{deep}/s"], self.addresses())
        self.assertSameError(lambda: self.unix(os.fsencode(deep) + b"/t"))
        self.assertSameError(lambda: self.unix(b"n" * 108))
        error = self.assertRaises(CannotListenError, self.unix, b"n" * 107)
        self.assertEqual(errno.ENAMETOOLONG, error.socketError.errno)

    def test_withoutWatcher(self) -> None:
        """
        In a worker that can ask no more, what is opened late is its own, as it
        probably would be; what is the cluster's for sure fails, and so does a
        path that is somebody's.
        """
        self.patch(socketclient, "_log", Logger(observer=self.events))
        self.startWorker(1, ready=True)
        self.socketClient.opened = True
        self.socketClient.close()
        self.assertTrue(self.tcp().connected)
        with listenMode("cluster"):
            self.assertRaises(CannotListenError, self.tcp)
        path = os.path.join(shortDirectory(self), "s")
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(path)
            error = self.assertRaises(CannotListenError, self.unix, path.encode())
        self.assertEqual(errno.ECONNRESET, error.socketError.errno)

    def test_undo(self) -> None:
        """
        Hooks can be undone, and then Twisted is what it was.
        """
        assert self.restore is not None
        self.restore()
        self.restore = None
        for owner in (tcp.Port, unix.Port, udp.Port):
            for name in ("startListening", "connectionLost"):
                self.assertTrue(getattr(owner, name).__module__.startswith("twisted."))
        self.tcp()
        self.assertEqual([], self.addresses())

    def test_unknownTwisted(self) -> None:
        """
        A Twisted that is built otherwise is refused, not half hooked.
        """
        assert self.restore is not None
        self.restore()
        self.restore = None
        before = tcp.Port.startListening
        self.patch(tcp, "_reservedFD", None)
        del tcp._reservedFD
        error = self.assertRaises(
            ClusterError,
            installPorts,
            self.socketClient,
            self.startup,
            self.incoming(),
            self.connections,
        )
        self.assertIn("_reservedFD", str(error))
        self.assertIs(before, tcp.Port.startListening)
        tcp._reservedFD = cast(Any, None)


class UNIXTests(HookedTestCase):
    """
    C{unix.Port}.
    """

    def setUp(self) -> None:
        super().setUp()
        self.path = os.path.join(shortDirectory(self), "s")

    def test_shared(self) -> None:
        """
        Two workers share a path; its mode and backlog are the program's, and
        one worker's stop changes neither, nor removes it.
        """
        first = self.unix(self.path, mode=0o640, wantPID=1)
        self.startWorker(2)
        second = self.unix(self.path, mode=0o640, wantPID=1)
        self.stop(second)
        self.assertEqual(0o640, stat.S_IMODE(os.stat(self.path).st_mode))
        self.assertAnswers(first, socket.AF_UNIX)
        self.assertEqual(UNIXAddress(self.path), first.getHost())
        self.assertEqual([f"unix:{self.path}"], self.addresses())
        self.listeners.closeAll()
        self.assertEqual([], os.listdir(os.path.dirname(self.path)))

    def test_lastStop(self) -> None:
        """
        When the last worker stops listening, path and lock file are gone, and
        one can listen again.
        """
        port = self.unix(self.path, wantPID=1)
        self.stop(port)
        self.assertEqual([], self.settled())
        self.assertEqual([], os.listdir(os.path.dirname(self.path)))
        port.startListening()
        self.assertAnswers(port, socket.AF_UNIX)

    def test_relative(self) -> None:
        """
        A relative path is the worker's.
        """
        before = os.getcwd()
        self.addCleanup(os.chdir, before)
        os.chdir(os.path.dirname(self.path))
        self.unix("s")
        self.assertEqual([f"unix:{os.path.realpath(self.path)}"], self.addresses())

    def test_abstract(self) -> None:
        """
        A name in the abstract namespace is shared likewise.
        """
        name = f"\0twisted-cluster-ports-{os.getpid()}"
        first = self.unix(name)
        self.startWorker(2)
        second = self.unix(name, wantPID=0)
        self.stop(first)
        self.assertAnswers(second, socket.AF_UNIX)

    def test_nothingBeforeReady(self) -> None:
        """
        A UNIX port, too, accepts once the worker is ready.
        """
        port = self.unix(self.path)
        self.assertEqual([], self.reactor.getReaders())
        self.startup.becomeReady()
        self.assertEqual([port], self.reactor.getReaders())

    def test_late(self) -> None:
        """
        A path that is opened late is the worker's own: it binds it, and
        removes it.
        """
        self.startup.becomeReady()
        self.tcp()
        port = self.unix(self.path, mode=0o600, wantPID=1)
        self.assertEqual(1, len(self.addresses()))
        self.assertAnswers(port, socket.AF_UNIX)
        self.stop(port)
        self.assertEqual([], os.listdir(os.path.dirname(self.path)))

    def test_errors(self) -> None:
        """
        What fails raises what it raises alone: a path that is a file, a
        directory that is missing (with a lock file and without), a lock file
        that is held, a path that is too long.
        """
        with open(self.path, "w"):
            pass
        self.assertSameError(lambda: self.unix(self.path))
        missing = self.path + "/missing/s"
        for lock in (0, 1):
            self.assertSameError(lambda lock=lock: self.unix(missing, wantPID=lock))
        self.assertSameError(
            lambda: self.unix(os.path.dirname(self.path) + "/no/s", wantPID=1),
        )
        held = os.path.join(os.path.dirname(self.path), "held")
        os.symlink(str(os.getpid()), held + ".lock")
        self.assertSameError(lambda: self.unix(held, wantPID=1))
        self.assertSameError(lambda: self.unix(self.path + "x" * 200))
        self.assertTrue(os.path.isfile(self.path))

    def test_adopted(self) -> None:
        """
        A UNIX port that adopts a descriptor changes neither the path's mode
        nor the backlog, and its stop neither removes the path nor shuts the
        listener down.
        """
        with socket.socket(socket.AF_UNIX) as skt:
            skt.bind(self.path)
            skt.listen(5)
            skt.setblocking(False)
            os.chmod(self.path, 0o600)
            for _ in range(2):
                port = self.reactor.adoptUNIX(skt, self.factory())
                self.ports.append(port)
                self.assertAnswers(port, socket.AF_UNIX)
                self.stop(port)
            self.assertEqual(0o600, stat.S_IMODE(os.stat(self.path).st_mode))
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(self.path)
        self.assertEqual([], self.addresses())


class UDPTests(HookedTestCase):
    """
    C{udp.Port}.
    """

    def send(self, port: Any, data: bytes) -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            client.sendto(data, ("127.0.0.1", port.getHost().port))

    def test_shared(self) -> None:
        """
        A named UDP port is shared, and what arrives goes to one of those that
        read.
        """
        number = self.freePort("udp")
        self.udp(number)
        self.startWorker(2)
        protocol = Datagrams()
        port = self.udp(number, protocol)
        self.assertEqual([f"udp:127.0.0.1:{number}"], self.addresses())
        self.send(port, b"hello")
        port.doRead()
        self.assertEqual([b"hello"], protocol.received)

    def test_stop(self) -> None:
        """
        After the last stop the port is free, and one can listen again.
        """
        port = self.udp(self.freePort("udp"))
        self.stop(port)
        self.assertEqual([], self.settled())
        port.startListening()
        self.assertEqual(1, len(self.settled()))

    def test_taken(self) -> None:
        """
        A taken port raises what it raises alone.
        """
        with socket.socket(type=socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", 0))
            self.assertSameError(lambda: self.udp(other.getsockname()[1]))

    def test_nothingBeforeReady(self) -> None:
        """
        A UDP server is fed once the worker is ready.
        """
        port = self.udp(self.freePort("udp"))
        self.assertEqual([], self.reactor.getReaders())
        self.startup.becomeReady()
        self.assertEqual([port], self.reactor.getReaders())

    def test_whoSpeaksFirst(self) -> None:
        """
        A port that sends something during the start is a client: it gets its
        answers at once.
        """
        port = self.udp(self.freePort("udp"))
        port.write(b"question", ("127.0.0.1", self.freePort("udp")))
        self.assertEqual([port], self.reactor.getReaders())
        self.assertNotIn("write", vars(port))

        class Speaking(Datagrams):
            def startProtocol(self) -> None:
                cast(Any, self.transport).write(b"x", ("127.0.0.1", 9))

        port = self.udp(self.freePort("udp"), Speaking())
        self.assertIn(port, self.reactor.getReaders())

    def test_private(self) -> None:
        """
        UDP port 0, multicast, UNIX datagrams and what is named as local are
        the worker's own; they neither wait nor count as its first port.
        """
        self.udp(0)
        multicast = udp.MulticastPort(
            self.freePort("udp"), Datagrams(), reactor=cast(Any, self.reactor)
        )
        path = os.path.join(shortDirectory(self), "s")
        datagram = unix.DatagramPort(path, Datagrams(), reactor=self.reactor)
        for port in (multicast, datagram):
            self.ports.append(port)
            port.startListening()
        with listenMode("local"):
            self.udp(self.freePort("udp"))
        self.assertEqual([], self.addresses())
        self.assertEqual(4, len(self.reactor.getReaders()))
        self.assertFalse(self.socketClient.opened)

    def test_resolver(self) -> None:
        """
        The named, random ports on which C{twisted.names} asks its questions
        are the worker's own, before it is ready and after.
        """
        resolver = names.Resolver(
            servers=[("127.0.0.1", 9)], reactor=cast(IReactorTime, self.reactor)
        )
        for ready in (False, True):
            if ready:
                self.startup.becomeReady()
            protocol = dns.DNSDatagramProtocol(resolver, reactor=self.reactor)
            port = self.udp(self.freePort("udp"), cast(Any, protocol))
            self.assertIn(port, self.reactor.getReaders())
        self.assertEqual([], self.addresses())
        self.assertEqual(0, self.startup.ports)
        server = dns.DNSDatagramProtocol(cast(Any, None), reactor=self.reactor)
        self.udp(self.freePort("udp"), cast(Any, server))
        self.assertEqual(1, len(self.addresses()))

    @skipIf(not socket.has_ipv6, "no IPv6")
    def test_ipv6(self) -> None:
        """
        IPv6 is shared likewise.
        """
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
            number = probe.getsockname()[1]
        port = self.reactor.listenUDP(number, Datagrams(), "::1")
        self.ports.append(port)
        self.assertEqual([f"udp:[::1]:{number}"], self.addresses())
