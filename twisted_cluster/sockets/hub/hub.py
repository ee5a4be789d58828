"""
A meeting place: joins this process with others, however those were started, by
connected UNIX sockets.

A process that is to be let in is given a one-time key, in its arguments or its
environment; it L{connects<twisted_cluster.sockets.hub.client.connect>} and says
it.  See L{twisted_cluster.sockets.hub.handshake} for how,
L{twisted_cluster.sockets.hub.directory} for where, and
L{twisted_cluster.sockets.hub.door} for the limits to what strangers can do.
"""

from __future__ import annotations

import os
import socket
from typing import Final, Optional

import attrs
from twisted.internet.defer import Deferred, execute, fail, succeed
from twisted.internet.interfaces import IDelayedCall

from twisted_cluster.errors import (
    AlreadyStarted,
    ChannelClosed,
    HubClosed,
    HubTimeout,
    InvalidKey,
    NotRunning,
)
from twisted_cluster.sockets.hub import handshake
from twisted_cluster.sockets.hub.directory import HubDirectory
from twisted_cluster.sockets.hub.door import HubDoor
from twisted_cluster.sockets.hub.guests import Guest
from twisted_cluster.sockets.hub.handshake import HubReactor
from twisted_cluster.sockets.paths import shortened

LIFETIME: Final = 60.0
"""
Seconds in which somebody must wait for a key that has no lifetime of its own.
"""


@attrs.define(eq=False)
class _Meeting:
    """
    What is known of a key.

    @ivar lasts: whether it has a lifetime of its own.
    @ivar guest: who said it, until somebody waits for it.
    @ivar host: who waits for it, until it is said.
    @ivar limits: the ends of its life, and of the waiting.
    """

    key: str
    lasts: bool
    guest: Optional[Guest] = None
    host: Optional[Deferred[socket.socket]] = None
    limits: list[IDelayedCall] = attrs.field(factory=list)


