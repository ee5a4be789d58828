"""
Decides which listening sockets exist, and which worker gets which.

The rules:

  1. One address, one socket, and what else L{twisted_cluster.sockets.servers.sharing}
     says; it outlives every worker that uses it.
  2. What a worker opens while it starts, or names as the cluster's, is the
     cluster's.  Later it shares what the cluster knows: what is open, and what
     any living worker has shared before.  All else is its own.
  3. A socket is closed when the last worker that uses it deliberately stops
     listening.  What a worker leaves behind that stops or dies does not count
     until the fleet has settled: somebody is owed it.  A worker that has opened
     nothing yet is owed it a while longer, since it may open its ports late; that
     time is over, and begins anew, when the fleet settles anew.  What was bound
     by C{--bind} stays until the end.
  4. A worker that has shed privileges gets nothing bound that it could not
     bind by itself.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterable
from typing import Final, Optional

import attrs
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from twisted_cluster.errors import InvalidBalance
from twisted_cluster.sockets.addresses import (
    Address,
    Own,
    Refused,
    Shared,
    SocketRequest,
    Verdict,
    parseBind,
)
from twisted_cluster.sockets.servers.binding import LockHeld
from twisted_cluster.sockets.servers.sharing import (
    SharedSocket,
    SharedSockets,
    again,
    refusal,
)
from twisted_cluster.supervisor.distributor import Distributor
from twisted_cluster.supervisor.intake import Intake
from twisted_cluster.supervisor.procfs import Credentials
from twisted_cluster.supervisor.refusals import Refusals
from twisted_cluster.supervisor.rights import withRightsOf

REMEMBERED: Final = 1024
"""
How many addresses that a worker once shared are remembered while it lives.
"""

GRACE: Final = 60.0
"""
Seconds for which an unused socket waits for a worker that opens its ports late.
"""


def _nobodyKnows(worker: int) -> Optional[Credentials]:
    return None


@attrs.define(eq=False)
class _Listener(SharedSocket):
    """
    A socket, and what becomes of it.

    @ivar pinned: whether it stays open without users.
    @ivar late: whether workers ask for it after their start.
    @ivar expiry: closes it, unless it is used before.
    """

    pinned: bool = False
    late: bool = False
    expiry: Optional[IDelayedCall] = None

    def stays(self) -> None:
        """
        Call off what would close it.
        """
        expiry, self.expiry = self.expiry, None
        if expiry is not None and expiry.active():
            expiry.cancel()


class Listeners:
    """
    All listening sockets of a cluster.  It owns every one of them.
    """

    def __init__(
        self,
        backlog: int,
        clock: IReactorTime,
        credentials: Callable[[int], Optional[Credentials]] = _nobodyKnows,
        log: Optional[Logger] = None,
        grace: float = GRACE,
        distributor: Optional[Distributor] = None,
    ) -> None:
        """
        @param backlog: how many connections may wait on a socket, at least.
        @param credentials: finds whose rights the worker of an id has now; it
            is only asked where this process is privileged.
        @param grace: seconds that a socket which nobody uses is kept for workers
            that have opened nothing yet.
        @param distributor: accepts for workers that do not by themselves.
        """
        self._distributor = distributor or Distributor(clock)
        self._clock = clock
        self._credentials = credentials
        self._log = Logger("twisted_cluster") if log is None else log
        self._sockets = SharedSockets(_Listener, backlog, self._log)
        self._known: dict[int, dict[Address, None]] = {}
        self._stopping: set[int] = set()
        self._serving: set[int] = set()
        self._grace = grace
        self._refusals = Refusals(clock, self._log)

    @property
    def addresses(self) -> list[str]:
        """
        What the cluster listens on, as text.
        """
        return sorted(map(str, self._sockets.addresses))

    def bind(self, description: str) -> None:
        """
        Open a socket that stays open until L{closeAll}.

        @param description: as L{parseBind} takes it.
        @raise InvalidEndpoint: when it cannot be understood.
        @raise CannotListenError: when it cannot be bound.
        """
        wanted = parseBind(description)
        address = wanted.address
        interface = None if address.kind == "unix" else address.host
        port = address.path if address.kind == "unix" else address.port
        try:
            listener = self._sockets.open(wanted)
        except LockHeld as error:
            raise CannotListenError(interface, port, str(error)) from None
        except OSError as error:
            raise CannotListenError(interface, port, error) from error
        listener.pinned = True

    def request(
        self, worker: int, request: SocketRequest, skt: socket.socket
    ) -> Verdict:
        """
        Answer a worker that wants to listen.

        @param skt: an unbound socket with the options that the program wants;
            it is taken over, and closed unless it is bound.
        @return: in L{Shared}, the socket stays this object's.
        """
        wanted = request.wanted
        try:
            self._distributor.check(request.balance)
        except InvalidBalance as error:
            skt.close()
            return Refused(errno.EINVAL, str(error))
        listener = self._sockets.find(request)
        if not self._belongs(request, listener):
            skt.close()
            return Own()
        if listener is not None and worker in listener.users:
            return again(listener.bound, skt)
        if listener is not None and listener.bound.vanished():
            self._log.warn(
                "Somebody removed the file of {address}: it is bound anew.  Only "
                "workers that listen from now on can be reached there; send the "
                "watcher HUP, so that all are.",
                address=wanted.address,
            )
        rights = self._credentials(worker) if os.geteuid() == 0 else None
        try:
            listener = self._sockets.use(
                worker, request, skt, lambda action: withRightsOf(rights, action)
            )
        except (LockHeld, OSError) as error:
            return self._refusals.note(
                worker, wanted.address, refusal(error), self._sockets.addresses
            )
        bound = listener.bound
        try:
            number, accepts = self._distributor.joins(worker, bound, request.balance)
        except OSError as error:
            self.release(worker, bound.address)
            return self._refusals.note(
                worker, wanted.address, refusal(error), self._sockets.addresses
            )
        self._refusals.forget(wanted.address)
        listener.stays()
        listener.late = not request.starting
        if wanted.address.kind != "udp":
            self._serving.add(worker)
        if listener.ephemeral is None:
            self._remember(worker, bound.address)
        return Shared(bound.socket, bound.address, number, accepts)

    def release(self, worker: int, address: Address) -> None:
        """
        A worker stopped listening.
        """
        listener = self._sockets.get(address)
        if listener is None or worker not in listener.users:
            return
        listener.users.discard(worker)
        self._distributor.leaves(worker, address)
        if not listener.users and not listener.pinned and worker not in self._stopping:
            self._close(listener, "worker {worker} stopped listening", worker=worker)

    def hasServed(self, worker: int) -> bool:
        """
        Tell whether a living worker has ever shared a stream socket.
        """
        return worker in self._serving

    def intake(self, worker: int, slot: int) -> Intake:
        """
        Make what a worker that is about to be started gets connections by.
        """
        return self._distributor.intake(worker, slot)

    def workerReady(self, worker: int) -> None:
        """
        A worker serves.
        """
        self._distributor.workerReady(worker)

    def workerStopping(self, worker: int) -> None:
        """
        From now on, what this worker gives back stays open until L{settle}, and
        it gets no more connections.
        """
        self._distributor.workerStopping(worker)
        self._stopping.add(worker)
        self.unsettle()

    def workerGone(self, worker: int) -> None:
        """
        A worker is dead.  What it used stays open until L{settle}.
        """
        self._distributor.workerGone(worker)
        self._stopping.discard(worker)
        self._serving.discard(worker)
        self._known.pop(worker, None)
        for listener in self._sockets:
            listener.users.discard(worker)
        self.unsettle()

    def unsettle(self) -> None:
        """
        Somebody is owed what nobody uses: it stays open until L{settle}, which
        begins the grace anew.
        """
        for listener in self._sockets:
            listener.stays()

    def settle(self, workers: Iterable[int] = ()) -> None:
        """
        Everybody who is wanted is ready, and nobody is leaving or owed: close
        what nobody uses.  At once, if every worker has opened a stream socket:
        then they use others now.  But a worker that has opened none is perhaps
        about to, as it may be to open again what was opened late before:
        connections wait for it, for as long as the grace lasts.

        @param workers: the workers that there are.
        """
        late = not self._serving.issuperset(workers)
        for listener in self._sockets:
            if listener.users or listener.pinned:
                continue
            if not late and not listener.late:
                self._close(listener, "no worker listens on it any more")
            elif listener.expiry is None:
                listener.expiry = self._clock.callLater(
                    self._grace, self._expire, listener
                )

    def _expire(self, listener: _Listener) -> None:
        self._close(
            listener,
            "no worker has listened on it for {grace:g} seconds",
            grace=self._grace,
        )

    def acceptWaiting(self) -> None:
        """
        All workers are about to leave: accept what waits for them here.
        """
        self._distributor.acceptWaiting()

    def refuse(self) -> None:
        """
        Have the kernel refuse connections from now on: nobody would accept them.
        Otherwise they would wait, and be reset when the sockets are closed.
        """
        for listener in self._sockets:
            if listener.bound.address.kind != "udp":
                try:
                    listener.bound.socket.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def closeAll(self) -> None:
        """
        Close every socket, and remove what is left of them in the file system.
        """
        for listener in self._sockets:
            self._close(listener, "the cluster stops")
        self._known.clear()
        self._stopping.clear()
        self._serving.clear()
        self._refusals.clear()

    def _belongs(self, request: SocketRequest, found: Optional[_Listener]) -> bool:
        if request.explicit or request.starting:
            return True
        address = request.wanted.address
        if address.ephemeral:
            return False
        return found is not None or any(
            address in known for known in self._known.values()
        )

    def _close(self, listener: _Listener, why: str, **values: object) -> None:
        listener.stays()
        self._distributor.closes(listener.bound.address)
        self._sockets.close(listener, why, **values)

    def _remember(self, worker: int, address: Address) -> None:
        known = self._known.setdefault(worker, {})
        known.pop(address, None)
        known[address] = None
        if len(known) > REMEMBERED:
            del known[next(iter(known))]
