"""
Connections that the watcher accepted, in the program's ports.
"""

from __future__ import annotations

import os
import signal
import socket
import ssl
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

from twisted.internet import main, tcp
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import ITCPTransport, IUNIXTransport
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from tests.integration.clients import makeCertificate
from tests.sockethelpers import room
from tests.worker.receiving import NUMBER, Echo, IncomingTestCase
from twisted_cluster.errors import NotTransferable, TransferFailed
from twisted_cluster.ipc.clients import ENDED, LISTENER, UNREAD

LINGER = struct.pack("ii", 1, 0)
NOT_THERE = "the worker did not take it: it does not listen there"
ENDS = "the worker did not take it: it ends"


class PortTests(IncomingTestCase):
    """
    What becomes of a connection is what the port would have made of it.
    """

    def setUp(self) -> None:
        super().setUp()
        self.attach()

    def alone(self, port: Any, build: Callable[[], Any] = Echo) -> Any:
        """
        Have a port accept by itself, as Twisted does.

        @return: the protocol that it makes.
        """
        self.factory.build = build
        del port.startReading, port.stopReading
        client = socket.socket(port.addressFamily)
        self.clients.append(client)
        client.connect(port.socket.getsockname())
        port.socket.setblocking(False)
        port.doRead()
        return self.factory.protocols[-1]

    def assertAsAlone(self, port: Any, client: socket.socket) -> Any:
        """
        All that the program can see is as it would be without us.

        @return: the transport.
        """
        [ours] = self.factory.protocols
        alone = self.alone(port).transport
        mine = ours.transport
        one, two = self.factory.addresses
        self.assertEqual(one == mine.getPeer(), two == alone.getPeer())
        self.assertEqual(type(one), type(two))
        self.assertIsInstance(mine, type(alone))
        for name in ("__name__", "__qualname__", "__module__", "__doc__"):
            self.assertEqual(getattr(type(mine), name), getattr(type(alone), name))
        self.assertEqual(mine.getHost(), alone.getHost())
        self.assertEqual(type(mine.getPeer()), type(alone.getPeer()))
        self.assertEqual(mine.sessionno + 1, alone.sessionno)
        self.assertIs(mine.server, port)
        self.assertEqual(mine.hostname, alone.hostname)
        self.assertEqual(len(mine.client), len(alone.client))
        self.assertEqual(
            mine.logstr.replace(str(mine.sessionno), str(alone.sessionno), 1),
            alone.logstr,
        )
        self.assertEqual(mine.socket.family, alone.socket.family)
        self.assertEqual(mine.socket.getblocking(), alone.socket.getblocking())
        self.assertFalse(os.get_inheritable(mine.fileno()))
        self.assertEqual(ours.life, ["made"])
        self.assertEchoes(client)
        alone.connectionLost(Failure(main.CONNECTION_DONE))
        return mine

    def test_tcp(self) -> None:
        """
        IPv4.
        """
        port = self.tcp()
        client = self.client(port)
        transport = self.assertAsAlone(port, client)
        self.assertTrue(ITCPTransport.providedBy(transport))
        expected = IPv4Address("TCP", *client.getsockname())
        self.assertEqual(transport.getPeer(), expected)
        self.hangUp(client)

    def test_tcp6(self) -> None:
        """
        IPv6.
        """
        port = self.tcp(interface="::1")
        client = self.client(port)
        transport = self.assertAsAlone(port, client)
        expected = IPv6Address("TCP", *client.getsockname())
        self.assertEqual(transport.getPeer(), expected)
        self.hangUp(client)

    def test_unix(self) -> None:
        """
        UNIX sockets.
        """
        port = self.unix()
        client = self.client(port)
        transport = self.assertAsAlone(port, client)
        self.assertTrue(IUNIXTransport.providedBy(transport))
        self.assertEqual(transport.getPeer(), UNIXAddress(None))
        self.hangUp(client)

    def test_tls(self) -> None:
        """
        TLS, as C{listenSSL} makes it.
        """
        key, certificate = makeCertificate(Path(self.directory))
        options = DefaultOpenSSLContextFactory(str(key), str(certificate))
        port = self.tcp(TLSMemoryBIOFactory(options, False, self.factory, self.reactor))
        client = self.client(port)
        client.setblocking(False)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        secure = context.wrap_socket(client, do_handshake_on_connect=False)
        self.clients.append(secure)
        self.untilDone(secure.do_handshake)
        secure.send(b"hello")
        self.assertEqual(self.untilDone(partial(secure.recv, 100)), b"hello")
        self.hangUp(secure)
        self.assertEqual(self.ended, 1)
        self.assertEqual(self.factory.protocols[0].life, ["made", "lost"])

    def untilDone(self, action: Callable[[], Any]) -> Any:
        """
        Try again until what the other side has to do is done.
        """
        for _ in range(100):
            try:
                return action()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                self.reactor.settle()
        raise AssertionError("it never is")

    def test_refusedByFactory(self) -> None:
        """
        A factory that builds no protocol refuses: the connection has ended.
        """
        self.factory.build = lambda: None
        [client] = self.connect(self.tcp())
        self.give()
        self.assertEqual(client.recv(1), b"")
        self.assertEqual((self.answers, self.ended), ([None], 1))

    def test_factoryFails(self) -> None:
        """
        When building the protocol raises, even what a gone client would, that is
        logged, the connection has ended, and the next is served.
        """
        port = self.tcp()
        for kind in (LookupError, ConnectionResetError, SystemExit):

            def fail(kind: type[BaseException] = kind) -> Any:
                raise kind("no")

            self.factory.build = fail
            [client] = self.connect(port)
            self.give()
            self.assertEqual(client.recv(1), b"")
            self.assertEqual(len(self.flushLoggedErrors(kind)), 1)
        self.assertEqual((self.answers, self.ended), ([None] * 3, 3))
        self.factory.build = Echo
        self.answers.clear()
        client = self.client(port)
        self.assertEchoes(client)
        self.hangUp(client)

    def test_protocolFails(self) -> None:
        """
        When the protocol raises as it is connected, that is logged, and the
        connection stays, as alone; it ends once.
        """
        for kind in (LookupError, ConnectionResetError):

            class Failing(Echo):
                def connectionMade(self, kind: type[Exception] = kind) -> None:
                    super().connectionMade()
                    raise kind("no")

            self.factory.build = Failing
            client = self.client(self.tcp())
            self.assertEqual(len(self.flushLoggedErrors(kind)), 1)
            self.assertEqual(self.ended, 0)
            self.assertEchoes(client)
            self.hangUp(client)
            self.assertEqual(self.ended, 1)
            self.ended = 0

    def test_transportFails(self) -> None:
        """
        When the transport cannot be made, that is logged, and the connection has
        ended.
        """
        port = self.tcp()

        class Failing(tcp.Server):
            def __init__(self, *arguments: Any) -> None:
                raise LookupError("no")

        port.transport = Failing
        [client] = self.connect(port)
        self.give()
        self.assertEqual(client.recv(1), b"")
        self.assertEqual(len(self.flushLoggedErrors(LookupError)), 1)
        self.assertEqual(self.ended, 1)

    def test_ownTransports(self) -> None:
        """
        A port of which the program has changed the transports makes those.
        """
        port = self.tcp()

        class Own(tcp.Server):
            def connectionLost(self, reason: Any) -> None:
                self.own = "lost"
                super().connectionLost(reason)

        port.transport = Own
        client = self.client(port)
        transport = self.factory.protocols[0].transport
        self.assertIsInstance(transport, Own)
        self.assertEqual(type(transport).__qualname__, Own.__qualname__)
        self.hangUp(client)
        self.assertEqual(transport.own, "lost")
        self.assertEqual(self.ended, 1)

    def test_madeByFunction(self) -> None:
        """
        What makes them may be no class.
        """
        port = self.tcp()
        port.transport = lambda *arguments: tcp.Server(*arguments)
        client = self.client(port)
        transport = self.factory.protocols[0].transport
        self.assertIs(type(transport), tcp.Server)
        self.hangUp(client)
        self.assertEqual(self.factory.protocols[0].life, ["made", "lost"])
        self.assertEqual(self.ended, 1)

    def test_oneClass(self) -> None:
        """
        All connections of all ports have transports of one class.
        """
        clients = [self.client(self.tcp()), self.client(self.tcp())]
        one, two = (each.transport for each in self.factory.protocols)
        self.assertIs(type(one), type(two))
        for client in clients:
            self.hangUp(client)

    def test_accepts(self) -> None:
        """
        The port itself is never watched.
        """
        port = self.tcp()
        self.assertNotIn(port, self.reactor.getReaders())
        port.resumeProducing()
        self.assertNotIn(port, self.reactor.getReaders())


