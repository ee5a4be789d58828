"""
WebSockets whose handshake happens here, and whose life happens in a child process.

    pip install autobahn websockets
    python examples/websocket_handover/parent.py
    python -m websockets "ws://localhost:9000/red?user=ada"     # in several terminals

Each room, C{/red} and C{/blue}, is a process.  Who is wrong here is refused, by HTTP.
Who may come in is told so, and the live connection goes to the room's process with the
request (C{child.py} tells why) and with what the client has sent behind it.

Besides what Autobahn documents, this uses two attributes of its protocol:
C{http_request_data} (the request) and C{data} (what was read and not used).
"""

from __future__ import annotations

import socket
import sys
from functools import partial
from pathlib import Path
from typing import Any, Optional

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.types import ConnectionDeny, ConnectionRequest
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import react
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.log import startLogging

from twisted_cluster.sockets import ClientSocketSendPipe

log = Logger("parent")
pipes: dict[str, ClientSocketSendPipe] = {}


class Porter(WebSocketServerProtocol):
    """
    Shakes hands, and passes the connection on.
    """

    def onConnect(self, request: ConnectionRequest) -> Optional[str]:
        self.room = request.path.strip("/")
        self.user = "".join(request.params.get("user", []))
        if not self.user:
            raise ConnectionDeny(ConnectionDeny.FORBIDDEN, "Say who you are")
        if self.room not in pipes:
            raise ConnectionDeny(ConnectionDeny.NOT_FOUND, "No such room")
        return "chat" if "chat" in request.protocols else None

    def onOpen(self) -> None:
        assert self.transport is not None
        early, self.data = self.data, b""
        known = {"user": self.user, "subprotocol": self.websocket_protocol_in_use}
        unread = self.http_request_data + early
        sent = pipes[self.room].send(self.transport, known, unread)
        sent.addErrback(self.stays, early)

    def stays(self, failure: Failure, early: bytes) -> None:
        """
        The room did not take it.
        """
        log.failure("{user} stays outside", failure, user=self.user)
        self.data = early
        self.sendClose(4503, "The room is closed")


async def main(reactor: Any, port: str = "9000") -> None:
    """
    Open the rooms, and let people in until somebody says stop.
    """
    for name in ("red", "blue"):
        ours, theirs = socket.socketpair()
        child = [sys.executable, str(Path(__file__).with_name("child.py")), name]
        files = {0: 0, 1: 1, 2: 2, 3: theirs.fileno()}
        reactor.spawnProcess(ProcessProtocol(), child[0], child, None, childFDs=files)
        theirs.close()
        pipes[name] = ClientSocketSendPipe(reactor, ours)
        pipes[name].whenClosed().addCallback(partial(pipes.pop, name))
    factory = WebSocketServerFactory(reactor=reactor)
    factory.protocol = Porter
    reactor.listenTCP(int(port), factory, interface="127.0.0.1")
    await Deferred[None]()


startLogging(sys.stdout)
react(main, sys.argv[1:])
