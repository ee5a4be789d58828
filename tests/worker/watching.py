"""
A watcher's side of the server-socket channel, in a thread: what the blocking
side of a worker is tested against.
"""

from __future__ import annotations

import os
import socket
import threading
from array import array
from collections.abc import Callable
from typing import Any, Optional

from twisted.internet import interfaces
from twisted.internet.address import UNIXAddress
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.sockethelpers import Events, descriptors
from twisted_cluster.interfaces import IStartup
from twisted_cluster.sockets.servers import answering
from twisted_cluster.sockets.servers.answering import ServerSocketProtocol
from twisted_cluster.sockets.wire import strictamp
from twisted_cluster.sockets.wire.ancillary import receive
from twisted_cluster.supervisor.listeners import Listeners
from twisted_cluster.worker.incoming import Incoming
from twisted_cluster.worker.socketclient import SocketClient

PATIENCE = 20.0


@implementer(interfaces.IUNIXTransport)
class _Wire:
    """
    A transport that writes at once to a blocking socket.
    """

    def __init__(self, skt: socket.socket) -> None:
        self._socket = skt
        self._descriptors: list[int] = []
        self.closed = False

    def sendFileDescriptor(self, descriptor: int) -> None:
        self._descriptors.append(os.dup(descriptor))

    def write(self, data: bytes) -> None:
        sending, self._descriptors = self._descriptors, []
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", sending))]
        try:
            self._socket.sendmsg([data], rights)
        except BrokenPipeError:
            self.closed = True
        for descriptor in sending:
            os.close(descriptor)

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        self.closed = True

    def getPeer(self) -> interfaces.IAddress:
        return UNIXAddress(None)

    def getHost(self) -> interfaces.IAddress:
        return UNIXAddress(None)


@implementer(IStartup)
class FakeStartup:
    """
    A worker's start, driven by hand.
    """

    def __init__(self, ready: bool = False) -> None:
        self.ready = ready
        self.ports = 0
        self._waiting: list[Callable[[], object]] = []

    def portOpened(self) -> None:
        self.ports += 1

    def serviceStarted(self) -> None:
        pass

    def failed(self, stage: str, reason: str, traceback: str) -> None:
        pass

    def whenReady(self, callable: Callable[[], object]) -> None:
        if self.ready:
            callable()
        else:
            self._waiting.append(callable)

    def becomeReady(self) -> None:
        self.ready = True
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each()


class WatchedTestCase(SynchronousTestCase):
    """
    A test of the worker's side against a real watcher's side.  Every
    descriptor must be closed when it ends.

    @ivar listeners: the watcher's sockets.
    @ivar events: what was logged, by anybody.
    """

    def setUp(self) -> None:
        super().setUp()
        self._before = descriptors()
        self.addCleanup(self._checkDescriptors)
        self.events = Events()
        self._lock = threading.Lock()
        self.listeners = Listeners(64, Clock(), log=Logger(observer=self.events))
        for module in (answering, strictamp):
            self.patch(module, "_log", Logger(observer=self.events))
        self.addCleanup(self.listeners.closeAll)

    def _checkDescriptors(self) -> None:
        self.assertEqual(self._before, descriptors())

    def channel(self) -> tuple[socket.socket, socket.socket]:
        """
        Make a pair of sockets that live as long as the test.
        """
        pair = socket.socketpair()
        for skt in pair:
            self.addCleanup(skt.close)
            skt.settimeout(PATIENCE)
        return pair

    def incoming(self) -> Incoming:
        """
        Make a worker's client-socket channel, the other end of which says
        nothing.
        """
        _, theirs = self.channel()
        incoming = Incoming(theirs.dup().detach())
        self.addCleanup(incoming.close)
        return incoming

    def client(self, worker: int = 1, timeout: float = PATIENCE) -> SocketClient:
        """
        Make a worker's end, with a watcher's end that serves it.
        """
        ours, theirs = self.channel()
        thread = threading.Thread(target=self._serve, args=(ours, worker), daemon=True)
        thread.start()
        client = SocketClient(theirs.detach(), timeout)

        def end() -> None:
            client.close()
            thread.join(PATIENCE)
            self.assertFalse(thread.is_alive())

        self.addCleanup(end)
        return client

    def _serve(self, skt: socket.socket, worker: int) -> None:
        protocol = ServerSocketProtocol(self.listeners, worker, f"worker {worker}")
        wire = _Wire(skt)
        protocol.makeConnection(wire)
        data: Optional[bytes] = None
        while data != b"" and not wire.closed:
            try:
                data, received = receive(skt, 65536)
            except OSError:
                break
            with self._lock:
                for descriptor in received:
                    protocol.fileDescriptorReceived(descriptor)
                if data:
                    protocol.dataReceived(data)
        with self._lock:
            protocol.connectionLost(Failure(ConnectionDone()))
        skt.close()

    def addresses(self) -> list[str]:
        """
        What the watcher listens on once it has read all that was sent so far:
        to be asked for after a question was answered.
        """
        with self._lock:
            return self.listeners.addresses
