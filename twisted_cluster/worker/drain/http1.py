"""
Ends connections of C{twisted.web} that speak HTTP/1.1 or HTTP/1.0.

The rules:

  1. A request of which anything has been read is read to its end and answered in
     full, within the time limits that its channel always had.
  2. Between two requests, with all that was written sent, the connection moves.  The
     beginning of a request line travels along.
  3. A response whose headers are not yet written says C{Connection: close}, unless
     the next request waits behind it already.  That next one says so; of endlessly
     many, the last of L{MOST}.
  4. What cannot move is closed when its client has asked for nothing for a while.  A
     protocol around the channel's may have read what the next one would miss.
  5. A connection that begins to speak something else meanwhile (HTTP/2, WebSocket)
     is drained as that.

This is the one place that touches these private parts of C{twisted.web} and of the
channel's transport for that: L{NEEDED}, C{_GenericHTTPChannelProtocol} with its
C{_channel}, and C{dataBuffer}, C{offset} and C{_tempDataLen}.  A connection where
one of the channel's is missing is left alone until it ends by itself.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from typing import Any, Final, Optional

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.components import registerAdapter
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_cluster.errors import ClusterError
from twisted_cluster.interfaces import IDrain, IDrainable

_log = Logger("twisted_cluster")

NEEDED: Final = (
    "requests",
    "persistent",
    "line_mode",
    "writeHeaders",
    "requestDone",
    "setTimeout",
    "_buffer",
    "_busyReceiving",
    "_dataBuffer",
    "_handlingRequest",
    "_networkProducer",
    "_requestProducer",
    "_transferDecoder",
)
"""
What the installed Twisted's channels must have for this.
"""

MOST: Final = 64
"""
How many pipelined requests are answered on one connection before it says
C{Connection: close} although another one waits.
"""

_OFTEN: Final = 0.01
_SELDOM: Final = 1.0
"""
Seconds between two looks at a connection: while it sends the end of a response,
first and later; and while nothing is expected.
"""

_unknown: set[str] = set()


def register() -> None:
    """
    Make known how connections of C{twisted.web} are drained, if the program has
    imported it.  To be called again when it may have done so since.
    """
    http = sys.modules.get("twisted.web.http")
    if http is None:
        return
    for name, adapter in (
        ("HTTPChannel", DrainableChannel),
        ("_GenericHTTPChannelProtocol", DrainableFront),
    ):
        kind = getattr(http, name, None)
        if kind is None:
            _leaveAlone(name)
            continue
        try:
            registerAdapter(adapter, kind, IDrainable)
        except ValueError:
            # It is already, or the program has its own.
            pass


@implementer(IDrainable)
class DrainableChannel:
    """
    Drains a L{twisted.web.http.HTTPChannel}.
    """

    def __init__(self, channel: Any, front: Any = None) -> None:
        """
        @param front: the protocol that stands before the channel, and may replace
            it by another.
        """
        self._channel = channel
        self._front = front

    def drain(self, drain: IDrain) -> None:
        """
        See L{IDrainable.drain}.
        """
        missing = [name for name in NEEDED if not hasattr(self._channel, name)]
        if missing:
            _leaveAlone(*(f"HTTPChannel.{name}" for name in missing))
        else:
            _Ending(self._channel, self._front, drain).begin()


@implementer(IDrainable)
class DrainableFront:
    """
    Drains what C{twisted.web}'s factories build, which stands before the channel.
    """

    def __init__(self, front: Any) -> None:
        self._front = front

    def drain(self, drain: IDrain) -> None:
        """
        See L{IDrainable.drain}.
        """
        channel = getattr(self._front, "_channel", None)
        drainable = _drainableOf(channel)
        if channel is None:
            _leaveAlone("_GenericHTTPChannelProtocol._channel")
        elif type(drainable) is DrainableChannel:
            DrainableChannel(channel, self._front).drain(drain)
        elif drainable is not None:
            drainable.drain(drain)


class _Ending:
    """
    The end of one connection.  It stands before some methods of the channel until
    the connection is closed, moves, or speaks something else.
    """

    def __init__(self, channel: Any, front: Any, drain: IDrain) -> None:
        self._channel = channel
        self._front = front
        self._drain = drain
        self._innermost, self._movable = _innermostOf(drain.transport)
        self._answered = 0
        self._closeAt: Optional[float] = None
        self._pause = _OFTEN
        self._next: Optional[IDelayedCall] = None
        self._hooks: dict[str, Callable[..., None]] = {}
        self._before: dict[str, Any] = {}
        self._originals: dict[str, Callable[..., object]] = {}
        self._ended = False

    def begin(self) -> None:
        """
        Begin, and end at once if nothing hinders.
        """
        channel = self._channel
        self._hooks = {
            "writeHeaders": self._writeHeaders,
            "requestDone": self._requestDone,
            "connectionLost": self._connectionLost,
        }
        self._before = {k: v for k, v in vars(channel).items() if k in self._hooks}
        self._originals = {name: getattr(channel, name) for name in self._hooks}
        vars(channel).update(self._hooks)
        self._look()

    def _look(self) -> None:
        self._next = None
        successor = self._successor()
        if successor is not None:
            self._end()
            self._handOver(successor)
        elif not self._isBetween():
            self._closeAt = None
            self._lookIn(_SELDOM)
        elif isSending(self._drain.transport):
            self._closeAt = None
            self._lookIn(self._pause)
            self._pause = min(2 * self._pause, _SELDOM)
        elif self._movable:
            self._move()
        else:
            self._waitOrClose()

    def _lookIn(self, seconds: float) -> None:
        if self._next is not None:
            self._next.cancel()
        self._next = self._drain.clock.callLater(seconds, self._look)

    def _successor(self) -> Any:
        """
        Find what has taken the channel's place, if anything: as the front's
        channel, as the transport's protocol, or as what gets the channel's data.
        """
        front, channel = self._front, self._channel
        if front is not None and front._channel is not channel:
            return front._channel
        innermost, _ = _innermostOf(self._drain.transport)
        if innermost is not self._innermost:
            return innermost
        receiver = getattr(channel.dataReceived, "__self__", channel)
        return None if receiver is channel else receiver

    def _handOver(self, successor: Any) -> None:
        drainable = _drainableOf(successor)
        if drainable is not None:
            try:
                drainable.drain(self._drain)
            except Exception:
                _failed()

    def _isBetween(self) -> bool:
        """
        Tell whether nothing has been read of a request but the beginning of its
        first line, which C{_buffer} has then.
        """
        channel = self._channel
        return not (
            channel.requests
            or channel._handlingRequest
            or channel._busyReceiving
            or channel._requestProducer is not None
            or channel._transferDecoder is not None
            or any(channel._dataBuffer)
            or not channel.line_mode
            or channel.transport is None
            or channel.transport.disconnecting
        )

    def _move(self) -> None:
        channel = self._channel
        self._movable = False
        timeout = channel.setTimeout(None)
        moving = self._drain.move(bytes(channel._buffer))
        moving.addCallbacks(
            lambda _: self._end(), self._notMoved, errbackArgs=(timeout,)
        )
        moving.addErrback(_failed)

    def _notMoved(self, reason: Failure, timeout: Optional[float]) -> None:
        if reason.check(ClusterError) is None:
            _failed(reason)
        if not self._ended:
            self._channel.setTimeout(timeout)
            self._look()

    def _waitOrClose(self) -> None:
        """
        Close the connection when its client has had time enough.
        """
        now = self._drain.clock.seconds()
        if self._closeAt is None:
            # What was written over TLS a moment ago is sent in the next turn.
            self._closeAt = now + max(self._drain.idle, _OFTEN)
        if now < self._closeAt:
            self._lookIn(min(self._closeAt - now, _SELDOM))
        elif not self._channel._buffer and self._drain.close():
            self._end()
            # TLS says no good-bye as long as there is a producer.
            self._channel._networkProducer.unregisterProducer()
        else:
            self._closeAt = None
            self._lookIn(_SELDOM)

    def _writeHeaders(
        self, version: bytes, code: bytes, reason: bytes, headers: Any
    ) -> None:
        interim = code.startswith(b"1")
        known = hasattr(headers, "setRawHeaders")
        if self._channel.persistent and known and not interim and self._mayBeLast():
            self._channel.persistent = False
            _sayClose(headers)
        self._originals["writeHeaders"](version, code, reason, headers)

    def _mayBeLast(self) -> bool:
        """
        Tell whether no request waits behind the one whose response begins, or there
        have been enough.
        """
        channel = self._channel
        return self._answered >= MOST or not (
            channel._buffer
            or any(channel._dataBuffer)
            or _hasUnread(self._drain.transport)
        )

    def _requestDone(self, request: Any) -> None:
        self._answered += 1
        self._originals["requestDone"](request)
        if not self._ended:
            self._closeAt = None
            self._pause = _OFTEN
            self._lookIn(0)

    def _connectionLost(self, reason: Failure) -> None:
        self._end()
        self._originals["connectionLost"](reason)

    def _end(self) -> None:
        self._ended = True
        if self._next is not None:
            self._next.cancel()
            self._next = None
        attributes = vars(self._channel)
        for name, hook in self._hooks.items():
            if attributes.get(name) is hook:
                del attributes[name]
                if name in self._before:
                    attributes[name] = self._before[name]


def _failed(reason: Optional[Failure] = None) -> None:
    _log.failure("A connection cannot be drained as it should", reason)


def _drainableOf(protocol: Any) -> Any:
    # mypy-zope takes what is adapted for the interface itself.
    found: Any = IDrainable(protocol, None)
    return found


def _innermostOf(transport: Any) -> tuple[Any, bool]:
    """
    Find the protocol of a transport, within what wraps it.

    @return: the protocol, and whether what wraps it would not miss the bytes that
        its like had here; that of C{twisted.protocols.haproxy} would.
    """
    protocol: Any = getattr(transport, "protocol", None)
    harmless = True
    while getattr(protocol, "wrappedProtocol", None) is not None:
        harmless &= type(protocol).__module__ == "twisted.protocols.policies"
        protocol = protocol.wrappedProtocol
    return protocol, harmless


def isSending(transport: Any) -> bool:
    """
    Tell whether the kernel has not yet been given all that was written.
    """
    unsent = len(getattr(transport, "dataBuffer", b"")) + getattr(
        transport, "_tempDataLen", 0
    )
    return bool(unsent > getattr(transport, "offset", 0))


def _hasUnread(transport: Any) -> bool:
    """
    Tell whether the kernel has something from the client that was not yet read.
    """
    skt = getattr(transport, "socket", None)
    try:
        return bool(skt and skt.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except OSError:
        return False


def _sayClose(headers: Any) -> None:
    """
    Have a response's headers say that the connection is closed after it.
    """
    options = [
        option.strip()
        for value in headers.getRawHeaders(b"Connection", [])
        for option in value.split(b",")
    ]
    kept = [each for each in options if each.lower() not in (b"keep-alive", b"close")]
    headers.setRawHeaders(b"Connection", [b", ".join([*kept, b"close"])])


def _leaveAlone(*missing: str) -> None:
    """
    Say, once, that connections will be left alone.
    """
    if not _unknown.issuperset(missing):
        _unknown.update(missing)
        _log.warn(
            "When this worker leaves, its connections of twisted.web are left alone "
            "until they end: in this version of Twisted, {missing} is not there; "
            "please report it",
            missing=", ".join(missing),
        )