class EndTests(IncomingTestCase):
    """
    The watcher is told of each connection that has ended, once.
    """

    def setUp(self) -> None:
        super().setUp()
        self.attach()
        self.port = self.tcp()

    def transport(self) -> Any:
        self.client(self.port)
        return self.factory.protocols[-1].transport

    def test_byClient(self) -> None:
        """
        The client ends it.
        """
        client = self.client(self.port)
        self.assertEqual(self.ended, 0)
        self.hangUp(client)
        self.assertEqual(self.ended, 1)

    def test_byProgram(self) -> None:
        """
        The program ends it.
        """
        transport = self.transport()
        transport.loseConnection()
        transport.loseConnection()
        self.reactor.settle()
        self.assertEqual(self.ended, 1)

    def test_aborted(self) -> None:
        """
        The program aborts it.
        """
        transport = self.transport()
        transport.abortConnection()
        self.reactor.settle()
        self.assertEqual(self.ended, 1)

    def test_twice(self) -> None:
        """
        Somebody ends it who should not, and then it ends.
        """
        transport = self.transport()
        self.reactor.removeReader(transport)
        for _ in range(2):
            transport.connectionLost(Failure(main.CONNECTION_DONE))
        self.reactor.settle()
        self.assertEqual(self.ended, 1)

    def test_inConnectionMade(self) -> None:
        """
        The program ends it as soon as it is made.
        """

        class Leaving(Echo):
            def connectionMade(self) -> None:
                self.transport.loseConnection()

        self.factory.build = Leaving
        self.transport()
        self.assertEqual(self.ended, 1)

    def test_raises(self) -> None:
        """
        The protocol raises when it hears of it.
        """

        class Failing(Echo):
            def connectionLost(self, reason: Any = None) -> None:
                raise LookupError("no")

        self.factory.build = Failing
        client = self.client(self.port)
        client.close()
        self.assertRaises(LookupError, self.reactor.settle)
        self.reactor.removeReader(self.factory.protocols[0].transport)
        self.reactor.settle()
        self.assertEqual(self.ended, 1)

    def test_many(self) -> None:
        """
        All that end in one turn are told at once.
        """
        notes: list[bytes] = []
        self.watcher.noted = notes.append
        clients = self.connect(self.port, 5)
        self.give(5)
        for client in clients:
            client.close()
        self.reactor.settle()
        self.assertEqual(notes, [ENDED.pack(5)])

    def test_clientGone(self) -> None:
        """
        A client that has reset its connection before the worker looked: nobody
        has to know of it, but it has ended.
        """
        [client] = self.connect(self.port)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
        client.close()
        self.give()
        self.assertEqual((self.answers, self.ended), ([None], 1))
        self.assertEqual(self.factory.addresses, [])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_clientClosed(self) -> None:
        """
        One that has only closed it is served what it sent.
        """
        [client] = self.connect(self.port)
        client.send(b"hello")
        client.shutdown(socket.SHUT_WR)
        self.give()
        self.assertEqual(self.factory.protocols[0].received, b"hello")
        self.assertEqual(self.ended, 1)

    def test_channelLost(self) -> None:
        """
        Without a channel, nobody is told; nothing else changes.
        """
        client = self.client(self.port)
        self.watcher.abort()
        self.reactor.settle()
        self.assertEchoes(client)
        self.hangUp(client)
        self.assertEqual(self.factory.protocols[0].life, ["made", "lost"])

    def test_forked(self) -> None:
        """
        What ends in a child of the worker has not ended in the worker.
        """
        client = self.client(self.port)
        transport = self.factory.protocols[0].transport
        pid = os.fork()
        if not pid:
            signal.alarm(10)
            try:
                transport.connectionLost(Failure(ConnectionAborted()))
                self.reactor.advance(0)
            finally:
                os._exit(0)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        self.reactor.settle()
        self.assertEqual(self.ended, 0)
        client.close()


