"""
The door of a hub: accepts who connects, and listens to what each says.

It is where somebody unknown could do harm, so everything is limited here: how
many are silent at a time, how long each of them is, how much each may say, how
often the log tells of it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Final, Optional

from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_cluster.sockets.hub import handshake
from twisted_cluster.sockets.hub.handshake import HubReactor

MOST_SILENT: Final = 64
"""How many connections may be there that have not said their key yet."""

PATIENCE: Final = 5.0
"""Seconds that a connection may take to say it."""

PAUSE: Final = 0.5
"""Seconds until accepting is tried again that failed for want of descriptors."""

LOG_EVERY: Final = 100
"""Of so many refusals, one is logged."""


@implementer(IReadDescriptor)
class HubDoor:
    """
    A listening socket, which it owns, and the connections on which no key has
    been said yet.
    """

    log = Logger()

    def __init__(
        self,
        reactor: HubReactor,
        skt: socket.socket,
        said: Callable[[socket.socket, bytes], None],
        lost: Callable[[], object],
    ) -> None:
        """
        @param skt: listens, and is non-blocking.
        @param said: is called with a connection, which is its own from then
            on, and the L{handshake.LENGTH} bytes that were said there.
        @param lost: is called when the reactor stops.
        """
        self._reactor = reactor
        self._socket = skt
        self._said = said
        self._lost = lost
        self._user = os.geteuid()
        self._silent: set[_Newcomer] = set()
        self._refusals = 0
        self._pause: Optional[IDelayedCall] = None
        self._troubled = False

    def open(self) -> None:
        """
        Accept, as long as not too many are silent.
        """
        if self._pause is None and self.fileno() != -1:
            self._reactor.addReader(self)

    def shut(self) -> None:
        """
        Accept no more, and close every connection that is still here.
        """
        self._reactor.removeReader(self)
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        self._socket.close()
        for newcomer in list(self._silent):
            newcomer.leave()

    def turnAway(self, skt: socket.socket, reason: str) -> None:
        """
        Close a connection, having told it and the log why.
        """
        if self._refusals % LOG_EVERY == 0:
            self.log.warn(
                "the hub refuses a connection, its number {count}: {reason}",
                count=self._refusals + 1,
                reason=reason,
            )
        self._refusals += 1
        with skt:
            try:
                skt.send(handshake.refusal(reason), socket.MSG_NOSIGNAL)
            except OSError:
                pass  # it has gone, and need not be told

    def fileno(self) -> int:
        """
        The listening socket's descriptor, or -1 when the door is shut.
        """
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """
        Whose descriptor this is.
        """
        return "LocalIPCHub"

    def doRead(self) -> None:
        """
        Accept who is there.
        """
        try:
            while len(self._silent) < MOST_SILENT:
                skt, _ = self._socket.accept()
                self._troubled = False
                self._arrived(skt)
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            self._wait(error)
            return
        self._reactor.removeReader(self)

    def connectionLost(self, reason: Failure) -> None:
        """
        The reactor stops.
        """
        self._lost()

    def _wait(self, error: OSError) -> None:
        """
        Try again later, since it is no use to try at once.
        """
        if not self._troubled:
            self.log.error("the hub cannot accept: {error}", error=error)
        self._troubled = True
        self._reactor.removeReader(self)
        self._pause = self._reactor.callLater(PAUSE, self._goOn)

    def _goOn(self) -> None:
        self._pause = None
        self.open()

    def _arrived(self, skt: socket.socket) -> None:
        skt.setblocking(False)
        user = handshake.userOf(skt)
        if handshake.letsIn(self._user, user):
            newcomer = _Newcomer(self._reactor, skt, self)
            self._silent.add(newcomer)
            newcomer.start()
        else:
            self.turnAway(skt, f"it is user {self._user}'s, and not user {user}'s")

    def _left(self, newcomer: _Newcomer) -> None:
        self._silent.discard(newcomer)
        self.open()


@implementer(IReadDescriptor)
class _Newcomer:
    """
    A connection, which it owns, on which no key has been said yet.
    """

    def __init__(self, reactor: HubReactor, skt: socket.socket, door: HubDoor) -> None:
        self._reactor = reactor
        self._socket = skt
        self._door = door
        self._word = b""
        self._limit: Optional[IDelayedCall] = None

    def start(self) -> None:
        """
        Listen to what it says.
        """
        self._limit = self._reactor.callLater(PATIENCE, self._tooLate)
        self._reactor.addReader(self)

    def leave(self) -> None:
        """
        Close the connection.
        """
        self._release().close()

    def fileno(self) -> int:
        """
        The connection's descriptor.
        """
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """
        Whose descriptor this is.
        """
        return "LocalIPCHub"

    def doRead(self) -> None:
        """
        Read what is left of the key, and nothing more.
        """
        try:
            data = self._socket.recv(handshake.LENGTH - len(self._word))
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        self._word += data
        if not data:
            self.leave()
        elif len(self._word) == handshake.LENGTH:
            self._door._said(self._release(), self._word)

    def connectionLost(self, reason: Failure) -> None:
        """
        It has hung up, or the reactor stops.
        """
        self.leave()

    def _tooLate(self) -> None:
        self._door.turnAway(self._release(), f"no key was said within {PATIENCE:g} s")

    def _release(self) -> socket.socket:
        """
        Leave the connection to the caller.
        """
        self._reactor.removeReader(self)
        if self._limit is not None and self._limit.active():
            self._limit.cancel()
        self._door._left(self)
        return self._socket
