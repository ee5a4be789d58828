"""
What a worker is told when it is started, as one argument on its command line.
"""

from __future__ import annotations

import signal
from typing import Final, Optional

import msgspec

STACKS_SIGNAL: Final = signal.SIGRTMAX - 4
"""The signal at which a worker writes its Python stacks to its stderr."""


class WorkerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """
    The second argument of a worker's bootstrap, in JSON; the target's own
    words follow it untouched.

    @ivar worker: the worker's id: 1, 2, 3 …, never reused.
    @ivar slot: the place it takes, 0 … N-1.
    @ivar generation: which generation of the code it belongs to, from 1.
    @ivar watcher: the watcher's process id.
    @ivar control: the descriptor of the control channel.
    @ivar sockets: the descriptor of the server-socket channel.
    @ivar clients: the descriptor of the client-socket channel.
    @ivar shutdownTimeout: seconds within which a worker that lost its watcher
        must be gone.
    @ivar drainIdle: seconds that a client which has asked for nothing is given when
        the worker drains, and its connection cannot move.
    @ivar connections: how many connections it has until it asks to be recycled; 0
        for any number.
    @ivar socketTimeout: seconds that a listen waits for the watcher's answer.
    @ivar maxMessageSize: the most bytes that one message may take, encoded.
    @ivar logLevel: the name of the lowest L{twisted.logger.LogLevel} to relay.
    @ivar waitReady: whether the program says by itself when it is ready.
    @ivar portless: seconds that the program runs without opening a port until
        it counts as ready.
    @ivar check: load the target, say whether that worked, and leave.
    @ivar reactor: the short name of the reactor that C{default.install} is to
        install, or C{None} for Twisted's own choice.
    @ivar title: the process title, or C{None} to leave it.
    @ivar listenDescriptors: how many descriptors, from 3 on, a service manager
        passed to the watcher (C{LISTEN_FDS}); 0 when it passed none.
    @ivar uid: the user to become after C{privilegedStartService}, or C{None}.
    @ivar gid: the group to become after C{privilegedStartService}, or C{None}.
    """

    worker: int
    slot: int
    generation: int
    watcher: int
    control: int
    sockets: int
    clients: int
    shutdownTimeout: float = 30.0
    drainIdle: float = 5.0
    connections: int = 0
    socketTimeout: float = 120.0
    maxMessageSize: int = 256 * 1024 * 1024
    logLevel: str = "debug"
    waitReady: bool = False
    portless: float = 1.0
    check: bool = False
    reactor: Optional[str] = None
    title: Optional[str] = None
    listenDescriptors: int = 0
    uid: Optional[int] = None
    gid: Optional[int] = None

    def toArgument(self) -> str:
        """
        Write the settings as one word of a command line.
        """
        return msgspec.json.encode(self).decode("utf-8")

    @classmethod
    def fromArgument(cls, argument: str) -> WorkerSettings:
        """
        Read what L{toArgument} wrote.

        @raise msgspec.ValidationError: when the argument is something else.
        """
        return msgspec.json.decode(argument.encode("utf-8"), type=cls)