class ListeningTests(IncomingTestCase):
    """
    What is not wanted is given back.
    """

    def setUp(self) -> None:
        super().setUp()
        self.attach()

    def assertGivenBack(self, why: str = NOT_THERE) -> None:
        """
        The watcher has the connection again, and the worker does not.
        """
        self.watcher.send(self.given[-1].fileno(), LISTENER.pack(NUMBER), None)
        self.reactor.settle()
        self.assertEqual(self.answers, [why])
        self.answers.clear()
        self.assertEqual(self.factory.protocols, [])

    def test_unknown(self) -> None:
        """
        A number that the worker does not know.
        """
        port = self.tcp()
        self.connect(port)
        self.give(data=LISTENER.pack(NUMBER + 1))
        self.assertEqual(self.answers, [NOT_THERE])

    def test_paused(self) -> None:
        """
        While the program has paused the port; and no longer.
        """
        port = self.tcp()
        self.connect(port)
        port.stopReading()
        self.assertGivenBack()
        port.pauseProducing()
        self.assertGivenBack()
        port.resumeProducing()
        self.give()
        self.assertEqual(self.answers, [None])
        self.hangUp(self.clients[0])

    def test_stopped(self) -> None:
        """
        From when the program says that the port stops; afterwards, the port is
        as it was before.
        """
        port = self.tcp()
        self.connect(port)
        port.stopListening()
        self.assertGivenBack()
        self.stop(port)
        self.assertGivenBack()
        self.assertNotIn("startReading", port.__dict__)
        self.assertNotIn("stopReading", port.__dict__)

    def test_acceptsItself(self) -> None:
        """
        A port that accepts by itself takes what it is given, too, as long as it
        accepts; afterwards, it is as it was before, whoever changed it.
        """
        calls: list[str] = []
        port = tcp.Port(0, cast(Any, self.factory), 50, "127.0.0.1", self.reactor)
        for name in ("startReading", "stopReading"):
            setattr(port, name, partial(calls.append, name))
        changed = dict(port.__dict__)
        self.start(port, accepts=True)
        [client] = self.connect(port)
        self.give()
        self.assertEqual(self.answers, [None])
        self.assertEchoes(client)
        self.hangUp(client)
        self.answers.clear()
        self.factory.protocols.clear()
        self.connect(port)
        port.stopReading()
        self.assertGivenBack()
        port.startReading()
        self.assertEqual(calls, ["startReading", "stopReading", "startReading"])
        port.stopListening()
        self.assertGivenBack()
        self.stop(port)
        for name in ("startReading", "stopReading"):
            self.assertIs(port.__dict__[name], changed[name])

    def test_order(self) -> None:
        """
        Each is answered by itself, in order, whatever lies between.
        """
        self.connect(self.tcp(), 4)
        for skt, number in zip(self.given, (3, 9, 3, 9), strict=True):
            self.watcher.send(skt.fileno(), LISTENER.pack(number), None)
        self.reactor.settle()
        self.assertEqual(self.answers, [None, NOT_THERE, None, NOT_THERE])
        for client in self.clients:
            client.close()

    def test_stoppedWithin(self) -> None:
        """
        What was taken together with the one that had the program stop the port
        is ended; what is in order behind that is given back.
        """
        port = self.tcp()

        def stop() -> None:
            port.stopListening()
            self.incoming.leave(port)

        self.factory.build = stop
        clients = self.connect(port, 3)
        self.give(3)
        self.assertEqual(self.answers, [None] * 3)
        self.assertEqual(self.ended, 3)
        for client in clients:
            self.assertEqual(client.recv(1), b"")

    def test_ends(self) -> None:
        """
        From when the worker ends.
        """
        self.connect(self.tcp())
        self.incoming.stop()
        self.assertGivenBack(ENDS)
        self.incoming.stop()

    def test_endsWhileWaiting(self) -> None:
        """
        What waits for the word to leave is served, if the word is on its way;
        the rest is given back, even if it made no sense.
        """
        port = self.tcp()
        clients = self.connect(port, 3)
        self.fill()
        self.watcher.send(self.given[0].fileno(), LISTENER.pack(NUMBER), 0)
        self.watcher.send(self.given[1].fileno(), b"garbage", 1)
        self.watcher.send(self.given[2].fileno(), LISTENER.pack(NUMBER), 2)
        self.watcher.pauseProducing()
        self.reactor.settle()
        self.assertEqual(self.answers, [])
        self.incoming.stop()
        self.watcher.resumeProducing()
        self.reactor.settle()
        self.assertEqual(self.answers, [ENDS, ENDS, ENDS])
        self.assertEqual(len(clients), 3)

    def fill(self) -> None:
        """
        Let the worker have so much to say that no more fits.
        """
        self.watcher.noted = lambda data: None
        self.watcher.pauseProducing()
        handover: Any = self.incoming._handover
        while not handover.pending:
            handover.note(b"x" * 60_000)

    def test_tooManyFiles(self) -> None:
        """
        At its limit of open files, it gives back what it cannot hold.
        """
        port = self.tcp()
        [client] = self.connect(port)
        with room(0):
            self.watcher.send(self.given[0].fileno(), LISTENER.pack(NUMBER), None)
            self.reactor.settle()
        [why] = self.answers
        assert why is not None
        self.assertIn("Too many open files", why)
        self.answers.clear()
        self.give()
        self.assertEqual(self.answers, [None])
        self.assertEchoes(client)
        self.hangUp(client)


