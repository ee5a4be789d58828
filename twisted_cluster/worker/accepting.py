"""
Lets the workers that accept on a shared socket take turns.

The kernel wakes every worker that waits for a listening socket with epoll, for
each connection: one gets it, the others have woken for nothing, and who is the
fastest today is so tomorrow.  Three things change that, each of no use, or
worse, without the others:

 - Waiting with C{EPOLLEXCLUSIVE}, the kernel wakes only one of those that are
   idle: the one that has waited the longest.  A worker that is busy does not
   count as waiting, so no connection waits for it.
 - After it has accepted, a worker waits anew, behind all others.  Otherwise it
   would be the one with the longest wait for ever.
 - A worker accepts a few connections at a time, so that a burst is for all.

A worker that was woken and stops listening before it comes to accept would leave
the connection to nobody, so it accepts one more.  The price that remains: when it
is killed or stopped (SIGSTOP) then, or the program pauses the port, the connection
stays in the socket until the next one comes, or a worker starts.

Where the reactor does not wait with epoll, all stays as it is: measured, none of
the three makes the shares even there.

This is the one place that touches these private parts of Twisted and asyncio:
C{EPollReactor._poller}, C{AsyncioSelectorReactor._asyncioEventloop} and its
C{_selector._selector}.  Where they are not as expected, all stays as it is, too.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any, Final, Optional

from twisted.logger import Logger

_log = Logger("twisted_cluster")

_MOST: Final = 4
"""
How many connections to accept at a time.  With fewer, many workers under full
load are a little more even, and two need a tenth more CPU for a connection.
"""

_AGAIN: Final = 1.0
"""Seconds until it is tried again to wait for connections."""

_WAITING: Final = select.EPOLLIN | getattr(select, "EPOLLEXCLUSIVE", 0)


def takeTurns(port: Any) -> None:
    """
    Make a port accept in turns with those of other workers on the same socket.

    @param port: a L{tcp.Port<twisted.internet.tcp.Port>} or a
        L{unix.Port<twisted.internet.unix.Port>} that does not listen yet.
        Starting, stopping and losing it stay what they are.
    """
    poller = _pollerOf(port.reactor)
    known = isinstance(getattr(port.doRead, "__self__", None), _Turns)
    if poller is not None and not known:
        _Turns(port, poller)


def _pollerOf(reactor: Any) -> Optional[select.epoll]:
    """
    Find what a reactor waits with, if it is epoll.
    """
    loop = getattr(reactor, "_asyncioEventloop", None)
    selector = getattr(loop, "_selector", None)
    for poller in (
        getattr(reactor, "_poller", None),
        getattr(selector, "_selector", None),
    ):
        if isinstance(poller, select.epoll):
            return poller
    return None


class _Turns:
    """
    Stands before some methods of a port.  The reactor's own records of what it
    waits for are left alone, for they do not tell how.
    """

    def __init__(self, port: Any, poller: select.epoll) -> None:
        self._port = port
        self._poller = poller
        self._waits = False
        self._accepting = False
        self._lost = False
        self._start: Callable[[], None] = port.startReading
        self._stop: Callable[[], None] = port.stopReading
        self._accept: Callable[[], object] = port.doRead
        port.startReading = self.startReading
        port.stopReading = self.stopReading
        port.doRead = self.doRead

    def startReading(self) -> None:
        """
        Wait for connections.
        """
        self._start()
        self._waits = True
        self._goBehind()

    def stopReading(self) -> None:
        """
        Wait no more.  When the port is closed for good, what it may have been woken
        for is accepted first.
        """
        last = self._waits and self._port.disconnecting and not self._accepting
        self._waits = False
        if self._lost:
            # The reactor expects it there.
            self._lost = not self._register()
        self._stop()
        if last:
            self._acceptUpTo(1)

    def doRead(self) -> object:
        """
        Accept a few of the connections that wait, and go behind the others.
        """
        return self._acceptUpTo(_MOST)

    def _acceptUpTo(self, most: int) -> object:
        self._port.numberAccepts = most
        self._accepting = True
        try:
            return self._accept()
        finally:
            self._accepting = False
            self._goBehind()

    def _goBehind(self) -> None:
        """
        Wait anew, unless the port has stopped to.
        """
        if not self._waits:
            return
        try:
            self._poller.unregister(self._port.fileno())
        except (OSError, ValueError):
            # Somebody took it from the reactor itself, or closed either.
            self._waits = False
            return
        self._lost = not self._register()
        if self._lost:
            _log.error(
                "This worker cannot wait for connections to {port} at the moment, and "
                "tries again: too much is watched (epoll_ctl(2), ENOSPC)",
                port=self._port,
            )
            self._port.reactor.callLater(_AGAIN, self._tryAgain)

    def _register(self) -> bool:
        for flags in (_WAITING, select.EPOLLIN):
            # Linux before 4.5 does not know the first.
            try:
                self._poller.register(self._port.fileno(), flags)
                return True
            except OSError:
                pass
        return False

    def _tryAgain(self) -> None:
        if self._lost and self._waits:
            self._lost = not self._register()
            if self._lost:
                self._port.reactor.callLater(_AGAIN, self._tryAgain)
