"""
Knows the servers of this process, and the connections that they have.

Connections are counted where they begin and end, in C{tcp.Server}, which those of
UNIX sockets are, too.  Nothing stands between a connection and its program.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from twisted.internet import tcp


class Connections:
    """
    What is open.

    @ivar ports: the stream ports that listen on sockets which other workers have, too.
    @ivar live: the transports of the connections that others made to here.
    @ivar count: how many there have been.
    @ivar made: called with the transport of each new one, which its protocol does
        not know yet.
    @ivar ended: called when one has ended.
    @ivar most: how many there are to be; 0 for any number.
    @ivar tired: called when there have been as many.
    """

    def __init__(self) -> None:
        self.ports: set[Any] = set()
        self.live: set[Any] = set()
        self.count = 0
        self.made: Callable[[Any], object] = _nothing
        self.ended: Callable[[], object] = _nothing
        self.most = 0
        self.tired: Callable[[], object] = _nothing

    def install(self) -> Callable[[], None]:
        """
        Count all that begin from now on.

        @return: what undoes it.
        """
        kind: Any = tcp.Server
        init, lose = kind.__init__, kind.connectionLost
        live = self.live

        @wraps(init)
        def __init__(transport: Any, *args: Any, **kwargs: Any) -> None:
            init(transport, *args, **kwargs)
            live.add(transport)
            self.count += 1
            if self.count == self.most:
                self.tired()
            self.made(transport)

        @wraps(lose)
        def connectionLost(transport: Any, *args: Any) -> None:
            try:
                lose(transport, *args)
            finally:
                live.discard(transport)
                self.ended()

        own = "connectionLost" in vars(kind)

        def undo() -> None:
            kind.__init__ = init
            if own:
                kind.connectionLost = lose
            else:
                del kind.connectionLost

        kind.__init__ = __init__
        kind.connectionLost = connectionLost
        return undo


def _nothing(*arguments: object) -> None:
    pass
