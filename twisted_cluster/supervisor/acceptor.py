"""
Accepts the connections of one address, and gives each to a worker.

The rules:

  1. Nothing is accepted unless a worker that does not accept by itself can have
     it at once.  What is not accepted waits in the socket's backlog.
  2. Some of the files that this process may open are left for others of its
     affairs: where connections that no worker has taken have the rest, no more are
     accepted.
  3. A connection is held until a worker has said that it took it.  One that comes
     back, since its worker died or refused it, is given to another before
     anything else is accepted.
  4. The balancer chooses among the workers that listen on the address, serve, and
     keep up; those that accept by themselves get only what came back, when there
     is no other.  Where it fails or cannot tell, they take turns.
"""

from __future__ import annotations

import socket
from collections import deque
from typing import Any, Final, Optional

import attrs
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.internet.main import CONNECTION_LOST
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_cluster.interfaces import Candidate, Connection, IBalancer
from twisted_cluster.policy.balance import KERNEL, RoundRobin
from twisted_cluster.supervisor import openfiles
from twisted_cluster.supervisor.accepted import GONE, Accepted
from twisted_cluster.supervisor.intake import Intake
from twisted_cluster.supervisor.peeking import Peek, Peeks
from twisted_cluster.supervisor.seldom import Seldom

_log = Logger("twisted_cluster")

BURST: Final = 64
"""
The most connections that are accepted before others of the watcher's affairs
have their turn.
"""

_PAUSE: Final = 0.1
"""Seconds without accepting when this process has too many open files, say."""
_FEW: Final = "only the files that are kept free are left (see RLIMIT_NOFILE)"


