"""
Tries whether a target loads, for C{--check}.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Union

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twisted_cluster.errors import StartFailed, TargetLoadError, TargetUsageError
from twisted_cluster.supervisor.process import ClusterReactor
from twisted_cluster.watcher import ClusterWatcher


def checkTarget(
    reactor: ClusterReactor, target: Union[str, Sequence[str]], **options: Any
) -> Deferred[None]:
    """
    Load a target in a worker, without starting it.

    @param options: as L{ClusterWatcher} takes them.
    @return: a Deferred that fires when it could be loaded.  It fails with
        L{TargetLoadError}, L{TargetUsageError}, L{StartFailed}.
    """
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
