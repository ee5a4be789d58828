"""
The two ends of a control channel, over real sockets.
"""

from __future__ import annotations

import socket
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols import amp
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.errors import ChannelClosed, ProtocolError
from twisted_cluster.interfaces import Message
from twisted_cluster.ipc import commands, protocol
from twisted_cluster.ipc.codec import encode, joinBatch
from twisted_cluster.ipc.conversation import Conversation
from twisted_cluster.ipc.inbox import Inbox
from twisted_cluster.ipc.protocol import ControlProtocol

LIMIT = 10_000_000


class Transport(StringTransport):
    """
    A transport that remembers whether it was to be closed.

    @ivar pending: as that of L{UNIXTransport}.
    """

    pending = 0


class End:
    """
    One end, whose bytes are carried by hand.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.transport = Transport()
        self.protocol = ControlProtocol()
        self.messages: list[Any] = []
        inbox: Inbox[Message] = Inbox("")
        self.conversation: Conversation[Message] = Conversation(
            lambda: self.clock,
            self.protocol.sendPiece,
            lambda: None,
            inbox,
            Message,
            LIMIT,
        )
        self.protocol.conversation = self.conversation
        self.wrong: list[Failure] = []
        self.lost: list[Failure] = []
        self.protocol.nonsense = self.wrong.append
        self.protocol.lost = self.lost.append
        self.protocol.makeConnection(self.transport)
        Deferred.fromCoroutine(self.consume(inbox))

    async def consume(self, inbox: Inbox[Message]) -> None:
        async for message in inbox.consume():
            self.messages.append(message.data)

    def take(self) -> bytes:
        """
        What was written since the last call.
        """
        self.conversation.flush()
        data: bytes = self.transport.value()
        self.transport.clear()
        return data


def settle(one: End, other: End) -> None:
    """
    Carry bytes until there are none.
    """
    while True:
        out, back = one.take(), other.take()
        if not out and not back:
            return
        other.protocol.dataReceived(out)
        one.protocol.dataReceived(back)


class Carried(SynchronousTestCase):
    """
    What the protocol carries.
    """

    def test_messages(self) -> None:
        """
        Messages arrive and are acknowledged, both ways, long ones too.
        """
        one, other = End(), End()
        sent = [one.conversation.send(b"x" * 1_000_000), one.conversation.send(1)]
        back = other.conversation.send({"a": 2})
        settle(one, other)
        self.assertEqual(other.messages, [b"x" * 1_000_000, 1])
        self.assertEqual(one.messages, [{"a": 2}])
        for each in (*sent, back):
            self.successResultOf(each)

    def test_requests(self) -> None:
        """
        A request and its reply are one box each: they answer one another.
        """
        one, other = End(), End()
        other.conversation.responder(lambda data: data + 1)
        asked = one.conversation.request(1)
        for sender, receiver in ((one, other), (other, one)):
            stream = sender.take()
            self.assertEqual(len(amp.parseString(stream)), 1)
            receiver.protocol.dataReceived(stream)
        self.assertEqual(self.successResultOf(asked), 2)
        self.assertEqual((one.take(), other.take()), (b"", b""))

    def test_boxesFit(self) -> None:
        """
        A piece never is too long for AMP.
        """
        box = amp.AmpBox(
            kind=b"m", data=b"x" * commands.PIECE, more=b"True", _command=b"Messages"
        )
        self.assertTrue(0 < len(box.serialize()) < 65_535)

    @given(
        st.lists(st.binary(max_size=200_000) | st.integers(0, 255), max_size=5),
        st.lists(st.integers(1, 70_000), min_size=1),
    )
    def test_chunks(self, messages: list[Any], sizes: list[int]) -> None:
        """
        However the stream of bytes is cut on its way, the messages arrive.
        """
        one, other = End(), End()
        sent = [one.conversation.send(message) for message in messages]
        while stream := one.take():
            start = number = 0
            while start < len(stream):
                size = sizes[number % len(sizes)]
                other.protocol.dataReceived(stream[start : start + size])
                start += size
                number += 1
            one.protocol.dataReceived(other.take())
        self.assertEqual(other.messages, messages)
        self.assertTrue(all(each.called for each in sent))

    def test_lost(self) -> None:
        """
        The end of the connection is told once, and ends what waits.
        """
        one = End()
        call = one.protocol.call(commands.Ping)
        sent = one.conversation.send(1)
        one.take()
        one.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(len(one.lost), 1)
        self.failureResultOf(call, ConnectionDone)
        self.failureResultOf(sent, ChannelClosed)
        self.assertIsNone(one.protocol.transport)


class Broken(SynchronousTestCase):
    """
    A peer that breaks the rules.
    """

    def refused(self, end: End) -> None:
        """
        One end has said why, and closes the connection.
        """
        self.assertEqual(len(end.wrong), 1)
        self.assertTrue(end.transport.disconnecting)
        self.assertEqual(self.flushLoggedErrors(), [], "nonsense() logs")

    def command(self, **values: bytes) -> bytes:
        """
        A command to take messages.
        """
        box = {b"_command": b"Messages", b"_ask": b"1"}
        box.update((key.encode(), value) for key, value in values.items())
        return bytes(amp.AmpBox(box).serialize())

    def test_noBatch(self) -> None:
        """
        A batch that cannot be decoded closes the connection.
        """
        end = End()
        end.protocol.dataReceived(
            self.command(kind=b"m", data=b"garbage", more=b"False")
        )
        self.refused(end)
        self.assertTrue(end.wrong[0].check(ProtocolError))

    def test_unknownKind(self) -> None:
        """
        So does a batch of unknown kind.
        """
        end = End()
        end.protocol.dataReceived(
            self.command(kind=b"z", data=joinBatch([]), more=b"False")
        )
        self.refused(end)

    def test_notAMP(self) -> None:
        """
        And what is no AMP at all.
        """
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100, b"\0\0"):
            end = End()
            end.protocol.dataReceived(garbage)
            self.refused(end)

    def test_answerToNothing(self) -> None:
        """
        And an answer to no question.
        """
        end = End()
        end.protocol.dataReceived(amp.AmpBox({b"_answer": b"99"}).serialize())
        self.refused(end)

    @given(st.binary(min_size=1))
    def test_anything(self, garbage: bytes) -> None:
        """
        No bytes make the protocol raise.
        """
        end = End()
        end.protocol.dataReceived(garbage)
        self.flushLoggedErrors()

    def test_writesAndNeverReads(self) -> None:
        """
        A peer that sends and does not read the answers is given up before they
        fill our memory.
        """
        end = End()
        batch = joinBatch([encode(1, 100)])
        data = self.command(kind=b"m", data=batch, more=b"False")
        end.transport.pending = protocol._MOST_UNREAD
        end.protocol.dataReceived(data)
        self.assertEqual((end.messages, end.wrong), ([1], []))
        end.transport.pending += 1
        end.protocol.dataReceived(data)
        self.refused(end)
        self.assertEqual(end.messages, [1])


class OverSockets(SynchronousTestCase):
    """
    With the transport that carries it in earnest.
    """

    def test_survivesTheSender(self) -> None:
        """
        What was sent before a process died arrives, and then the end.
        """
        from tests.sockets.wire.test_transport import Reactor
        from twisted_cluster.sockets.wire.blocking import BlockingTransport
        from twisted_cluster.sockets.wire.transport import UNIXTransport

        reactor = Reactor()
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        sender = End()
        sender.conversation.setWindowed(False)
        sender.protocol.transport = BlockingTransport(theirs, 1.0)
        receiver = End()
        transport = UNIXTransport(reactor, ours, receiver.protocol)
        self.addCleanup(transport.discard)
        transport.start()
        sender.conversation.send("last words")
        sender.conversation.flush()
        theirs.close()
        reactor.turn()
        self.assertEqual(receiver.messages, ["last words"])
        reactor.turn()
        self.assertEqual(len(receiver.lost), 1)
        self.assertTrue(receiver.lost[0].check(ConnectionDone, ConnectionLost, OSError))
        self.assertNotIn(transport, reactor.getReaders())
