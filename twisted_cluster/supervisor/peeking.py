"""
Looks at the first bytes of connections, and leaves them where they are.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from typing import Any, Final, Optional

from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_cluster.supervisor import openfiles

MOST: Final = 1024
"""
The most connections whose first bytes are waited for; a quarter of the files that
this process may have open, if that is less.
"""

_AGAIN: Final = 0.01
"""Seconds until bytes that were not enough are looked at again, since the kernel
would say at once that there are some; each time, twice as many as before."""
_SELDOM: Final = 0.32
"""The most seconds for that."""


@implementer(IReadDescriptor)
class Peek:
    """
    One connection that is being looked at.
    """

    def __init__(
        self,
        reactor: Any,
        skt: socket.socket,
        most: int,
        patience: float,
        seen: Callable[[bytes, bool], bool],
        done: Callable[[], None],
    ) -> None:
        """
        @param skt: the connection.  It is the caller's once C{seen} has said so,
            or C{done} was called; it is closed when its client has gone.
        @param most: how many bytes to look at, at most.
        @param patience: seconds until no more is waited for.
        @param seen: called with what is there, and whether that is all there
            will be; says whether it is enough, as it is when that is all.
        @param done: called once, when nothing is looked at any more, unless that
            is L{close}'s doing.
        """
        self._reactor = reactor
        self._socket = skt
        self._most = most
        self._patience = patience
        self._seen = seen
        self._done = done
        self._limit: Optional[IDelayedCall] = None
        self._again: Optional[IDelayedCall] = None
        self._pause = _AGAIN
        self._over = False

    def start(self) -> None:
        """
        Look, and wait for what is not there yet.
        """
        self._socket.setblocking(False)
        self._limit = self._reactor.callLater(self._patience, self._look, True)
        self._look(False)

    def settle(self) -> None:
        """
        Wait no more: what is there is all there will be.
        """
        if not self._over:
            self._look(True)

    def close(self) -> None:
        """
        Look no more, and close the connection, if it is not the caller's yet.
        """
        if not self._over:
            self._stop()
            self._socket.close()

    def fileno(self) -> int:
        """
        The connection's descriptor.
        """
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """
        What looks.
        """
        return "peek"

    def doRead(self) -> None:
        """
        There is something.
        """
        self._reactor.removeReader(self)
        self._look(False)

    def connectionLost(self, reason: Failure) -> None:
        """
        The reactor ends, or cannot watch the connection.
        """
        self._gone()

    def _look(self, final: bool) -> None:
        if self._again is not None and self._again.active():
            self._again.cancel()
        self._again = None
        try:
            data = self._socket.recv(self._most, socket.MSG_PEEK)
            ended = not data
        except (BlockingIOError, InterruptedError):
            data, ended = b"", False
        except OSError:
            self._gone()
            return
        if not data and not ended and not final:
            self._reactor.addReader(self)
            return
        final = final or ended or len(data) >= self._most or self._isLast()
        try:
            enough = self._seen(data, final)
        except BaseException:
            self._gone()
            raise
        if self._over:
            return
        if enough:
            self._stop()
            self._done()
        else:
            self._again = self._reactor.callLater(self._pause, self._look, False)
            self._pause = min(self._pause * 2, _SELDOM)

    def _isLast(self) -> bool:
        """
        Whether the client has said that it sends no more: what it sent before is
        still there to be read, so that C{recv} does not tell.
        """
        poll = select.poll()
        poll.register(self._socket, select.POLLRDHUP)
        return bool(poll.poll(0))

    def _gone(self) -> None:
        if not self._over:
            self.close()
            self._done()

    def _stop(self) -> None:
        self._over = True
        for call in (self._limit, self._again):
            if call is not None and call.active():
                call.cancel()
        self._reactor.removeReader(self)


class Peeks:
    """
    The connections that are being looked at, of all addresses, oldest first.

    There are at most L{MOST}, so that clients who say nothing can neither use up
    the watcher's open files nor keep others waiting.
    """

    def __init__(self) -> None:
        self._peeks: dict[Peek, None] = {}

    def __len__(self) -> int:
        return len(self._peeks)

    def start(self, peek: Peek) -> None:
        """
        Look at another, which L{discard} is told of when it is over.  When that is
        one too many, the oldest waits no more.
        """
        self._peeks[peek] = None
        peek.start()
        while len(self._peeks) > min(MOST, openfiles.limit() // 4):
            self._settle()

    def hurry(self) -> None:
        """
        Have the older half wait no more.
        """
        for _ in range((len(self._peeks) + 1) // 2):
            if self._peeks:
                self._settle()

    def discard(self, peek: Peek) -> None:
        """
        One is over.
        """
        self._peeks.pop(peek, None)

    def _settle(self) -> None:
        oldest = next(iter(self._peeks))
        self.discard(oldest)
        oldest.settle()
