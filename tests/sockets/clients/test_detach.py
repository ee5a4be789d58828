"""
Live connections leave their reactor, or stay.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.internet.testing import StringTransport
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.sockets.reactors import (
    FAMILIES,
    ReactorTestCase,
    Recorder,
    onEveryReactor,
)
from twisted_cluster.errors import ClusterError, NotTransferable, TransferFailed
from twisted_cluster.sockets.clients import detach as module
from twisted_cluster.sockets.clients.detach import (
    ConnectionTransferred,
    Detached,
    checkTransferable,
    detach,
    isReading,
)

MUCH = 8_000_000
"""More than the kernel takes while the client does not read."""


@implementer(IPushProducer)
class Producer:
    """
    A producer that counts what it is told.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")


class Connecting(ClientFactory):
    """
    Connects one protocol, and records what it hears.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.lost: list[Failure] = []

    def buildProtocol(self, addr: object) -> Recorder:
        return self.recorder

    def isConnected(self) -> bool:
        """
        Whether the connection has been made.
        """
        return bool(self.recorder.connected)

    def clientConnectionLost(self, connector: object, reason: Failure) -> None:
        self.lost.append(reason)


class DetachTestCase(ReactorTestCase):
    """
    What the tests share.
    """

    def detached(self, transport: Any) -> Detached:
        """
        Detach a transport that has nothing to send.
        """
        return self.successResultOf(detach(transport))

    def goOn(self, detached: Detached) -> socket.socket:
        """
        What the other process would have.
        """
        skt = socket.socket(fileno=os.dup(detached.descriptor))
        skt.settimeout(20)
        return self.opened(skt)

    def flushing(self) -> tuple[Recorder, socket.socket, Deferred[Detached], bytes]:
        """
        A connection that is being detached while its client does not read.
        """
        protocol, client = self.served()
        data = os.urandom(1000) * (MUCH // 1000)
        protocol.transport.write(data)
        self.turn()
        waiting = detach(protocol.transport)
        self.assertNoResult(waiting)
        return protocol, client, waiting, data


class Detaching(DetachTestCase):
    """
    Whatever the reactor.
    """

    __test__ = False

    def assertGoes(self, protocol: Recorder, client: socket.socket) -> None:
        """
        Detach a connection, and go on with it elsewhere.
        """
        client.sendall(b"before ")
        self.until(lambda: protocol.data)
        transport: Any = protocol.transport
        detached = self.detached(transport)
        other = self.goOn(detached)
        client.sendall(b"between")
        self.turn()
        detached.complete()
        [reason] = protocol.lost
        self.assertTrue(reason.check(ConnectionTransferred))
        self.assertTrue(reason.check(ConnectionDone))
        self.assertIn("transferred", reason.getErrorMessage())
        self.assertEqual(protocol.data, b"before ")
        self.assertNotIn(transport, self.reactor.getReaders())
        self.assertNotIn(transport, self.reactor.getWriters())
        self.assertEqual(other.recv(100), b"between")
        other.sendall(b"from there")
        self.assertEqual(client.recv(100), b"from there")
        linger = other.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)
        self.assertEqual(struct.unpack("ii", linger), (0, 0))
        other.close()
        self.assertEqual(client.recv(100), b"")

    def test_acceptedConnectionsGo(self) -> None:
        """
        A connection that was accepted leaves: the protocol hears so, the client
        does not, and what it sends meanwhile is still in the socket.
        """
        for family in FAMILIES:
            self.assertGoes(*self.served(family))

    def test_madeConnectionsGo(self) -> None:
        """
        So does a connection that was made, and its factory hears it, too.
        """
        for family in FAMILIES:
            listener = self.listener(family)
            protocol = self.recorder()
            factory = Connecting(protocol)
            name = listener.getsockname()
            if family == "UNIX":
                self.reactor.connectUNIX(name, factory)
            else:
                self.reactor.connectTCP(*name[:2], factory)
            self.until(factory.isConnected)
            client = self.opened(listener.accept()[0])
            client.settimeout(20)
            self.assertGoes(protocol, client)
            self.assertEqual(factory.lost, protocol.lost)

    def test_flushesFirst(self) -> None:
        """
        What was written is sent before the connection leaves; what the client
        sends meanwhile is not read.
        """
        protocol, client, waiting, data = self.flushing()
        client.sendall(b"meanwhile")
        self.assertEqual(self.read(client, MUCH), data)
        self.until(lambda: waiting.called)
        detached = self.successResultOf(waiting)
        other = self.goOn(detached)
        detached.complete()
        self.assertEqual(protocol.data, b"")
        self.assertEqual(other.recv(100), b"meanwhile")
        self.assertIs(self.hears(client), None)

    def test_stays(self) -> None:
        """
        A connection that is not taken goes on: what the client sent meanwhile
        is read, and what was written meanwhile is sent then.
        """
        protocol, client = self.served()
        detached = self.detached(protocol.transport)
        client.sendall(b"meanwhile")
        protocol.transport.write(b"held back")
        self.assertIs(self.hears(client), None)
        self.assertEqual(protocol.data, b"")
        detached.resume()
        self.assertEqual(self.read(client, 9), b"held back")
        self.until(lambda: protocol.data == b"meanwhile")
        protocol.transport.write(b"more")
        self.assertEqual(self.read(client, 4), b"more")
        client.close()
        self.until(lambda: protocol.lost)
        self.assertFalse(protocol.lost[0].check(ConnectionTransferred))

    def test_again(self) -> None:
        """
        A connection that was not taken can be detached again, and leave then.
        """
        protocol, client = self.served()
        for _ in range(3):
            self.detached(protocol.transport).resume()
        self.assertGoes(protocol, client)

    def test_clientLeavesWhileFlushing(self) -> None:
        """
        When the client goes before it has read everything, the protocol is told
        as always, and whoever wanted to send the connection, too.
        """
        protocol, client, waiting, _ = self.flushing()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        self.until(lambda: waiting.called)
        failure = self.failureResultOf(waiting, TransferFailed)
        self.assertIn("ended before", failure.getErrorMessage())
        self.assertEqual(len(protocol.lost), 1)
        self.assertFalse(protocol.lost[0].check(ConnectionTransferred))

    def test_lateClient(self) -> None:
        """
        A client that does not read in time keeps its connection here.
        """
        protocol, client = self.served()
        protocol.transport.write(b"x" * MUCH)
        self.turn()
        waiting = detach(protocol.transport, timeout=0.05)
        self.until(lambda: waiting.called)
        failure = self.failureResultOf(waiting, TransferFailed)
        self.assertIn("within 0.05 s", failure.getErrorMessage())
        client.sendall(b"here I am")
        self.assertEqual(self.read(client, MUCH), b"x" * MUCH)
        self.until(lambda: protocol.data == b"here I am")
        self.assertEqual(protocol.lost, [])


onEveryReactor(Detaching, globals())


class HeldBack(DetachTestCase):
    """
    What the protocol does to its transport while it is detached.
    """

    def test_goneForEver(self) -> None:
        """
        Nothing of it reaches the client when the connection leaves.
        """
        for do in (
            lambda transport: transport.write(b"lost"),
            lambda transport: transport.loseConnection(),
            lambda transport: transport.loseWriteConnection(),
            lambda transport: transport.abortConnection(),
            lambda transport: transport.resumeProducing(),
        ):
            protocol, client = self.served()
            detached = self.detached(protocol.transport)
            other = self.goOn(detached)
            client.sendall(b"for the other")
            do(protocol.transport)
            self.assertIs(self.hears(client), None)
            detached.complete()
            self.assertIs(self.hears(client), None)
            self.assertEqual(other.recv(100), b"for the other")
            self.assertEqual(protocol.data, b"")
            self.assertTrue(protocol.lost[0].check(ConnectionTransferred))
            self.assertEqual(len(protocol.lost), 1)

    def test_close(self) -> None:
        """
        A connection that the protocol closed is closed when it stays.
        """
        protocol, client = self.served()
        detached = self.detached(protocol.transport)
        protocol.transport.write(b"bye")
        protocol.transport.loseConnection()
        detached.resume()
        self.assertEqual(self.read(client, 3), b"bye")
        self.until(lambda: protocol.lost)
        self.assertEqual(client.recv(10), b"")

    def test_halfClose(self) -> None:
        """
        So is one half of it.
        """
        protocol, client = self.served()
        detached = self.detached(protocol.transport)
        transport: Any = protocol.transport
        transport.loseWriteConnection()
        detached.resume()
        self.until(lambda: self.hears(client) == b"")
        client.sendall(b"still heard")
        self.until(lambda: protocol.data == b"still heard")

    def test_abort(self) -> None:
        """
        A connection that the protocol aborted is reset when it stays.
        """
        protocol, client = self.served()
        transport: Any = protocol.transport
        detached = self.detached(transport)
        transport.abortConnection()
        detached.resume()
        self.until(lambda: protocol.lost)
        self.assertTrue(protocol.lost[0].check(ConnectionAborted))
        with self.assertRaises(ConnectionResetError):
            client.recv(10)

    def test_pause(self) -> None:
        """
        A transport that was paused stays so, and one that is paused or resumed
        meanwhile is so afterwards.
        """
        for before, between, after in (
            ("resumeProducing", None, True),
            ("pauseProducing", None, False),
            ("pauseProducing", "resumeProducing", True),
            ("resumeProducing", "pauseProducing", False),
        ):
            protocol, _ = self.served()
            transport: Any = protocol.transport
            getattr(transport, before)()
            detached = self.detached(transport)
            if between is not None:
                getattr(transport, between)()
            self.assertFalse(isReading(transport))
            detached.resume()
            self.assertEqual(isReading(transport), after)

    def test_closeWhileFlushing(self) -> None:
        """
        A protocol that closes its connection while the rest is sent has it
        closed.
        """
        protocol, client, waiting, data = self.flushing()
        protocol.transport.loseConnection()
        self.assertEqual(self.read(client, MUCH), data)
        self.until(lambda: protocol.lost)
        self.failureResultOf(waiting, TransferFailed)
        self.assertEqual(client.recv(1), b"")

    def test_abortWhileFlushing(self) -> None:
        """
        Likewise one that aborts it.
        """
        protocol, _, waiting, _ = self.flushing()
        transport: Any = protocol.transport
        transport.abortConnection()
        self.until(lambda: protocol.lost)
        self.failureResultOf(waiting, TransferFailed)
        self.assertTrue(protocol.lost[0].check(ConnectionAborted))

    def test_writeWhileFlushing(self) -> None:
        """
        What is written before everything has been sent is sent, too.
        """
        protocol, client, waiting, data = self.flushing()
        protocol.transport.write(b"more")
        self.assertEqual(self.read(client, MUCH + 4), data + b"more")
        self.until(lambda: waiting.called)
        self.successResultOf(waiting).resume()

    def test_cancel(self) -> None:
        """
        Who cancels leaves the connection as it was.
        """
        protocol, client, waiting, data = self.flushing()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        client.sendall(b"go on")
        self.until(lambda: protocol.data == b"go on")
        self.assertEqual(self.read(client, MUCH), data)

    def test_protocolFails(self) -> None:
        """
        A protocol that raises when it hears that its connection has left hurts
        nobody; it is logged.
        """
        protocol, _ = self.served()
        detached = self.detached(protocol.transport)

        def fail(reason: Failure) -> None:
            protocol.lost.append(reason)
            raise ValueError("no")

        protocol.connectionLost = fail  # type: ignore[assignment,method-assign]
        detached.complete()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)


class Refused(DetachTestCase):
    """
    What cannot be sent, and why.
    """

    def assertRefused(self, transport: object, *words: str) -> None:
        """
        A transport is refused, with the reason and the way out.
        """
        failure = self.failureResultOf(detach(transport), NotTransferable)
        for word in words:
            self.assertIn(word, failure.getErrorMessage())

    def test_startedTLS(self) -> None:
        """
        A connection on which TLS has begun is refused, and goes on.
        """
        protocol, client = self.served()
        transport: Any = protocol.transport
        transport.TLS = True
        self.assertRefused(transport, "TLS", "before TLS begins")
        transport.TLS = False
        client.sendall(b"on")
        self.until(lambda: protocol.data == b"on")

    def test_overTLS(self) -> None:
        """
        So is what TLS gives its protocol for a transport.
        """
        from twisted.internet.ssl import CertificateOptions
        from twisted.protocols.tls import TLSMemoryBIOFactory

        factory = TLSMemoryBIOFactory(
            CertificateOptions(), True, ClientFactory.forProtocol(Protocol)
        )
        wrapper: Any = factory.buildProtocol(None)
        wrapper.makeConnection(StringTransport())
        self.assertRefused(wrapper, "TLS", "before TLS begins")

    def test_wrapped(self) -> None:
        """
        A wrapper is refused, and its transport named as what to send.
        """
        factory = WrappingFactory(ClientFactory.forProtocol(Protocol))
        wrapper = ProtocolWrapper(factory, Protocol())
        self.assertRefused(wrapper, ".transport")

    def test_notOurs(self) -> None:
        """
        What is no transport over a socket is refused.
        """
        self.assertRefused(StringTransport(), "no stream transport")
        self.assertRefused("socket", "no stream transport")

    def test_ended(self) -> None:
        """
        Connections that have ended, are closing, or half closed are refused.
        """
        protocol, client = self.served()
        transport: Any = protocol.transport
        transport.write(b"x" * MUCH)
        transport.loseConnection()
        self.assertRefused(transport, "closing")
        transport.abortConnection()
        self.assertRefused(transport, "closing")
        self.until(lambda: protocol.lost)
        self.assertRefused(transport, "not connected any more")
        client.close()

    def test_halfClosed(self) -> None:
        """
        A connection whose writing side was closed is refused.
        """
        protocol, client = self.served()
        transport: Any = protocol.transport
        transport.loseWriteConnection()
        self.assertRefused(transport, "writing side")
        self.until(lambda: self.hears(client) == b"")
        self.assertRefused(transport, "writing side")

    def test_notYetConnected(self) -> None:
        """
        A connection that is still being made is refused.
        """
        listener = self.listener("IPv4")
        protocol = self.recorder()
        connector = self.reactor.connectTCP(
            *listener.getsockname(), ClientFactory.forProtocol(lambda: protocol)
        )
        self.assertRefused(connector.transport, "not connected")
        self.until(lambda: protocol.connected)

    def test_producer(self) -> None:
        """
        A connection with a producer is refused, unless the caller knows that it
        is idle.
        """
        protocol, _ = self.served()
        transport: Any = protocol.transport
        producer = Producer()
        transport.registerProducer(producer, True)
        self.assertRefused(transport, "producer", "unregister")
        self.successResultOf(detach(transport, mayProduce=True)).resume()
        self.assertIs(transport.producer, producer)
        self.successResultOf(detach(transport, mayProduce=True)).complete()
        self.assertEqual(producer.calls, ["stop"])

    def test_producerMeanwhile(self) -> None:
        """
        A producer that comes while the rest is sent keeps the connection here.
        """
        protocol, client, waiting, data = self.flushing()
        protocol.transport.registerProducer(Producer(), True)
        self.assertEqual(self.read(client, MUCH), data)
        self.until(lambda: waiting.called)
        self.failureResultOf(waiting, NotTransferable)
        client.sendall(b"on")
        self.until(lambda: protocol.data == b"on")

    def test_twice(self) -> None:
        """
        A connection that is detached cannot be detached once more.
        """
        protocol, _ = self.served()
        detached = self.detached(protocol.transport)
        self.assertRefused(protocol.transport, "being sent already")
        detached.resume()


class Unknown(SynchronousTestCase):
    """
    A Twisted that is not known well enough.
    """

    def test_missing(self) -> None:
        """
        It is refused, naming what is missing, before anything is touched.
        """
        from twisted.internet.tcp import Connection

        transport = object.__new__(Connection)
        transport.__dict__.update(_tempDataLen=0, connected=1)
        self.patch(module, "NEEDED", (*module.NEEDED, "_newInTwisted99"))
        error = self.assertRaises(ClusterError, checkTransferable, transport)
        self.assertIn("_newInTwisted99 is not there", str(error))
