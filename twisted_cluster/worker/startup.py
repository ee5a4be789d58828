"""
The start of a worker: hears what happens, asks the policy, tells the watcher.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Optional

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from twisted_cluster.interfaces import IStartup
from twisted_cluster.policy.readiness import LookAgain, Now, Readiness


@implementer(IStartup)
class Startup:
    """
    What every part of a worker that has to do with its start talks to.
    """

    def __init__(
        self,
        readiness: Readiness,
        sayReady: Callable[[], None],
        sayFailed: Callable[[str, str, str], None],
    ) -> None:
        """
        @param sayReady: called once, when the worker is ready.
        @param sayFailed: called at most once, with a stage, a reason and a
            traceback, see L{twisted_cluster.ipc.commands.Failed}.
        """
        self._readiness = readiness
        self._sayReady = sayReady
        self._sayFailed = sayFailed
        self._clock: Optional[IReactorTime] = None
        self._nextLook: Optional[IDelayedCall] = None
        self._waiting: list[Callable[[], object]] = []
        self._hasFailed = False
        self.ready = False

    def isService(self, isService: bool) -> None:
        """
        Say whether the target is a service, which reports its own start.
        """
        self._readiness.isService = isService

    def reactorRuns(self, clock: IReactorTime) -> None:
        """
        The program's reactor has started to run.
        """
        self._clock = clock
        self._readiness.reactorRuns(clock.seconds())
        self._look()

    def portOpened(self) -> None:
        """
        See L{IStartup.portOpened}.
        """
        self._readiness.portOpened(
            0.0 if self._clock is None else self._clock.seconds()
        )
        self._look()

    def serviceStarted(self) -> None:
        """
        See L{IStartup.serviceStarted}.
        """
        self._readiness.serviceStarted()
        self._look()

    def saysReady(self) -> None:
        """
        The program called C{cluster.ready()}.
        """
        self._readiness.saysReady()
        self._look()

    def failed(self, stage: str, reason: str, traceback: str) -> None:
        """
        See L{IStartup.failed}.
        """
        if not self._hasFailed and not self.ready:
            self._hasFailed = True
            self._sayFailed(stage, reason, traceback)

    def whenReady(self, callable: Callable[[], object]) -> None:
        """
        See L{IStartup.whenReady}.
        """
        if self.ready:
            callable()
        else:
            self._waiting.append(callable)

    def _look(self) -> None:
        if self.ready or self._hasFailed or self._clock is None:
            return
        if self._nextLook is not None and self._nextLook.active():
            self._nextLook.cancel()
        decision = self._readiness.decide(self._clock.seconds())
        if isinstance(decision, LookAgain):
            self._nextLook = self._clock.callLater(decision.seconds, self._look)
        elif isinstance(decision, Now):
            self.ready = True
            waiting, self._waiting = self._waiting, []
            for callable in waiting:
                callable()
            self._sayReady()
