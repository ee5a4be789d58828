"""
Listening sockets that one process binds and others listen on.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from zope.interface.verify import verifyObject

from tests.sockethelpers import descriptors, shortDirectory
from tests.sockets.servers.providing import (
    LOCAL,
    Greeting,
    ServersTestCase,
    ask,
    errorOf,
    reactor,
    until,
)
from twisted_cluster.errors import ChannelClosed, InvalidEndpoint, UsageError
from twisted_cluster.sockets.servers.pipes import ServerSocketPipeFactory


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
        Cancelling what C{provideFor} returned cuts the peer off: it fails with
        C{CancelledError}, and what only that peer used is closed.
        """
        one, two = self.peer(), self.peer()
        shared = await self.listen(one)
        kept = await self.listen(two, LOCAL, b"two")
        alone = await self.listen(one)
        gone = self.gone.pop(0)
        gone.cancel()
        self.assertIsInstance(await errorOf(gone), CancelledError)
        self.assertEqual(
            [f"tcp:127.0.0.1:{kept.getHost().port}"], self.provider.addresses
        )
        self.assertIsInstance(await self.fails(one), ChannelClosed)
        await self.stop(shared)
        await self.stop(alone)
        self.assertEqual(b"two", await ask(kept))

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
