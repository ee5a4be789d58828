"""
What a program calls, as a worker of a cluster or alone.

    from twisted_cluster import cluster
"""

from __future__ import annotations

from typing import Any, Optional

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.logger import ILogObserver

from twisted_cluster.alone import whenAloneStops
from twisted_cluster.endpoints import MarkedEndpoint
from twisted_cluster.errors import NotAWorker
from twisted_cluster.interfaces import IChannel
from twisted_cluster.worker import context
from twisted_cluster.worker.relay import RelayObserver


def isWorker() -> bool:
    """
    Whether this process is a worker of a cluster.
    """
    return context.current() is not None


def workerID() -> Optional[int]:
    """
    This worker's id: 1, 2, 3 …, never reused; L{None} when run alone.
    """
    worker = context.current()
    return None if worker is None else worker.settings.worker


def slot() -> Optional[int]:
    """
    This worker's slot, 0 … N-1, which its replacement takes over; L{None} when
    run alone.
    """
    worker = context.current()
    return None if worker is None else worker.settings.slot


def serverEndpoint(reactor: Any, description: str) -> IStreamServerEndpoint:
    """
    An endpoint that listens on a socket of the cluster, or alone, on one of
    this process's own.

    @param description: as L{serverFromString} takes it: C{tcp:8080}.
    @raise ValueError: when that cannot be understood.
    """
    return MarkedEndpoint(serverFromString(reactor, description), "cluster")


def channel() -> IChannel:
    """
    The connection to the watcher: messages, requests, other workers.

    @raise NotAWorker: when run alone.
    """
    return _worker("channel").link


def logObserver() -> ILogObserver:
    """
    An observer that relays to the watcher's log.  A worker's global log
    publisher has one already; this is for publishers of one's own.

    @raise NotAWorker: when run alone.
    """
    return RelayObserver(_worker("logObserver").link)


def whenStopping() -> Deferred[None]:
    """
    A Deferred that fires when the program is to end.  The reactor is stopped
    for it: alone right after, and in a worker when its connections have ended; if
    the program stops it earlier, that takes effect then, too.

    In a worker that is the watcher's word, or a signal; alone, it is TERM,
    INT, QUIT or HUP.
    """
    worker = context.current()
    return whenAloneStops() if worker is None else worker.whenStopping()


def ready() -> None:
    """
    Say that the program serves now, for clusters that are run with
    C{--wait-ready}.  Otherwise, and alone, it does nothing.
    """
    worker = context.current()
    if worker is not None:
        worker.startup.saysReady()


def shutdown() -> None:
    """
    End this worker, gracefully; it will be replaced.  Alone, stop the reactor.
    """
    worker = context.current()
    if worker is not None:
        worker.stop(asked=False)
    else:
        from twisted.internet import reactor

        running: Any = reactor
        if running.running:
            running.stop()


def _worker(name: str) -> context.Worker:
    worker = context.current()
    if worker is None:
        raise NotAWorker(
            f"cluster.{name}() needs a watcher, and this process was started alone: "
            f"ask cluster.isWorker() first"
        )
    return worker
