"""
The way to a hub, for a process that was told where it is and what to say.
"""

from __future__ import annotations

import os
import socket
from typing import Final, Optional

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_cluster.errors import (
    HubClosed,
    HubRefused,
    HubTimeout,
    ProtocolError,
    UsageError,
)
from twisted_cluster.sockets.hub import handshake
from twisted_cluster.sockets.hub.handshake import HubReactor
from twisted_cluster.sockets.paths import shortened

_PAUSE: Final = 0.05
"""Seconds until a hub is tried again that has too many at its door."""

_WAY_OUT: Final = "; start this process anew, with the uri and a key of one that runs"


def connect(
    reactor: HubReactor, uri: str, key: str, timeout: float = 30.0
) -> Deferred[socket.socket]:
    """
    Connect to the process that has a hub, and expects this one.

    @param uri: its C{uri}.
    @param key: what its C{generateKey} returned.
    @param timeout: seconds to wait until that process has taken the connection
        over.
    @return: a Deferred of the connected socket, which is the caller's:
        non-blocking, close-on-exec, and nothing has been read of what the
        other side sends.  It can be cancelled.  It fails with L{HubRefused};
        L{HubClosed}, when there is no hub, or when it was closed;
        L{HubTimeout}; L{ProtocolError}, when something else than a hub
        answers; C{InvalidKey} or C{InvalidEndpoint}, when the key or the uri
        cannot be one; L{OSError}.
    """
    try:
        path, word = handshake.pathOf(uri), handshake.wordOf(key)
        skt = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except (UsageError, OSError):
        return fail()
    skt.setblocking(False)
    return _Caller(reactor, skt, path, word).call(timeout)


@implementer(IReadDescriptor)
class _Caller:
    """
    One attempt to be let in.
    """

    def __init__(
        self, reactor: HubReactor, skt: socket.socket, path: str, word: bytes
    ) -> None:
        self._reactor = reactor
        self._socket = skt
        self._path = path
        self._word = word
        self._answer = b""
        self._done: Deferred[socket.socket] = Deferred(lambda _: self._end().close())
        self._limit: Optional[IDelayedCall] = None
        self._retry: Optional[IDelayedCall] = None

    def call(self, timeout: float) -> Deferred[socket.socket]:
        """
        Begin.
        """
        self._limit = self._reactor.callLater(timeout, self._tooLate, timeout)
        self._connect()
        return self._done

    def _connect(self) -> None:
        self._retry = None
        try:
            with shortened(os.fsencode(self._path)) as path:
                self._socket.connect(path)
            user = handshake.userOf(self._socket)
        except BlockingIOError:
            # As many wait as may; nothing tells when there is room again.
            self._retry = self._reactor.callLater(_PAUSE, self._connect)
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError) as error:
            self._closed(f"there is no hub at {self._path}: {error.strerror}")
        except PermissionError:
            self._fail(HubRefused(f"the hub at {self._path} is another user's"))
        except OSError as error:
            self._fail(error)
        else:
            self._say(user)

    def _say(self, user: int) -> None:
        mine = os.geteuid()
        if not handshake.goesTo(mine, user):
            self._fail(
                HubRefused(f"the hub at {self._path} is user {user}'s, not {mine}'s")
            )
            return
        try:
            self._socket.send(self._word, socket.MSG_NOSIGNAL)
        except OSError:
            pass  # it has closed the connection: what it said is still to be read
        self._reactor.addReader(self)

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "connect"

    def doRead(self) -> None:
        word, most = len(handshake.TAKEN), handshake.LONGEST_REFUSAL
        size = (word if len(self._answer) < word else most) - len(self._answer)
        try:
            data = self._socket.recv(size)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        answer = self._answer = self._answer + data
        if answer == handshake.TAKEN:
            self._done.callback(self._end())
        elif data and _mayGoOn(answer):
            return
        elif answer.startswith(handshake.REFUSED):
            reason = answer[word:].decode("utf-8", "replace")
            self._fail(HubRefused(f"the hub at {self._path} refused: {reason}"))
        elif answer:
            self._fail(ProtocolError(f"what listens at {self._path} is no hub"))
        else:
            self._closed(f"the hub at {self._path} closed the connection")

    def connectionLost(self, reason: Failure) -> None:
        """
        The reactor stops.
        """
        self._closed(f"lost the connection to the hub at {self._path}")

    def _tooLate(self, seconds: float) -> None:
        self._fail(
            HubTimeout(
                f"the hub at {self._path} did not let this process in within "
                f"{seconds:g} s"
            )
        )

    def _closed(self, what: str) -> None:
        self._fail(HubClosed(what + _WAY_OUT))

    def _fail(self, error: Exception) -> None:
        self._end().close()
        self._done.errback(error)

    def _end(self) -> socket.socket:
        """
        Do no more.

        @return: the socket, which is the caller's.
        """
        self._reactor.removeReader(self)
        for call in (self._limit, self._retry):
            if call is not None and call.active():
                call.cancel()
        return self._socket


def _mayGoOn(answer: bytes) -> bool:
    """
    Whether more belongs to this part of an answer.
    """
    if answer.startswith(handshake.REFUSED):
        return len(answer) < handshake.LONGEST_REFUSAL
    return handshake.TAKEN.startswith(answer) or handshake.REFUSED.startswith(answer)
