"""
Sockets from elsewhere become live connections.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from functools import partial
from operator import methodcaller
from typing import Any, Optional

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.protocol import Factory, Protocol

from tests.sockethelpers import room
from tests.sockets.reactors import FAMILIES, ReactorTestCase, Recorder, onEveryReactor
from twisted_cluster.errors import ConnectionGone, NotTransferable, UsageError
from twisted_cluster.sockets.clients.detach import detach
from twisted_cluster.sockets.clients.transferred import TransferredSocket


def _same(protocol: Protocol) -> Protocol:
    return protocol


class AttachTestCase(ReactorTestCase):
    """
    What the tests share.
    """

    def transferred(
        self, skt: socket.socket, unread: bytes = b"", data: Any = None
    ) -> TransferredSocket:
        """
        A duplicate of a socket, as if it had come from another process.
        """
        transferred = TransferredSocket(
            self.reactor, os.dup(skt.fileno()), data, unread
        )
        self.addCleanup(transferred.close)
        return transferred

    def adopt(
        self, transferred: TransferredSocket, protocol: Optional[Recorder] = None
    ) -> Recorder:
        """
        Adopt a socket.
        """
        protocol = protocol or self.recorder()
        factory = Factory.forProtocol(lambda: protocol)
        self.assertIs(transferred.adopt(factory), protocol)
        self.assertEqual(transferred.descriptor, -1)
        return protocol


class Adopting(AttachTestCase):
    """
    Whatever the reactor.
    """

    __test__ = False

    def test_families(self) -> None:
        """
        A connection of IPv4, IPv6 or UNIX goes on, and knows both of its ends.
        """
        for family in FAMILIES:
            client, server = self.accepted(family)
            expected: list[Any] = []
            for skt in (server.getpeername(), server.getsockname()):
                if family == "UNIX":
                    expected.append(UNIXAddress(skt or None))
                else:
                    kind = IPv4Address if family == "IPv4" else IPv6Address
                    expected.append(kind("TCP", *skt))
            protocol = self.adopt(self.transferred(server))
            server.close()
            transport: Any = protocol.transport
            self.assertEqual([transport.getPeer(), transport.getHost()], expected)
            client.sendall(b"hello")
            self.until(partial(protocol.has, b"hello"))
            transport.write(b"good day")
            self.assertEqual(self.read(client, 8), b"good day")
            transport.loseConnection()
            self.until(protocol.isLost)
            self.assertEqual(client.recv(1), b"")

    def test_unreadFirst(self) -> None:
        """
        What the sender had read is the first that the protocol is given, even
        when there is nothing more, and what is in the kernel comes next.
        """
        client, server = self.accepted("IPv4")
        protocol = self.adopt(self.transferred(server, b"read before"))
        self.assertEqual(protocol.data, b"read before")
        client, server = self.accepted("IPv4")
        client.sendall(b", read after")
        protocol = self.adopt(self.transferred(server, b"read before"))
        self.until(lambda: len(protocol.data) > 11)
        self.assertEqual(protocol.data, b"read before, read after")

    def test_unreadWhenResumed(self) -> None:
        """
        A protocol that pauses when it is connected is given nothing before it
        resumes, and then in the same order.
        """
        for inKernel in (b"", b", read after"):
            client, server = self.accepted("IPv4")
            client.sendall(inKernel)
            protocol = self.recorder()
            protocol.onMade = lambda transport: transport.pauseProducing()
            self.adopt(self.transferred(server, b"read before"), protocol)
            self.turn()
            self.assertEqual(protocol.data, b"")
            transport: Any = protocol.transport
            transport.resumeProducing()
            transport.pauseProducing()
            self.turn()
            self.assertEqual(protocol.data, b"")
            transport.resumeProducing()
            self.assertEqual(protocol.data, b"")
            wanted = b"read before" + inKernel
            self.until(partial(protocol.has, wanted))
            client.sendall(b".")
            self.until(partial(protocol.has, wanted + b"."))


onEveryReactor(Adopting, globals())


class Oddities(AttachTestCase):
    """
    What may go wrong.
    """

    def test_gone(self) -> None:
        """
        A client that has reset its connection is said to be gone, and its
        socket is closed.
        """
        client, server = self.accepted("IPv4")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        transferred = self.transferred(server)
        descriptor = transferred.descriptor
        self.assertRaises(ConnectionGone, transferred.adopt, Factory())
        self.assertEqual(transferred.descriptor, -1)
        self.assertRaises(OSError, os.fstat, descriptor)

    def test_closedByClient(self) -> None:
        """
        A client that has merely closed is served: what it had sent is read.
        """
        client, server = self.accepted("UNIX")
        client.sendall(b"the end")
        client.close()
        protocol = self.adopt(self.transferred(server))
        self.until(lambda: protocol.lost)
        self.assertEqual(protocol.data, b"the end")

    def test_noRoom(self) -> None:
        """
        In a process at its limit of open files the socket is kept: it can be
        adopted later, and its client notices nothing.
        """
        for family in FAMILIES:
            client, server = self.accepted(family)
            transferred = self.transferred(server, b"read ")
            descriptor = transferred.descriptor
            factory = Factory.forProtocol(self.recorder)
            with room(0):
                error = self.assertRaises(OSError, transferred.adopt, factory)
            self.assertEqual(error.errno, errno.EMFILE)
            self.assertEqual(transferred.descriptor, descriptor)
            os.fstat(descriptor)
            server.close()
            client.sendall(b"unread")
            protocol = self.adopt(transferred)
            self.until(partial(protocol.has, b"read unread"))

    def test_noRoomForTheProtocol(self) -> None:
        """
        When it is the factory or the protocol that cannot open something, the
        socket is closed as for any other error of theirs.
        """

        def fail(_: object) -> Any:
            raise OSError(errno.EMFILE, "no more")

        for name in ("buildProtocol", "makeConnection"):
            _, server = self.accepted("IPv4")
            protocol = Protocol()
            factory = Factory.forProtocol(partial(_same, protocol))
            setattr(factory if name == "buildProtocol" else protocol, name, fail)
            transferred = self.transferred(server)
            error = self.assertRaises(OSError, transferred.adopt, factory)
            self.assertEqual((error.errno, transferred.descriptor), (errno.EMFILE, -1))
            server.close()
            self.turn()

    def test_noConnection(self) -> None:
        """
        What is no connected stream socket is refused, and is still there.
        """
        datagrams = self.opened(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        netlink = self.opened(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        self.addCleanup(os.close, writing)
        factory = Factory.forProtocol(self.recorder)
        for descriptor, word in (
            (self.listener("IPv4").fileno(), "listening"),
            (self.listener("UNIX").fileno(), "listening"),
            (datagrams.fileno(), "SOCK_DGRAM"),
            (netlink.fileno(), "SOCK_RAW"),
            (reading, "no socket"),
        ):
            transferred = TransferredSocket(self.reactor, os.dup(descriptor), None, b"")
            error = self.assertRaises(NotTransferable, transferred.adopt, factory)
            self.assertIn(word, str(error))
            os.fstat(transferred.descriptor)
            transferred.close()

    def test_notWanted(self) -> None:
        """
        A connection that the factory does not want is closed.
        """
        client, server = self.accepted("IPv4")
        factory = Factory()
        factory.buildProtocol = lambda _: None  # type: ignore[assignment,method-assign]
        self.assertIs(self.transferred(server, b"unread").adopt(factory), None)
        server.close()
        self.assertEqual(client.recv(1), b"")

    def test_factoryRaises(self) -> None:
        """
        What the factory raises reaches the caller, and the socket is closed.
        """
        client, server = self.accepted("IPv4")
        factory = Factory()

        def fail(_: object) -> Protocol:
            raise ValueError("no")

        factory.buildProtocol = fail  # type: ignore[assignment,method-assign]
        self.assertRaises(ValueError, self.transferred(server).adopt, factory)
        server.close()
        self.assertEqual(client.recv(1), b"")

    def test_protocolRaisesAtOnce(self) -> None:
        """
        What the protocol raises when it is connected reaches the caller; the
        connection is closed.
        """
        client, server = self.accepted("IPv4")
        protocol = self.recorder()
        protocol.onMade = methodcaller("noSuchMethod")
        factory = Factory.forProtocol(lambda: protocol)
        self.assertRaises(AttributeError, self.transferred(server).adopt, factory)
        self.assertTrue(protocol.lost[0].check(AttributeError))
        server.close()
        self.assertEqual(client.recv(1), b"")

    def test_protocolRaises(self) -> None:
        """
        A protocol that fails on what was read before loses its connection, as if
        it had failed on what the reactor read.
        """
        _, server = self.accepted("IPv4")
        protocol = self.recorder()

        def fail(_: object) -> None:
            raise ValueError("no")

        protocol.dataReceived = fail  # type: ignore[assignment]
        self.adopt(self.transferred(server, b"unread"), protocol)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertTrue(protocol.lost[0].check(ValueError))

    def test_closedAtOnce(self) -> None:
        """
        A protocol that closes or aborts its connection when it is made is not
        given what was read before.
        """
        for do in ("loseConnection", "abortConnection"):
            _, server = self.accepted("IPv4")
            protocol = self.recorder()
            protocol.onMade = methodcaller(do)
            self.adopt(self.transferred(server, b"unread"), protocol)
            self.until(protocol.isLost)
            self.assertEqual(protocol.data, b"")

    def test_notSentBeforeItWasRead(self) -> None:
        """
        A connection whose protocol has not yet read what came along is not sent
        on: that would be lost.
        """
        _, server = self.accepted("IPv4")
        protocol = self.recorder()
        protocol.onMade = lambda transport: transport.pauseProducing()
        self.adopt(self.transferred(server, b"unread"), protocol)
        self.failureResultOf(detach(protocol.transport), NotTransferable)
        protocol.transport.resumeProducing()
        self.until(lambda: protocol.data == b"unread")
        self.successResultOf(detach(protocol.transport)).resume()

    def test_owner(self) -> None:
        """
        A descriptor is given away once; a socket that is forgotten is closed,
        with a warning.
        """
        _, server = self.accepted("IPv4")
        transferred = self.transferred(server)
        os.close(transferred.detach())
        self.assertRaises(UsageError, transferred.detach)
        self.assertRaises(UsageError, transferred.adopt, Factory())
        transferred.close()
        descriptor = os.dup(server.fileno())

        def forget() -> None:
            TransferredSocket(self.reactor, descriptor, None, b"")

        self.assertWarns(
            ResourceWarning,
            f"a transferred socket, descriptor {descriptor}, was neither adopted nor "
            "detached nor closed",
            __file__,
            forget,
        )
        self.assertRaises(OSError, os.fstat, descriptor)
