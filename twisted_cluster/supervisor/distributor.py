"""
Knows which addresses the watcher accepts for, and which workers it accepts for.

In the mode C{kernel} the workers accept by themselves, and get from here only what
was accepted for others that are gone.  Where workers that listen on one address ask
for several ways of balancing, the newest of them decides, whenever it asked: it has
the program that is to stay.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Final, Optional

from twisted.logger import Logger

from twisted_cluster.errors import InvalidBalance
from twisted_cluster.interfaces import IBalancer
from twisted_cluster.policy.balance import BALANCERS, KERNEL, RoundRobin
from twisted_cluster.sockets.addresses import Address
from twisted_cluster.sockets.servers.binding import BoundSocket
from twisted_cluster.sockets.wire.blocking import Identity, identify
from twisted_cluster.supervisor.acceptor import Acceptor
from twisted_cluster.supervisor.balancers import loadBalancer, verifyBalancer
from twisted_cluster.supervisor.intake import Intake
from twisted_cluster.supervisor.peeking import Peeks

_log = Logger("twisted_cluster")

_LAST: Final = 16
"""How many bursts an address may accept when all workers are about to leave."""


class Distributor:
    """
    All acceptors, and all workers' intakes.
    """

    def __init__(self, reactor: Any, balance: str = KERNEL) -> None:
        """
        @param balance: how connections are balanced when a worker does not say:
            C{kernel}, or as L{loadBalancer} takes it.
        @raise InvalidBalance: when there is no such balancer.
        """
        self._reactor = reactor
        self._default = balance
        self._makers: dict[str, Callable[[], IBalancer]] = dict(BALANCERS)
        if balance != KERNEL:
            self._makers[balance] = loadBalancer(balance)
        self._intakes: dict[int, Intake] = {}
        self._acceptors: dict[Address, Acceptor] = {}
        self._sockets: dict[Address, Identity] = {}
        self._asked: dict[Address, dict[int, str]] = {}
        self._peeks = Peeks()
        self._count = 0

    def intake(self, worker: int, slot: int) -> Intake:
        """
        Make the intake of a worker that is about to be started.
        """
        intake = self._intakes[worker] = Intake(
            self._reactor, worker, slot, self._changed
        )
        intake.refuses, intake.moves = self._refuses, self._moves
        return intake

    def check(self, balance: str) -> None:
        """
        Check what a worker asks for.

        @raise InvalidBalance: when there is no such balancer.
        """
        if balance not in ("", KERNEL) and balance not in self._makers:
            raise InvalidBalance(
                f"balance={balance} is none of {', '.join([KERNEL, *BALANCERS])}, and "
                f"code of one's own has to be named by --balance"
            )

    def joins(self, worker: int, bound: BoundSocket, balance: str) -> tuple[int, bool]:
        """
        A worker listens.

        @param balance: as it asks, checked; empty for the default.
        @return: the number that the connections come with which it is given, 0 when
            it is given none; and whether it accepts by itself.
        @raise OSError: when the socket cannot be duplicated: this process has too
            many open files.
        """
        balance = balance or self._default
        intake = self._intakes.get(worker)
        address = bound.address
        if address.kind == "udp" or intake is None:
            return 0, True
        acceptor = self._acceptors.get(address)
        identity = identify(bound.socket)
        if acceptor is None:
            acceptor = self._acceptors[address] = Acceptor(
                self._reactor,
                bound.socket,
                str(address),
                self._count + 1,
                self._peeks,
            )
            self._count += 1
            self._sockets[address] = identity
            self._asked[address] = {}
        if self._sockets[address] != identity:
            acceptor.replace(bound.socket)
            self._sockets[address] = identity
        accepts = balance == KERNEL
        asked = self._asked[address]
        asked.pop(worker, None)
        if not accepts:
            asked[worker] = balance
        self._decide(address)
        acceptor.join(intake, accepts)
        return acceptor.number, accepts

    def acceptWaiting(self) -> None:
        """
        All workers are about to leave: accept what waits for them.
        """
        for acceptor in self._acceptors.values():
            for _ in range(_LAST):
                acceptor.doRead()

    def leaves(self, worker: int, address: Address) -> None:
        """
        A worker listens no more.
        """
        acceptor = self._acceptors.get(address)
        if acceptor is not None:
            self._leaves(worker, address, acceptor)

    def closes(self, address: Address) -> None:
        """
        Nobody listens any more: accept no more.
        """
        self._sockets.pop(address, None)
        self._asked.pop(address, None)
        acceptor: Optional[Acceptor] = self._acceptors.pop(address, None)
        if acceptor is not None:
            acceptor.close()

    def workerReady(self, worker: int) -> None:
        """
        A worker serves.
        """
        self._intakes[worker].begin()

    def workerStopping(self, worker: int) -> None:
        """
        A worker leaves: it gets no more.
        """
        intake = self._intakes.get(worker)
        if intake is not None:
            intake.end()

    def workerGone(self, worker: int) -> None:
        """
        A worker is dead: what it had not taken goes to others.
        """
        for address, acceptor in self._acceptors.items():
            self._leaves(worker, address, acceptor)
        intake = self._intakes.pop(worker, None)
        if intake is not None:
            intake.close()

    def _leaves(self, worker: int, address: Address, acceptor: Acceptor) -> None:
        acceptor.leave(worker)
        if self._asked[address].pop(worker, None) is not None:
            self._decide(address)

    def _decide(self, address: Address) -> None:
        """
        Balance as the newest worker asks.  Those that accept by themselves do not
        ask: others may yet be there.  When nobody asks, all stays as it is.
        """
        asked = self._asked[address]
        acceptor = self._acceptors[address]
        balance = asked[max(asked)] if asked else acceptor.balance
        if acceptor.balance != balance:
            acceptor.change(balance, self._make(balance, address))
            _log.info(
                "The watcher accepts on {address} and balances by {balance}",
                address=str(address),
                balance=balance,
            )

    def _refuses(self, number: int) -> Optional[str]:
        acceptor = self._numbered(number)
        return "nobody listens there" if acceptor is None else acceptor.refuses()

    def _moves(self, number: int, skt: socket.socket, unread: bytes) -> None:
        acceptor = self._numbered(number)
        assert acceptor is not None
        acceptor.move(skt, unread)

    def _numbered(self, number: int) -> Optional[Acceptor]:
        for acceptor in self._acceptors.values():
            if acceptor.number == number:
                return acceptor
        return None

    def _make(self, balance: str, address: Address) -> IBalancer:
        try:
            made = self._makers[balance]()
            verifyBalancer(balance, made)
            return made
        except Exception:
            _log.failure(
                "The balancer {balance} of {address} cannot be made: workers take "
                "turns",
                balance=balance,
                address=str(address),
            )
            return RoundRobin()

    def _changed(self) -> None:
        for acceptor in self._acceptors.values():
            acceptor.changed()