class ChannelTests(IncomingTestCase):
    """
    The channel's own life.
    """

    def test_before(self) -> None:
        """
        What came before the reactor ran is taken when it runs, once.
        """
        port = self.tcp()
        [client] = self.connect(port)
        self.watcher.send(self.given[0].fileno(), LISTENER.pack(NUMBER), None)
        self.reactor.settle()
        self.assertEqual(self.answers, [])
        self.attach()
        self.attach()
        self.assertEqual(self.answers, [None])
        self.assertEchoes(client)
        self.hangUp(client)

    def test_endsBefore(self) -> None:
        """
        What came before the reactor ran, too.
        """
        self.connect(self.tcp())
        self.incoming.stop()
        self.watcher.send(self.given[0].fileno(), LISTENER.pack(NUMBER), None)
        self.attach()
        self.assertEqual(self.answers, [ENDS])

    def test_takesAll(self) -> None:
        """
        All that the watcher has sent can be taken at once, before the reactor sees
        it; without a channel, that is nothing.
        """
        self.incoming.takeAll()
        self.attach()
        port = self.tcp()
        clients = self.connect(port, 3)
        for skt in self.given:
            self.watcher.send(skt.fileno(), LISTENER.pack(NUMBER), None)
        self.watcher.flush()
        self.incoming.takeAll()
        self.assertEqual(len(self.factory.protocols), 3)
        self.reactor.settle()
        self.assertEqual(self.answers, [None] * 3)
        for client in clients:
            self.assertEchoes(client)
            self.hangUp(client)
        self.watcher.abort()
        self.incoming.takeAll()
        self.reactor.settle()
        self.incoming.takeAll()

    def test_garbage(self) -> None:
        """
        A connection whose data makes no sense ends the channel, and the log says
        what that means.
        """
        self.attach()
        self.connect(self.tcp(), 2)
        self.watcher.send(self.given[0].fileno(), LISTENER.pack(NUMBER), 0)
        self.reactor.settle()
        self.watcher.send(self.given[1].fileno(), b"huh", 1)
        self.reactor.settle()
        self.assertEqual((self.answers, self.lost), ([None], [1]))
        [text] = self.events.texts
        self.assertTrue(text.startswith("This worker gets no more connections"), text)
        self.assertIn("a connection to b'huh'.  What", text)
        self.hangUp(self.clients[0])

    def test_watcherGone(self) -> None:
        """
        That the watcher has closed it is said, unless the worker ends anyhow.
        """
        self.attach()
        self.watcher.abort()
        self.reactor.settle()
        self.assertEqual(len(self.events), 1)
        self.incoming.stop()

    def test_watcherGoneInTheEnd(self) -> None:
        """
        Otherwise, not.
        """
        self.attach()
        self.incoming.stop()
        self.watcher.abort()
        self.reactor.settle()
        self.incoming.stop()
        self.incoming.close()
        self.assertEqual(self.events, [])

    def replace(self) -> socket.socket:
        """
        Have the program close the channel's descriptor and use the number for
        a socket of its own.

        @return: the other end of that.
        """
        mine, others = socket.socketpair()
        os.dup2(mine.fileno(), self.number)
        mine.close()
        self.clients.append(others)
        self.addCleanup(os.close, self.number)
        others.setblocking(False)
        return others

    def assertUntouched(self, others: socket.socket) -> None:
        """
        The program's own socket is open, and nothing was written to it, read
        from it or shut down.
        """
        self.assertRaises(BlockingIOError, others.recv, 1)
        others.send(b"to the program")
        self.assertEqual(os.read(self.number, 100), b"to the program")
        os.write(self.number, b"to others")
        self.assertEqual(others.recv(100), b"to others")

    def test_replacedBefore(self) -> None:
        """
        A program that has closed the descriptor before the reactor runs, and has
        another socket there, keeps that.
        """
        others = self.replace()
        self.attach()
        self.assertUntouched(others)
        self.assertIn("the program closed its descriptor", self.events.texts[0])
        self.incoming.stop()
        self.incoming.close()
        self.assertUntouched(others)

    def test_replacedAndNeverRun(self) -> None:
        """
        Or if it never runs.
        """
        others = self.replace()
        self.incoming.close()
        self.assertUntouched(others)

    def test_closedBefore(self) -> None:
        """
        Or if there is nothing.
        """
        os.close(self.number)
        self.attach()
        self.assertIn("the program closed its descriptor", self.events.texts[0])

    def test_replacedWhile(self) -> None:
        """
        Likewise while the reactor runs: nothing is said there, and nothing is
        heard.
        """
        self.attach()
        client = self.client(self.tcp())
        others = self.replace()
        self.assertEqual(self.events, [])
        self.hangUp(client)
        self.assertUntouched(others)
        self.assertIn("the program closed the channel's", self.events.texts[0])
        self.assertEqual(self.ended, 0)

    def test_replacedThenRead(self) -> None:
        """
        Nor is what the program is sent there.
        """
        self.attach()
        others = self.replace()
        others.send(b"for the program")
        self.reactor.settle()
        self.assertEqual(os.read(self.number, 100), b"for the program")
        self.assertUntouched(others)
        self.assertEqual(len(self.events), 1)

    def test_replacedWhileTaking(self) -> None:
        """
        A connection for which the word cannot leave any more is not served.
        """
        self.attach()
        port = self.tcp()
        opened: list[socket.socket] = []

        def build() -> None:
            opened.append(self.replace())

        self.factory.build = build
        self.connect(port, 3)
        for token, number in enumerate((NUMBER, NUMBER + 1, NUMBER)):
            data = LISTENER.pack(number)
            self.watcher.send(self.given[token].fileno(), data, token)
        self.reactor.settle()
        [others] = opened
        self.assertUntouched(others)
        self.assertEqual(len(self.factory.addresses), 1)
        self.assertEqual((self.answers, self.lost), ([None], [1, 2]))
        self.assertIn("the program closed the channel's", self.events.texts[0])


