"""
A room, whose visitors come through the door of another process; see C{parent.py}.

How does a WebSocket become open in a process that saw no handshake?  It is given the
request once more, as C{unread} and so before all else.  Autobahn answers it as it did
there, and so arrives by itself in the state that it had there; that second answer is
not sent.  For that, both set up their factories alike, compression included.

Besides what Autobahn documents, this overrides C{sendData} of its protocol, and looks
at C{state}.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from functools import partial
from typing import Any, Optional

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.types import ConnectionRequest
from twisted.internet.task import react
from twisted.logger import Logger
from twisted.python.log import startLogging

from twisted_cluster.errors import ConnectionGone
from twisted_cluster.sockets import ClientSocketReceivePipe

log = Logger("child")
visitors: set[Visitor] = set()


class Visitor(WebSocketServerProtocol):
    """
    Somebody who is in the room.
    """

    def __init__(self, user: str, subprotocol: Optional[str]) -> None:
        super().__init__()
        self.user = user
        self.subprotocol = subprotocol

    def onConnect(self, request: ConnectionRequest) -> Optional[str]:
        return self.subprotocol

    def sendData(self, data: bytes, *arguments: Any, **options: Any) -> None:
        if self.state != self.STATE_CONNECTING:
            super().sendData(data, *arguments, **options)

    def onOpen(self) -> None:
        visitors.add(self)
        name = self.websocket_protocol_in_use
        tellAll(f"{self.user} has come to process {os.getpid()}, subprotocol {name}")

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        tellAll(f"{self.user}: {payload.decode('utf-8', 'replace')}")

    def onClose(self, wasClean: bool, code: int, reason: str) -> None:
        visitors.discard(self)
        tellAll(f"{self.user} has gone")


def tellAll(text: str) -> None:
    """
    Tell everybody in the room.
    """
    for visitor in visitors:
        visitor.sendMessage(text.encode())


async def main(reactor: Any, name: str) -> None:
    """
    Be a room as long as there is a parent.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, and so this
    log.info("process {pid} is room {name}", pid=os.getpid(), name=name)
    factory: Any = WebSocketServerFactory(reactor=reactor)
    async for client in ClientSocketReceivePipe(reactor, socket.socket(fileno=3)):
        factory.protocol = partial(Visitor, **client.data)
        try:
            client.adopt(factory)
        except ConnectionGone:
            log.info("a visitor has gone before")


startLogging(sys.stdout)
react(main, sys.argv[1:])
