"""
How a process shows a hub that it is the one that is expected.

The rules, which hold on both sides of a connection:

  1. The process that connects says its key, which is L{LENGTH} bytes, and
     nothing more until it is answered.
  2. The hub answers L{TAKEN}: from here on the connection belongs to those who
     asked for it.  Or it answers L{REFUSED} with the reason after it, up to the
     end of the stream.
  3. Neither side reads a byte beyond that.
  4. A hub lets in its own user and root.  Who connects says its key to its own
     user's hubs and to root's; root says it to whom it was told to.
"""

from __future__ import annotations

import hmac
import os
import secrets
import socket
import struct
from collections.abc import Iterable
from typing import Final, Optional

from twisted.internet.interfaces import IReactorFDSet, IReactorTime

from twisted_cluster.errors import InvalidEndpoint, InvalidKey

LENGTH: Final = 64
"""
The bytes of a key: lower-case hexadecimal digits.
"""

TAKEN: Final = b"ok"
REFUSED: Final = b"no"
LONGEST_REFUSAL: Final = 512

ROOT: Final = 0

_SCHEME: Final = "unix:"
_CREDENTIALS: Final = struct.Struct("3i")


class HubReactor(IReactorFDSet, IReactorTime):
    """
    What a hub, and who connects to one, need of a reactor.
    """


def newKey() -> str:
    """
    Make a key that nobody can guess.
    """
    return secrets.token_hex(LENGTH // 2)


def wordOf(key: str) -> bytes:
    """
    Write a key as it is said.

    @raise InvalidKey: when it is none: cut short, say, on its way.
    """
    if len(key) != LENGTH or not set(key) <= set("0123456789abcdef"):
        raise InvalidKey(
            f"a key of a hub is {LENGTH} hexadecimal digits, and this is a text of "
            f"{len(key)} characters; pass on what generateKey() returned, whole"
        )
    return key.encode("ascii")


def whichKey(said: bytes, keys: Iterable[str]) -> Optional[str]:
    """
    Find the key that was said.  How long that takes does not depend on what
    was said: each is compared, and none of them but as a whole.

    @param said: L{LENGTH} bytes.
    """
    found = None
    for key in keys:
        if hmac.compare_digest(said, key.encode("ascii")):
            found = key
    return found


def refusal(reason: str) -> bytes:
    """
    Write a refusal.
    """
    return (REFUSED + reason.encode("utf-8"))[:LONGEST_REFUSAL]


def uriOf(path: str) -> str:
    """
    Name a hub by the path of its socket.
    """
    return _SCHEME + path


def pathOf(uri: str) -> str:
    """
    Find the path of a hub's socket.

    @raise InvalidEndpoint: when this names no hub.
    """
    path = uri[len(_SCHEME) :]
    if not (uri.startswith(_SCHEME) and os.path.isabs(path)):
        raise InvalidEndpoint(f"{uri!r} names no hub: one is unix:/path/of/its.sock")
    return path


def userOf(skt: socket.socket) -> int:
    """
    Find the user whom the other end of a UNIX socket belonged to when it
    connected, or began to listen.

    @raise OSError: when the kernel does not tell.
    """
    size = _CREDENTIALS.size
    credentials = skt.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    uid: int = _CREDENTIALS.unpack(credentials)[1]
    return uid


def letsIn(hub: int, guest: int) -> bool:
    """
    Whether the hub of one user may let in a process of another.
    """
    return guest in (hub, ROOT)


def goesTo(guest: int, hub: int) -> bool:
    """
    Whether a process of one user may say its key to the hub of another.
    """
    return guest == ROOT or hub in (guest, ROOT)
