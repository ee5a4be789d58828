"""
A worker's client-socket channel as the watcher sees it: what it was given, and
whether it keeps up.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Any, Final, Optional
from typing import Protocol as Shape

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_cluster.errors import ProtocolError
from twisted_cluster.interfaces import Candidate
from twisted_cluster.ipc.clients import ENDED, LISTENER
from twisted_cluster.sockets.handover import Handover

_log = Logger("twisted_cluster")

WINDOW: Final = 32
"""
How many connections a worker may have that it has not taken yet, before it
counts as one that does not keep up.
"""

_REST: Final = 1.0
"""Seconds for which a worker is passed over that gave a connection back."""


class Held(Shape):
    """
    A connection that the watcher holds until a worker has taken it.
    """

    socket: socket.socket

    def taken(self) -> None:
        """
        A worker has it.
        """

    def returned(self) -> None:
        """
        It needs another worker.
        """


class Intake:
    """
    What one worker takes.

    @ivar candidate: the worker, for balancers.
    @ivar ready: whether the worker serves.
    @ivar changed: called when L{available} may have changed.
    """

    def __init__(
        self, reactor: Any, worker: int, slot: int, changed: Callable[[], None]
    ) -> None:
        """
        @param reactor: watches the channel; it keeps time, too.
        """
        self._reactor = reactor
        self._handover: Optional[Handover] = None
        self._rest: Optional[IDelayedCall] = None
        self._full = False
        self.candidate = Candidate(worker, slot)
        self.ready = False
        self.changed = changed

    def connect(self, skt: socket.socket) -> Handover:
        """
        Make the watcher's end of the channel, to be started by the caller.

        @param skt: a connected UNIX socket, which it owns from now on.
        """
        handover = self._handover = Handover(self._reactor, skt)
        handover.answered = self._answered
        handover.noted = self._noted
        handover.lost = self._lost
        handover.arrived = self._unasked
        return handover

    @property
    def available(self) -> bool:
        """
        Whether the worker takes another connection.
        """
        return (
            self.ready
            and not self._full
            and self._rest is None
            and self._handover is not None
        )

    def give(self, held: Held, listener: int) -> None:
        """
        Hand a connection over; it leaves with L{flush}.
        """
        assert self._handover is not None
        self.candidate.connections += 1
        self._handover.send(held.socket.fileno(), LISTENER.pack(listener), held)
        if self._handover.unanswered >= WINDOW:
            self._full = True
            self.changed()

    def flush(self) -> None:
        """
        Let what was given leave.
        """
        if self._handover is not None:
            self._handover.flush()

    def close(self) -> None:
        """
        The worker gets no more, and what it has not taken goes to others.
        """
        self.ready = False
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        if self._handover is not None:
            self._handover.abort()

    def _answered(self, held: Held, why: Optional[str]) -> None:
        if self._full:
            self._full = False
            self.changed()
        if why is None:
            held.taken()
            return
        self.candidate.connections -= 1
        if self.ready and self._rest is None:
            _log.debug(
                "worker {worker} gave a connection back: {why}",
                worker=self.candidate.worker,
                why=why,
            )
            self._rest = self._reactor.callLater(_REST, self._rested)
            self.changed()
        held.returned()

    def _rested(self) -> None:
        self._rest = None
        self.changed()

    def _noted(self, data: bytes) -> None:
        try:
            (ended,) = ENDED.unpack(data)
        except struct.error:
            raise ProtocolError(f"a note that says nothing: {data[:40]!r}") from None
        self.candidate.connections = max(0, self.candidate.connections - ended)

    def _unasked(self) -> None:
        raise ProtocolError("a connection, where none is carried")

    def _lost(self, reason: Failure, unanswered: list[Held]) -> None:
        self._handover = None
        if reason.check(ProtocolError) is not None:
            _log.error(
                "The client-socket channel of worker {worker} is closed, it gets no "
                "more connections from the watcher: {why}.  To have it replaced, "
                "send it TERM, or the watcher HUP.",
                worker=self.candidate.worker,
                why=reason.getErrorMessage(),
            )
        self.changed()
        for held in unanswered:
            self.candidate.connections -= 1
            held.returned()
