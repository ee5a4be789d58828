"""
asyncio's servers on the cluster's sockets, on the standard loop and on uvloop.
"""

from __future__ import annotations

import asyncio
import errno
import importlib.util
import os
import socket
from collections.abc import Callable, Coroutine
from typing import Any, cast
from unittest import skipIf

from twisted.logger import Logger

from tests.sockethelpers import shortDirectory
from tests.worker.watching import PATIENCE, FakeStartup, WatchedTestCase
from twisted_cluster.sockets.addresses import Address, BindRequest, SocketRequest
from twisted_cluster.worker import asking
from twisted_cluster.worker.asyncservers import installAsyncServers
from twisted_cluster.worker.modes import listenMode


class Greeting(asyncio.Protocol):
    """
    Says hello, and leaves.
    """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(b"hello")
        transport.close()


class Datagrams(asyncio.DatagramProtocol):
    """
    Keeps the first datagram, and says when it has ended.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.first: asyncio.Future[bytes] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set_result(None)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.first.set_result(data)


class AsyncioTests(WatchedTestCase):
    """
    The standard library's event loop.
    """

    tellsLongPaths = True

    def newLoop(self) -> asyncio.AbstractEventLoop:
        return asyncio.SelectorEventLoop()

    def setUp(self) -> None:
        super().setUp()
        self.patch(asking, "_log", Logger(observer=self.events))
        self.undo: Callable[[], None] = lambda: None
        self.addCleanup(lambda: self.undo())
        self.startWorker(1)

    def startWorker(
        self, worker: int, ready: bool = True, opened: bool = False
    ) -> None:
        """
        Be another worker from now on.
        """
        self.undo()
        self.startup = FakeStartup(ready)
        self.socketClient = self.client(worker)
        self.socketClient.opened = opened
        self.undo = installAsyncServers(self.socketClient, self.startup)

    def drive(self, main: Coroutine[Any, Any, Any]) -> Any:
        """
        Run a coroutine on a new loop.
        """
        loop = self.newLoop()
        try:
            return loop.run_until_complete(asyncio.wait_for(main, PATIENCE))
        finally:
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    def settled(self) -> list[str]:
        with socket.socket() as skt:
            self.socketClient.request(
                SocketRequest(BindRequest(Address("tcp", "127.0.0.1"))), skt
            )
        return self.addresses()

    async def hear(self, name: Any, family: int = socket.AF_INET) -> bytes:
        """
        Connect to a server, and hear what it says.
        """
        with socket.socket(family) as skt:
            skt.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(skt, name)
            return await loop.sock_recv(skt, 100)

    async def serve(self, host: Any = "127.0.0.1", port: int = 0, **kw: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.create_server(Greeting, host, port, **kw)

    def freePort(self) -> int:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            return int(probe.getsockname()[1])

    def test_shared(self) -> None:
        """
        A server listens on the watcher's socket and serves; closing it gives
        the socket back.
        """

        async def main() -> None:
            server = await self.serve()
            (skt,) = server.sockets
            name = skt.getsockname()
            self.assertEqual([f"tcp:127.0.0.1:{name[1]}"], self.settled())
            self.assertEqual(b"hello", await self.hear(name))
            self.assertEqual(1, self.startup.ports)
            server.close()
            await server.wait_closed()
            await asyncio.sleep(0)

        self.drive(main())
        self.assertEqual([], self.settled())

    def test_deepDirectory(self) -> None:
        """
        A relative path is shared where the absolute one is too long, a stale
        file is replaced, and the server knows its address.
        """
        self.addCleanup(os.chdir, os.getcwd())
        deep = os.path.join(shortDirectory(self), "d" * 100)
        os.mkdir(deep)
        os.chdir(deep)
        with socket.socket(socket.AF_UNIX) as old:
            old.bind("s")

        async def main() -> None:
            loop = asyncio.get_running_loop()
            server = await loop.create_unix_server(Greeting, "s")
            if self.tellsLongPaths:
                self.assertEqual(f"{deep}/s", server.sockets[0].getsockname())
            self.assertEqual(b"hello", await self.hear("s", socket.AF_UNIX))
            self.assertIn(f"unix:{deep}/s", self.settled())
            server.close()
            await server.wait_closed()
            with self.assertRaises(OSError) as raised:
                await loop.create_unix_server(Greeting, f"{deep}/t")
            self.assertIn("too long", str(raised.exception))

        self.drive(main())

    def test_everyLoopIsHooked(self) -> None:
        """
        Nothing of asyncio that is private is needed.
        """
        self.undo()
        self.undo = lambda: None
        from asyncio import unix_events

        self.patch(unix_events, "_UnixSelectorEventLoop", None)
        self.startWorker(2)

    def test_twoWorkers(self) -> None:
        """
        A second worker gets the same socket, and one's close leaves the other
        working; the queue of connections does not become shorter.
        """

        async def main() -> None:
            number = self.freePort()
            first = await self.serve(port=number, backlog=3)
            self.startWorker(2)
            second = await self.serve(port=number, backlog=3)
            for server in (first, second):
                info = server.sockets[0].getsockopt(
                    socket.IPPROTO_TCP, socket.TCP_INFO, 104
                )
                self.assertEqual(64, info[28])
            first.close()
            await first.wait_closed()
            self.assertEqual(b"hello", await self.hear(("127.0.0.1", number)))
            second.close()
            await second.wait_closed()

        self.drive(main())

    def test_severalAddresses(self) -> None:
        """
        A server of several hosts is one server: its sockets, its end and its
        serving are those of all.
        """

        async def main() -> None:
            number = self.freePort()
            server = await self.serve(
                ["127.0.0.1", "::1", "localhost"], number, start_serving=False
            )
            self.assertEqual(
                [f"tcp:127.0.0.1:{number}", f"tcp:[::1]:{number}"], self.settled()
            )
            self.assertEqual(
                {"127.0.0.1", "::1"},
                {skt.getsockname()[0] for skt in server.sockets},
            )
            self.assertFalse(server.is_serving())
            self.assertIs(asyncio.get_running_loop(), server.get_loop())
            serving = asyncio.ensure_future(server.serve_forever())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            self.assertTrue(server.is_serving())
            self.assertEqual(b"hello", await self.hear(("127.0.0.1", number)))
            self.assertEqual(
                b"hello", await self.hear(("::1", number), socket.AF_INET6)
            )
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            self.assertEqual(0, len(server.sockets))
            await asyncio.sleep(0)

        self.drive(main())
        self.assertEqual([], self.settled())

    def test_everyInterface(self) -> None:
        """
        No host is every interface of both families.
        """

        async def main() -> None:
            server = await self.serve(None, self.freePort())
            self.assertEqual(
                {socket.AF_INET, socket.AF_INET6},
                {skt.family for skt in server.sockets},
            )
            self.assertEqual(2, len(self.settled()))
            server.close()
            await server.wait_closed()

        self.drive(main())

    def test_nothingBeforeReady(self) -> None:
        """
        A server that was started during the start serves once the worker is
        ready.
        """
        self.startWorker(1, ready=False)

        async def main() -> None:
            server = await self.serve()
            self.assertFalse(server.is_serving())
            closed = await self.serve()
            closed.close()
            self.startup.becomeReady()
            self.assertEqual(b"hello", await self.hear(server.sockets[0].getsockname()))
            server.close()
            await server.wait_closed()

        self.drive(main())

    def test_late(self) -> None:
        """
        What is opened late is the worker's own, as is what is named as local.
        """
        self.startWorker(1, opened=True)

        async def main() -> None:
            number = self.freePort()
            servers = [await self.serve(), await self.serve(port=number)]
            with listenMode("local"):
                servers.append(await self.serve())
            self.assertEqual([], self.settled())
            for server in servers:
                self.assertEqual(
                    b"hello", await self.hear(server.sockets[0].getsockname())
                )
            with self.assertRaises(OSError) as caught:
                await self.serve(port=number)
            self.assertEqual(errno.EADDRINUSE, caught.exception.errno)
            self.assertIn(f"--bind tcp:{number}", self.events.texts[-1])
            for server in servers:
                server.close()
                await server.wait_closed()

        self.drive(main())

    def test_errors(self) -> None:
        """
        What fails raises what it raises alone.
        """

        async def fail(**kw: Any) -> Exception:
            try:
                await self.serve(**kw)
            except Exception as error:
                return error
            raise AssertionError("nothing was raised")

        with socket.create_server(("127.0.0.1", 0)) as other:
            calls: list[dict[str, Any]] = [
                {"port": other.getsockname()[1]},
                {"host": "no.such.name.invalid"},
                {"host": "192.0.2.1"},
                {"ssl": True},
                {"sock": other},
            ]
            clustered = [self.drive(fail(**each)) for each in calls]
            self.undo()
            alone = [self.drive(fail(**each)) for each in calls]
            self.undo = lambda: None
        for ours, theirs in zip(clustered, alone, strict=True):
            self.assertIs(type(theirs), type(ours))
            self.assertEqual(
                getattr(theirs, "errno", None), getattr(ours, "errno", None)
            )
            self.assertEqual(str(theirs), str(ours))

    def test_ownSocket(self) -> None:
        """
        A server on a socket that the program made is left alone.
        """

        async def main() -> None:
            skt = socket.create_server(("127.0.0.1", 0))
            server = await asyncio.get_running_loop().create_server(Greeting, sock=skt)
            self.assertEqual([], self.settled())
            server.close()
            await server.wait_closed()

        self.drive(main())

    def test_unix(self) -> None:
        """
        A path is shared, has the mode that the umask gives, replaces a socket
        that nobody listens on, and outlives one worker's server.
        """
        path = os.path.join(shortDirectory(self), "s")
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(path)

        async def main() -> None:
            loop = asyncio.get_running_loop()
            before = os.umask(0o027)
            try:
                first = await loop.create_unix_server(Greeting, path)
            finally:
                os.umask(before)
            self.assertEqual(0o750, os.stat(path).st_mode & 0o777)
            self.startWorker(2)
            second = await loop.create_unix_server(Greeting, path)
            self.assertEqual([f"unix:{path}"], self.settled())
            first.close()
            await first.wait_closed()
            await asyncio.sleep(0)
            self.assertEqual(b"hello", await self.hear(path, socket.AF_UNIX))
            with self.assertRaises(OSError) as caught:
                await loop.create_unix_server(Greeting, path)
            self.assertEqual(
                f"[Errno 98] Address {path!r} is already in use", str(caught.exception)
            )
            second.close()
            await second.wait_closed()

        self.drive(main())
        self.listeners.closeAll()
        self.assertFalse(os.path.exists(path))

    def test_datagrams(self) -> None:
        """
        A named UDP port is shared; any port is the worker's own.
        """

        async def main() -> None:
            loop = asyncio.get_running_loop()
            own, mine = await loop.create_datagram_endpoint(
                Datagrams, local_addr=("127.0.0.1", 0)
            )
            self.assertEqual([], self.settled())
            number = own.get_extra_info("sockname")[1]
            own.close()
            await mine.ended
            await asyncio.sleep(0)
            transport, protocol = await loop.create_datagram_endpoint(
                Datagrams, local_addr=("127.0.0.1", number)
            )
            self.assertEqual([f"udp:127.0.0.1:{number}"], self.settled())
            with socket.socket(type=socket.SOCK_DGRAM) as client:
                client.sendto(b"hello", ("127.0.0.1", number))
            self.assertEqual(b"hello", await protocol.first)
            transport.close()
            await protocol.ended
            await asyncio.sleep(0)

        self.drive(main())
        self.assertEqual([], self.settled())

    def test_undo(self) -> None:
        """
        Undone, the loops are what they were.
        """
        self.undo()
        self.undo = lambda: None

        async def main() -> None:
            server = await self.serve()
            server.close()
            await server.wait_closed()

        self.drive(main())
        self.assertEqual(0, self.startup.ports)


@skipIf(importlib.util.find_spec("uvloop") is None, "uvloop is not installed")
class UvloopTests(AsyncioTests):
    """
    uvloop's event loop.
    """

    tellsLongPaths = False  # it asks the kernel

    def setUp(self) -> None:
        self.newLoop().close()  # libuv keeps two descriptors once it was used
        super().setUp()

    def newLoop(self) -> asyncio.AbstractEventLoop:
        import uvloop

        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        return loop
