"""
Ends Autobahn's WebSockets, Daphne's among them.

The rules:

  1. An opening handshake that is under way ends first, as it would anyway, within
     the time limits that it always had.  When nothing of it, or only a part, has
     come yet, the connection moves, or where it cannot, is closed after a while.
  2. An open WebSocket gets the close code 1001 (going away), and what the peer has
     sent until it answers is still received.
  3. A peer that has not answered within a second is waited for no longer, once all
     that was written has been sent.
"""

from __future__ import annotations

import sys
from typing import Any, Final, Optional

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.components import registerAdapter
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_cluster.errors import ClusterError
from twisted_cluster.interfaces import IDrain, IDrainable
from twisted_cluster.worker.drain.http1 import isSending

_log = Logger("twisted_cluster")

GOING_AWAY: Final = 1001
"""
The close code of a server that goes down.
"""

PATIENCE: Final = 1.0
"""
Seconds that a peer is given to answer.
"""

NEEDED: Final = (
    "STATE_CONNECTING",
    "STATE_OPEN",
    "STATE_CLOSING",
    "STATE_CLOSED",
    "SEND_STATE_INSIDE_MESSAGE_FRAME",
    "closeHandshakeTimeout",
    "data",
    "dropConnection",
    "is_closed",
    "is_open",
    "send_state",
    "sendCloseFrame",
    "state",
)
"""
What the installed Autobahn's protocols must have for this.
"""

_SOON: Final = 0.01

_unknown: set[str] = set()


def register() -> None:
    """
    Make known how Autobahn's WebSockets are drained, if the program has imported
    it.  To be called again when it may have done so since.
    """
    module = sys.modules.get("autobahn.twisted.websocket")
    kind = getattr(module, "WebSocketServerProtocol", None)
    if kind is None:
        return
    try:
        registerAdapter(DrainableWebSocket, kind, IDrainable)
    except ValueError:
        # It is already, or the program has its own.
        pass


@implementer(IDrainable)
class DrainableWebSocket:
    """
    Drains an C{autobahn.twisted.websocket.WebSocketServerProtocol}.
    """

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol

    def drain(self, drain: IDrain) -> None:
        """
        See L{IDrainable.drain}.
        """
        missing = {name for name in NEEDED if not hasattr(self._protocol, name)}
        if not missing:
            _Closing(self._protocol, drain).begin()
        elif not missing <= _unknown:
            _unknown.update(missing)
            _log.warn(
                "When this worker leaves, its WebSockets are left alone until they "
                "end: in this version of Autobahn, {missing} is not there; please "
                "report it",
                missing=", ".join(sorted(missing)),
            )


class _Closing:
    """
    The end of one WebSocket.
    """

    def __init__(self, protocol: Any, drain: IDrain) -> None:
        self._protocol = protocol
        self._drain = drain
        self._next: Optional[IDelayedCall] = None

    def begin(self) -> None:
        """
        Begin to close it.
        """
        protocol = self._protocol
        protocol.is_closed.addCallback(self._cancel)
        if protocol.state != protocol.STATE_CONNECTING:
            self._goAway()
            return
        protocol.is_open.addCallback(self._opened)
        if self._isWaiting():
            if self._drain.transport.protocol is protocol:
                moving = self._drain.move(protocol.data)
                moving.addErrback(self._notMoved)
            else:
                self._wait()

    def _isWaiting(self) -> bool:
        """
        Tell whether the request for the handshake has not come yet as a whole.
        C{data} is what has come of it.
        """
        protocol = self._protocol
        return (
            protocol.state == protocol.STATE_CONNECTING
            and getattr(protocol, "http_request_data", None) is None
        )

    def _notMoved(self, reason: Failure) -> None:
        if reason.check(ClusterError) is None:
            _log.failure("A WebSocket could not move to another worker", reason)
        self._wait()

    def _wait(self) -> None:
        if self._isWaiting():
            self._later(max(self._drain.idle, _SOON), self._closeWaiting)

    def _closeWaiting(self) -> None:
        self._next = None
        if self._isWaiting() and (self._protocol.data or not self._drain.close()):
            self._later(PATIENCE, self._closeWaiting)

    def _opened(self, result: object) -> object:
        self._cancel()
        # What its onOpen sends goes first.
        self._later(0, self._goAway)
        return result

    def _goAway(self) -> None:
        """
        Send the close frame, but not into the middle of another one.
        """
        self._next = None
        protocol = self._protocol
        if protocol.state == protocol.STATE_OPEN:
            if protocol.send_state == protocol.SEND_STATE_INSIDE_MESSAGE_FRAME:
                self._later(PATIENCE, self._goAway)
                return
            # Autobahn's own limit cuts the connection, whatever is being sent.
            protocol.closeHandshakeTimeout = 0
            protocol.sendCloseFrame(code=GOING_AWAY, reasonUtf8=b"going away")
        if protocol.state == protocol.STATE_CLOSING:
            self._later(PATIENCE, self._drop)

    def _drop(self) -> None:
        self._next = None
        protocol = self._protocol
        if isSending(self._drain.transport):
            self._later(PATIENCE, self._drop)
        elif protocol.state != protocol.STATE_CLOSED:
            protocol.wasNotCleanReason = "the peer did not answer the close frame"
            protocol.dropConnection(abort=False)
            if self._drain.transport.protocol is not protocol:
                # Over TLS, this waits for the peer's good-bye.
                self._later(PATIENCE, self._abort)

    def _abort(self) -> None:
        self._next = None
        if self._drain.transport.connected:
            self._drain.transport.abortConnection()

    def _later(self, seconds: float, what: Any) -> None:
        self._next = self._drain.clock.callLater(seconds, what)

    def _cancel(self, result: object = None) -> object:
        call, self._next = self._next, None
        if call is not None:
            call.cancel()
        return result
