"""
A provider and its peers, with a real reactor and both ends in one process: what
the tests of server sockets share.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as globalReactor
from twisted.internet import tcp
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
    connectProtocol,
)
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.sockethelpers import Events, descriptors
from twisted_cluster.sockets.servers import answering
from twisted_cluster.sockets.servers import pipes as servers
from twisted_cluster.sockets.servers.pipes import (
    ServerSocketPipeFactory,
    ServerSocketPipeProvider,
)
from twisted_cluster.sockets.wire import strictamp

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
