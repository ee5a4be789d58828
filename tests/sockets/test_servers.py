"""
Listening sockets that one process binds and others listen on, with a real
reactor and both ends in one process.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
import stat
from collections.abc import Callable
from typing import Any, Optional

from twisted.internet import reactor as globalReactor
from twisted.internet import tcp
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
    connectProtocol,
)
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.protocols import amp
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from tests.sockethelpers import Events, descriptors, shortDirectory
from twisted_cluster.errors import (
    ChannelClosed,
    InvalidEndpoint,
    ProtocolError,
    UsageError,
)
from twisted_cluster.sockets import answering, servers, strictamp
from twisted_cluster.sockets.servers import (
    ServerSocketPipeFactory,
    ServerSocketPipeProvider,
)

reactor: Any = globalReactor
LOCAL = "tcp:0:interface=127.0.0.1"


class Greeting(Factory):
    """
    Says a name to each client, and leaves.
    """

    noisy = False

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.started = 0
        self.accepted: list[str] = []

    def doStart(self) -> None:
        self.started += 1

    def doStop(self) -> None:
        self.started -= 1

    def buildProtocol(self, addr: Any) -> Protocol:
        self.accepted.append(type(addr).__name__)
        return Greeter(self.name)


class Greeter(Protocol):
    """
    Greets one client.
    """

    def __init__(self, name: bytes) -> None:
        self._name = name

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self._name)
        self.transport.loseConnection()


class Listener(Protocol):
    """
    Hears a greeting out.
    """

    def __init__(self) -> None:
        self.data = b""
        self.heard: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.heard.callback(self.data)


async def ask(port: Any) -> bytes:
    """
    Connect to a port and hear what it says.
    """
    host = port.getHost()
    endpoint: Any
    if hasattr(host, "name"):
        endpoint = UNIXClientEndpoint(reactor, os.fsdecode(host.name))
    elif ":" in host.host:
        endpoint = TCP6ClientEndpoint(reactor, host.host, host.port)
    else:
        endpoint = TCP4ClientEndpoint(reactor, host.host, host.port)
    listener = await connectProtocol(endpoint, Listener())
    heard: bytes = await listener.heard
    return heard


async def until(happened: Callable[[], bool]) -> None:
    """
    Turn the reactor until something has happened.
    """
    end = reactor.seconds() + 20
    while not happened():
        if reactor.seconds() > end:
            raise AssertionError("it did not happen within 20 seconds")
        await deferLater(reactor, 0.001, lambda: None)


def errorOf(result: Deferred[Any]) -> Deferred[Any]:
    """
    Wait for a failure, which is the result.
    """

    def succeeded(value: Any) -> None:
        raise AssertionError(f"it did not fail, but is {value!r}")

    return result.addCallbacks(succeeded, lambda failure: failure.value)


class LowLimit:
    """
    Lets this process open no more descriptors, or only a few.
    """

    def __init__(self, spare: int = 0) -> None:
        self._spare = spare
        self._before = resource.getrlimit(resource.RLIMIT_NOFILE)

    def __enter__(self) -> None:
        lowest = os.open(os.devnull, os.O_RDONLY)
        os.close(lowest)
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (lowest + self._spare, self._before[1])
        )

    def __exit__(self, *exception: object) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, self._before)


class ServersTestCase(TestCase):
    """
    A provider, and peers that listen on what it binds.  Every descriptor must
    be closed when the test ends.

    @ivar gone: for each peer, whether it is gone, as the provider sees it.
    """

    timeout = 60

    def setUp(self) -> Deferred[None]:  # type: ignore[override]
        # A reactor that runs has descriptors of its own.
        return deferLater(reactor, 0, self.setUpRunning)

    def setUpRunning(self) -> None:
        tcp._reservedFD.reserve()
        before = descriptors()
        self.addCleanup(lambda: self.assertEqual(before, descriptors()))
        self.events = Events()
        for module in (servers, answering, strictamp):
            self.patch(module, "_log", Logger(observer=self.events))
        self.provider = ServerSocketPipeProvider(reactor)
        self.gone: list[Deferred[None]] = []
        self.ports: list[IListeningPort] = []
        self.addCleanup(self.closeAll)

    async def _closeAll(self) -> None:
        for port in list(self.ports):
            await self.stop(port)
        self.provider.close()
        self.assertEqual([], self.provider.addresses)
        await gatherResults(self.gone)

    def closeAll(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._closeAll())

    def peer(self, timeout: float = 30.0) -> ServerSocketPipeFactory:
        """
        Make a peer that the provider serves.
        """
        ours, theirs = socket.socketpair()
        self.gone.append(self.provider.provideFor(ours))
        return self.factory(theirs, timeout)

    def factory(
        self, connection: socket.socket, timeout: float = 30.0
    ) -> ServerSocketPipeFactory:
        factory = ServerSocketPipeFactory(reactor, connection, timeout)
        self.addCleanup(factory.close)
        return factory

    async def listen(
        self,
        factory: ServerSocketPipeFactory,
        description: str = LOCAL,
        name: bytes = b"hello",
    ) -> Any:
        port = await factory.endpoint(description).listen(Greeting(name))
        self.ports.append(port)
        return port

    async def fails(
        self, factory: ServerSocketPipeFactory, description: str = LOCAL
    ) -> Any:
        return await errorOf(factory.endpoint(description).listen(Greeting(b"")))

    async def stop(self, port: Any) -> None:
        await port.stopListening()
        if port in self.ports:
            self.ports.remove(port)

    def named(self, port: Any) -> str:
        return f"tcp:{port.getHost().port}:interface=127.0.0.1"

    async def released(self) -> None:
        await until(lambda: not self.provider.addresses)


class ListeningTests(ServersTestCase):
    """
    Endpoints that listen on what a provider bound.
    """

    async def test_tcp(self) -> None:
        """
        A port answers, says where it listens, starts and stops its factory, and
        gives its socket back, which is then closed.
        """
        endpoint = self.peer().endpoint(LOCAL)
        verifyObject(IStreamServerEndpoint, endpoint)
        greeting = Greeting(b"hello")
        port: Any = await endpoint.listen(greeting)
        verifyObject(IListeningPort, port)
        self.assertEqual(1, greeting.started)
        self.assertEqual(b"hello", await ask(port))
        self.assertEqual(["IPv4Address"], greeting.accepted)
        self.assertEqual(
            [f"tcp:127.0.0.1:{port.getHost().port}"], self.provider.addresses
        )
        self.assertEqual("127.0.0.1", port.getHost().host)
        await port.stopListening()
        self.assertEqual(0, greeting.started)
        await self.released()

    async def test_tcp6(self) -> None:
        """
        So does one of IPv6.
        """
        port = await self.listen(self.peer(), "tcp6:0:interface=\\:\\:1")
        self.assertEqual("::1", port.getHost().host)
        self.assertEqual(b"hello", await ask(port))

    async def test_twoPeers(self) -> None:
        """
        Two peers that ask for one address accept from one socket, and the end
        of one is not noticed by clients of the other.
        """
        one, two = self.peer(), self.peer()
        first = await self.listen(one, LOCAL, b"first")
        second = await self.listen(two, self.named(first), b"second")
        self.assertEqual(1, len(self.provider.addresses))
        first.stopReading()
        self.assertEqual(b"second", await ask(second))
        first.startReading()
        second.stopReading()
        self.assertEqual(b"first", await ask(second))
        await self.stop(first)
        second.startReading()
        self.assertEqual(b"second", await ask(second))
        self.assertEqual(1, len(self.provider.addresses))
        await self.stop(second)
        await self.released()

    async def test_twice(self) -> None:
        """
        A second listen of one peer on an address is in use, as alone, until
        the first has ended.
        """
        factory = self.peer()
        port = await self.listen(factory)
        description = self.named(port)
        error = await self.fails(factory, description)
        self.assertIsInstance(error, CannotListenError)
        self.assertEqual(errno.EADDRINUSE, error.socketError.errno)
        self.assertEqual(b"hello", await ask(port))
        await self.stop(port)
        again = await self.listen(factory, description)
        self.assertEqual(b"hello", await ask(again))

    async def test_taken(self) -> None:
        """
        An address that somebody else has is refused with what C{bind} says, in
        the words of Twisted.
        """
        with socket.create_server(("0.0.0.0", 0)) as other:
            number = other.getsockname()[1]
            error = await self.fails(self.peer(), f"tcp:{number}")
        alone = CannotListenError(
            "", number, OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        )
        self.assertEqual(str(alone), str(error))
        self.assertEqual(errno.EADDRINUSE, error.socketError.errno)

    async def test_ephemeral(self) -> None:
        """
        Each request for port 0 gets a new port, and the n-th of one peer the
        same as the n-th of another; all may be under way at once.
        """
        one, two = self.peer(), self.peer()
        ports: list[Any] = [
            await each
            for each in [
                Deferred.fromCoroutine(self.listen(factory))
                for factory in (one, one, two, two, two)
            ]
        ]
        numbers = [port.getHost().port for port in ports]
        self.assertEqual(numbers[:2], numbers[2:4])
        self.assertEqual(3, len(set(numbers)))
        await self.fails(one, "tcp:1:interface=203.0.113.1")
        third = await self.listen(one)
        self.assertEqual(numbers[4], third.getHost().port)

    async def test_manyAtOnce(self) -> None:
        """
        Many listens at once are all answered.
        """
        factory = self.peer()
        endpoint = factory.endpoint(LOCAL)
        many = await gatherResults(
            [endpoint.listen(Greeting(b"%d" % n)) for n in range(40)]
        )
        self.ports.extend(many)
        self.assertEqual(40, len(self.provider.addresses))
        self.assertEqual(b"39", await ask(many[39]))

    async def test_again(self) -> None:
        """
        Listening and stopping again and again leaves nothing, on either side.
        """
        factory = self.peer()
        for description in (f"unix:{shortDirectory(self)}/s", LOCAL):
            await self.stop(await self.listen(factory, description))
            await self.released()
            before = descriptors()
            for _ in range(20):
                await self.stop(await self.listen(factory, description))
            await self.released()
            self.assertEqual(before, descriptors())

    async def test_failingFactory(self) -> None:
        """
        A protocol factory that cannot be started gives the socket back.
        """

        class Broken(Greeting):
            def doStart(self) -> None:
                raise ZeroDivisionError

        factory = self.peer()
        path = os.path.join(shortDirectory(self), "s")
        for description in (LOCAL, f"unix:{path}"):
            listening = factory.endpoint(description).listen(Broken(b""))
            self.assertIsInstance(await errorOf(listening), ZeroDivisionError)
            await self.released()

    def test_descriptions(self) -> None:
        """
        What is no stream socket, or cannot be understood, is refused with the
        way out.
        """
        factory = self.peer()
        for description, advice in [
            ("udp:53", "reactor.listenUDP"),
            ("ssl:443", "bind the plain port"),
            ("tcp", "try tcp:8080"),
            ("systemd:0", "try tcp:8080 or unix:"),
        ]:
            error = self.assertRaises(InvalidEndpoint, factory.endpoint, description)
            self.assertIn(advice, str(error))


class PathTests(ServersTestCase):
    """
    UNIX sockets.
    """

    def setUpRunning(self) -> None:
        super().setUpRunning()
        self.directory = shortDirectory(self)
        self.path = os.path.join(self.directory, "s")

    async def test_unix(self) -> None:
        """
        Adopting a UNIX socket, and the end of one that adopted it, leave the
        path and its mode alone; the last that stops has it removed, and the
        lock file.
        """
        description = f"unix:{self.path}:mode=640"
        first = await self.listen(self.peer(), description, b"first")
        second = await self.listen(self.peer(), description, b"second")
        self.assertEqual(os.fsencode(self.path), first.getHost().name)
        self.assertEqual(0o640, stat.S_IMODE(os.stat(self.path).st_mode))
        self.assertEqual(["s", "s.lock"], sorted(os.listdir(self.directory)))
        self.assertEqual([f"unix:{self.path}"], self.provider.addresses)
        await self.stop(first)
        self.assertEqual(b"second", await ask(second))
        self.assertEqual(0o640, stat.S_IMODE(os.stat(self.path).st_mode))
        await self.stop(second)
        await self.released()
        self.assertEqual([], os.listdir(self.directory))

    async def test_relativePath(self) -> None:
        """
        A relative path is that of the peer, at the time when the endpoint was
        made.
        """
        before = os.getcwd()
        os.chdir(self.directory)
        try:
            endpoint = self.peer().endpoint("unix:s")
        finally:
            os.chdir(before)
        port: Any = await endpoint.listen(Greeting(b"hello"))
        self.ports.append(port)
        self.assertEqual(os.fsencode(self.path), port.getHost().name)
        self.assertEqual(b"hello", await ask(port))

    async def test_longPath(self) -> None:
        """
        A path that is too long for the kernel is listened on, and named in full.
        """
        directory = os.path.join(self.directory, "d" * 150)
        os.mkdir(directory)
        port = await self.listen(self.peer(), f"unix:{directory}/s")
        self.assertEqual(os.fsencode(directory) + b"/s", port.getHost().name)
        short = os.open(directory, os.O_PATH)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"/proc/self/fd/{short}/s")
            os.close(short)
            client.setblocking(False)
            heard: list[bytes] = []

            def hears() -> bool:
                try:
                    heard.append(client.recv(100))
                except BlockingIOError:
                    return False
                return True

            await until(hears)
        self.assertEqual([b"hello"], heard)
        await self.stop(port)
        await self.released()
        self.assertEqual([], os.listdir(directory))

    async def test_abstract(self) -> None:
        """
        A name in the abstract namespace is listened on like a path.
        """
        name = f"\0twisted-cluster-servers-{os.getpid()}"
        port = await self.listen(self.peer(), f"unix:{name}")
        self.assertEqual(b"hello", await ask(port))

    async def test_locked(self) -> None:
        """
        A path that is locked by a living process is refused as alone.
        """
        os.symlink(str(os.getpid()), self.path + ".lock")
        error = await self.fails(self.peer(), f"unix:{self.path}")
        self.assertIsInstance(error, CannotListenError)
        self.assertEqual("Cannot acquire lock", error.socketError)

    async def test_noDirectory(self) -> None:
        """
        A directory that does not exist is refused with its errno.
        """
        error = await self.fails(self.peer(), f"unix:{self.path}/missing/s")
        self.assertIsInstance(error, CannotListenError)
        self.assertEqual(errno.ENOENT, error.socketError.errno)

    async def test_removedPath(self) -> None:
        """
        A path that somebody removed is bound anew for the next that listens,
        with a word in the log.
        """
        description = f"unix:{self.path}"
        old = await self.listen(self.peer(), description, b"old")
        os.unlink(self.path)
        new = await self.listen(self.peer(), description, b"new")
        self.assertEqual(b"new", await ask(new))
        self.assertIn("is bound anew", "\n".join(self.events.texts))
        await self.stop(old)
        self.assertEqual(b"new", await ask(new))


class EndTests(ServersTestCase):
    """
    What happens when one side goes.
    """

    async def test_peerGone(self) -> None:
        """
        When a peer is gone, the Deferred fires and what only it used is closed.
        """
        one, two = self.peer(), self.peer()
        shared = await self.listen(one, LOCAL, b"one")
        kept = await self.listen(two, self.named(shared), b"two")
        alone = await self.listen(one)
        one.close()
        await self.gone[0]
        self.assertEqual(
            [f"tcp:127.0.0.1:{kept.getHost().port}"], self.provider.addresses
        )
        await self.stop(shared)
        await self.stop(alone)
        self.assertEqual(b"two", await ask(kept))

    async def test_providerGone(self) -> None:
        """
        When the provider is gone, what listens serves on and stops in peace;
        nothing more can be listened on.
        """
        factory = self.peer()
        port = await self.listen(factory)
        self.provider.close()
        await self.gone[0]
        self.assertEqual([], self.provider.addresses)
        await until(lambda: factory._asking._gone is not None)
        self.assertEqual(b"hello", await ask(port))
        error = await self.fails(factory)
        self.assertIsInstance(error, ChannelClosed)
        self.assertIn("the provider is gone", str(error))
        await self.stop(port)

    async def test_goneUnderWay(self) -> None:
        """
        When the provider goes while it is asked, all that wait for it hear so.
        """
        ours, theirs = socket.socketpair()
        factory = self.factory(theirs)
        failures = [
            errorOf(factory.endpoint(description).listen(Greeting(b"")))
            for description in (LOCAL, "tcp:1")
        ]
        ours.close()
        for each in failures:
            self.assertIsInstance(await each, ChannelClosed)

    async def test_peerGoneUnderWay(self) -> None:
        """
        A peer that asks and goes at once leaves nothing behind.
        """
        ours, theirs = socket.socketpair()
        factory = self.factory(theirs)
        asked = errorOf(factory.endpoint(LOCAL).listen(Greeting(b"")))
        factory.close()
        self.assertIsInstance(await asked, ChannelClosed)
        await self.provider.provideFor(ours)
        self.assertEqual([], self.provider.addresses)

    async def test_close(self) -> None:
        """
        After its end, a factory listens on nothing; closing it twice is once.
        """
        factory = self.peer()
        endpoint = factory.endpoint(LOCAL)
        factory.close()
        factory.close()
        error = await errorOf(endpoint.listen(Greeting(b"")))
        self.assertIsInstance(error, ChannelClosed)
        self.assertIn("this factory was closed", str(error))

    async def test_closeFromCallback(self) -> None:
        """
        Whoever is given a port may close the factory at once; others that wait
        hear so, and the port serves on.
        """
        factory = self.peer()

        def closing(port: Any) -> Any:
            factory.close()
            return port

        first = factory.endpoint(LOCAL).listen(Greeting(b"hello"))
        second = errorOf(factory.endpoint(LOCAL).listen(Greeting(b"")))
        port: Any = await first.addCallback(closing)
        self.ports.append(port)
        self.assertIsInstance(await second, ChannelClosed)
        self.assertEqual(b"hello", await ask(port))

    async def test_listenFromCallback(self) -> None:
        """
        Whoever is given a port, or refused one, may ask for another at once.
        """
        factory = self.peer()
        await self.stop(await self.listen(factory))
        with socket.create_server(("127.0.0.1", 0)) as other:
            taken = f"tcp:{other.getsockname()[1]}:interface=127.0.0.1"
            listening: Deferred[Any] = factory.endpoint(taken).listen(Greeting(b""))
            port = await listening.addErrback(
                lambda _: factory.endpoint(LOCAL).listen(Greeting(b"hello"))
            )
        self.ports.append(port)
        self.assertEqual(b"hello", await ask(port))

    async def test_closedProvider(self) -> None:
        """
        A provider that was closed serves nobody, and closes the connection.
        """
        self.provider.close()
        ours, theirs = socket.socketpair()
        with theirs:
            error = await errorOf(self.provider.provideFor(ours))
            self.assertIsInstance(error, ChannelClosed)
            self.assertEqual(b"", theirs.recv(1))

    async def test_cutOff(self) -> None:
        """
        Cancelling what C{provideFor} returned cuts the peer off.
        """
        factory = self.peer()
        port = await self.listen(factory)
        self.gone[0].cancel()
        await self.gone[0]
        self.assertEqual([], self.provider.addresses)
        self.assertIsInstance(await self.fails(factory), ChannelClosed)
        await self.stop(port)

    async def test_wrongConnection(self) -> None:
        """
        What cannot carry sockets is refused, and closed.
        """
        for kind in (
            (socket.AF_INET, socket.SOCK_STREAM),
            (
                socket.AF_UNIX,
                socket.SOCK_DGRAM,
            ),
        ):
            skt = socket.socket(*kind)
            error = await errorOf(self.provider.provideFor(skt))
            self.assertIsInstance(error, UsageError)
            self.assertEqual(-1, skt.fileno())
            self.assertRaises(UsageError, ServerSocketPipeFactory, reactor, skt)
        with socket.socket(socket.AF_UNIX) as closed:
            pass
        error = await errorOf(self.provider.provideFor(closed))
        self.assertIn("was closed", str(error))


class LateTests(ServersTestCase):
    """
    Answers that nobody waits for any more.
    """

    async def lateAnswer(
        self, timeout: float, giveUp: Callable[[Deferred[Any]], object]
    ) -> Exception:
        ours, theirs = socket.socketpair()
        factory = self.factory(theirs, timeout)
        port = factory.endpoint(LOCAL).listen(Greeting(b""))
        failed = errorOf(port)
        giveUp(port)
        error: Exception = await failed
        self.gone.append(self.provider.provideFor(ours))
        # Whoever asks afterwards is answered, and gets the next socket.
        other = await self.listen(factory)
        await until(lambda: len(self.provider.addresses) == 1)
        self.assertEqual(b"hello", await ask(other))
        return error

    async def test_timeout(self) -> None:
        """
        A provider that does not answer in time is C{ETIMEDOUT}, and the socket
        that it gives later goes back.
        """
        error: Any = await self.lateAnswer(0.05, lambda port: None)
        self.assertIsInstance(error, CannotListenError)
        self.assertEqual(errno.ETIMEDOUT, error.socketError.errno)

    async def test_cancelled(self) -> None:
        """
        A listen that was cancelled gives its socket back.
        """
        error = await self.lateAnswer(30.0, lambda port: port.cancel())
        self.assertIsInstance(error, CancelledError)

    async def test_cancelledBeforeItsTurn(self) -> None:
        """
        A listen that was cancelled before it was asked is never asked.
        """
        ours, theirs = socket.socketpair()
        factory = self.factory(theirs)
        first = factory.endpoint(LOCAL).listen(Greeting(b"hello"))
        second = factory.endpoint(LOCAL).listen(Greeting(b""))
        failed = errorOf(second)
        second.cancel()
        self.assertIsInstance(await failed, CancelledError)
        self.gone.append(self.provider.provideFor(ours))
        port: Any = await first
        self.ports.append(port)
        self.assertEqual(b"hello", await ask(port))
        self.assertEqual(1, len(self.provider.addresses))


class FaultTests(ServersTestCase):
    """
    Nonsense, and a lack of descriptors.
    """

    async def test_garbageToProvider(self) -> None:
        """
        A peer that breaks the rules is cut off, what it used is closed, and the
        Deferred fails; others are served on.
        """
        ours, theirs = socket.socketpair()
        gone = self.provider.provideFor(ours)
        with theirs:
            theirs.sendall(b"GET / HTTP/1.1\r\n\r\n")
            error = await errorOf(gone)
            self.assertIsInstance(error, ProtocolError)
            self.assertEqual(b"", theirs.recv(1))
        self.assertIn("Peer 1 broke the rules", "\n".join(self.events.texts))
        port = await self.listen(self.peer())
        self.assertEqual(b"hello", await ask(port))

    async def test_descriptorsToProvider(self) -> None:
        """
        Descriptors that belong to nothing cut a peer off, and are closed.
        """
        ours, theirs = socket.socketpair()
        gone = self.provider.provideFor(ours)
        with theirs, open(os.devnull) as file:
            socket.send_fds(theirs, [b"\0"], [file.fileno()] * 20)
            self.assertIsInstance(await errorOf(gone), ProtocolError)

    async def test_halfAQuestion(self) -> None:
        """
        A peer that goes in the middle of a question leaves nothing behind.
        """
        ours, theirs = socket.socketpair()
        gone = self.provider.provideFor(ours)
        with theirs, open(os.devnull) as file:
            socket.send_fds(theirs, [b"\0\x04kind"], [file.fileno()])
        await gone
        self.assertIn("in the middle of a question", "\n".join(self.events.texts))

    async def brokenProvider(self, data: bytes, *sent: socket.socket) -> Exception:
        ours, theirs = socket.socketpair()
        factory = self.factory(theirs)
        failed = errorOf(factory.endpoint(LOCAL).listen(Greeting(b"")))
        with ours:
            if sent:
                socket.send_fds(ours, [data], [skt.fileno() for skt in sent])
            else:
                ours.sendall(data)
            error: Exception = await failed
            self.assertIsInstance(await self.fails(factory), ChannelClosed)
        return error

    def answer(self, **changes: bytes) -> bytes:
        values = {
            "_answer": b"1",
            "verdict": b"shared",
            "errno": b"0",
            "message": b"",
            "listener": b"0",
            **changes,
        }
        return bytes(amp.AmpBox(**values).serialize())

    async def test_garbageFromProvider(self) -> None:
        """
        A provider that breaks the rules is given up, and whoever waits for it
        hears so.
        """
        with socket.socket() as unbound, socket.socket(socket.AF_UNIX) as unix:
            for data, sent, why in [
                (b"HTTP/1.1 400 Bad Request\r\n\r\n", [], "a key of"),
                (self.answer(_answer=b"7"), [], "an answer to no question"),
                (amp.AmpBox(_command=b"x").serialize(), [], "an answer to no"),
                (self.answer(verdict=b"perhaps"), [], "b'perhaps'"),
                (self.answer(), [], "no answer"),
                (self.answer(socket=b"0"), [], "KeyError"),
                (self.answer(socket=b"0"), [unbound], "does not listen"),
                (self.answer(socket=b"0"), [unix], "AF_UNIX"),
                (amp.AmpBox(_answer=b"1").serialize(), [], "KeyError"),
            ]:
                error = await self.brokenProvider(data, *sent)
                self.assertIsInstance(error, ProtocolError, data)
                self.assertIn(why, str(error))

    async def test_providerAtItsLimit(self) -> None:
        """
        A provider that can hold no more descriptors refuses with C{EMFILE}, and
        serves the same peer on when it can.
        """
        factory = self.peer()
        failed = self.fails(factory)
        with LowLimit():
            error = await Deferred.fromCoroutine(failed)
        self.assertEqual(errno.EMFILE, error.socketError.errno)
        port = await self.listen(factory)
        self.assertEqual(b"hello", await ask(port))

    async def test_peerAtItsLimit(self) -> None:
        """
        A peer that can open no descriptor asks nothing; one that can hold the
        socket but not adopt it gives it back; both are C{EMFILE}.
        """
        factory = self.peer()
        await self.stop(await self.listen(factory))
        await self.released()
        refused = 0
        for spare in range(6):
            with LowLimit(spare):
                listening = Deferred.fromCoroutine(self.listen(factory))
                result: Optional[Any] = await listening.addErrback(
                    lambda failure: failure.value
                )
            if isinstance(result, Exception):
                assert isinstance(result, CannotListenError), result
                self.assertEqual(errno.EMFILE, result.socketError.errno)
                refused += 1
            else:
                await self.stop(result)
            await self.released()
        self.assertIn(refused, range(2, 6))
