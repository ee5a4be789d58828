"""
Load on WebSockets: messages that are to come back, on connections that are made
anew when the server closes them.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Optional

from benchmarks.loadclient.answers import Answer, BadAnswer
from benchmarks.loadclient.dialing import HOST, Wire
from benchmarks.loadclient.frames import (
    CLOSE,
    PING,
    PONG,
    TEXT,
    Frame,
    FrameReader,
    handshakeAnswer,
    handshakeKey,
    maskedFrame,
)
from benchmarks.loadclient.offering import LINGER, Offering, Request, now
from benchmarks.loadclient.outcomes import Outcome, Verdict, idleEnd, judge


class Connection:
    """
    A connection, with messages on it that have not come back.  They come back in
    order.
    """

    wire: Wire

    def __init__(self, offering: Echoes) -> None:
        self._offering = offering
        self._key = handshakeKey()
        self._handshake: Optional[Answer] = Answer()
        self._unsent: list[bytes] = []
        self._requests: deque[Request] = deque()
        self._frames = FrameReader()
        self._message = b""
        self._closing = False

    def connectionMade(self, wire: Wire) -> None:
        self.wire = wire
        offer = self._offering.offer
        wire.write(
            b"GET %s HTTP/1.1\r\nHost: %s:%d\r\nConnection: Upgrade\r\n"
            b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: %s\r\n\r\n"
            % (offer.path.encode(), HOST.encode(), offer.port, self._key)
        )

    def ask(self, request: Request) -> None:
        """
        Send a message, once the handshake is over.
        """
        self._requests.append(request)
        request.owner = self
        frame = maskedFrame(TEXT, b"%d" % request.number)
        if self._handshake is None:
            self.wire.write(frame)
        else:
            self._unsent.append(frame)

    def abandon(self, request: Request) -> None:
        # Later echoes could not be told from the one that is late.
        self._fail(Outcome(Verdict.TIMED_OUT, "behind a message that did not return"))
        self.close()

    def dataReceived(self, data: bytes) -> None:
        if self._closing:
            return
        if self._handshake is not None:
            try:
                data = self._greeted(self._handshake, data)
            except BadAnswer as error:
                self._bad(str(error))
                return
        for frame in self._frames.feed(data):
            if frame.opcode == CLOSE:
                self._close(frame)
                return
            if frame.opcode == PING:
                self.wire.write(maskedFrame(PONG, frame.payload))
            elif frame.opcode != PONG:
                self._message += frame.payload
                if frame.final:
                    message, self._message = self._message, b""
                    if not self._returned(message):
                        return

    def connectionLost(self, error: Optional[BaseException]) -> None:
        self._offering.ended(self)
        if self._closing:
            return
        if not self._requests:
            how = idleEnd(error)
            self._offering.tally.idle[f"{how} without a closing frame"] += 1
        handshake = self._handshake
        self._fail(judge(error, handshake.received if handshake is not None else 0))

    def close(self) -> None:
        """
        End it.
        """
        self._offering.ended(self)
        self.wire.close()

    def _greeted(self, handshake: Answer, data: bytes) -> bytes:
        rest = handshake.feed(data)
        if not handshake.complete:
            if handshake.status not in (0, 101):
                raise BadAnswer(f"status {handshake.status} instead of a WebSocket")
            return b""
        if handshake.status != 101:
            raise BadAnswer(f"status {handshake.status} instead of a WebSocket")
        accepted = handshake.header(b"sec-websocket-accept")
        if accepted != handshakeAnswer(self._key).lower():
            raise BadAnswer("the WebSocket's key is wrong")
        self._handshake = None
        self.wire.write(b"".join(self._unsent))
        self._unsent.clear()
        return rest

    def _returned(self, message: bytes) -> bool:
        """
        A message has come.

        @return: whether it was a right one.
        """
        if not self._requests:
            self._bad("a message that was not asked for")
            return False
        request = self._requests.popleft()
        if not self._offering.answered(request, 200, message):
            self._bad("behind a wrong message")
            return False
        return True

    def _close(self, frame: Frame) -> None:
        self._closing = True
        self._offering.tally.idle[f"close {frame.code}"] += 1
        self._fail(Outcome(Verdict.CLOSED, f"closing frame {frame.code}"))
        self.wire.write(maskedFrame(CLOSE, frame.payload[:2]))
        self._offering.leave(self)

    def _bad(self, detail: str) -> None:
        self._fail(Outcome(Verdict.WRONG, detail))
        self.close()

    def _fail(self, outcome: Outcome) -> None:
        requests, self._requests = self._requests, deque()
        for each in requests:
            self._offering.fail(each, outcome)


class Echoes(Offering):
    """
    Messages on some connections, each in turn.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._connections: dict[Connection, None] = {}
        self._leaving: dict[Connection, float] = {}

    def wordOf(self, request: Request) -> bytes:
        return b"%d" % request.number

    def place(self, request: Request) -> None:
        if len(self._connections) < self.offer.connections:
            connection = Connection(self)
            self.tally.opened += 1
            self._dialer.dial(connection, self.offer.port, self.offer.tls, "http/1.1")
        else:
            connection = next(iter(self._connections))
            del self._connections[connection]
        self._connections[connection] = None
        connection.ask(request)

    def leave(self, connection: Connection) -> None:
        """
        A connection takes no more; it is the server that closes it.
        """
        self.ended(connection)
        self._leaving[connection] = now() + LINGER

    def ended(self, connection: Connection) -> None:
        """
        A connection is no more.
        """
        self._connections.pop(connection, None)
        self._leaving.pop(connection, None)

    def sweep(self) -> None:
        super().sweep()
        for connection, until in list(self._leaving.items()):
            if until > now():
                return
            self.tally.idle["left open"] += 1
            connection.close()

    def close(self) -> None:
        for each in list(self._leaving):
            each.close()
        for each in list(self._connections):
            each.wire.write(maskedFrame(CLOSE, b"\x03\xe8"))
            each.close()
