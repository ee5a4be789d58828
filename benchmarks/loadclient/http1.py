"""
Load in HTTP/1.1: a connection for each request, or connections that are kept.
"""

from __future__ import annotations

from typing import Any, Optional

from benchmarks.loadclient.answers import Answer, BadAnswer
from benchmarks.loadclient.dialing import HOST, Wire
from benchmarks.loadclient.offering import LINGER, Offering, Request, now
from benchmarks.loadclient.outcomes import Outcome, Verdict, idleEnd, judge


class Connection:
    """
    A connection, with one request on it at most.
    """

    wire: Wire

    def __init__(self, offering: HTTP1) -> None:
        self._offering = offering
        self._request: Optional[Request] = None
        self._answer = Answer()

    def ask(self, request: Request) -> None:
        """
        Send a request.
        """
        self._request = request
        self._answer = Answer()
        request.owner = self
        self.wire.write(self._offering.bytesOf(request))

    def abandon(self, request: Request) -> None:
        self._request = None
        self.wire.close()
        self._offering.ended(self)

    def connectionMade(self, wire: Wire) -> None:
        self.wire = wire

    def dataReceived(self, data: bytes) -> None:
        request, answer = self._request, self._answer
        if request is None:
            self._unasked(data)
            return
        try:
            rest = answer.feed(data)
        except BadAnswer as error:
            self._bad(request, str(error))
            return
        if rest:
            self._bad(request, f"followed by {rest[:40]!r}")
        elif answer.complete:
            self._answered(request, answer)

    def connectionLost(self, error: Optional[BaseException]) -> None:
        request, self._request = self._request, None
        offering, answer = self._offering, self._answer
        offering.ended(self)
        if request is None:
            offering.endedIdle(error)
            return
        if error is None:
            answer.end()
        if answer.complete:
            offering.answered(request, answer.status, answer.body)
        else:
            offering.fail(request, judge(error, answer.received))

    def _answered(self, request: Request, answer: Answer) -> None:
        self._request = None
        offering = self._offering
        if offering.answered(request, answer.status, answer.body):
            offering.free(self, answer.keeps)
        else:
            offering.free(self, False)

    def _bad(self, request: Request, detail: str) -> None:
        self._request = None
        self._offering.fail(request, Outcome(Verdict.WRONG, detail))
        self.wire.close()
        self._offering.ended(self)

    def _unasked(self, data: bytes) -> None:
        # What nobody asked for: of a server that gives up on an idle client
        # (408), say.
        self._offering.tally.idle["unasked bytes"] += 1
        self.wire.close()
        self._offering.ended(self)


class HTTP1(Offering):
    """
    What both have in common.
    """

    closing = b""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._connections: set[Connection] = set()

    def bytesOf(self, request: Request) -> bytes:
        """
        A request as it is sent.
        """
        return b"GET %s HTTP/1.1\r\nHost: %s:%d\r\n%s\r\n" % (
            self.pathOf(request),
            HOST.encode(),
            self.offer.port,
            self.closing,
        )

    def open(self) -> Connection:
        """
        A new connection.
        """
        connection = Connection(self)
        self._connections.add(connection)
        self.tally.opened += 1
        self._dialer.dial(connection, self.offer.port, self.offer.tls, "http/1.1")
        return connection

    def free(self, connection: Connection, keeps: bool) -> None:
        """
        A request has been answered.
        """

    def ended(self, connection: Connection) -> None:
        """
        A connection is no more.
        """
        self._connections.discard(connection)

    def endedIdle(self, error: Optional[BaseException]) -> None:
        """
        A connection has ended on which nothing was asked.
        """

    def close(self) -> None:
        for each in self._connections:
            each.wire.close()
        self._connections.clear()


class NewConnections(HTTP1):
    """
    A connection for each request.
    """

    closing = b"Connection: close\r\n"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._answered: dict[Connection, float] = {}

    def place(self, request: Request) -> None:
        self.open().ask(request)

    def free(self, connection: Connection, keeps: bool) -> None:
        # The server closes first, so that no port of ours waits for old packets.
        self._answered[connection] = now() + LINGER

    def ended(self, connection: Connection) -> None:
        super().ended(connection)
        self._answered.pop(connection, None)

    def sweep(self) -> None:
        super().sweep()
        for connection, until in list(self._answered.items()):
            if until > now():
                return
            self.tally.idle["left open"] += 1
            connection.wire.close()
            self.ended(connection)


class KeptConnections(HTTP1):
    """
    Connections that are used again, the one that has been idle the longest
    first.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._idle: dict[Connection, None] = {}

    def place(self, request: Request) -> None:
        if self._idle and len(self._connections) >= self.offer.connections:
            connection = next(iter(self._idle))
            del self._idle[connection]
            connection.ask(request)
        else:
            self.open().ask(request)

    def free(self, connection: Connection, keeps: bool) -> None:
        if keeps and len(self._connections) <= 2 * self.offer.connections:
            self._idle[connection] = None
        else:
            connection.wire.close()
            self.ended(connection)

    def ended(self, connection: Connection) -> None:
        super().ended(connection)
        self._idle.pop(connection, None)

    def endedIdle(self, error: Optional[BaseException]) -> None:
        self.tally.idle[idleEnd(error)] += 1