class UnreadTests(IncomingTestCase):
    """
    What another worker has read of a connection, and not used, comes along.
    """

    def setUp(self) -> None:
        super().setUp()
        self.attach()
        self.port = self.tcp()

    def giveWith(self, unread: bytes) -> socket.socket:
        """
        Have a client send something, and give its connection with more.
        """
        [client] = self.connect(self.port)
        client.send(b" and the rest")
        self.give(data=LISTENER.pack(NUMBER) + unread)
        self.assertEqual(self.answers, [None])
        return client

    def test_first(self) -> None:
        """
        The protocol is given it first, then what the client sends.
        """
        client = self.giveWith(b"the beginning")
        [protocol] = self.factory.protocols
        self.assertEqual(protocol.received, b"the beginning and the rest")
        self.assertEqual(client.recv(100), b"the beginning and the rest")
        self.assertEchoes(client)
        self.hangUp(client)
        self.assertEqual(self.ended, 1)

    def test_paused(self) -> None:
        """
        A protocol that pauses when it is connected is given nothing before it goes
        on, and then that first.
        """

        class Pausing(Echo):
            def connectionMade(self) -> None:
                super().connectionMade()
                self.transport.pauseProducing()

        self.factory.build = Pausing
        client = self.giveWith(b"the beginning")
        [protocol] = self.factory.protocols
        self.assertEqual(protocol.received, b"")
        protocol.transport.resumeProducing()
        self.reactor.settle()
        self.assertEqual(protocol.received, b"the beginning and the rest")
        self.hangUp(client)

    def test_leaves(self) -> None:
        """
        A protocol that leaves as soon as it is connected hears nothing more.
        """

        class Leaving(Echo):
            def connectionMade(self) -> None:
                super().connectionMade()
                self.transport.loseConnection()

        self.factory.build = Leaving
        self.giveWith(b"the beginning")
        [protocol] = self.factory.protocols
        self.assertEqual((protocol.received, self.ended), (b"", 1))

    def test_fails(self) -> None:
        """
        A protocol that raises on it loses its connection, as it would on what it
        had read by itself.
        """

        class Failing(Echo):
            def dataReceived(self, data: bytes) -> None:
                raise LookupError("no")

        self.factory.build = Failing
        client = self.giveWith(b"the beginning")
        self.assertEqual(len(self.flushLoggedErrors(LookupError)), 1)
        self.assertEqual(self.factory.protocols[0].life, ["made", "lost"])
        self.assertEqual(self.ended, 1)
        self.assertEqual(client.recv(100), b"")

    def test_nobodyThere(self) -> None:
        """
        What is given back comes back with it.
        """
        self.port.stopReading()
        self.connect(self.port)
        self.watcher.send(self.given[0].fileno(), LISTENER.pack(NUMBER) + b"x", None)
        self.reactor.settle()
        self.assertEqual(self.answers, [NOT_THERE])


