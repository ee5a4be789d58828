"""
Decides which listening sockets exist, and which worker gets which.

The rules:

  1. One address, one socket, whoever asks; it outlives every worker that uses
     it.  A second use by the same worker is refused as C{bind} would refuse
     it.
  2. The n-th request for port 0 on a host gets, from every worker, the same
     socket.
  3. What a worker opens while it starts, or names as the cluster's, is the
     cluster's.  Later it shares what the cluster knows: what is open, and what
     any living worker has shared before.  All else is its own.
  4. A socket is closed when the last worker that uses it deliberately stops
     listening.  What a worker leaves behind that stops or dies does not count
     until the fleet has settled: somebody is owed it.  A worker that has opened
     nothing yet is owed it a while longer, since it may open its ports late; that
     time is over, and begins anew, when the fleet settles anew.  What was bound
     by C{--bind} stays until the end.
  5. A worker that has shed privileges gets nothing bound that it could not
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

from twisted_cluster.sockets.addresses import (
    Address,
    BindRequest,
    Own,
    Refused,
    Shared,
    SocketRequest,
    Verdict,
    parseBind,
)
from twisted_cluster.sockets.binding import (
    BoundSocket,
    LockHeld,
    bindSocket,
    makeSocket,
)
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

_Ephemeral = tuple[str, str, int]


def _nobodyKnows(worker: int) -> Optional[Credentials]:
    return None


@attrs.define(eq=False)
class _Listener:
    """
    A socket, and who uses it.

    @ivar bound: the socket.
    @ivar pinned: whether it stays open without users.
    @ivar users: the ids of the workers that listen on it.
    @ivar ephemeral: as which request for port 0 it was made, if it was.
    @ivar late: whether workers ask for it after their start.
    @ivar expiry: closes it, unless it is used before.
    """

    bound: BoundSocket
    pinned: bool = False
    users: set[int] = attrs.field(factory=set)
    ephemeral: Optional[_Ephemeral] = None
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
    ) -> None:
        """
        @param backlog: how many connections may wait on a socket, at least.
        @param credentials: finds whose rights the worker of an id has now; it
            is only asked where this process is privileged.
        @param grace: seconds that a socket which nobody uses is kept for workers
            that have opened nothing yet.
        """
        self._backlog = backlog
        self._clock = clock
        self._credentials = credentials
        self._log = Logger("twisted_cluster") if log is None else log
        self._open: dict[Address, _Listener] = {}
        self._ephemeral: dict[_Ephemeral, Address] = {}
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
        return sorted(map(str, self._open))

    def bind(self, description: str) -> None:
        """
        Open a socket that stays open until L{closeAll}.

        @param description: as L{parseBind} takes it.
        @raise InvalidEndpoint: when it cannot be understood.
        @raise CannotListenError: when it cannot be bound.
        """
        wanted = parseBind(description)
        listener = self._open.get(wanted.address)
        if listener is None:
            address = wanted.address
            interface = None if address.kind == "unix" else address.host
            port = address.path if address.kind == "unix" else address.port
            try:
                listener = self._add(
                    bindSocket(wanted, makeSocket(address), self._backlog)
                )
            except LockHeld as error:
                raise CannotListenError(interface, port, str(error)) from None
            except OSError as error:
                raise CannotListenError(interface, port, error) from error
            if address.ephemeral:
                index = 0
                while (address.kind, address.host, index) in self._ephemeral:
                    index += 1
                self._name(listener, (address.kind, address.host, index))
        listener.bound.atLeast(wanted.backlog)
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
        listener = self._find(request)
        if listener is None and not self._belongs(request):
            skt.close()
            return Own()
        if listener is not None and worker in listener.users:
            alongside = _reusesPort(skt) and _reusesPort(listener.bound.socket)
            skt.close()
            if alongside:
                return Own()
            return Refused(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        rights = self._credentials(worker) if os.geteuid() == 0 else None
        if listener is None or listener.bound.vanished():
            try:
                bound = self._bindFor(rights, wanted, listener, skt)
            except LockHeld as error:
                refused = Refused(0, str(error))
                return self._refusals.note(worker, wanted.address, refused, self._open)
            except OSError as error:
                refused = Refused(error.errno or 0, error.strerror or str(error))
                return self._refusals.note(worker, wanted.address, refused, self._open)
            if listener is None:
                listener = self._add(bound)
                if wanted.address.ephemeral:
                    self._name(listener, _ephemeralOf(request))
            else:
                listener.bound.unlock()
                listener.bound.socket.close()
                listener.bound = bound
            self._refusals.forget(wanted.address)
        else:
            skt.close()
            self._adjust(rights, wanted, listener.bound)
        listener.stays()
        listener.users.add(worker)
        listener.late = not request.starting
        if wanted.address.kind != "udp":
            self._serving.add(worker)
        if listener.ephemeral is None:
            self._remember(worker, listener.bound.address)
        return Shared(listener.bound.socket, listener.bound.address)

    def release(self, worker: int, address: Address) -> None:
        """
        A worker stopped listening.
        """
        listener = self._open.get(address)
        if listener is None or worker not in listener.users:
            return
        listener.users.discard(worker)
        if not listener.users and not listener.pinned and worker not in self._stopping:
            self._close(listener, "worker {worker} stopped listening", worker=worker)

    def hasServed(self, worker: int) -> bool:
        """
        Tell whether a living worker has ever shared a stream socket.
        """
        return worker in self._serving

    def workerStopping(self, worker: int) -> None:
        """
        From now on, what this worker gives back stays open until L{settle}.
        """
        self._stopping.add(worker)
        self.unsettle()

    def workerGone(self, worker: int) -> None:
        """
        A worker is dead.  What it used stays open until L{settle}.
        """
        self._stopping.discard(worker)
        self._serving.discard(worker)
        self._known.pop(worker, None)
        for listener in self._open.values():
            listener.users.discard(worker)
        self.unsettle()

    def unsettle(self) -> None:
        """
        Somebody is owed what nobody uses: it stays open until L{settle}, which
        begins the grace anew.
        """
        for listener in self._open.values():
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
        for listener in list(self._open.values()):
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

    def closeAll(self) -> None:
        """
        Close every socket, and remove what is left of them in the file system.
        """
        for listener in list(self._open.values()):
            self._close(listener, "the cluster stops")
        self._known.clear()
        self._stopping.clear()
        self._serving.clear()
        self._refusals.clear()

    def _find(self, request: SocketRequest) -> Optional[_Listener]:
        address: Optional[Address] = request.wanted.address
        if request.wanted.address.ephemeral:
            if not (request.explicit or request.starting):
                return None
            address = self._ephemeral.get(_ephemeralOf(request))
        return None if address is None else self._open.get(address)

    def _belongs(self, request: SocketRequest) -> bool:
        if request.explicit or request.starting:
            return True
        address = request.wanted.address
        return any(address in known for known in self._known.values())

    def _bindFor(
        self,
        rights: Optional[Credentials],
        wanted: BindRequest,
        old: Optional[_Listener],
        skt: socket.socket,
    ) -> BoundSocket:
        if old is not None:
            self._log.warn(
                "Somebody removed the file of {address}: it is bound anew.  Only "
                "workers that listen from now on can be reached there; send the "
                "watcher HUP, so that all are.",
                address=wanted.address,
            )
            old.bound.unlock()
        return withRightsOf(rights, lambda: bindSocket(wanted, skt, self._backlog))

    def _adjust(
        self, rights: Optional[Credentials], wanted: BindRequest, bound: BoundSocket
    ) -> None:
        bound.atLeast(wanted.backlog)
        try:
            withRightsOf(rights, lambda: bound.changeMode(wanted.mode))
        except OSError as error:
            self._log.warn(
                "The mode of {address} stays {mode:o}: {error}",
                address=bound.address,
                mode=bound.mode,
                error=error,
            )

    def _add(self, bound: BoundSocket) -> _Listener:
        listener = self._open[bound.address] = _Listener(bound)
        self._log.info("Listening on {address}", address=str(bound.address))
        return listener

    def _name(self, listener: _Listener, ephemeral: _Ephemeral) -> None:
        listener.ephemeral = ephemeral
        self._ephemeral[ephemeral] = listener.bound.address

    def _close(self, listener: _Listener, why: str, **values: object) -> None:
        listener.stays()
        address = listener.bound.address
        del self._open[address]
        if listener.ephemeral is not None:
            del self._ephemeral[listener.ephemeral]
        try:
            listener.bound.close()
        except OSError as error:
            self._log.warn(
                "The file of {address} could not be removed: {error}",
                address=address,
                error=error,
            )
        self._log.info("Closed {address}: " + why, address=str(address), **values)

    def _remember(self, worker: int, address: Address) -> None:
        known = self._known.setdefault(worker, {})
        known.pop(address, None)
        known[address] = None
        if len(known) > REMEMBERED:
            del known[next(iter(known))]


def _ephemeralOf(request: SocketRequest) -> _Ephemeral:
    address = request.wanted.address
    return address.kind, address.host, request.index


def _reusesPort(skt: socket.socket) -> bool:
    try:
        return bool(skt.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT))
    except OSError:
        return False
