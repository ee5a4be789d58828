"""
Decides when a service has started: its own start has ended, and every listen
that was begun meanwhile has ended well.

Twisted does not wait for either.  A parent drops what C{startService} of its
children returns, and C{StreamServerEndpointService} logs a listen that failed
and counts as started.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Optional

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import IService
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IReactorCore,
    IStreamServerEndpoint,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_cluster.errors import TargetError
from twisted_cluster.interfaces import IStartup
from twisted_cluster.worker.failures import failureError


class ServiceStart:
    """
    Watches one start, as a context manager around it, and then until whatever
    began has ended.

    @ivar error: why the start failed, or L{None}.
    """

    def __init__(self, what: str, startup: IStartup) -> None:
        """
        @param what: the target, in words.
        """
        self._what = what
        self._startup = startup
        self._pending = 0
        self._running = False
        self._cancelled = False
        self._reactor: Optional[IReactorCore] = None
        self._undos: list[Callable[[], None]] = []
        self.error: Optional[TargetError] = None

    def __enter__(self) -> ServiceStart:
        self._watchListens()
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        if value is not None:
            self._unwatch()

    def watchStarts(self, services: Iterable[IService]) -> None:
        """
        Wait also for the Deferreds that these services return when they are
        started.
        """
        for service in services:
            self._watchStart(service)

    def wait(self, deferred: Deferred[object]) -> None:
        """
        Wait also for this, the result of which is not touched.  A cancellation
        is no failure: it was stopped before it had started.
        """
        self._pending += 1

        def ended(result: object) -> object:
            self._pending -= 1
            if not isinstance(result, Failure):
                self._look()
            elif result.check(CancelledError):
                self._cancelled = True
                self._unwatch()
            else:
                self._fail(failureError(self._what, result))
            return result

        deferred.addBoth(ended)

    def runsWith(self, reactor: IReactorCore) -> None:
        """
        The start has returned, and this is the reactor that will be run.  It is
        stopped if the start fails after all.
        """
        self._reactor = reactor
        reactor.callWhenRunning(self._reactorRuns)

    def _reactorRuns(self) -> None:
        self._running = True
        if self.error is not None:
            self._stop()
        self._look()

    def _look(self) -> None:
        over = self.error is not None or self._cancelled
        if self._running and not self._pending and not over:
            self._running = False
            self._unwatch()
            self._startup.serviceStarted()

    def _fail(self, error: TargetError) -> None:
        if self.error is not None:
            return
        self.error = error
        self._unwatch()
        self._startup.failed("start", error.reason, error.traceback)
        if self._running:
            self._stop()

    def _stop(self) -> None:
        assert self._reactor is not None
        try:
            self._reactor.stop()
        except ReactorNotRunning:
            pass

    def _watchStart(self, service: Any) -> None:
        original: Callable[[], object] = service.startService
        own = "startService" in vars(service)

        def startService() -> object:
            result = original()
            if isinstance(result, Deferred):
                self.wait(result)
            return result

        try:
            service.startService = startService
        except AttributeError:
            return

        def undo() -> None:
            if own:
                service.startService = original
            else:
                del service.startService

        self._undos.append(undo)

    def _watchListens(self) -> None:
        owner: Any = StreamServerEndpointService
        original = owner.privilegedStartService
        start = self

        def privilegedStartService(self: StreamServerEndpointService) -> None:
            endpoint = self.endpoint
            self.endpoint = _WatchedEndpoint(endpoint, start)
            try:
                original(self)
            finally:
                self.endpoint = endpoint

        def undo() -> None:
            owner.privilegedStartService = original

        owner.privilegedStartService = privilegedStartService
        self._undos.append(undo)

    def _unwatch(self) -> None:
        while self._undos:
            self._undos.pop()()


@implementer(IStreamServerEndpoint)
class _WatchedEndpoint:
    """
    Stands in for an endpoint while it is asked to listen.
    """

    def __init__(self, endpoint: IStreamServerEndpoint, start: ServiceStart) -> None:
        self._endpoint = endpoint
        self._start = start

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """
        See L{IStreamServerEndpoint.listen}.
        """
        listening = self._endpoint.listen(protocolFactory)
        self._start.wait(listening)  # type: ignore[arg-type]
        return listening