@implementer(IReadDescriptor)
class Acceptor:
    """
    The watcher's side of one address.

    @ivar number: tells the address from others, in what workers are given.
    @ivar balance: the name of the way of balancing; C{kernel} until some worker
        does not accept by itself.
    """

    def __init__(
        self,
        reactor: Any,
        skt: socket.socket,
        address: str,
        number: int,
        peeks: Peeks,
    ) -> None:
        """
        @param skt: a listening, non-blocking socket; it is duplicated.
        @param address: what it is bound to, for balancers and the log.
        @param peeks: those of all addresses.
        @raise OSError: when it cannot be duplicated.
        """
        self._reactor = reactor
        self._socket = skt.dup()
        self._address = address
        self._rotation = RoundRobin()
        self._balance(self._rotation)
        self._members: dict[int, Intake] = {}
        self._accepting: set[int] = set()
        self._available: Optional[tuple[Candidate, ...]] = None
        self._anyWaits = False
        self._waiting: deque[Accepted] = deque()
        self._allPeeks = peeks
        self._peeks: set[Peek] = set()
        self._reading = False
        self._next: Optional[IDelayedCall] = None
        self._pause: Optional[IDelayedCall] = None
        self._complains = Seldom(reactor)
        self._tellsFailure = Seldom(reactor)
        self._closed = False
        self.number = number
        self.balance = KERNEL

    # What the watcher says.

    def join(self, intake: Intake, accepts: bool = False) -> None:
        """
        A worker listens.

        @param accepts: whether it accepts by itself.
        """
        worker = intake.candidate.worker
        self._members[worker] = intake
        if accepts:
            self._accepting.add(worker)
        else:
            self._accepting.discard(worker)
        self.changed()

    def leave(self, worker: int) -> None:
        """
        A worker listens no more.
        """
        if self._members.pop(worker, None) is not None:
            self._accepting.discard(worker)
            self.changed()

    def change(self, balance: str, balancer: IBalancer) -> None:
        """
        Balance in another way from now on.
        """
        self.balance = balance
        self._balance(balancer)

    def replace(self, skt: socket.socket) -> None:
        """
        The address was bound anew.

        @param skt: the new socket; it is duplicated.
        @raise OSError: when it cannot be; the old one stays.
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
        Accept no more, and close what no worker was given.  What is given back
        later is closed then.
        """
        self._closed = True
        self._stopReading()
        for call in (self._next, self._pause):
            if call is not None and call.active():
                call.cancel()
        self._socket.close()
        for peek in self._peeks:
            self._allPeeks.discard(peek)
            peek.close()
        self._peeks.clear()
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

    def refuses(self) -> Optional[str]:
        """
        Tell why a connection that a worker had cannot move to another, or L{None}.
        """
        if self._wanted:
            return f"{self.balance} has to see the first bytes of connections"
        return None

    def move(self, skt: socket.socket, unread: bytes) -> None:
        """
        A worker that leaves had this connection: give it to another.

        @param skt: it, owned by this object from now on.
        @param unread: what the worker has read from it and not used.
        """
        try:
            connection = self._connection(skt.getpeername())
        except OSError:
            skt.close()
            return
        self.offerAgain(Accepted(skt, connection, self.offerAgain, unread))

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
        scarce = openfiles.scarce()
        for _ in range(BURST):
            if not self._mayAccept():
                self._stopReading()
                break
            try:
                skt, peer = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                if error.errno not in GONE:
                    self._stopReading()
                    self._rest(str(error))
                    break
                continue
            few = skt.fileno() >= scarce
            self._accepted(skt, peer)
            if few and not self._closed:
                self._stopReading()
                self._rest(_FEW)
                break

    def connectionLost(self, reason: Failure) -> None:
        """
        The reactor ends all that it watches; or the socket listens no more, or
        somebody's code failed in here, and it is tried again soon.
        """
        self._reading = False
        if reason.value is not CONNECTION_LOST and not self._closed:
            listens = reason.check(ConnectionDone) is None
            self._rest(reason.getErrorMessage() if listens else "it was shut down")

    # How it is done.

    def _balance(self, balancer: IBalancer) -> None:
        self._balancer = balancer
        self._wanted, self._patience = balancer.firstBytes, balancer.patience

    def _accepted(self, skt: socket.socket, peer: Any) -> None:
        accepted = Accepted(skt, self._connection(peer), self.offerAgain)
        if self._wanted:
            self._peek(accepted)
        else:
            self._place(accepted)

    def _connection(self, peer: Any) -> Connection:
        host = peer[0] if isinstance(peer, tuple) else ""
        return Connection(self._address, host, final=not self._wanted)

    def _mayAccept(self) -> bool:
        return bool(
            self._candidates()
            and self._anyWaits
            and not self._waiting
            and self._pause is None
            and not self._closed
        )

    def _candidates(self) -> tuple[Candidate, ...]:
        """
        Who can have a connection that was accepted.  C{_anyWaits} says whether one
        of them waits for those that come.
        """
        if self._available is None:
            able = [
                intake.candidate
                for _, intake in sorted(self._members.items())
                if intake.takes(self.number)
            ]
            waiting = [each for each in able if each.worker not in self._accepting]
            self._anyWaits = bool(waiting)
            self._available = tuple(waiting or able)
        return self._available

    def _place(self, accepted: Accepted) -> bool:
        """
        Give a connection to a worker.  When none can have it, it waits.

        @return: L{False} when the balancer has to see more first, or might when
            there is a worker again.
        """
        candidates = self._candidates()
        connection = accepted.connection
        intake = self._choose(connection, candidates) if candidates else None
        if self._closed:
            accepted.socket.close()
            return True
        if intake is None and not connection.final:
            return False
        intake = intake or self._inTurn(connection)
        if intake is None:
            self._waiting.append(accepted)
        else:
            intake.give(accepted, self.number)
        return True

    def _inTurn(self, connection: Connection) -> Optional[Intake]:
        candidates = self._candidates()
        if not candidates:
            return None
        return self._members[self._rotation.choose(connection, candidates).worker]

    def _choose(
        self, connection: Connection, candidates: tuple[Candidate, ...]
    ) -> Optional[Intake]:
        try:
            chosen = self._balancer.choose(connection, candidates)
            if chosen is None:
                return None
            intake = self._members.get(chosen.worker)
            if (
                intake is None
                or intake.candidate is not chosen
                or not intake.takes(self.number)
            ):
                raise ValueError(f"it chose {chosen!r}, which is no candidate")
            return intake
        except Exception:
            if self._tellsFailure.due():
                _log.failure(
                    "The balancer {balance} of {address} fails; workers take turns",
                    balance=self.balance,
                    address=self._address,
                )
            # It had its chance.
            return self._inTurn(connection)

    def _peek(self, accepted: Accepted) -> None:
        def seen(data: bytes, final: bool) -> bool:
            accepted.connection = attrs.evolve(
                accepted.connection, firstBytes=data, final=final
            )
            return self._place(accepted)

        def done() -> None:
            self._peeks.discard(peek)
            self._allPeeks.discard(peek)

        peek = Peek(
            self._reactor, accepted.socket, self._wanted, self._patience, seen, done
        )
        self._peeks.add(peek)
        self._allPeeks.start(peek)

    def _goOn(self) -> None:
        self._next = None
        while self._waiting and self._candidates():
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

    def _rest(self, why: str) -> None:
        if self._pause is None:
            self._pause = self._reactor.callLater(_PAUSE, self._resume)
        if self._complains.due():
            _log.warn(
                "No connection can be accepted on {address} at the moment, those that "
                "come wait in its backlog: {why}",
                address=self._address,
                why=why,
            )

    def _resume(self) -> None:
        self._pause = None
        few = openfiles.areFew(self._socket)
        members = self._members.values()
        if few and (self._allPeeks or any(each.unanswered for each in members)):
            self._rest(_FEW)
        else:
            self.changed()
        if few:
            self._allPeeks.hurry()
