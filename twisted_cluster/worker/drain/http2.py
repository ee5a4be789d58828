"""
Ends C{twisted.web}'s HTTP/2 connections, without any request being lost.

The rules:

  1. A first GOAWAY announces the end and refuses nothing: its last stream is the
     highest there can be.  A PING goes with it; once that is answered, the client
     has read both, and soon opens no more streams: the answer overtakes requests
     that it had already made.  All streams until then are served.
  2. Then a second GOAWAY names the last stream that is served.  One that is opened
     nevertheless is reset with REFUSED_STREAM, which says that it was not looked
     at and may be repeated elsewhere.
  3. A client that goes away in answer, with NO_ERROR, still wants its responses.
  4. When no stream is left, and all is sent, the connection is closed.

The GOAWAYs are written here, byte by byte: that of the C{h2} library closes its
state machine, and with it the streams that are still served.  One that it receives
does the same, and has Twisted drop them all.

This is the one place that touches these private parts, all looked for before they
are used: what L{NEEDED} and L{NEEDED_OF_H2} list.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from functools import cache
from typing import Any, Final, Optional

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.components import getAdapterFactory, registerAdapter
from zope.interface import implementer

from twisted_cluster.interfaces import IDrain, IDrainable

_log = Logger("twisted_cluster")

MODULE: Final = "twisted.web._http2"
"""
Where Twisted keeps the protocol, if it is used at all.
"""

NEEDED: Final = (
    "conn",
    "connectionLost",
    "streams",
    "_consumerBlocked",
    "_requestDone",
    "_stillProducing",
)
"""
What the installed Twisted's protocol must have for this.
"""

NEEDED_OF_H2: Final = (
    "acknowledge_received_data",
    "highest_inbound_stream_id",
    "receive_data",
    "reset_stream",
    "_frame_dispatch_table",
)
"""
What the installed C{h2}'s connection must have.
"""

PATIENCE: Final = 10.0
"""
Seconds beyond C{drain.idle} that a client with open streams is given to answer the
PING: it may have much to read before it comes to that.
"""

GRACE: Final = 0.1
"""
Seconds from the answer to the PING until streams are refused.
"""

RETRY: Final = 0.05
"""
Seconds until a connection that could not be closed at once is looked at again.
"""

_HIGHEST: Final = 2**31 - 1
_PING: Final = b"draining"
_REFUSED_STREAM: Final = 7


def register() -> None:
    """
    Make known how these connections are drained, if the program has imported
    their protocol, and has not said so itself.  Imports nothing.
    """
    kind = getattr(sys.modules.get(MODULE), "H2Connection", None)
    if kind is not None and getAdapterFactory(kind, IDrainable, None) is None:
        registerAdapter(HTTP2Drainable, kind, IDrainable)


@implementer(IDrainable)
class HTTP2Drainable:
    """
    Drains an C{H2Connection} of C{twisted.web}.
    """

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol

    def drain(self, drain: IDrain) -> None:
        """
        See L{IDrainable.drain}.  A connection of a Twisted or an C{h2} that are not
        known well enough is left alone.
        """
        protocol = self._protocol
        missing = [name for name in NEEDED if not hasattr(protocol, name)]
        missing += [
            f"conn.{name}"
            for name in NEEDED_OF_H2
            if not hasattr(getattr(protocol, "conn", None), name)
        ]
        if missing:
            _tellMissing(", ".join(missing))
        elif protocol._stillProducing and not protocol.transport.disconnecting:
            _Drained(protocol, drain).announce()
        else:
            # It is closing, for which TLS waits until nothing more is produced.
            protocol.transport.unregisterProducer()


@cache
def _tellMissing(names: str) -> None:
    _log.error(
        "HTTP/2 connections are left alone while the worker drains: this version of "
        "Twisted, or of h2, has no {names}; please report it",
        names=names,
    )


class _Drained:
    """
    A connection on its way to the end.
    """

    def __init__(self, protocol: Any, drain: IDrain) -> None:
        self._protocol = protocol
        self._drain = drain
        self._conn = protocol.conn
        self._events = sys.modules[MODULE].h2.events
        self._errors = sys.modules[MODULE].h2.exceptions
        self._last: Optional[int] = None
        self._hasAnswered = False
        self._patient = False
        self._closed = False
        self._deadline: Optional[float] = None
        self._answer: Optional[IDelayedCall] = None
        self._next: Optional[IDelayedCall] = None
        self._receiveData: Callable[[bytes], list[Any]] = self._conn.receive_data
        self._requestDone: Callable[[int], None] = protocol._requestDone
        self._connectionLost: Callable[..., None] = protocol.connectionLost
        self._goneAway: Callable[[Any], Any] = lambda frame: None

    def announce(self) -> None:
        """
        Tell the client that the end is near.
        """
        self._conn.receive_data = self._received
        self._protocol._requestDone = self._streamEnded
        self._protocol.connectionLost = self._lost
        table = self._conn._frame_dispatch_table
        for kind in table:
            if kind.__name__ == "GoAwayFrame":
                self._goneAway = table[kind]
                table[kind] = self._clientGoesAway
        self._write(_goAway(_HIGHEST) + _ping(_PING))
        self._answer = self._drain.clock.callLater(self._drain.idle, self._late)

    def _late(self) -> None:
        self._answer = None
        if self._protocol.streams and not self._patient:
            self._patient = True
            self._answer = self._drain.clock.callLater(PATIENCE, self._late)
        else:
            self._refuseNew()

    def _answered(self) -> None:
        if not self._hasAnswered and self._answer is not None:
            self._hasAnswered = True
            self._answer.cancel()
            self._answer = self._drain.clock.callLater(GRACE, self._refuseNew)

    def _refuseNew(self) -> None:
        waiting, self._answer = self._answer, None
        if waiting is not None and waiting.active():
            waiting.cancel()
        last: int = self._conn.highest_inbound_stream_id
        self._last = last
        self._write(_goAway(last))
        self._lookSoon()

    def _received(self, data: bytes) -> list[Any]:
        """
        Stand in for C{receive_data} of C{h2}, whose events Twisted acts on.
        """
        if self._closed:
            return []
        events = self._receiveData(data)
        if self._last is not None:
            events = [each for each in events if self._isServed(each, self._last)]
            self._lookSoon()
        elif any(self._isAnswer(each) for each in events):
            self._answered()
        return events

    def _isAnswer(self, event: Any) -> bool:
        return (
            isinstance(event, self._events.PingAckReceived) and event.ping_data == _PING
        )

    def _isServed(self, event: Any, last: int) -> bool:
        streamID = getattr(event, "stream_id", None) or 0
        if streamID <= last:
            return True
        if isinstance(event, self._events.RequestReceived):
            try:
                self._conn.reset_stream(streamID, _REFUSED_STREAM)
            except self._errors.ProtocolError:
                # The client has given it up itself, with the next frame.
                pass
        elif isinstance(event, self._events.DataReceived):
            self._conn.acknowledge_received_data(event.flow_controlled_length, streamID)
        return False

    def _clientGoesAway(self, frame: Any) -> Any:
        """
        Stand in for what C{h2} does with a GOAWAY.

        @return: frames to send, and events.
        """
        return self._goneAway(frame) if frame.error_code else ([], [])

    def _streamEnded(self, streamID: int) -> None:
        self._requestDone(streamID)
        self._lookSoon()

    def _lost(self, *args: Any, **kwargs: Any) -> None:
        self._closed = True
        for call in (self._answer, self._next):
            if call is not None:
                call.cancel()
        self._answer = self._next = None
        self._connectionLost(*args, **kwargs)

    def _lookSoon(self, delay: float = 0) -> None:
        """
        Look whether all is done; not now, as Twisted has not yet heard of the
        streams that have just begun, nor has TLS sent what was just written.
        """
        if self._next is None and not self._closed:
            self._next = self._drain.clock.callLater(delay, self._look)

    def _look(self) -> None:
        self._next = None
        if self._protocol.streams:
            return
        if self._last is None:
            if self._patient and not self._hasAnswered:
                self._refuseNew()
        elif self._isSent():
            self._close()
        else:
            self._lookSoon(RETRY)

    def _isSent(self) -> bool:
        protocol, transport = self._protocol, self._drain.transport
        return (
            protocol._consumerBlocked is None
            and not getattr(transport, "_tempDataLen", 0)
            and len(getattr(transport, "dataBuffer", b""))
            == getattr(transport, "offset", 0)
        )

    def _close(self) -> None:
        transport, drain = self._protocol.transport, self._drain
        now = drain.clock.seconds()
        if self._deadline is None:
            # TLS does not close as long as it has a producer.
            transport.unregisterProducer()
            self._deadline = now + max(drain.idle, 1.0)
        if drain.close():
            self._closed = True
        elif now >= self._deadline:
            # Whatever it sends all the time, it belongs to no stream.
            self._closed = True
            transport.loseConnection()
        else:
            self._lookSoon(RETRY)

    def _write(self, frames: bytes) -> None:
        self._protocol.transport.write(frames)


def _goAway(last: int) -> bytes:
    return struct.pack("!HBBBLLL", 0, 8, 7, 0, 0, last, 0)


def _ping(data: bytes) -> bytes:
    return struct.pack("!HBBBL8s", 0, 8, 6, 0, 0, data)