class LocalIPCHub:
    """
    Lets in processes of this user, and of root, that know a key.

    It may serve any number of keys at once.  When the reactor stops, or L{close}
    is called, its directory is removed.  When the process is killed, that is
    left to the next hub of the same user.
    """

    def __init__(self, reactor: HubReactor, directory: Optional[str] = None) -> None:
        """
        @param directory: where to make the hub's own directory, instead of in
            the one for temporary files.
        """
        self._reactor = reactor
        self._parent = directory
        self._started = False
        self._directory: Optional[HubDirectory] = None
        self._door: Optional[HubDoor] = None
        self._meetings: dict[str, _Meeting] = {}

    def listen(self) -> Deferred[None]:
        """
        Make the directory, and listen.

        @return: a Deferred that fires when processes can connect.  It fails
            with L{AlreadyStarted}, or with an L{OSError}.
        """
        return execute(self._listen)

    def _listen(self) -> None:
        if self._started:
            raise AlreadyStarted("this hub was started already; make another")
        directory = HubDirectory.make(self._parent)
        skt = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with shortened(os.fsencode(directory.socketPath)) as path:
                skt.bind(path)
            os.chmod(directory.socketPath, 0o600)
            skt.listen(socket.SOMAXCONN)
            skt.setblocking(False)
        except BaseException:
            skt.close()
            directory.remove()
            raise
        self._started = True
        self._directory = directory
        self._door = HubDoor(self._reactor, skt, self._said, self.close)
        self._door.open()

    @property
    def uri(self) -> str:
        """
        What L{connect<twisted_cluster.sockets.hub.client.connect>} takes:
        C{unix:/path/of/the/hub.sock}.

        @raise NotRunning: before L{listen} and after L{close}.
        """
        return handshake.uriOf(self._running().socketPath)

    def _running(self) -> HubDirectory:
        if self._directory is None:
            raise NotRunning("this hub does not listen")
        return self._directory

    def generateKey(self, lifetime: Optional[float] = None) -> str:
        """
        Make a key, with which one process may connect once.

        Anybody may see a process's arguments, and nobody can use the key but
        this user and root; so it may travel as an argument.

        @param lifetime: seconds until the key expires, and with it the
            connection of who has said it, unless it was L{accept}ed.  Without
            it, a key expires when L{accept} was not called for it in a minute, and
            lives until that is done with it.
        @raise NotRunning: before L{listen} and after L{close}.
        """
        self._running()
        meeting = _Meeting(handshake.newKey(), lifetime is not None)
        self._meetings[meeting.key] = meeting
        seconds = LIFETIME if lifetime is None else lifetime
        self._limit(meeting, seconds, f"the key has expired after {seconds:g} s")
        return meeting.key

    def accept(self, key: str, timeout: float = 30.0) -> Deferred[socket.socket]:
        """
        Wait for the process that says a key.  It may have said it already.

        The key is used up by this, whatever comes of it: who says it after the
        Deferred has failed, or was cancelled, is refused.

        @param timeout: seconds to wait.
        @return: a Deferred of the connected socket, which is the caller's:
            non-blocking, close-on-exec, and nothing has been read of what
            follows the key.  It fails with L{HubTimeout}, also when the key
            expires; L{HubClosed}, when the hub is closed meanwhile;
            L{ChannelClosed}, when the process said the key and has gone;
            L{InvalidKey}, when the key is not this hub's, was used, has
            expired, or is waited for already; L{NotRunning}.
        """
        if self._directory is None:
            return fail(NotRunning("this hub does not listen"))
        meeting = self._meetings.get(key)
        if meeting is None:
            return fail(
                InvalidKey(
                    "this hub waits for no such key: it was used, has expired, or "
                    "is another hub's; make one with generateKey()"
                )
            )
        if meeting.host is not None:
            return fail(InvalidKey("somebody waits for this key already"))
        host: Deferred[socket.socket] = Deferred(lambda _: self._forget(meeting))
        meeting.host = host
        if not meeting.lasts:
            self._unlimit(meeting)
        if meeting.guest is not None:
            self._join(meeting)
        else:
            self._limit(meeting, timeout, f"nobody said the key within {timeout:g} s")
        return host

    def close(self) -> Deferred[None]:
        """
        Listen no more, close every connection that was not L{accept}ed, and
        remove the directory.  Who waits gets L{HubClosed}.  What was handed
        out stays.  A hub that is closed already stays so.

        @return: a Deferred that has fired.
        """
        self._started = True
        directory, self._directory = self._directory, None
        door, self._door = self._door, None
        if door is not None:
            door.shut()
        if directory is not None:
            directory.remove()
        while self._meetings:
            meeting = next(iter(self._meetings.values()))
            self._forget(meeting)
            skt = None if meeting.guest is None else meeting.guest.release()
            if skt is not None:
                skt.close()
            elif meeting.host is not None:
                meeting.host.errback(HubClosed("the hub was closed"))
        return succeed(None)

    def _limit(self, meeting: _Meeting, seconds: float, why: str) -> None:
        meeting.limits.append(
            self._reactor.callLater(seconds, self._tooLate, meeting, why)
        )

    def _forget(self, meeting: _Meeting) -> None:
        """
        Be done with a key.
        """
        self._meetings.pop(meeting.key, None)
        self._unlimit(meeting)

    def _unlimit(self, meeting: _Meeting) -> None:
        for limit in meeting.limits:
            if limit.active():
                limit.cancel()

    def _tooLate(self, meeting: _Meeting, why: str) -> None:
        self._forget(meeting)
        skt = None if meeting.guest is None else meeting.guest.release()
        if skt is not None:
            self._turnAway(skt, why)
        elif meeting.host is not None:
            meeting.host.errback(HubTimeout(why))

    def _join(self, meeting: _Meeting) -> None:
        """
        Hand who has come to who waits.
        """
        self._forget(meeting)
        guest, host = meeting.guest, meeting.host
        assert guest is not None and host is not None
        skt = guest.release()
        if skt is None:
            host.errback(ChannelClosed("who said the key has gone already"))
            return
        try:
            skt.send(handshake.TAKEN, socket.MSG_NOSIGNAL)
        except OSError as error:
            skt.close()
            host.errback(ChannelClosed(f"who said the key has gone already: {error}"))
        else:
            host.callback(skt)

    def _said(self, skt: socket.socket, word: bytes) -> None:
        """
        A key was said.
        """
        key = handshake.whichKey(word, self._meetings)
        meeting = None if key is None else self._meetings[key]
        if meeting is None or meeting.guest is not None:
            self._turnAway(skt, "the key is wrong, was used already, or has expired")
            return
        meeting.guest = Guest(self._reactor, skt)
        if meeting.host is None:
            meeting.guest.watch()
        else:
            self._join(meeting)

    def _turnAway(self, skt: socket.socket, why: str) -> None:
        assert self._door is not None
        self._door.turnAway(skt, why)
