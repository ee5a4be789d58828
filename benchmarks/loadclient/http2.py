"""
Load in HTTP/2: several requests at once on each of a few connections.

A connection on which the server sent GOAWAY takes no more requests; those that
are on it are answered there.  What the server says it has not begun and will not
(streams above GOAWAY's, REFUSED_STREAM) is asked again on another connection.
"""

from __future__ import annotations

from typing import Any, Final, Optional

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions

from benchmarks.loadclient.dialing import HOST, Wire
from benchmarks.loadclient.frames import GoAway, GoAwayFilter
from benchmarks.loadclient.offering import Offering, Request
from benchmarks.loadclient.outcomes import Outcome, Verdict, idleEnd, judge

STREAMS: Final = 2**30
"""
The highest number of a stream on a connection before a new one is used.
"""


class _Stream:
    """
    A request on a connection, and what has come of its answer.
    """

    __slots__ = ("body", "received", "request", "status")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.status = 0
        self.body = b""
        self.received = 0


class Connection:
    """
    A connection, with requests on it.

    @ivar usable: whether it takes more.
    """

    wire: Wire

    def __init__(self, offering: Streams) -> None:
        self._offering = offering
        self.usable = True
        self._closed = False
        self._streams: dict[int, _Stream] = {}
        self._numbers: dict[int, int] = {}
        self._filter = GoAwayFilter()
        self._h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, header_encoding=False)
        )

    def connectionMade(self, wire: Wire) -> None:
        self.wire = wire
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(2**30)

    @property
    def load(self) -> int:
        """
        How many requests are on it.
        """
        return len(self._streams)

    def hasRoom(self) -> bool:
        """
        Whether the server allows one more.
        """
        most = self._h2.remote_settings.max_concurrent_streams
        return self.usable and self.load < most

    def ask(self, request: Request) -> None:
        """
        Send a request.
        """
        number = self._h2.get_next_available_stream_id()
        self.usable = self.usable and number < STREAMS
        self._streams[number] = _Stream(request)
        self._numbers[request.number] = number
        request.owner = self
        offer = self._offering.offer
        headers = [
            (":method", "GET"),
            (":authority", f"{HOST}:{offer.port}"),
            (":scheme", "https" if offer.tls else "http"),
            (":path", self._offering.pathOf(request).decode()),
        ]
        self._h2.send_headers(number, headers, end_stream=True)
        self._flush()

    def abandon(self, request: Request) -> None:
        number = self._numbers.get(request.number)
        if number is None:
            return
        self._take(number)
        try:
            self._h2.reset_stream(number, h2.errors.ErrorCodes.CANCEL)
        except h2.exceptions.ProtocolError:
            pass
        self._flush()
        self._closeWhenDone()

    def dataReceived(self, data: bytes) -> None:
        kept, goAways = self._filter.feed(data)
        try:
            events = self._h2.receive_data(kept) if kept else []
        except h2.exceptions.ProtocolError as error:
            self._bad(f"{type(error).__name__}: {error}")
            return
        for event in events:
            self._react(event)
        self._flush()
        for goAway in goAways:
            self._goAway(goAway)
        self._closeWhenDone()

    def connectionLost(self, error: Optional[BaseException]) -> None:
        offering = self._offering
        self._end()
        if not self._streams:
            offering.tally.idle[idleEnd(error)] += 1
        for each in self._leave():
            offering.fail(each.request, judge(error, each.received))

    def close(self) -> None:
        """
        End it.
        """
        if not self._closed:
            self._end()
            self.wire.close()

    def _react(self, event: h2.events.Event) -> None:
        number: Any = getattr(event, "stream_id", None)
        stream = self._streams.get(number) if number else None
        if isinstance(event, h2.events.DataReceived) and event.flow_controlled_length:
            self._h2.acknowledge_received_data(event.flow_controlled_length, number)
        if stream is None:
            return
        if isinstance(event, h2.events.ResponseReceived):
            stream.status = int(dict(event.headers or ())[b":status"])
            stream.received += 1
        elif isinstance(event, h2.events.DataReceived):
            stream.body += event.data or b""
            stream.received += len(event.data or b"")
        elif isinstance(event, h2.events.StreamEnded):
            self._take(number)
            self._offering.answered(stream.request, stream.status, stream.body)
        elif isinstance(event, h2.events.StreamReset):
            self._take(number)
            if event.error_code == h2.errors.ErrorCodes.REFUSED_STREAM:
                self._offering.move(stream.request)
                return
            detail = f"RST_STREAM {event.error_code} after {stream.received} bytes"
            self._offering.fail(stream.request, Outcome(Verdict.RESET, detail))

    def _goAway(self, goAway: GoAway) -> None:
        self.usable = False
        self._offering.tally.idle[f"GOAWAY {goAway.error}"] += 1
        self._offering.going(self)
        for number in [each for each in self._streams if each > goAway.last]:
            self._offering.move(self._take(number).request)

    def _closeWhenDone(self) -> None:
        if not self.usable and not self._streams:
            self.close()

    def _bad(self, detail: str) -> None:
        for each in self._leave():
            self._offering.fail(each.request, Outcome(Verdict.WRONG, detail))
        self.close()

    def _take(self, number: int) -> _Stream:
        stream = self._streams.pop(number)
        del self._numbers[stream.request.number]
        return stream

    def _leave(self) -> list[_Stream]:
        left = list(self._streams.values())
        self._streams.clear()
        self._numbers.clear()
        return left

    def _end(self) -> None:
        self.usable = False
        self._closed = True
        self._offering.ended(self)

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and not self._closed:
            self.wire.write(data)


class Streams(Offering):
    """
    Requests on a few connections.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._connections: set[Connection] = set()
        self._usable: list[Connection] = []
        self._turn = 0

    def place(self, request: Request) -> None:
        usable = self._usable
        if len(usable) >= self.offer.connections:
            for _ in usable:
                self._turn = (self._turn + 1) % len(usable)
                if usable[self._turn].hasRoom():
                    usable[self._turn].ask(request)
                    return
        self._open().ask(request)

    def move(self, request: Request) -> None:
        """
        Ask again what the server has refused to begin.
        """
        self.tally.moved += 1
        self.place(request)

    def going(self, connection: Connection) -> None:
        """
        A connection takes no more.
        """
        if connection in self._usable:
            self._usable.remove(connection)

    def ended(self, connection: Connection) -> None:
        """
        A connection is no more.
        """
        self.going(connection)
        self._connections.discard(connection)

    def close(self) -> None:
        for each in list(self._connections):
            each.close()

    def _open(self) -> Connection:
        connection = Connection(self)
        self._connections.add(connection)
        self._usable.append(connection)
        self.tally.opened += 1
        self._dialer.dial(connection, self.offer.port, self.offer.tls, "h2")
        return connection
