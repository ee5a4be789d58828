"""
Starts ports on sockets that listen already.

Twisted adopts a UNIX socket with a C{chmod} to 0666 and a C{listen} with a
backlog of 50; and one port's end removes the path and shuts the listener down
for every process.  None of this happens here.  This is the one place that
touches these private parts of Twisted for that: C{tcp._reservedFD} and, of
ports, C{_getLogPrefix}, C{_bindPath} and C{_shouldShutdown}.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any, Final

from twisted.internet import tcp, unix
from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IReactorSocket,
)
from twisted.python import log
from twisted.python.failure import Failure

from twisted_cluster.sockets.addresses import Shared

NEEDED: Final[list[tuple[Any, str]]] = [
    (tcp, "_reservedFD"),
    (tcp.Port, "_shouldShutdown"),
    (unix.Port, "_getLogPrefix"),
]
"""
What the installed Twisted must have for this.
"""


def adoptUNIX(port: Any, skt: socket.socket) -> None:
    """
    Start a UNIX port on a socket that listens already, without Twisted's
    C{chmod}, C{listen} and lock file.

    At its end, the port's C{connectionLost} is to be that of L{tcp.Port}: its own
    would remove the path.  C{port._clusterAdopted} is set to tell it from others.

    @param port: a L{unix.Port} that was not started.
    @param skt: a non-blocking socket; the port's from now on, unless this
        raises.
    @raise Exception: what the factory's C{doStart} raises.
    """
    tcp._reservedFD.reserve()
    path = getattr(port, "_bindPath", port.port)
    log.msg(f"{port._getLogPrefix(port.factory)} starting on {os.fsdecode(path)!r}")
    port.factory.doStart()
    port._clusterAdopted = True
    port._shouldShutdown = False
    port.lockFile = None
    port.connected = True
    port.socket = skt
    port.fileno = skt.fileno
    port.numberAccepts = 100
    port.startReading()


class _AdoptedUNIXPort(unix.Port):
    """
    A UNIX port on a socket that somebody else bound, and whose path is theirs.
    """

    def __init__(self, path: bytes, factory: IProtocolFactory, reactor: Any) -> None:
        super().__init__(path, factory, reactor=reactor)
        self._path = path

    def getHost(self) -> UNIXAddress:
        """
        The path by which clients find it; it was perhaps bound by another.
        """
        return UNIXAddress(self._path)

    def connectionLost(self, reason: Failure) -> None:
        """
        Close this process's descriptor, and nothing else.
        """
        tcp.Port.connectionLost(self, reason)


def adoptPort(
    reactor: IReactorSocket,
    shared: Shared,
    factory: IProtocolFactory,
    lost: Callable[[], None],
) -> IListeningPort:
    """
    Listen on a socket that is bound and listens already.  Its end closes this
    process's descriptor; it does not shut the socket down, and a UNIX socket's
    path stays.

    @param shared: its socket is taken over, also if this raises.
    @param lost: called once, when the port has stopped listening, or at once if
        this raises.
    @raise OSError: when descriptors have run out.
    @raise Exception: what the factory's C{doStart} raises.
    """
    try:
        port: Any
        if shared.address.kind == "unix":
            path = shared.address.path
            port = _AdoptedUNIXPort(path, factory, reactor)
            adoptUNIX(port, shared.socket)
        else:
            with shared.socket as skt:
                adopt: Any = reactor.adoptStreamPort
                port = adopt(skt.fileno(), skt.family, factory)
    except BaseException:
        shared.socket.close()
        lost()
        raise
    lose = port.connectionLost

    def connectionLost(reason: Failure) -> None:
        del port.connectionLost
        try:
            lose(reason)
        finally:
            lost()

    port.connectionLost = connectionLost
    listening: IListeningPort = port
    return listening