class SendBackTests(IncomingTestCase):
    """
    Connections that are to move to another worker.
    """

    def setUp(self) -> None:
        super().setUp()
        self.skt, client = socket.socketpair()
        self.clients += [self.skt, client]

    def sendBack(self, port: Any, unread: bytes = b"") -> Deferred[None]:
        outcome = self.incoming.sendBack(port, self.skt.fileno(), unread)
        self.reactor.settle()
        return outcome

    def assertUntouched(self) -> None:
        """
        The connection is as it was, and still the caller's.
        """
        self.skt.send(b"here")
        self.assertEqual(self.clients[-1].recv(100), b"here")

    def test_taken(self) -> None:
        """
        The watcher gets the socket, the port's number, and what was read and not
        used; when it has said that it took it, that is told.
        """
        self.attach()
        port = self.tcp()
        outcome = self.sendBack(port, b"GET /")
        self.assertNoResult(outcome)
        self.assertUntouched()
        [(data, skt)] = self.take()
        self.successResultOf(outcome)
        self.assertEqual(data, LISTENER.pack(NUMBER) + b"GET /")
        skt.send(b"moved")
        self.assertEqual(self.clients[1].recv(100), b"moved")

    def test_acceptsItself(self) -> None:
        """
        Connections of a port that accepts by itself can move, too.
        """
        self.attach()
        port = tcp.Port(0, cast(Any, self.factory), 50, "127.0.0.1", self.reactor)
        self.start(port, NUMBER + 1, accepts=True)
        outcome = self.sendBack(port)
        [(data, _)] = self.take()
        self.successResultOf(outcome)
        self.assertEqual(data, LISTENER.pack(NUMBER + 1))

    def test_whileLeaving(self) -> None:
        """
        A worker that takes nothing any more gives on, all the same.
        """
        self.attach()
        port = self.tcp()
        self.incoming.stop()
        port.stopReading()
        outcome = self.sendBack(port)
        self.assertEqual(len(self.take()), 1)
        self.successResultOf(outcome)

    def test_refused(self) -> None:
        """
        When the watcher does not take it, that fails, with why.
        """
        self.attach()
        outcome = self.sendBack(self.tcp())
        self.watcher.giveBack(1, "nobody listens there")
        self.reactor.settle()
        failure = self.failureResultOf(outcome, TransferFailed)
        self.assertEqual(failure.getErrorMessage(), "nobody listens there")
        self.assertUntouched()

    def test_eachItsOwn(self) -> None:
        """
        Each is told what became of it.
        """
        self.attach()
        port = self.tcp()
        outcomes = [self.sendBack(port) for _ in range(3)]
        for _ in self.watcher.take(1):
            os.close(_.descriptor)
        self.watcher.giveBack(1, "no")
        self.reactor.settle()
        self.successResultOf(outcomes[0])
        self.failureResultOf(outcomes[1], TransferFailed)
        self.assertNoResult(outcomes[2])
        self.take()
        self.successResultOf(outcomes[2])

    def test_unknownPort(self) -> None:
        """
        A port that the watcher knows nothing of, or nothing any more, is none of
        whose connections can move.
        """
        self.attach()
        port = self.tcp()
        own = tcp.Port(0, cast(Any, self.factory), 50, "127.0.0.1", self.reactor)
        for none in (own, None):
            self.failureResultOf(self.sendBack(none), NotTransferable)
        self.stop(port)
        self.failureResultOf(self.sendBack(port), NotTransferable)
        self.assertUntouched()
        self.assertEqual(self.take(), [])

    def test_tooMuch(self) -> None:
        """
        More that was not used than can go along fails, and nothing has changed.
        """
        self.attach()
        port = self.tcp()
        self.failureResultOf(self.sendBack(port, b"x" * (UNREAD + 1)), TransferFailed)
        self.assertUntouched()

    def test_before(self) -> None:
        """
        Before the reactor runs there is no channel.
        """
        self.failureResultOf(self.sendBack(self.tcp()), TransferFailed)

    def test_closed(self) -> None:
        """
        Nor when the watcher has closed it.
        """
        self.attach()
        port = self.tcp()
        self.incoming.stop()
        self.watcher.abort()
        self.reactor.settle()
        self.failureResultOf(self.sendBack(port), TransferFailed)
        self.assertUntouched()

    def test_closesMeanwhile(self) -> None:
        """
        What the watcher has not answered when it closes the channel it has not
        taken.
        """
        self.attach()
        outcome = self.sendBack(self.tcp())
        self.watcher.abort()
        self.reactor.settle()
        self.failureResultOf(outcome, TransferFailed)
        self.assertUntouched()

    def test_closedHere(self) -> None:
        """
        Likewise when the worker closes it.
        """
        self.attach()
        outcome = self.sendBack(self.tcp())
        self.incoming.close()
        self.reactor.settle()
        self.failureResultOf(outcome, TransferFailed)
        self.assertUntouched()
