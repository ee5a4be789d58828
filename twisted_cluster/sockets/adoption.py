"""
Starts UNIX ports on sockets that listen already.

Twisted adopts a UNIX socket with a C{chmod} to 0666 and a C{listen} with a
backlog of 50; and one port's end removes the path and shuts the listener down
for every process.  None of this happens here.  This is the one place that
touches these private parts of Twisted for that: C{tcp._reservedFD} and, of
ports, C{_getLogPrefix}, C{_bindPath} and C{_shouldShutdown}.
"""

from __future__ import annotations

import os
import socket
from typing import Any, Final

from twisted.internet import tcp, unix
from twisted.python import log

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
