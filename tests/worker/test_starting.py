"""
Tests of L{twisted_cluster.worker.starting}.
"""

from __future__ import annotations

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError, ReactorNotRunning
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.worker.driver import RecordingStartup
from twisted_cluster.worker.starting import ServiceStart


class Reactor(MemoryReactorClock):
    """
    A reactor that begins to run when it is told, and counts its stops.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stops = 0

    def stop(self) -> None:
        """
        Stop once.
        """
        self.stops += 1
        if self.stops > 1:
            raise ReactorNotRunning()

    def begin(self) -> None:
        """
        Run.
        """
        self.running = True
        for function, args, kwargs in self.whenRunningHooks:
            function(*args, **kwargs)


@implementer(IStreamServerEndpoint)
class Endpoint:
    """
    An endpoint that listens when it is told.
    """

    def __init__(self, listening: Deferred[IListeningPort] | None = None) -> None:
        self.listening = listening or Deferred()

    def listen(self, protocolFactory: object) -> Deferred[IListeningPort]:
        """
        See L{IStreamServerEndpoint.listen}.
        """
        return self.listening


class Returns(Service):
    """
    A service that returns something from its start.
    """

    def __init__(self, result: object) -> None:
        self.result = result

    def startService(self) -> object:
        """
        Start.
        """
        super().startService()
        return self.result


class ServiceStartTests(SynchronousTestCase):
    """
    L{ServiceStart} says that a service has started when all of it has.
    """

    def setUp(self) -> None:
        self.startup = RecordingStartup()
        self.reactor = Reactor()
        self.start = ServiceStart("thing", self.startup)
        self.root = MultiService()

    def begin(self, *services: Service) -> None:
        for service in services:
            service.setServiceParent(self.root)
        with self.start:
            self.start.watchStarts(self.root)
            self.root.privilegedStartService()
            self.root.startService()
        self.start.runsWith(self.reactor)
        self.reactor.begin()

    def listener(self, endpoint: Endpoint) -> StreamServerEndpointService:
        return StreamServerEndpointService(endpoint, Factory())

    def test_nothingToWaitFor(self) -> None:
        """
        A service that starts at once has started once the reactor runs.
        """
        Service().setServiceParent(self.root)
        with self.start:
            self.root.startService()
        self.start.runsWith(self.reactor)
        self.assertEqual(self.startup.told, [])
        self.reactor.begin()
        self.assertEqual(self.startup.told, [["started"]])
        self.assertEqual(self.reactor.stops, 0)

    def test_waitsForListens(self) -> None:
        """
        It waits for every listen, wherever in the tree the service is, and says
        so once.
        """
        endpoints = [Endpoint(), Endpoint()]
        inner = MultiService()
        self.listener(endpoints[0]).setServiceParent(inner)
        self.begin(inner, self.listener(endpoints[1]))
        for endpoint in endpoints:
            self.assertEqual(self.startup.told, [])
            endpoint.listening.callback(None)  # type: ignore[arg-type]
        self.assertEqual(self.startup.told, [["started"]])

    def test_failedListen(self) -> None:
        """
        A listen that fails, now or later, is told with its reason, and the
        reactor is stopped, once it runs and once only.
        """
        error = CannotListenError("", 80, OSError(13, "Permission denied"))
        late = Endpoint()
        self.begin(self.listener(Endpoint(fail(error))), self.listener(late))
        self.assertEqual(
            [told[:2] for told in self.startup.told], [["failed", "start"]]
        )
        self.assertIn("Couldn't listen on any:80", self.startup.told[0][2])
        self.assertEqual(self.reactor.stops, 1)
        late.listening.errback(error)
        self.assertEqual(self.reactor.stops, 1)
        self.assertEqual(len(self.startup.told), 1)
        self.assertIsNotNone(self.start.error)
        self.flushLoggedErrors(CannotListenError)

    def test_lateFailedListen(self) -> None:
        """
        So is one that fails while the reactor runs.
        """
        endpoint = Endpoint()
        self.begin(self.listener(endpoint))
        endpoint.listening.errback(ValueError("no"))
        self.assertIn("thing: ValueError: no", self.startup.told[0][2])
        self.assertEqual(self.reactor.stops, 1)
        self.flushLoggedErrors(ValueError)

    def test_waitsForStarts(self) -> None:
        """
        It waits for what C{startService} returned, and what that fires with
        passes through.
        """
        result: Deferred[object] = Deferred()
        self.begin(Returns(result), Returns(succeed(1)), Returns("no Deferred"))
        self.assertEqual(self.startup.told, [])
        result.callback("value")
        self.assertEqual(self.startup.told, [["started"]])
        self.assertEqual(self.successResultOf(result), "value")

    def test_cancelled(self) -> None:
        """
        A service that is stopped while it listens neither started nor failed.
        """
        service = self.listener(Endpoint())
        self.begin(service)
        service.stopService()
        self.assertEqual(self.startup.told, [])
        self.assertEqual(self.reactor.stops, 0)

    def test_leavesNothing(self) -> None:
        """
        When it is over, however it ended, Twisted's classes and the program's
        services are as they were.
        """
        before = vars(StreamServerEndpointService)["privilegedStartService"]
        service = Returns(None)
        self.begin(service, self.listener(Endpoint(succeed(None))))  # type: ignore[arg-type]
        self.assertNotIn("startService", vars(service))
        after = vars(StreamServerEndpointService)["privilegedStartService"]
        self.assertIs(after, before)

        def raises() -> None:
            with ServiceStart("other", self.startup):
                raise ValueError("no")

        self.assertRaises(ValueError, raises)
        after = vars(StreamServerEndpointService)["privilegedStartService"]
        self.assertIs(after, before)

    def test_endpointKept(self) -> None:
        """
        A service has its own endpoint again as soon as it listens.
        """
        endpoint = Endpoint()
        service = self.listener(endpoint)
        self.begin(service)
        self.assertIs(service.endpoint, endpoint)
        endpoint.listening.callback(None)  # type: ignore[arg-type]
