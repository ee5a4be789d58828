"""
Keeps bound sockets and who uses each: one for an address, however many ask.

The rules:

  1. One address, one socket, whoever asks.  A second use by one that uses it
     already is refused as C{bind} would refuse it.
  2. The n-th request for port 0 on a host gets, whoever asks, the same socket.
  3. A UNIX socket whose path somebody removed is bound anew for the next that
     asks; who uses the old one keeps that.
  4. More connections may wait when that is asked for, never fewer.

When a socket is closed is for others to decide.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from typing import Generic, Optional, TypeVar, Union
from typing import Protocol as Shape

import attrs
from twisted.logger import Logger

from twisted_cluster.sockets.addresses import (
    Address,
    BindRequest,
    Own,
    Refused,
    SocketRequest,
)
from twisted_cluster.sockets.servers.binding import (
    BoundSocket,
    LockHeld,
    bindSocket,
    makeSocket,
)

_T = TypeVar("_T")


class Doing(Shape):
    """
    Calls an action, in a way of its own.
    """

    def __call__(self, action: Callable[[], _T], /) -> _T: ...


def _justDo(action: Callable[[], _T], /) -> _T:
    return action()


Ephemeral = tuple[str, str, int]
"""
A request for port 0: the kind, the host, and its index.
"""


@attrs.define(eq=False)
class SharedSocket:
    """
    A socket, and who uses it.

    @ivar bound: the socket.
    @ivar users: those that listen on it.
    @ivar ephemeral: as which request for port 0 it was made, if it was.
    """

    bound: BoundSocket
    users: set[int] = attrs.field(factory=set)
    ephemeral: Optional[Ephemeral] = None


S = TypeVar("S", bound=SharedSocket)


class SharedSockets(Generic[S]):
    """
    All sockets of one owner, this object.
    """

    def __init__(
        self, make: Callable[[BoundSocket], S], backlog: int, log: Logger
    ) -> None:
        """
        @param make: makes what is kept of a socket that was bound.
        @param backlog: how many connections may wait on a socket, at least.
        """
        self._make = make
        self._backlog = backlog
        self._log = log
        self._open: dict[Address, S] = {}
        self._ephemeral: dict[Ephemeral, Address] = {}

    def __iter__(self) -> Iterator[S]:
        """
        Go through those that are open now; they may be closed meanwhile.
        """
        return iter(list(self._open.values()))

    @property
    def addresses(self) -> list[Address]:
        """
        What is bound.
        """
        return list(self._open)

    def get(self, address: Address) -> Optional[S]:
        """
        Find the socket that is bound to an address.
        """
        return self._open.get(address)

    def find(self, request: SocketRequest) -> Optional[S]:
        """
        Find the socket that is open for a request.
        """
        address: Optional[Address] = request.wanted.address
        if request.wanted.address.ephemeral:
            address = self._ephemeral.get(_ephemeralOf(request))
        return None if address is None else self._open.get(address)

    def open(self, wanted: BindRequest) -> S:
        """
        Find or open a socket that nobody uses yet, and make its backlog what is
        wanted.

        @raise OSError: when it cannot be bound.
        @raise LockHeld: likewise.
        """
        address = wanted.address
        found = self._open.get(address)
        if found is None:
            found = self._add(bindSocket(wanted, makeSocket(address), self._backlog))
            if address.ephemeral:
                index = 0
                while (address.kind, address.host, index) in self._ephemeral:
                    index += 1
                self._name(found, (address.kind, address.host, index))
        found.bound.atLeast(wanted.backlog)
        return found

    def use(
        self,
        user: int,
        request: SocketRequest,
        skt: socket.socket,
        do: Doing = _justDo,
    ) -> S:
        """
        Let somebody use the socket of an address, which is bound if it is not
        open.

        @param user: one that does not use it yet, see L{again}.
        @param skt: an unbound socket with the options that are wanted; it is
            taken over, and closed unless it is bound.
        @param do: calls what binds, or changes a mode: with others' rights,
            say.
        @raise OSError: when it cannot be bound; nothing has changed.
        @raise LockHeld: likewise.
        """
        wanted = request.wanted
        found = self.find(request)

        def bind() -> BoundSocket:
            try:
                return do(lambda: bindSocket(wanted, skt, self._backlog))
            except BaseException:
                skt.close()
                raise

        if found is None:
            found = self._add(bind())
            if wanted.address.ephemeral:
                self._name(found, _ephemeralOf(request))
        elif found.bound.vanished():
            found.bound.unlock()
            bound = bind()
            found.bound.socket.close()
            found.bound = bound
        else:
            skt.close()
            self._adjust(do, wanted, found.bound)
        found.users.add(user)
        return found

    def close(self, shared: S, why: str, **values: object) -> None:
        """
        Close a socket, and remove what is left of it in the file system.

        @param why: the reason for the log, a format.
        @param values: what the format needs.
        """
        address = shared.bound.address
        del self._open[address]
        if shared.ephemeral is not None:
            del self._ephemeral[shared.ephemeral]
        try:
            shared.bound.close()
        except OSError as error:
            self._log.warn(
                "The file of {address} could not be removed: {error}",
                address=address,
                error=error,
            )
        self._log.info("Closed {address}: " + why, address=str(address), **values)

    def _adjust(self, do: Doing, wanted: BindRequest, bound: BoundSocket) -> None:
        bound.atLeast(wanted.backlog)
        try:
            do(lambda: bound.changeMode(wanted.mode))
        except OSError as error:
            self._log.warn(
                "The mode of {address} stays {mode:o}: {error}",
                address=bound.address,
                mode=bound.mode,
                error=error,
            )

    def _add(self, bound: BoundSocket) -> S:
        shared = self._open[bound.address] = self._make(bound)
        self._log.info("Listening on {address}", address=str(bound.address))
        return shared

    def _name(self, shared: S, ephemeral: Ephemeral) -> None:
        shared.ephemeral = ephemeral
        self._ephemeral[ephemeral] = shared.bound.address


def again(bound: BoundSocket, skt: socket.socket) -> Union[Own, Refused]:
    """
    Answer one that uses a socket and asks for its address once more: what it
    would meet alone.

    @param skt: what came with the question; it is closed.
    """
    alongside = _reusesPort(skt) and _reusesPort(bound.socket)
    skt.close()
    if alongside:
        return Own()
    return Refused(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def refusal(error: Union[OSError, LockHeld]) -> Refused:
    """
    Answer what cannot be bound.
    """
    if isinstance(error, LockHeld):
        return Refused(0, str(error))
    return Refused(error.errno or 0, error.strerror or str(error))


def _ephemeralOf(request: SocketRequest) -> Ephemeral:
    address = request.wanted.address
    return address.kind, address.host, request.index


def _reusesPort(skt: socket.socket) -> bool:
    try:
        return bool(skt.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT))
    except OSError:
        return False
