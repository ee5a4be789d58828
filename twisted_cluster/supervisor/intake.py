"""
A worker's client-socket channel as the watcher sees it: what it was given, and
whether it keeps up.

The rules:

  1. A worker takes connections while it serves, and has not left too many
     unanswered, nor one for too long.
  2. One that gives a connection back is passed over for a while, for the address
     of that connection: its port is paused there, or it has too many open files.
  3. What it was given and has not taken is given back in the end, each once, and
     in the order in which it was given.  Only what a worker has that broke the rules
     is left to it: it may have taken that.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Optional
from typing import Protocol as Shape

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_cluster.errors import FrameIncomplete, ProtocolError
from twisted_cluster.interfaces import Candidate
from twisted_cluster.ipc.clients import ENDED, LARGEST, LISTENER
from twisted_cluster.sockets.wire.handover import Handover

_log = Logger("twisted_cluster")

WINDOW: Final = 32
"""
How many connections a worker may have that it has not taken yet, before it
counts as one that does not keep up.
"""

LATE: Final = 0.1
"""
Seconds after which a worker that has not taken one counts as such, too: it is
stopped, or its reactor stands still.
"""

_REST: Final = 1.0
"""Seconds for which a worker is passed over that gave a connection back."""
_NOTICE: Final = 5.0
"""Seconds in which a worker whose channel has ended is known to end, too."""


class Held(Shape):
    """
    A connection that the watcher holds until a worker has taken it.
    """

    socket: socket.socket
    unread: bytes

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
    @ivar ready: whether the worker serves; see L{begin}.
    @ivar changed: called when what L{takes} says may have changed.
    @ivar refuses: asked, with the number of its address, about a connection that
        comes from the worker: why it is not taken, or L{None}.
    @ivar moves: called with the number of its address, a connection that comes from
        the worker, which is the callee's, and what the worker has read from it
        and not used.
    """

    def __init__(
        self, reactor: Any, worker: int, slot: int, changed: Callable[[], None]
    ) -> None:
        """
        @param reactor: watches the channel; it keeps time, too.
        """
        self._reactor = reactor
        self._handover: Optional[Handover] = None
        self._rests: dict[int, IDelayedCall] = {}
        self._reason: Optional[Failure] = None
        self._notice: Optional[IDelayedCall] = None
        self._given: deque[float] = deque()
        self._look: Optional[IDelayedCall] = None
        self._behind = False
        self._served = 0
        self.candidate = Candidate(worker, slot)
        self.ready = False
        self.changed = changed
        self.refuses: Callable[[int], Optional[str]] = _refuse
        self.moves: Callable[[int, socket.socket, bytes], object] = _close

    def connect(self, skt: socket.socket) -> Handover:
        """
        Make the watcher's end of the channel, to be started by the caller.

        @param skt: a connected UNIX socket, which it owns from now on.
        """
        handover = self._handover = Handover(self._reactor, skt, LARGEST)
        handover.answered = self._answered
        handover.noted = self._noted
        handover.lost = self._lost
        handover.arrived = lambda: self._arrived(handover)
        return handover

    def begin(self) -> None:
        """
        The worker serves.
        """
        self.ready = True
        self._tellSoon()
        self.changed()

    def end(self) -> None:
        """
        The worker leaves: it gets no more.  What it was given, it may still take.
        """
        if self._handover is not None:
            self._handover.flush()
        self.ready = False
        self.changed()

    def takes(self, listener: int) -> bool:
        """
        Tell whether the worker takes another connection.

        @param listener: the number of its address.
        """
        return (
            self.ready
            and not self._behind
            and listener not in self._rests
            and self._handover is not None
        )

    def give(self, held: Held, listener: int) -> None:
        """
        Hand a connection over, at the end of the reactor's turn.  It is the
        worker's when C{held.taken} is called, and nobody's when C{held.returned}
        is; until then it must stay open.

        @param listener: the number of its address, for which L{takes} is true.
        """
        handover = self._handover
        assert handover is not None
        data = LISTENER.pack(listener) + held.unread
        handover.send(held.socket.fileno(), data, (held, listener))
        self._given.append(self._reactor.seconds())
        self._count()
        if handover.unanswered >= WINDOW:
            self._behind = True
            self.changed()
        elif self._look is None:
            self._look = self._reactor.callLater(LATE, self._looks)

    def close(self) -> None:
        """
        The worker is gone: what it has not taken goes to others.
        """
        self.ready = False
        for rest in self._rests.values():
            rest.cancel()
        self._rests.clear()
        self._lookNoMore()
        if self._handover is not None:
            self._handover.abort()
        if self._notice is not None:
            self._notice.cancel()
            self._notice = None

    @property
    def unanswered(self) -> int:
        """
        How many it was given and has not answered.
        """
        return 0 if self._handover is None else self._handover.unanswered

    def _count(self) -> None:
        self.candidate.connections = self._served + self.unanswered

    def _answered(self, token: tuple[Held, int], why: Optional[str]) -> None:
        held, listener = token
        self._given.popleft()
        if self._behind and not self._isBehind():
            self._behind = False
            self.changed()
            self._lookAgain()
        if why is None:
            self._served += 1
            held.taken()
            return
        self._count()
        if self.ready and listener not in self._rests:
            _log.debug(
                "worker {worker} gave a connection back: {why}",
                worker=self.candidate.worker,
                why=why,
            )
            self._rests[listener] = self._reactor.callLater(
                _REST, self._rested, listener
            )
            self.changed()
        held.returned()

    def _isBehind(self) -> bool:
        given = self._given
        if len(given) >= WINDOW:
            return True
        return bool(given) and self._reactor.seconds() >= given[0] + LATE

    def _looks(self) -> None:
        """
        See whether the oldest was taken.  It is looked once in a while, and not
        for each connection.
        """
        self._look = None
        if not self._behind and self._isBehind():
            self._behind = True
            self.changed()
        self._lookAgain()

    def _lookAgain(self) -> None:
        if self._given and not self._behind and self._look is None:
            left = self._given[0] + LATE - self._reactor.seconds()
            self._look = self._reactor.callLater(left, self._looks)

    def _lookNoMore(self) -> None:
        if self._look is not None:
            self._look.cancel()
            self._look = None

    def _rested(self, listener: int) -> None:
        del self._rests[listener]
        self.changed()

    def _noted(self, data: bytes) -> None:
        try:
            (ended,) = ENDED.unpack(data)
        except struct.error:
            raise ProtocolError(f"a note that says nothing: {data[:40]!r}") from None
        self._served = max(0, self._served - ended)
        self._count()

    def _arrived(self, handover: Handover) -> None:
        while (arrival := handover.peek()) is not None:
            if len(arrival.data) < LISTENER.size:
                raise ProtocolError(f"a connection to {arrival.data!r}")
            (listener,) = LISTENER.unpack_from(arrival.data)
            why = self.refuses(listener)
            if why is not None:
                handover.giveBack(1, why)
                continue
            for taken in handover.take(1):
                skt = socket.socket(fileno=taken.descriptor)
                self.moves(listener, skt, taken.data[LISTENER.size :])
                break
            else:
                return

    def _lost(self, reason: Failure, unanswered: list[tuple[Held, int]]) -> None:
        self._handover = None
        self._given.clear()
        self._lookNoMore()
        self._count()
        self._reason = reason
        self._tellSoon()
        self.changed()
        doubtful = reason.check(ProtocolError) and not reason.check(FrameIncomplete)
        for held, _ in unanswered:
            if doubtful:
                held.taken()
            else:
                held.returned()

    def _tellSoon(self) -> None:
        """
        If the channel has ended, say so, unless the worker is about to end.
        """
        if self.ready and self._reason is not None and self._notice is None:
            self._notice = self._reactor.callLater(_NOTICE, self._tell, self._reason)

    def _tell(self, reason: Failure) -> None:
        self._notice = None
        closed = reason.check(ConnectionDone) is not None
        if self.ready:
            _log.error(
                "The client-socket channel of worker {worker} is closed, it gets no "
                "more connections from the watcher: {why}.  To have it replaced, "
                "send it TERM, or the watcher HUP.",
                worker=self.candidate.worker,
                why="the worker closed it" if closed else reason.getErrorMessage(),
            )


def _refuse(listener: int) -> Optional[str]:
    return "nobody takes it"


def _close(listener: int, skt: socket.socket, unread: bytes) -> None:
    skt.close()
