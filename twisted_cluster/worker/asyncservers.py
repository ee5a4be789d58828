"""
Makes the servers of asyncio's event loops listen on the cluster's sockets:
C{create_server}, C{create_unix_server} and C{create_datagram_endpoint}, of the
standard library's loops and of uvloop's.

Each asks for its sockets first, and hands them to the loop's own method as
C{sock}.  What the watcher answers with I{own} takes the usual way.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from types import ModuleType
from typing import Any, Optional

from twisted_cluster.interfaces import IStartup
from twisted_cluster.sockets.addresses import (
    LEAVE_MODE,
    Address,
    BindRequest,
    Own,
    Refused,
)
from twisted_cluster.sockets.paths import fits
from twisted_cluster.worker.asking import Asker
from twisted_cluster.worker.asyncsockets import (
    PLAIN,
    SharedSocket,
    Wording,
    addressOf,
    backlogOf,
    removeStale,
    resolve,
    takesCleanup,
)
from twisted_cluster.worker.imports import whenImported
from twisted_cluster.worker.modes import currentMode
from twisted_cluster.worker.multiserver import Servers
from twisted_cluster.worker.socketclient import SocketClient


def installAsyncServers(client: SocketClient, startup: IStartup) -> Callable[[], None]:
    """
    Make every server that an asyncio loop opens from now on ask for its
    sockets.  uvloop is hooked when the program imports it.

    @return: what undoes it.
    """
    hooks = _Hooks(Asker(client, startup))
    hooks.hook(asyncio.BaseEventLoop, "create_server", hooks.createServer)
    hooks.hook(asyncio.BaseEventLoop, "create_datagram_endpoint", hooks.createDatagram)
    hooks.hook(asyncio.SelectorEventLoop, "create_unix_server", hooks.createUNIX)

    def hookUvloop(module: ModuleType) -> None:
        hooks.hook(module.Loop, "create_server", hooks.createServer)
        hooks.hook(module.Loop, "create_datagram_endpoint", hooks.createDatagram)
        hooks.hook(module.Loop, "create_unix_server", hooks.createUNIX)

    forget = whenImported("uvloop", hookUvloop)

    def undo() -> None:
        forget()
        hooks.undo()

    return undo


class _Hooks:
    """
    What stands in for the loops' methods.  Each takes the method that it
    stands for, the loop, and the arguments of the call.
    """

    def __init__(self, asker: Asker) -> None:
        self._asker = asker
        self._undo: list[Callable[[], None]] = []

    def hook(self, owner: Any, name: str, hook: Callable[..., Any]) -> None:
        """
        Replace a class's method.
        """
        original = getattr(owner, name)
        inherited = name not in vars(owner)

        async def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            return await hook(original, self, *args, **kwargs)

        method.__name__ = name
        method.__doc__ = original.__doc__
        setattr(owner, name, method)
        if inherited:
            self._undo.append(lambda: delattr(owner, name))
        else:
            self._undo.append(lambda: setattr(owner, name, original))

    def undo(self) -> None:
        """
        Put all methods back.
        """
        while self._undo:
            self._undo.pop()()

    async def createServer(
        self,
        original: Callable[..., Any],
        loop: Any,
        protocolFactory: Any,
        host: Any = None,
        port: Any = None,
        **kwargs: Any,
    ) -> Any:
        """
        Stand in for C{create_server}.
        """
        if (
            (host is None and port is None)
            or kwargs.get("sock") is not None
            or currentMode() == "local"
        ):
            return await original(loop, protocolFactory, host, port, **kwargs)
        options = dict(kwargs)
        flags = options.pop("flags", socket.AI_PASSIVE)
        family = options.pop("family", socket.AF_UNSPEC)
        reuseAddress = options.pop("reuse_address", None)
        reusePort = options.pop("reuse_port", None)
        keepAlive = options.pop("keep_alive", None)
        backlog = options.get("backlog", 100)
        if not isinstance(backlog, int):
            return await original(loop, protocolFactory, host, port, **kwargs)

        def prepare(skt: socket.socket) -> None:
            if reuseAddress is None or reuseAddress:
                skt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reusePort:
                skt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if keepAlive:
                skt.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if skt.family == socket.AF_INET6:
                skt.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)

        wording = Wording.of(original)
        sockets: list[socket.socket] = []
        shared = False
        try:
            for name in await resolve(
                loop, host, port, family, socket.SOCK_STREAM, flags
            ):
                address = addressOf("tcp", name)
                wanted = BindRequest(address, backlog)
                try:
                    skt = self._ask(wanted, name, prepare, wording)
                    if skt is not None:
                        sockets.append(skt)
                        shared = True
                    else:
                        sockets.append(self._bindOwn(address, name, prepare, wording))
                except OSError as error:
                    if not wording.skips(error):
                        raise
            if not shared:
                while sockets:
                    sockets.pop().close()
                server = await original(loop, protocolFactory, host, port, **kwargs)
                self._asker.opened()
                return server
            return await self._serve(original, loop, protocolFactory, sockets, options)
        except BaseException:
            for each in sockets:
                each.close()
            raise

    async def createUNIX(
        self,
        original: Callable[..., Any],
        loop: Any,
        protocolFactory: Any,
        path: Any = None,
        **kwargs: Any,
    ) -> Any:
        """
        Stand in for C{create_unix_server}.
        """
        backlog = kwargs.get("backlog", 100)
        if (
            path is None
            or kwargs.get("sock") is not None
            or currentMode() == "local"
            or not isinstance(backlog, int)
            or not fits(os.fsencode(path))
        ):
            return await original(loop, protocolFactory, path, **kwargs)
        address = Address.unix(os.fsencode(path))
        wanted = BindRequest(address, backlog, LEAVE_MODE)
        try:
            found = self._ask(wanted, path, _nothing)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not removeStale(address):
                raise
            found = self._ask(wanted, path, _nothing)
        if found is None:
            server = await original(loop, protocolFactory, path, **kwargs)
            self._asker.opened()
            return server
        options = dict(kwargs)
        if takesCleanup(original):
            options["cleanup_socket"] = False
        try:
            return await self._serve(original, loop, protocolFactory, [found], options)
        except BaseException:
            found.close()
            raise

    async def createDatagram(
        self,
        original: Callable[..., Any],
        loop: Any,
        protocolFactory: Any,
        local_addr: Any = None,
        remote_addr: Any = None,
        **kwargs: Any,
    ) -> Any:
        """
        Stand in for C{create_datagram_endpoint}.
        """
        if (
            not isinstance(local_addr, (tuple, list))
            or len(local_addr) != 2
            or not local_addr[1]
            or remote_addr is not None
            or kwargs.get("sock") is not None
            or currentMode() == "local"
        ):
            return await original(
                loop, protocolFactory, local_addr, remote_addr, **kwargs
            )
        host, port = local_addr
        names = await resolve(
            loop,
            host,
            port,
            kwargs.get("family", 0),
            socket.SOCK_DGRAM,
            kwargs.get("flags", 0),
        )

        def prepare(skt: socket.socket) -> None:
            if kwargs.get("reuse_port"):
                skt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if kwargs.get("allow_broadcast"):
                skt.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)

        address = addressOf("udp", names[0])
        found = self._ask(BindRequest(address, 0), names[0], prepare)
        if found is None:
            try:
                pair = await original(
                    loop, protocolFactory, local_addr, remote_addr, **kwargs
                )
            except OSError as error:
                self._asker.ownFailed(address, error)
                raise
        else:
            try:
                pair = await original(loop, protocolFactory, sock=found)
            except BaseException:
                found.close()
                raise
        self._asker.opened()
        return pair

    def _ask(
        self,
        wanted: BindRequest,
        name: Any,
        prepare: Callable[[socket.socket], None],
        wording: Wording = PLAIN,
    ) -> Optional[SharedSocket]:
        """
        Ask for one socket.

        @return: the socket, or L{None} for one's own.
        @raise OSError: with the text of asyncio's own.
        """
        with socket.socket(wanted.address.family, wanted.address.type) as skt:
            prepare(skt)
            verdict = self._asker.ask(wanted, skt)
        if isinstance(verdict, Own):
            return None
        if isinstance(verdict, Refused):
            raise wording.refusal(verdict, wanted.address, name)
        return SharedSocket.of(verdict, self._asker.release)

    def _bindOwn(
        self,
        address: Address,
        name: Any,
        prepare: Callable[[socket.socket], None],
        wording: Wording,
    ) -> socket.socket:
        skt = socket.socket(address.family, address.type)
        try:
            prepare(skt)
            skt.bind(address.sockaddr)
        except OSError as error:
            skt.close()
            self._asker.ownFailed(address, error)
            refused = Refused(error.errno or 0, error.strerror or "")
            raise wording.refusal(refused, address, name) from None
        return skt

    async def _serve(
        self,
        original: Callable[..., Any],
        loop: Any,
        protocolFactory: Any,
        sockets: list[socket.socket],
        options: dict[str, Any],
    ) -> Any:
        """
        Serve on sockets, from when the worker is ready.
        """
        start = options.pop("start_serving", True)
        wait = start and self._asker.mustWait()
        servers = []
        try:
            for skt in sockets:
                each = dict(options, sock=skt, start_serving=start and not wait)
                each["backlog"] = backlogOf(skt, options.get("backlog", 100))
                servers.append(await original(loop, protocolFactory, **each))
        except BaseException:
            for server in servers:
                server.close()
            raise
        server = servers[0] if len(servers) == 1 else Servers(servers)
        self._asker.opened()
        if wait:
            self._asker.whenReady(lambda: _begin(loop, server))
        return server


def _begin(loop: Any, server: Any) -> None:
    async def begin() -> None:
        if server.sockets:
            await server.start_serving()

    if not loop.is_closed():
        task = loop.create_task(begin())
        server_tasks.add(task)
        task.add_done_callback(server_tasks.discard)


server_tasks: set[asyncio.Task[None]] = set()
"""
The loop itself holds its tasks only weakly.
"""


def _nothing(skt: socket.socket) -> None:
    pass
