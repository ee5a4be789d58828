"""
Tries whether a target loads, for C{--check}.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Union

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twisted_cluster.errors import StartFailed, TargetLoadError, TargetUsageError
from twisted_cluster.sockets.addresses import parseBind
from twisted_cluster.supervisor.process import ClusterReactor
from twisted_cluster.watcher import ClusterWatcher
from twisted_cluster.worker.target import parseTarget

_SHOWN: Final = {"script": "compiles", "module": "is found"}


def checkTarget(
    reactor: ClusterReactor,
    target: Union[str, Sequence[str]],
    *,
    binds: Sequence[str] = (),
    **options: Any,
) -> Deferred[None]:
    """
    Load a target in a worker, without starting it.

    @param binds: endpoint descriptions, which are read but not bound: they may
        well be in use by the cluster whose next program this is.
    @param options: as L{ClusterWatcher} takes them.
    @return: a Deferred that fires when it could be loaded.  It fails with
        L{TargetLoadError}, L{TargetUsageError}, L{StartFailed}.
    @raise InvalidEndpoint: when one of C{binds} cannot be understood.
    """
    for description in binds:
        parseBind(description)
    watcher = ClusterWatcher(reactor, target, 1, check=True, **options)
    watcher.startService()

    def failed(reason: Failure) -> None:
        error = reason.value
        if not isinstance(error, StartFailed):
            reason.raiseException()
        elif error.status != 0:
            kind = {2: TargetUsageError, 4: TargetLoadError}.get(error.status)
            raise error if kind is None else kind(str(error))

    return watcher.whenStopped().addErrback(failed)


def shown(target: Sequence[str]) -> str:
    """
    Say what a target does of which L{checkTarget} found nothing wrong.
    """
    return _SHOWN.get(parseTarget(target).kind, "loads")
