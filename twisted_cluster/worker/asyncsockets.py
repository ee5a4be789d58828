"""
The sockets of asyncio's servers: how a shared one is held, named, and refused.
"""

from __future__ import annotations

import errno
import inspect
import os
import socket
import stat
import sys
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any, Final, Optional

import attrs

from twisted_cluster.sockets.addresses import Address, Kind, Refused, Shared
from twisted_cluster.sockets.paths import fits, shortened

_TCPI_BACKLOG: Final = 28
"""
Where C{struct tcp_info} has C{tcpi_sacked}: of a listening socket, its backlog.
"""


class SharedSocket(socket.socket):
    """
    One process's copy of a shared socket, which is given back when it is
    closed, and whose backlog is the watcher's.
    """

    _release: Optional[Callable[[], None]] = None
    _path: Optional[str] = None

    @classmethod
    def of(cls, shared: Shared, release: Callable[[Address], None]) -> SharedSocket:
        """
        Take a shared socket over.
        """
        skt = cls(fileno=shared.socket.detach())
        skt._release = lambda: release(shared.address)
        if not fits(shared.address.path):
            skt._path = os.fsdecode(shared.address.path)
        return skt

    def getsockname(self) -> Any:
        """
        Tell the address: that of a long path is not what the kernel says.
        """
        return super().getsockname() if self._path is None else self._path

    def listen(self, backlog: int = 0, /) -> None:
        """
        It listens already.
        """

    def close(self) -> None:
        """
        Close this copy, and release the address.
        """
        super().close()
        self._giveBack()

    def detach(self) -> int:
        """
        Let the descriptor go, as uvloop does after it has closed it itself,
        and release the address.
        """
        descriptor = super().detach()
        self._giveBack()
        return descriptor

    def _giveBack(self) -> None:
        release, self._release = self._release, None
        if release is not None:
            release()


async def resolve(
    loop: Any, host: Any, port: Any, family: int, kind: int, flags: int
) -> list[Any]:
    """
    Resolve what C{create_server} takes for a host: a name, several, or none.
    """
    if host == "" or host is None:
        hosts: Iterable[Any] = [None]
    elif isinstance(host, (str, bytes)) or not isinstance(host, Iterable):
        hosts = [host]
    else:
        hosts = host
    names: dict[Any, None] = {}
    for each in hosts:
        found = await loop.getaddrinfo(
            each, port, family=family, type=kind, flags=flags
        )
        if not found:
            raise OSError(f"getaddrinfo({each!r}) returned empty list")
        for info in found:
            if info[0] in (socket.AF_INET, socket.AF_INET6):
                names[info[4]] = None
    return list(names)


def addressOf(kind: Kind, name: Any) -> Address:
    """
    Name what C{getaddrinfo} found.
    """
    scope = f"%{name[3]}" if len(name) > 3 and name[3] else ""
    return Address.internet(kind, name[0].partition("%")[0] + scope, name[1])


@attrs.frozen
class Wording:
    """
    How a version of C{create_server} takes a bind that fails.

    @ivar plain: it tells C{strerror} alone, without the number.
    @ivar optional: it passes an address over that this machine does not have.
    """

    plain: bool = True
    optional: bool = False

    @classmethod
    def of(cls, original: Callable[..., Any]) -> Wording:
        """
        Look into the method itself, if it is Python's.
        """
        if not isinstance(original, FunctionType):
            return cls()
        names = original.__code__.co_names
        return cls("strerror" in names, "EADDRNOTAVAIL" in names)

    def skips(self, error: OSError) -> bool:
        """
        Whether it goes on to the next address.
        """
        return error.errno == errno.EAFNOSUPPORT or (
            self.optional and error.errno == errno.EADDRNOTAVAIL
        )

    def refusal(self, refused: Refused, address: Address, name: Any) -> OSError:
        """
        Make the exception that asyncio raises alone.
        """
        if address.kind == "unix":
            if refused.errno == errno.EADDRINUSE:
                return OSError(refused.errno, f"Address {name!r} is already in use")
            return OSError(refused.errno, refused.message)
        text = refused.message
        if not self.plain:
            text = f"[Errno {refused.errno}] {text}"
        return OSError(
            refused.errno,
            f"error while attempting to bind on address {name!r}: {text.lower()}",
        )


PLAIN: Final = Wording()


def removeStale(address: Address) -> bool:
    """
    Remove a UNIX socket's path, as asyncio does before it binds, but only if
    nobody listens there.
    """
    if not address.inFilesystem:
        return False
    try:
        if not stat.S_ISSOCK(os.stat(address.path).st_mode):
            return False
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            with shortened(address.path) as path:
                probe.connect(path)
    except ConnectionRefusedError:
        os.remove(address.path)
        return True
    except OSError:
        return False
    return False


def takesCleanup(original: Callable[..., Any]) -> bool:
    """
    Whether C{create_unix_server} would remove the path of the socket that it
    is given when it closes: from Python 3.13 on, and newer versions of uvloop.
    """
    try:
        return "cleanup_socket" in inspect.signature(original).parameters
    except (TypeError, ValueError):
        return True


def backlogOf(skt: socket.socket, asked: int) -> int:
    """
    Find what to pass as C{backlog}: uvloop calls C{listen} again, which must
    not make the queue of a shared socket shorter.
    """
    if not isinstance(skt, SharedSocket):
        return asked
    if skt.family == socket.AF_UNIX:
        return max(asked, socket.SOMAXCONN)
    try:
        info = skt.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    except OSError:
        return max(asked, socket.SOMAXCONN)
    found = int.from_bytes(info[_TCPI_BACKLOG : _TCPI_BACKLOG + 4], sys.byteorder)
    return max(asked, found)
