"""
What a program calls, as a worker and alone.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.logger import ILogObserver
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from twisted_cluster import cluster
from twisted_cluster.errors import (
    AlreadyConsumed,
    ChannelFull,
    InsideWorker,
    NotAWorker,
    RequestFailed,
    UnknownWorker,
)
from twisted_cluster.interfaces import IChannel, ILogSink, Message
from twisted_cluster.testing import DescriptorReactor, PlayedWatcher
from twisted_cluster.watcher import ClusterWatcher


class AloneTests(SynchronousTestCase):
    """
    A program that runs without a cluster.
    """

    def test_nobody(self) -> None:
        """
        It is no worker, and has neither id nor slot.
        """
        self.assertFalse(cluster.isWorker())
        self.assertIsNone(cluster.workerID())
        self.assertIsNone(cluster.slot())

    def test_needsWatcher(self) -> None:
        """
        What needs a watcher says so, and how to ask.
        """
        for call in (cluster.channel, cluster.logObserver):
            error = self.assertRaises(NotAWorker, call)
            self.assertIn("isWorker()", str(error))

    def test_ready(self) -> None:
        """
        To say that one is ready does no harm.
        """
        cluster.ready()

    def test_endpoint(self) -> None:
        """
        An endpoint of the cluster listens all the same.
        """
        from twisted.internet.testing import MemoryReactor

        reactor: Any = MemoryReactor()
        endpoint = cluster.serverEndpoint(reactor, "tcp:8080:interface=127.0.0.1")
        endpoint.listen(None)  # type: ignore[arg-type]  # nobody connects
        [server] = reactor.tcpServers
        self.assertEqual((server[0], server[3]), (8080, "127.0.0.1"))
        self.assertNotIsInstance(endpoint, TCP4ServerEndpoint)


class WorkerTests(SynchronousTestCase):
    """
    A program that is a worker.
    """

    def setUp(self) -> None:
        self.watcher = PlayedWatcher(worker=7, slot=2)
        self.addCleanup(self.watcher.close)

    def test_interfaces(self) -> None:
        """
        The channel and the observer are what they say.
        """
        self.assertTrue(verifyObject(IChannel, cluster.channel()))
        self.assertTrue(verifyObject(ILogSink, cluster.channel()))
        self.assertTrue(verifyObject(ILogObserver, cluster.logObserver()))

    def test_who(self) -> None:
        """
        It has its id and its slot.
        """
        self.assertTrue(cluster.isWorker())
        self.assertEqual((cluster.workerID(), cluster.slot()), (7, 2))

    def test_send(self) -> None:
        """
        A message arrives, and its Deferred fires then.
        """
        sent = cluster.channel().send({"n": 1})
        self.assertNoResult(sent)
        self.watcher.pump()
        self.assertEqual(self.watcher.messages, [{"n": 1}])
        self.assertIsNone(self.successResultOf(sent))

    def test_receive(self) -> None:
        """
        Messages are iterated over, in their order.
        """
        received: list[Message] = []

        async def consume() -> None:
            async for message in cluster.channel():
                received.append(message)

        done = Deferred.fromCoroutine(consume())
        self.watcher.send("one")
        self.watcher.send("two")
        self.assertEqual(received, [Message("one"), Message("two")])
        self.assertNoResult(done)

    def test_oneConsumer(self) -> None:
        """
        A second consumer is refused.
        """

        async def consume() -> None:
            async for _ in cluster.channel():
                pass

        Deferred.fromCoroutine(consume())
        self.assertRaises(AlreadyConsumed, cluster.channel().__aiter__)

    def test_request(self) -> None:
        """
        The watcher's responder answers the worker, and the worker's the
        watcher.
        """
        self.watcher.conversation.responder(lambda data: data + 1)
        asked = cluster.channel().request(1)
        self.watcher.pump()
        self.assertEqual(self.successResultOf(asked), 2)
        cluster.channel().responder(lambda data: data * 2)
        self.assertEqual(self.successResultOf(self.watcher.request(21)), 42)

    def test_noResponder(self) -> None:
        """
        Without a responder, a request fails and says why.
        """
        asked = cluster.channel().request(1)
        self.watcher.pump()
        failure = self.failureResultOf(asked, RequestFailed)
        self.assertIn("no responder", failure.getErrorMessage())

    def test_unknownWorker(self) -> None:
        """
        A message to a worker that does not live fails.
        """
        self.watcher.conversation.forward = lambda to, data: (
            None if to == 1 else UnknownWorker("there is none")
        )
        known = cluster.channel().send("x", to=1)
        unknown = cluster.channel().send("x", to=99)
        self.watcher.pump()
        self.successResultOf(known)
        self.failureResultOf(unknown, UnknownWorker)

    def test_manyUnknown(self) -> None:
        """
        However many messages of one turn could not be passed on, each of them
        fails, and the channel survives.
        """
        refusal = ChannelFull("too much waits")
        self.watcher.conversation.forward = lambda to, data: refusal
        sent = [cluster.channel().send(1, to=1) for _ in range(30_000)]
        self.watcher.pump()
        for each in sent:
            self.failureResultOf(each, ChannelFull)
        last = cluster.channel().send("x")
        self.watcher.pump()
        self.successResultOf(last)

    def test_whenStopping(self) -> None:
        """
        The watcher's word is heard, also by whoever asks later.
        """
        stopping = cluster.whenStopping()
        self.assertNoResult(stopping)
        self.watcher.terminate()
        self.successResultOf(stopping)
        self.successResultOf(cluster.whenStopping())
        self.assertFalse(self.watcher.stopping)

    def test_shutdown(self) -> None:
        """
        A worker that ends itself says so to the watcher.
        """
        stopping = cluster.whenStopping()
        cluster.shutdown()
        self.watcher.pump()
        self.successResultOf(stopping)
        self.assertTrue(self.watcher.stopping)

    def test_ready(self) -> None:
        """
        A worker that says it is ready is.
        """
        self.assertFalse(self.watcher.ready)
        cluster.ready()
        self.watcher.pump()
        self.assertTrue(self.watcher.ready)

    def test_noClusterInside(self) -> None:
        """
        A worker cannot start a cluster.
        """
        error = self.assertRaises(
            InsideWorker, ClusterWatcher, DescriptorReactor(), "server.py", 1
        )
        self.assertIn("isWorker()", str(error))
