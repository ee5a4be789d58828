"""
Takes the connections that the watcher hands over to this worker, and makes them
what the program's ports would have made of them; hands those over to it that are
to move to another worker.

A port whose connections all come this way listens without accepting.  Like
L{twisted_cluster.worker.ports}, this touches what Twisted does not promise:
C{Port.transport}, C{Port.sessionno} and C{Port._buildAddr}, with which
C{Port.doRead} makes the transport and the protocol of a connection.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Optional

from twisted.internet import tcp
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionLost
from twisted.logger import Logger
from twisted.python import log
from twisted.python.failure import Failure

from twisted_cluster.errors import NotTransferable, ProtocolError, TransferFailed
from twisted_cluster.ipc.clients import ENDED, LARGEST, LISTENER, UNREAD
from twisted_cluster.sockets.clients.attach import Unread
from twisted_cluster.sockets.wire.blocking import identify, isStill
from twisted_cluster.sockets.wire.frames import Arrival
from twisted_cluster.sockets.wire.handover import Handover
from twisted_cluster.sockets.wire.lastwords import LastWords
from twisted_cluster.worker.guardedtransport import GuardedTransport

_log = Logger("twisted_cluster")

NEEDED: Final[list[tuple[Any, str]]] = [
    (tcp.Port, "transport"),
    (tcp.Port, "sessionno"),
    (tcp.Port, "_buildAddr"),
]
"""
What the installed Twisted must have for this.
"""


_READING: Final = ("startReading", "stopReading")


class _Transport(GuardedTransport, LastWords):
    """
    The channel's transport.
    """


class _Listening:
    """
    A port that gets connections from the watcher.

    It stands before the port's C{startReading} and C{stopReading}, by which
    programs, and Twisted, say whether the port accepts.
    """

    def __init__(self, port: Any, accepts: bool) -> None:
        """
        @param accepts: whether the port accepts by itself as well.
        """
        self.port = port
        self.wants = False
        self._before = {
            name: port.__dict__[name] for name in _READING if name in port.__dict__
        }
        then = [getattr(port, name) if accepts else None for name in _READING]
        for name, wants, do in zip(_READING, (True, False), then, strict=True):
            setattr(port, name, partial(self._set, wants, do))

    def _set(self, wants: bool, then: Optional[Callable[[], None]]) -> None:
        self.wants = wants
        if then is not None:
            then()

    def end(self) -> None:
        """
        Leave the port as it was.
        """
        self.wants = False
        for name in _READING:
            self.port.__dict__.pop(name, None)
        self.port.__dict__.update(self._before)


class Incoming:
    """
    The worker's end of the client-socket channel.
    """

    def __init__(self, descriptor: int) -> None:
        """
        @param descriptor: the channel, which this object owns.
        """
        self._socket = socket.socket(fileno=descriptor)
        self._identity = identify(self._socket)
        self._handover: Optional[Handover] = None
        self._reactor: Any = None
        self._listening: dict[int, _Listening] = {}
        self._leaving = False
        self._ended = 0
        self._pid = os.getpid()

    def enter(self, port: Any, number: int, accepts: bool = False) -> None:
        """
        Have a port, which is about to be started, get connections from here.

        @param number: with which they come.
        @param accepts: whether it accepts by itself as well.
        """
        self._listening[number] = _Listening(port, accepts)

    def leave(self, port: Any) -> None:
        """
        A port listens no more.
        """
        for number, listening in list(self._listening.items()):
            if listening.port is port:
                listening.end()
                del self._listening[number]

    def attach(self, reactor: Any) -> None:
        """
        The reactor runs: begin to take connections.
        """
        if self._handover is not None:
            return
        self._reactor = reactor
        if not isStill(self._socket, self._identity):
            self._socket.detach()
            self._lost(Failure(ConnectionLost("the program closed its descriptor")), [])
            return
        self._handover = handover = Handover(
            reactor,
            self._socket,
            LARGEST,
            partial(_Transport, identity=self._identity),
        )
        handover.arrived = self._arrived
        handover.answered = self._answered
        handover.lost = self._lost
        handover.start()

    def sendBack(
        self, port: Any, descriptor: int, unread: bytes = b""
    ) -> Deferred[None]:
        """
        Let another worker have a connection.

        @param port: whose connection it is.
        @param descriptor: its socket, which must stay open until the outcome.
        @param unread: what was read from it and belongs to the next protocol.
        @return: a Deferred that fires when the watcher has it.  It fails with
            L{NotTransferable}, when no connections of this port can be handed over;
            and with L{TransferFailed}, when the watcher does not take it, or more
            than L{UNREAD} bytes were read.
        """
        numbers = [
            number
            for number, listening in self._listening.items()
            if listening.port is port
        ]
        if not numbers:
            return fail(NotTransferable(f"{port} is not on a socket of the cluster"))
        if self._handover is None:
            return fail(TransferFailed("the channel to the watcher is closed"))
        if len(unread) > UNREAD:
            return fail(TransferFailed(f"{len(unread)} bytes of it, over {UNREAD}"))
        outcome: Deferred[None] = Deferred()
        self._handover.send(descriptor, LISTENER.pack(numbers[0]) + unread, outcome)
        return outcome

    def takeAll(self) -> None:
        """
        Take what the watcher has sent by now.
        """
        if self._handover is not None:
            self._handover.drain()

    def stop(self) -> None:
        """
        The worker ends: give back all that is not taken, from now on.
        """
        self._leaving = True
        if self._handover is not None:
            self._arrived()

    def close(self) -> None:
        """
        Close the channel, unless the program did.
        """
        self._leaving = True
        if self._handover is not None:
            self._handover.abort()
        elif isStill(self._socket, self._identity):
            self._socket.close()

    def _arrived(self) -> None:
        handover = self._handover
        assert handover is not None
        while True:
            taken = handover.take(wanted=self._wanted)
            for arrival in taken:
                self._adopt(arrival)
            if not taken:
                oldest = handover.peek()
                if oldest is None or self._wanted(oldest):
                    return
                why = "it ends" if self._leaving else "it does not listen there"
                handover.giveBack(1, f"the worker did not take it: {why}")

    def _wanted(self, arrival: Arrival) -> bool:
        if self._leaving:
            return False
        if len(arrival.data) < LISTENER.size:
            raise ProtocolError(f"a connection to {arrival.data!r}")
        listening = self._listening.get(LISTENER.unpack_from(arrival.data)[0])
        return listening is not None and listening.wants

    def _adopt(self, arrival: Arrival) -> None:
        """
        Do what C{tcp.Port.doRead} does with a connection, but for one whose client
        is gone: its address cannot be told any more, so that it is dropped.
        """
        listening = self._listening.get(LISTENER.unpack_from(arrival.data)[0])
        if listening is None:
            # What was taken along with it stopped the port.
            os.close(arrival.descriptor)
            self._connectionEnded()
            return
        port = listening.port
        skt = socket.socket(
            port.addressFamily, socket.SOCK_STREAM, fileno=arrival.descriptor
        )
        try:
            peer = _peerOf(skt)
        except OSError:
            skt.close()
            self._connectionEnded()
            return
        transport = None
        try:
            protocol = port.factory.buildProtocol(port._buildAddr(peer))
            if protocol is not None:
                number = port.sessionno
                port.sessionno = number + 1
                make = _counting(port.transport)
                transport = make(skt, protocol, peer, port, number, port.reactor)
                transport._clusterEnded = self._connectionEnded
                protocol.makeConnection(transport)
                if len(arrival.data) > LISTENER.size:
                    Unread(transport, arrival.data[LISTENER.size :])
        except BaseException:
            log.deferr()
        if transport is None:
            skt.close()
            self._connectionEnded()

    def _answered(self, outcome: Deferred[None], why: Optional[str]) -> None:
        if why is None:
            outcome.callback(None)
        else:
            outcome.errback(TransferFailed(why))

    def _connectionEnded(self) -> None:
        if os.getpid() != self._pid:
            return
        if not self._ended:
            self._reactor.callLater(0, self._sayEnded)
        self._ended += 1

    def _sayEnded(self) -> None:
        ended, self._ended = self._ended, 0
        if self._handover is not None:
            self._handover.note(ENDED.pack(ended))

    def _lost(self, reason: Failure, unanswered: list[Deferred[None]]) -> None:
        self._handover = None
        for outcome in unanswered:
            outcome.errback(TransferFailed(reason.getErrorMessage()))
        if not self._leaving:
            _log.error(
                "This worker gets no more connections from the watcher: {why}.  What "
                "it accepts by itself, it serves.  To have it replaced, send it TERM, "
                "or the watcher HUP.",
                why=reason.getErrorMessage().rstrip("."),
            )


def _peerOf(skt: socket.socket) -> Any:
    """
    Find the client's address as C{accept} and C{tcp.Port.doRead} have it.

    @raise OSError: when the client is gone.
    """
    peer = skt.getpeername()
    if skt.family == socket.AF_INET6:
        flags = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
        return (socket.getnameinfo(peer, flags)[0], *peer[1:])
    return peer


_kinds: dict[type, type] = {}


def _counting(kind: Any) -> Callable[..., Any]:
    """
    Find what makes transports that tell their end: a class that is made once for
    each class, or whatever else a program set for one.
    """
    if not isinstance(kind, type):
        return partial(_makeCounting, kind)
    found = _kinds.get(kind)
    if found is not None:
        return found

    def connectionLost(self: Any, reason: Failure) -> None:
        try:
            kind.connectionLost(self, reason)  # type: ignore[attr-defined]
        finally:
            _tellEnd(self)

    names = {
        "connectionLost": connectionLost,
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
    }
    made = _kinds[kind] = type(kind.__name__, (kind,), names)
    return made


def _makeCounting(make: Callable[..., Any], *arguments: Any) -> Any:
    transport = make(*arguments)
    lose = transport.connectionLost

    def connectionLost(reason: Failure) -> None:
        try:
            lose(reason)
        finally:
            _tellEnd(transport)

    transport.connectionLost = connectionLost
    return transport


def _tellEnd(transport: Any) -> None:
    ended: Optional[Callable[[], None]]
    ended = transport.__dict__.pop("_clusterEnded", None)
    if ended is not None:
        ended()
