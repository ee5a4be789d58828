"""
Who waits for what in the life of a cluster, and what they are told.
"""

from __future__ import annotations

from typing import Optional

from twisted.internet.defer import Deferred

from twisted_cluster.errors import CrashLooping, LifecycleError, Stopped
from twisted_cluster.supervisor.waiters import Waiters


class Outcomes:
    """
    The Deferreds that a watcher has given out.
    """

    def __init__(self) -> None:
        self.serving = Waiters()
        self.over = Waiters()
        self._restarted = Waiters()
        self._restartedNext = Waiters()
        self._scaled = Waiters()

    def whenRestarted(self, during: bool) -> Deferred[None]:
        """
        A Deferred of the outcome of a restart.

        @param during: whether another is under way, which it has to follow.
        """
        waiters = self._restartedNext if during else self._restarted
        return waiters.wait()

    def whenScaled(self) -> Deferred[None]:
        """
        A Deferred that fires when every slot has its worker.
        """
        return self._scaled.wait()

    def restarted(self, failure: Optional[LifecycleError]) -> None:
        """
        A restart is over.
        """
        ended = self._restarted
        self._restarted, self._restartedNext = self._restartedNext, Waiters()
        if failure is None:
            ended.fire()
        else:
            ended.fail(failure)

    def looping(self, why: str) -> None:
        """
        Workers keep dying, so that there are not enough of them.
        """
        scaled, self._scaled = self._scaled, Waiters()
        for waiters in (self.serving, scaled):
            waiters.fail(CrashLooping(why))

    def settled(self) -> None:
        """
        Every slot has its worker, and there are no others.
        """
        scaled, self._scaled = self._scaled, Waiters()
        scaled.fire()

    def ended(self, reason: Optional[Exception]) -> None:
        """
        The cluster is no more.

        @param reason: what was wrong, or L{None} when it was stopped.
        """
        stopped = Stopped("the cluster was stopped")
        self.serving.fail(reason or stopped)
        for waiters in (self._restarted, self._restartedNext, self._scaled):
            waiters.fail(stopped)
        if reason is None:
            self.over.fire()
        else:
            self.over.fail(reason)
