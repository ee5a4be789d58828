"""
The answering end of a server-socket channel.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
from typing import Any

from twisted.internet import interfaces
from twisted.internet.address import UNIXAddress
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.logger import Logger, formatEvent
from twisted.protocols import amp
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.sockethelpers import Events, descriptors
from twisted_cluster.sockets.addresses import Address
from twisted_cluster.sockets.servers import answering
from twisted_cluster.sockets.servers.answering import ServerSocketProtocol
from twisted_cluster.sockets.servers.binding import makeSocket
from twisted_cluster.sockets.servers.commands import ReleaseSocket, RequestSocket
from twisted_cluster.sockets.wire import strictamp
from twisted_cluster.sockets.wire.strictamp import LARGEST, MOST_DESCRIPTORS
from twisted_cluster.supervisor.listeners import Listeners


@implementer(interfaces.IUNIXTransport)
class Wire:
    """
    A transport that keeps what is sent, with duplicates of the descriptors.
    """

    def __init__(self) -> None:
        self.written = b""
        self.sent: list[int] = []
        self.closed = False
        self.pending = 0

    def sendFileDescriptor(self, descriptor: int) -> None:
        self.sent.append(os.dup(descriptor))

    def write(self, data: bytes) -> None:
        self.written += data

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        self.closed = True

    def abortConnection(self) -> None:
        self.closed = True

    def getPeer(self) -> interfaces.IAddress:
        return UNIXAddress(None)

    def getHost(self) -> interfaces.IAddress:
        return UNIXAddress(None)


class ServerSocketProtocolTests(SynchronousTestCase):
    """
    C{ServerSocketProtocol}, fed by hand.
    """

    def setUp(self) -> None:
        before = descriptors()
        self.events = Events()
        self.listeners = Listeners(50, Clock(), log=Logger(observer=self.events))
        self.wire = Wire()
        self.protocol = ServerSocketProtocol(self.listeners, 7, "worker 7")
        for module in (answering, strictamp):
            self.patch(module, "_log", Logger(observer=self.events))
        self.protocol.makeConnection(self.wire)
        self.ordinal = 0
        self.ended = False

        def ended() -> None:
            self.end()
            self.listeners.closeAll()
            for descriptor in self.wire.sent:
                os.close(descriptor)
            self.assertEqual(before, descriptors())

        self.addCleanup(ended)

    def end(self) -> None:
        if not self.ended:
            self.ended = True
            self.protocol.connectionLost(Failure(ConnectionDone()))

    def question(self, address: Address, **changes: Any) -> bytes:
        values: dict[str, Any] = {
            "kind": address.kind.encode(),
            "host": address.host,
            "port": address.port,
            "path": address.path,
            "index": 0,
            "backlog": 50,
            "mode": 0o666,
            "lock": False,
            "explicit": False,
            "starting": True,
            **changes,
        }
        box = amp.AmpBox()
        for name, argument in RequestSocket.arguments:
            if name != b"socket":
                argument.toBox(name, box, values, None)
        box[b"socket"] = b"%d" % self.ordinal
        self.ordinal += 1
        box[amp.COMMAND] = RequestSocket.commandName
        box[amp.ASK] = b"1"
        return bytes(box.serialize())

    def send(self, data: bytes, *descriptors: int) -> None:
        for descriptor in descriptors:
            self.protocol.fileDescriptorReceived(descriptor)
        self.protocol.dataReceived(data)

    def ask(self, address: Address, **changes: Any) -> dict[bytes, bytes]:
        self.send(self.question(address, **changes), makeSocket(address).detach())
        (box,) = amp.parseString(self.wire.written)
        self.wire.written = b""
        return dict(box)

    def assertBroken(self, why: str) -> None:
        self.assertTrue(self.wire.closed)
        self.assertEqual(b"", self.wire.written)
        (event,) = self.events
        text = formatEvent(event)
        self.assertIn("Worker 7 broke the rules", text)
        self.assertIn(why, text)

    def test_transport(self) -> None:
        """
        The double that these tests use is a UNIX transport.
        """
        verifyObject(interfaces.IUNIXTransport, self.wire)

    def test_shared(self) -> None:
        """
        The answer carries the bound socket, its port, and the question's tag.
        """
        answer = self.ask(Address("tcp", "127.0.0.1"))
        self.assertEqual(
            (b"shared", b"1", b"0"),
            (answer[b"verdict"], answer[amp.ANSWER], answer[b"socket"]),
        )
        with socket.socket(fileno=os.dup(self.wire.sent[0])) as skt:
            self.assertEqual([str(Address.ofSocket(skt))], self.listeners.addresses)
            self.assertEqual(answer[b"port"], b"%d" % skt.getsockname()[1])

    def test_own(self) -> None:
        """
        What is none of the cluster's is answered without a socket.
        """
        answer = self.ask(Address("tcp", "127.0.0.1", 1), starting=False)
        self.assertEqual(b"own", answer[b"verdict"])
        self.assertNotIn(b"socket", answer)
        self.assertEqual([], self.wire.sent)

    def test_refused(self) -> None:
        """
        What cannot be bound is answered with C{bind}'s errno and message.
        """
        with socket.create_server(("127.0.0.1", 0)) as other:
            answer = self.ask(Address.ofSocket(other))
        self.assertEqual(
            (b"refused", b"%d" % errno.EADDRINUSE, b"Address already in use"),
            (answer[b"verdict"], answer[b"errno"], answer[b"message"]),
        )

    def test_release(self) -> None:
        """
        A release reaches the listeners, and is not answered.
        """
        self.ask(Address("tcp", "127.0.0.1"))
        with socket.socket(fileno=os.dup(self.wire.sent[0])) as skt:
            address = Address.ofSocket(skt)
        box = amp.AmpBox(
            kind=b"tcp",
            host=address.host.encode(),
            port=b"%d" % address.port,
            path=b"",
        )
        box[amp.COMMAND] = ReleaseSocket.commandName
        self.send(box.serialize())
        self.assertEqual([], self.listeners.addresses)
        self.assertEqual(b"", self.wire.written)

    def test_garbage(self) -> None:
        """
        What is no AMP, no command, or a command with nonsense in it ends the
        connection, and says whose it was.
        """
        address = Address("tcp", "127.0.0.1", 1)

        def question(address: Address, **changes: Any) -> bytes:
            self.ordinal = 0
            return self.question(address, **changes)

        for data, why in [
            (b"GET / HTTP/1.1\r\n\r\n", "a key of"),
            (b"\0\0", "an unknown command None"),
            (amp.AmpBox(_command=b"Nonsense").serialize(), "b'Nonsense'"),
            (amp.AmpBox(_answer=b"1").serialize(), "an unknown command"),
            (amp.AmpBox(_command=b"RequestSocket").serialize(), "KeyError"),
            (question(address, kind=b"icmp"), "KeyError: b'icmp'"),
            (question(address, host="localhost"), "illegal IP address"),
            (question(address, port=70000), "no port: 70000"),
            (question(Address.unix(b"/x"), path=b"x"), "not an absolute path"),
            (question(Address("udp", "127.0.0.1")), "a socket of"),
        ]:
            self.end()
            self.ended = False
            self.protocol = ServerSocketProtocol(self.listeners, 7, "worker 7")
            self.wire = Wire()
            del self.events[:]
            self.protocol.makeConnection(self.wire)
            self.send(data, makeSocket(address).detach())
            self.assertBroken(why)

    def test_noDescriptor(self) -> None:
        """
        A question without its descriptor ends the connection.
        """
        self.send(self.question(Address("tcp", "127.0.0.1")))
        self.assertBroken("KeyError")

    def test_noSocket(self) -> None:
        """
        A descriptor that is no socket ends the connection.
        """
        self.send(
            self.question(Address("tcp", "127.0.0.1")),
            os.open("/dev/null", os.O_RDONLY),
        )
        self.assertBroken("Socket operation on non-socket")

    def test_tooManyDescriptors(self) -> None:
        """
        Descriptors without questions end the connection and are closed.
        """
        for _ in range(MOST_DESCRIPTORS + 3):
            self.protocol.fileDescriptorReceived(os.open("/dev/null", os.O_RDONLY))
        self.assertBroken("more descriptors than anything")

    def test_halfAQuestion(self) -> None:
        """
        A worker that ends in the middle of a question leaves no descriptor
        behind, and a line in the log.
        """
        address = Address("tcp", "127.0.0.1")
        self.send(self.question(address)[:20], makeSocket(address).detach())
        self.end()
        self.assertIn("Worker 7 ended in the middle", formatEvent(self.events[0]))

    def test_endlessQuestion(self) -> None:
        """
        A question that does not end is not collected for ever.
        """
        value = b"\0\x01k\xff\xff" + b"x" * 65535
        for _ in range(LARGEST // len(value) + 1):
            self.assertFalse(self.wire.closed)
            self.send(value)
        self.assertBroken("a question for a socket without an end")

    def test_unreadAnswers(self) -> None:
        """
        A worker that asks on and on without reading the answers is cut off.
        """
        self.wire.pending = 10**6
        address = Address("tcp", "127.0.0.1")
        self.send(self.question(address), makeSocket(address).detach())
        self.assertBroken("without reading the answers")

    def test_noDescriptorLeft(self) -> None:
        """
        When the watcher has too many open files, the worker is refused with
        EMFILE, nothing is left of the attempt, and the next one succeeds.
        """
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        address = Address("tcp", "127.0.0.1")
        question, skt = self.question(address), makeSocket(address)
        lowest = os.dup(skt.fileno())
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            self.send(question, skt.detach())
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        (answer,) = amp.parseString(self.wire.written)
        self.assertEqual(
            (b"refused", b"%d" % errno.EMFILE), (answer[b"verdict"], answer[b"errno"])
        )
        self.assertEqual([], self.listeners.addresses)
        self.wire.written = b""
        self.assertEqual(b"shared", self.ask(address)[b"verdict"])
