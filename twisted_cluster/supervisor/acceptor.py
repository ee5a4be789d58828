"""
Accepts the connections of one address, and gives each to a worker.

The rules:

  1. Nothing is accepted unless a worker can have it at once.  What is not
     accepted waits in the socket's backlog.
  2. A connection is held until a worker has said that it took it.  One that comes
     back, since its worker died or refused it, is given to another before
     anything else is accepted.
  3. The balancer chooses among the workers that listen on the address, serve, and
     keep up.  Where it fails or cannot tell, they take turns.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from typing import Any, Final, Optional

import attrs
from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_cluster.interfaces import Candidate, Connection, IBalancer
from twisted_cluster.policy.balance import RoundRobin
from twisted_cluster.supervisor.intake import Intake
from twisted_cluster.supervisor.peeking import Peek

_log = Logger("twisted_cluster")

BURST: Final = 64
"""
The most connections that are accepted before others of the watcher's affairs
have their turn.
"""

MOST_PEEKED: Final = 1024
"""
The most connections whose first bytes may be waited for.
"""

_PAUSE: Final = 0.1
"""Seconds without accepting when this process has too many open files."""
_COMPLAIN_EVERY: Final = 60.0
"""Seconds between two complaints about the same."""
_EXHAUSTED: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


@attrs.define(eq=False)
class Accepted:
    """
    A connection that no worker has taken yet.

    @ivar socket: it, owned by this object.
    """

    socket: socket.socket
    connection: Connection
    acceptor: Acceptor

    def taken(self) -> None:
        """
        See L{twisted_cluster.supervisor.intake.Held}.
        """
        self.socket.close()

    def returned(self) -> None:
        """
        See L{twisted_cluster.supervisor.intake.Held}.
        """
        self.acceptor.offerAgain(self)


@implementer(IReadDescriptor)
class Acceptor:
    """
    The watcher's side of one address.

    @ivar number: tells the address from others, in what workers are given.
    @ivar balance: the name of the way of balancing.
    """

    def __init__(
        self,
        reactor: Any,
        skt: socket.socket,
        address: str,
        number: int,
        balance: str,
        balancer: IBalancer,
    ) -> None:
        """
        @param skt: a listening, non-blocking socket; it is duplicated.
        @param address: what it is bound to, for balancers and the log.
        """
        self._reactor = reactor
        self._socket = skt.dup()
        self._address = address
        self._balancer = balancer
        self._rotation = RoundRobin()
        self._members: dict[int, Intake] = {}
        self._available: Optional[list[Candidate]] = None
        self._waiting: deque[Accepted] = deque()
        self._peeks: set[Peek] = set()
        self._reading = False
        self._next: Optional[IDelayedCall] = None
        self._pause: Optional[IDelayedCall] = None
        self._complained = -_COMPLAIN_EVERY
        self._failed = -_COMPLAIN_EVERY
        self._closed = False
        self.number = number
        self.balance = balance

    # What the watcher says.

    def join(self, intake: Intake) -> None:
        """
        A worker listens.
        """
        self._members[intake.candidate.worker] = intake
        self.changed()

    def leave(self, worker: int) -> None:
        """
        A worker listens no more.
        """
        if self._members.pop(worker, None) is not None:
            self.changed()

    def change(self, balance: str, balancer: IBalancer) -> None:
        """
        Balance in another way from now on.
        """
        self.balance = balance
        self._balancer = balancer

    def replace(self, skt: socket.socket) -> None:
        """
        The address was bound anew.

        @param skt: the new socket; it is duplicated.
        """
        new = skt.dup()
        self._stopReading()
        self._socket.close()
        self._socket = new
        self.changed()

    def changed(self) -> None:
        """
        A worker can have connections again, or no more.
        """
        self._available = None
        if self._next is None and not self._closed:
            self._next = self._reactor.callLater(0, self._goOn)

    def close(self) -> None:
        """
        Accept no more, and close what no worker was given.
        """
        self._closed = True
        self._stopReading()
        for call in (self._next, self._pause):
            if call is not None and call.active():
                call.cancel()
        self._socket.close()
        while self._peeks:
            self._peeks.pop().close()
        while self._waiting:
            self._waiting.popleft().socket.close()

    def offerAgain(self, accepted: Accepted) -> None:
        """
        A connection needs another worker.
        """
        if self._closed:
            accepted.socket.close()
        else:
            self._waiting.append(accepted)
            self.changed()

    # What the reactor calls.

    def fileno(self) -> int:
        """
        The listening socket's descriptor.
        """
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """
        What accepts.
        """
        return f"acceptor of {self._address}"

    def doRead(self) -> None:
        """
        Accept what waits, as long as there are workers for it.
        """
        for _ in range(BURST):
            if not self._mayAccept():
                self._stopReading()
                break
            try:
                skt, peer = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._exhausted(error)
                    break
                continue  # A client that has gone already.
            self._accepted(skt, peer)

    def connectionLost(self, reason: Failure) -> None:
        """
        The reactor ends, or cannot watch the socket: nothing is accepted any
        more.
        """
        self._reading = False

    # How it is done.

    def _accepted(self, skt: socket.socket, peer: Any) -> None:
        host = peer[0].partition("%")[0] if isinstance(peer, tuple) else ""
        wanted = self._balancer.firstBytes
        connection = Connection(self._address, host, final=not wanted)
        accepted = Accepted(skt, connection, self)
        if wanted:
            self._peek(accepted)
        else:
            self._place(accepted)

    def _mayAccept(self) -> bool:
        return bool(
            self._candidates()
            and not self._waiting
            and self._pause is None
            and len(self._peeks) < MOST_PEEKED
        )

    def _candidates(self) -> list[Candidate]:
        if self._available is None:
            self._available = [
                intake.candidate
                for _, intake in sorted(self._members.items())
                if intake.available
            ]
        return self._available

    def _place(self, accepted: Accepted) -> bool:
        """
        Give a connection to a worker.  When none can have it, it waits.

        @return: L{False} when the balancer has to see more first.
        """
        candidates = self._candidates()
        if not candidates:
            accepted.connection = attrs.evolve(accepted.connection, final=True)
            self._waiting.append(accepted)
            return True
        connection = accepted.connection
        intake = self._choose(connection, candidates)
        if intake is None:
            if not connection.final:
                return False
            turn = self._rotation.choose(connection, candidates)
            assert turn is not None
            intake = self._members[turn.worker]
        intake.give(accepted, self.number)
        return True

    def _choose(
        self, connection: Connection, candidates: list[Candidate]
    ) -> Optional[Intake]:
        try:
            chosen = self._balancer.choose(connection, candidates)
            if chosen is None:
                return None
            intake = self._members.get(chosen.worker)
            if intake is None or not intake.available:
                raise ValueError(f"it chose {chosen!r}, which is no candidate")
            return intake
        except Exception:
            now = self._reactor.seconds()
            if now - self._failed >= _COMPLAIN_EVERY:
                self._failed = now
                _log.failure(
                    "The balancer {balance} of {address} fails; workers take turns",
                    balance=self.balance,
                    address=self._address,
                )
            # It had its chance.
            turn = self._rotation.choose(connection, candidates)
            return None if turn is None else self._members[turn.worker]

    def _peek(self, accepted: Accepted) -> None:
        def seen(data: bytes, final: bool) -> bool:
            accepted.connection = attrs.evolve(
                accepted.connection, firstBytes=data, final=final
            )
            return self._place(accepted)

        def done() -> None:
            self._peeks.discard(peek)
            if not self._reading:
                self.changed()

        peek = Peek(
            self._reactor,
            accepted.socket,
            self._balancer.firstBytes,
            self._balancer.patience,
            seen,
            done,
        )
        self._peeks.add(peek)
        peek.start()

    def _goOn(self) -> None:
        self._next = None
        for _ in range(len(self._waiting)):
            if not self._candidates():
                break
            self._place(self._waiting.popleft())
        if self._mayAccept():
            if not self._reading:
                self._reading = True
                self._reactor.addReader(self)
        else:
            self._stopReading()

    def _stopReading(self) -> None:
        if self._reading:
            self._reading = False
            self._reactor.removeReader(self)

    def _exhausted(self, error: OSError) -> None:
        self._stopReading()
        self._pause = self._reactor.callLater(_PAUSE, self._resume)
        now = self._reactor.seconds()
        if now - self._complained >= _COMPLAIN_EVERY:
            self._complained = now
            _log.warn(
                "No connection can be accepted on {address} at the moment, they wait "
                "in its backlog: {error}",
                address=self._address,
                error=os.strerror(error.errno or 0),
            )

    def _resume(self) -> None:
        self._pause = None
        self.changed()
