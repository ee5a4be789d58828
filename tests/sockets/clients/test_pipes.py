"""
Client sockets go through a pipe between two ends in one process.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, Optional

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory

from tests.sockethelpers import descriptors
from tests.sockets.reactors import ReactorTestCase
from twisted_cluster.errors import (
    AlreadyConsumed,
    ChannelClosed,
    ChannelFull,
    ConnectionGone,
    MessageNotSerializable,
    MessageTooLarge,
    NotTransferable,
    ProtocolError,
    TransferFailed,
    UsageError,
)
from twisted_cluster.sockets import (
    ClientSocketReceivePipe,
    ClientSocketSendPipe,
    ConnectionTransferred,
    TransferredSocket,
)
from twisted_cluster.sockets.clients.receiver import MOST_WAITING
from twisted_cluster.sockets.wire.frames import encodeBatch
from twisted_cluster.sockets.wire.transport import UNIXTransport


class Point(msgspec.Struct):
    """
    Something of the user's.
    """

    x: int


class Consumer:
    """
    Takes what a pipe yields, and closes it with the test.
    """

    def __init__(
        self, case: PipesTestCase, most: int = 10**9, keep: bool = True
    ) -> None:
        """
        @param most: leave the loop after so many.
        @param keep: leave them open until then.
        """
        self.most = most
        self.keep = keep
        self.taken: list[TransferredSocket] = []
        self.pause: Optional[Deferred[None]] = None
        self.case = case
        self.done: Deferred[None] = Deferred.fromCoroutine(self.run(case.receiver))

    async def run(self, pipe: ClientSocketReceivePipe) -> None:
        async for each in pipe:
            self.taken.append(each)
            if self.keep:
                self.case.addCleanup(each.close)
            else:
                each.close()
            if self.pause is not None:
                await self.pause
            if len(self.taken) == self.most:
                break

    @property
    def data(self) -> list[Any]:
        """
        What came along.
        """
        return [each.data for each in self.taken]

    def has(self, count: int) -> bool:
        """
        Whether so many were taken.
        """
        return len(self.taken) >= count


def _then(do: Callable[[], object], result: None) -> None:
    do()


def _allCalled(deferreds: list[Deferred[None]]) -> bool:
    return all(each.called for each in deferreds)


class PipesTestCase(ReactorTestCase):
    """
    Two ends of a pipe.
    """

    def setUp(self) -> None:
        super().setUp()
        self.files: list[int] = []
        self.pipes: list[Any] = []
        self.connect()

    def connect(self, **limits: Any) -> None:
        """
        Make a new pair.
        """
        ours, theirs = socket.socketpair()
        self.sender = ClientSocketSendPipe(self.reactor, ours, **limits)
        self.receiver = ClientSocketReceivePipe(self.reactor, theirs)
        self.pipes += [self.sender, self.receiver]
        self.raw = ours

    def leave(self) -> None:
        for pipe in self.pipes:
            pipe.abort()
        for descriptor in self.files:
            os.close(descriptor)
        super().leave()

    def file(self) -> int:
        """
        A descriptor of its own, open until the end of the test.
        """
        reading, writing = os.pipe()
        os.close(writing)
        self.files.append(reading)
        return reading

    def isSame(self, one: int, other: int) -> bool:
        """
        Whether two descriptors are duplicates.
        """
        return os.fstat(one).st_ino == os.fstat(other).st_ino

    def failed(self, sent: Deferred[None], kind: type[Exception]) -> str:
        """
        What a transfer failed with.
        """
        self.until(lambda: sent.called)
        return str(self.failureResultOf(sent, kind).value)


class Sending(PipesTestCase):
    """
    What may be sent, and how it arrives.
    """

    def test_descriptor(self) -> None:
        """
        A descriptor arrives with its data, close-on-exec, and the sender is
        told; the caller's own may be closed as soon as send() has returned.
        """
        consumer = Consumer(self)
        descriptor = self.file()
        mine = os.dup(descriptor)
        sent = self.sender.send(mine, {"number": 7})
        os.close(mine)
        self.assertNoResult(sent)
        self.until(lambda: sent.called)
        self.assertIs(self.successResultOf(sent), None)
        [taken] = consumer.taken
        self.assertEqual((taken.data, taken.unread), ({"number": 7}, b""))
        self.assertTrue(self.isSame(taken.descriptor, descriptor))
        self.assertFalse(os.get_inheritable(taken.descriptor))

    def test_reusedNumber(self) -> None:
        """
        A number that names something else by the time the descriptor leaves
        does no harm.
        """
        consumer = Consumer(self)
        mine, other = os.dup(self.file()), self.file()
        sent = self.sender.send(mine)
        os.close(mine)
        os.dup2(other, mine)
        self.addCleanup(os.close, mine)
        self.until(lambda: sent.called)
        self.assertTrue(self.isSame(consumer.taken[0].descriptor, self.files[0]))

    def test_socket(self) -> None:
        """
        So does a socket, which may be closed at once, too.
        """
        consumer = Consumer(self)
        client, server = self.accepted("IPv4")
        sent = self.sender.send(server, "hello")
        server.close()
        self.until(lambda: sent.called)
        protocol = self.recorder()
        consumer.taken[0].adopt(Factory.forProtocol(lambda: protocol))
        client.sendall(b"to there")
        self.until(lambda: protocol.data == b"to there")

    def test_transport(self) -> None:
        """
        A live connection goes: what was written is sent first, what was read
        comes along, what the client sends meanwhile arrives; the sender's
        protocol hears that it was transferred when it was, not before.
        """
        protocol, client = self.served()
        client.sendall(b"GET ")
        self.until(lambda: protocol.data)
        big = b"x" * 5_000_000
        protocol.transport.write(big)
        sent = self.sender.send(protocol.transport, 1, unread=protocol.data)
        client.sendall(b"/path")
        self.assertEqual(self.read(client, len(big)), big)
        self.turn()
        self.assertEqual((protocol.lost, sent.called), ([], False))
        consumer = Consumer(self)
        self.until(lambda: sent.called)
        [reason] = protocol.lost
        self.assertTrue(reason.check(ConnectionTransferred))
        there = self.recorder()
        consumer.taken[0].adopt(Factory.forProtocol(lambda: there))
        self.until(lambda: there.data == b"GET /path")
        there.transport.write(b"answer")
        self.assertEqual(self.read(client, 6), b"answer")

    def test_transportNotTaken(self) -> None:
        """
        A live connection that the other side does not take goes on as before.
        """
        protocol, client = self.served()
        sent = self.sender.send(protocol.transport, 1)
        self.turn()
        client.sendall(b"hello")
        self.receiver.close("no, thanks")
        self.assertIn("no, thanks", self.failed(sent, TransferFailed))
        self.until(lambda: protocol.data == b"hello")
        protocol.transport.write(b"still here")
        self.assertEqual(self.read(client, 10), b"still here")

    def test_slowTransportHoldsNobodyUp(self) -> None:
        """
        While a client has not read what was written to it, other sockets pass.
        """
        consumer = Consumer(self)
        protocol, client = self.served()
        protocol.transport.write(b"x" * 8_000_000)
        self.turn()
        slow = self.sender.send(protocol.transport, "slow")
        quick = self.sender.send(self.file(), "quick")
        self.until(lambda: quick.called)
        self.assertEqual((consumer.data, self.sender.waiting), (["quick"], 1))
        self.read(client, 8_000_000)
        self.until(lambda: slow.called)
        self.assertEqual(consumer.data, ["quick", "slow"])

    def test_clientGoesMeanwhile(self) -> None:
        """
        A client that goes before it has read what was written is told to the
        caller, and other transfers are none the worse.
        """
        protocol, client = self.served()
        protocol.transport.write(b"x" * 8_000_000)
        self.turn()
        sent = self.sender.send(protocol.transport)
        client.close()
        self.assertIn("ended before", self.failed(sent, TransferFailed))
        self.assertEqual(len(protocol.lost), 1)
        consumer = Consumer(self)
        other = self.sender.send(self.file())
        self.until(lambda: other.called)
        self.assertTrue(consumer.has(1))

    def test_data(self) -> None:
        """
        Data of any kind and size arrives as it was sent, with what is unread.
        """
        consumer = Consumer(self)
        values: list[Any] = [None, -1, 1.5, "é", b"\0", [1, [2]], {"a": {"b": None}}]
        values.append(os.urandom(3_000_000))
        sent = [
            self.sender.send(self.file(), value, b"u" * number)
            for number, value in enumerate(values)
        ]
        self.until(lambda: all(each.called for each in sent))
        self.assertEqual(consumer.data, values)
        self.assertEqual(
            [each.unread for each in consumer.taken],
            [b"u" * number for number in range(len(values))],
        )
        last = self.sender.send(self.file(), Point(3))
        self.until(lambda: last.called)
        self.assertEqual(consumer.data[-1], {"x": 3})

    def test_order(self) -> None:
        """
        Sockets arrive in the order of the calls, each with its own data,
        whatever their sizes.
        """
        self.connect(window=10, windowBytes=50_000)
        consumer = Consumer(self)
        sizes = [1, 40_000, 3, 120_000, 5, 6, 49_000, 1_000] * 20
        sent = []
        for number, size in enumerate(sizes):
            sent.append(self.sender.send(self.file(), [number, b"x" * size]))
        self.until(lambda: all(each.called for each in sent))
        for each in sent:
            self.successResultOf(each)
        for number, taken in enumerate(consumer.taken):
            self.assertEqual(taken.data, [number, b"x" * sizes[number]])
            self.assertTrue(self.isSame(taken.descriptor, self.files[number]))

    def test_refused(self) -> None:
        """
        What cannot be sent fails at once, with the reason, and does not disturb
        what can.
        """
        closed = socket.socket()
        closed.close()
        context = ssl.create_default_context()
        secure = self.opened(
            context.wrap_socket(
                self.opened(socket.socket()),
                do_handshake_on_connect=False,
                server_hostname="localhost",
            )
        )
        self.connect(maxDataSize=1000)
        consumer = Consumer(self)
        for what, data, kind, word in (
            (closed, None, NotTransferable, "closed"),
            (secure, None, NotTransferable, "TLS"),
            ("socket", None, NotTransferable, "no stream transport"),
            (True, None, NotTransferable, "no stream transport"),
            (9999, None, OSError, "9999"),
            (self.file(), object(), MessageNotSerializable, "object"),
            (self.file(), b"x" * 1000, MessageTooLarge, "1,000"),
        ):
            sent = self.sender.send(what, data)  # type: ignore[arg-type]
            failure = self.failureResultOf(sent, kind)
            self.assertIn(word, failure.getErrorMessage())
        sent = self.sender.send(self.file(), 1)
        self.until(lambda: sent.called)
        self.assertEqual(consumer.data, [1])

    def test_noConnection(self) -> None:
        """
        A pipe is made over a connected UNIX stream socket, and no other.
        """
        skt = self.opened(socket.socket())
        self.assertRaises(UsageError, ClientSocketSendPipe, self.reactor, skt)
        self.assertRaises(UsageError, ClientSocketReceivePipe, self.reactor, skt)


class BackPressure(PipesTestCase):
    """
    More than the other side takes.
    """

    def test_window(self) -> None:
        """
        While nobody takes any, so many are on their way as the window has room
        for, so many wait as the queue has, and more are refused; all go on when
        somebody does.
        """
        self.connect(window=10, maxQueued=20)
        descriptor = self.file()
        sent = [self.sender.send(descriptor, number) for number in range(31)]
        self.failureResultOf(sent.pop(), ChannelFull)
        self.turn()
        self.assertEqual(self.sender.waiting, 20)
        self.assertFalse(any(each.called for each in sent))
        before = descriptors()
        self.turn()
        self.assertEqual(descriptors(), before)
        consumer = Consumer(self)
        self.until(lambda: all(each.called for each in sent))
        self.assertEqual(consumer.data, list(range(30)))

    def test_bytes(self) -> None:
        """
        The window counts bytes, too, but lets one of any size pass.
        """
        self.connect(windowBytes=1000)
        sent = [self.sender.send(self.file(), b"x" * 400) for _ in range(5)]
        self.assertEqual(self.sender.waiting, 3)
        consumer = Consumer(self)
        sent.append(self.sender.send(self.file(), b"x" * 100_000))
        self.until(lambda: all(each.called for each in sent))
        self.assertEqual(len(consumer.data[-1]), 100_000)

    def test_queuedBytes(self) -> None:
        """
        What waits is limited in bytes, too.
        """
        self.connect(windowBytes=1000, maxDataSize=10_000)
        sent = [self.sender.send(self.file(), b"x" * 4000) for _ in range(4)]
        self.failureResultOf(sent.pop(), ChannelFull)
        Consumer(self)
        self.until(lambda: all(each.called for each in sent))

    def test_queuedBytesAtTheEnd(self) -> None:
        """
        When the connection ends nothing waits any more, neither sockets nor live
        transports whose client still reads, nor bytes of either.
        """
        self.connect(window=1)
        protocol, _ = self.served()
        protocol.transport.write(b"x" * 8_000_000)
        self.turn()
        sent = [self.sender.send(protocol.transport, b"x" * 1000)]
        sent += [self.sender.send(self.file(), b"x" * 1000) for _ in range(3)]
        self.assertEqual(self.sender.waiting, 3)
        self.assertTrue(self.sender._queuedBytes > 3000)
        self.receiver.abort()
        for each in sent:
            self.failed(each, TransferFailed)
        self.assertEqual((self.sender.waiting, self.sender._queuedBytes), (0, 0))

    def test_notTakenEarly(self) -> None:
        """
        A socket counts as taken when the consumer gets it: one that is busy has
        one, and the senders of the others still wait.
        """
        consumer = Consumer(self)
        consumer.pause = Deferred()
        sent = [self.sender.send(self.file(), number) for number in range(10)]
        self.until(lambda: sent[0].called)
        self.turn()
        self.assertEqual([each.called for each in sent], [True] + [False] * 9)
        self.assertEqual(consumer.data, [0])
        pause, consumer.pause = consumer.pause, None
        pause.callback(None)
        self.until(lambda: all(each.called for each in sent))
        self.assertEqual(consumer.data, list(range(10)))

    def test_takenAhead(self) -> None:
        """
        What was taken for a consumer that had kept up is not lost when it
        pauses, leaves, or when the pipe is closed: it is next.
        """
        consumer = Consumer(self, most=40)
        first = [self.sender.send(self.file(), number) for number in range(100)]
        self.until(lambda: consumer.done.called)
        self.turn()
        ahead = sum(each.called for each in first)
        self.assertTrue(40 <= ahead < 100, ahead)
        closed = self.receiver.close()
        self.until(lambda: closed.called)
        other = Consumer(self)
        self.successResultOf(other.done)
        self.assertEqual(consumer.data + other.data, list(range(ahead)))
        for each in first[:ahead]:
            self.successResultOf(each)
        for each in first[ahead:]:
            self.failureResultOf(each, TransferFailed)

    def ahead(self) -> int:
        """
        Send 60, of which a consumer takes 20 and leaves.

        @return: a descriptor that is open once more for each that was taken ahead.
        """
        descriptor = self.file()
        consumer = Consumer(self, most=20, keep=False)
        for number in range(60):
            sent = self.sender.send(descriptor, number)
            sent.addErrback(lambda failure: failure.trap(TransferFailed))
        self.until(lambda: consumer.done.called)
        return descriptor

    def copies(self, descriptor: int) -> int:
        """
        How often something is open in this process.
        """
        target = os.readlink(f"/proc/self/fd/{descriptor}")
        links = [f"/proc/self/fd/{each}" for each in os.listdir("/proc/self/fd")]
        return sum(
            os.path.lexists(each) and os.readlink(each) == target for each in links
        )

    def test_aborted(self) -> None:
        """
        What was taken ahead for a consumer that has left is closed by abort(), and
        nobody gets it any more.
        """
        descriptor = self.ahead()
        self.receiver.abort()
        self.until(lambda: self.sender.closed)
        self.assertEqual(self.copies(descriptor), 1)
        other = Consumer(self)
        self.successResultOf(other.done)
        self.assertEqual(other.data, [])

    def test_abortedAfterTheEnd(self) -> None:
        """
        When the connection ends it waits for another consumer; abort() closes it
        then, too.
        """
        descriptor = self.ahead()
        self.sender.abort()
        self.until(lambda: self.receiver.closed)
        self.assertTrue(self.copies(descriptor) > 1)
        self.receiver.abort()
        self.assertEqual(self.copies(descriptor), 1)

    def test_abortedWhileBusy(self) -> None:
        """
        A consumer that is busy gets what was taken for it after abort(), too; what
        it leaves is closed.
        """
        descriptor = self.file()
        pause: Deferred[None] = Deferred()
        taken: list[object] = []

        async def consume() -> None:
            async for each in self.receiver:
                each.close()
                taken.append(each.data)
                if len(taken) == 20:
                    await pause
                if len(taken) == 25:
                    break

        done = Deferred.fromCoroutine(consume())
        for number in range(60):
            sent = self.sender.send(descriptor, number)
            sent.addErrback(lambda failure: failure.trap(TransferFailed))
        self.until(lambda: len(taken) == 20)
        self.receiver.abort()
        self.until(lambda: self.sender.closed)
        self.assertTrue(self.copies(descriptor) > 6)
        pause.callback(None)
        self.successResultOf(done)
        self.assertEqual(taken, list(range(25)))
        self.assertEqual(self.copies(descriptor), 1)

    def test_flood(self) -> None:
        """
        A sender that keeps to no window is read no more when enough waits, and
        loses nothing by it.
        """
        descriptor = self.file()
        raw, theirs = socket.socketpair()
        self.opened(raw).setblocking(False)
        self.receiver.abort()
        self.receiver = ClientSocketReceivePipe(self.reactor, theirs)
        sent = 0
        before = descriptors()

        def flood() -> bool:
            nonlocal sent
            try:
                while sent < 20_000:
                    batch = [msgspec.msgpack.encode((sent + n, b"")) for n in range(50)]
                    socket.send_fds(raw, [encodeBatch(batch)], [descriptor] * 50)
                    sent += 50
            except OSError as error:
                # An ordinary user may not have as many on their way.
                self.assertIn(error.errno, (errno.EAGAIN, errno.ETOOMANYREFS))
                return False
            return True

        for _ in range(30):
            flood()
            self.turn()
        self.assertTrue(descriptors() <= before + MOST_WAITING + 50)
        self.assertTrue(MOST_WAITING <= sent < 20_000, sent)
        consumer = Consumer(self, keep=False)

        def done() -> bool:
            try:
                raw.recv(65536)
            except BlockingIOError:
                pass
            return flood() and consumer.has(20_000)

        self.until(done)
        self.assertEqual(consumer.data, list(range(20_000)))

    def test_takenWithoutConsumer(self) -> None:
        """
        Sockets whose sender was told that they are taken, when the consumer has
        left meanwhile, are the next consumer's, even after the end.
        """
        consumer = Consumer(self)
        for number in range(7):
            sent = self.sender.send(self.file(), number)
            self.until(partial(_allCalled, [sent]))
        patch = self.patch(UNIXTransport, "_sendSome", lambda _: None)
        frames = [msgspec.msgpack.encode((number, b"")) for number in range(7, 27)]
        socket.send_fds(self.raw, [encodeBatch(frames)], [self.file()] * 20)
        self.turn()
        self.assertEqual(consumer.data, list(range(7)))
        consumer.done.cancel()
        self.failureResultOf(consumer.done, CancelledError)
        patch.restore()
        self.turn()
        self.sender.abort()
        self.until(lambda: self.receiver.whenClosed().called)
        other = Consumer(self)
        self.assertEqual(other.data, list(range(7, 27)))


class Consuming(PipesTestCase):
    """
    Who may iterate.
    """

    def test_one(self) -> None:
        """
        A second consumer is refused while there is one, and welcome afterwards.
        """
        consumer = Consumer(self, most=1)
        self.assertRaises(AlreadyConsumed, aiter, self.receiver)
        self.sender.send(self.file(), 0)
        self.until(lambda: consumer.done.called)
        other = Consumer(self)
        self.sender.send(self.file(), 1)
        self.until(lambda: other.has(1))
        self.assertEqual(other.data, [1])

    def test_neverStarted(self) -> None:
        """
        An iterator that was thrown away counts no more.
        """
        iterator: Optional[AsyncIterator[TransferredSocket]] = aiter(self.receiver)
        self.assertRaises(AlreadyConsumed, aiter, self.receiver)
        del iterator
        Consumer(self)

    def test_end(self) -> None:
        """
        The iteration ends when the other side closes, or this one does.
        """
        consumer = Consumer(self)
        self.sender.close()
        self.until(lambda: consumer.done.called)
        self.successResultOf(consumer.done)
        self.connect()
        consumer = Consumer(self)
        self.receiver.close()
        self.until(lambda: consumer.done.called)
        self.successResultOf(consumer.done)


class Ending(PipesTestCase):
    """
    How pipes are closed, and what becomes of what was on its way.
    """

    def test_close(self) -> None:
        """
        A sender that is closed accepts nothing more, waits for what is on its
        way and in its queue, and closes then.
        """
        self.connect(window=2)
        sent = [self.sender.send(self.file(), number) for number in range(5)]
        closed = self.sender.close()
        self.failureResultOf(self.sender.send(self.file()), ChannelClosed)
        self.turn()
        self.assertNoResult(closed)
        consumer = Consumer(self)
        self.until(lambda: closed.called)
        self.assertEqual(consumer.data, list(range(5)))
        for each in sent:
            self.successResultOf(each)
        self.until(lambda: consumer.done.called)
        self.successResultOf(self.sender.close())
        self.successResultOf(self.sender.whenClosed())

    def test_closeWithin(self) -> None:
        """
        It does not wait for ever: past the limit, what is left fails.
        """
        sent = self.sender.send(self.file())
        closed = self.sender.close(timeout=0.05)
        self.until(lambda: closed.called)
        self.failed(sent, TransferFailed)

    def test_closeAfterFlush(self) -> None:
        """
        It waits for clients that still read, too.
        """
        consumer = Consumer(self)
        protocol, client = self.served()
        protocol.transport.write(b"x" * 8_000_000)
        self.turn()
        sent = self.sender.send(protocol.transport)
        closed = self.sender.close()
        self.turn()
        self.assertNoResult(closed)
        self.read(client, 8_000_000)
        self.until(lambda: closed.called)
        self.successResultOf(sent)
        self.assertTrue(consumer.has(1))

    def test_receiverCloses(self) -> None:
        """
        A receiver that is closed gives back what it did not take, with the
        reason; so does one that closes when much waits at the sender.
        """
        self.connect(window=2)
        sent = [self.sender.send(self.file()) for _ in range(5)]
        self.turn()
        self.receiver.close("nobody wants it")
        for each in sent[:2]:
            self.assertIn("nobody wants it", self.failed(each, TransferFailed))
        for each in sent[2:]:
            self.failed(each, TransferFailed)
        self.failureResultOf(self.sender.send(self.file()), ChannelClosed)

    def test_receiverGone(self) -> None:
        """
        When the receiver is gone everything that was not taken fails, live
        connections go on, and those that still flush stay.
        """
        self.connect(window=3)
        quick, client = self.served()
        slow, slowClient = self.served()
        slow.transport.write(b"x" * 8_000_000)
        self.turn()
        sent = [self.sender.send(self.file()) for _ in range(5)]
        sent.append(self.sender.send(quick.transport))
        sent.append(self.sender.send(slow.transport))
        self.turn()
        self.receiver.abort()
        for each in sent:
            self.assertIn("before it took", self.failed(each, TransferFailed))
        client.sendall(b"a")
        slowClient.sendall(b"b")
        self.until(lambda: (quick.data, slow.data) == (b"a", b"b"))
        self.until(lambda: self.sender.whenClosed().called)

    def test_reentrance(self) -> None:
        """
        Who is told of one transfer may send, close or abort from there.
        """
        consumer = Consumer(self)
        results: list[object] = []
        for do in (
            lambda: self.sender.send(self.file(), "again").addCallback(results.append),
            lambda: self.sender.close(),
            lambda: self.sender.abort(),
        ):
            self.sender.abort()
            self.receiver.abort()
            self.connect()
            consumer = Consumer(self)
            sent = [self.sender.send(self.file(), number) for number in range(5)]
            sent[1].addCallback(partial(_then, do))
            self.until(partial(_allCalled, sent))
            for each in sent:
                each.addErrback(lambda failure: failure.trap(TransferFailed))
            self.turn()
        self.assertEqual(results, [None])
        self.assertTrue(consumer.has(2))


class Faults(PipesTestCase):
    """
    What the other side may do wrong.
    """

    def speak(self, data: bytes, *descriptors: int) -> None:
        """
        Send bytes and descriptors that no pipe would.
        """
        socket.send_fds(self.raw, [data], descriptors)

    def test_garbage(self) -> None:
        """
        Bytes that mean nothing, a frame without its descriptor, a descriptor
        without its frame: the connection ends, and the consumer is told why.
        """
        good = encodeBatch([msgspec.msgpack.encode((1, b""))])
        for data, number in ((b"?garbage", 0), (good, 0), (b"T\0\0\0\0", 1), (good, 2)):
            self.sender.abort()
            self.receiver.abort()
            self.connect()
            consumer = Consumer(self)
            before = descriptors()
            self.speak(data, *[self.files[0] if self.files else self.file()] * number)
            self.until(partial(_allCalled, [consumer.done]))
            self.failureResultOf(consumer.done, ProtocolError)
            self.turn()
            self.assertTrue(descriptors() < before)

    def test_halfAFrame(self) -> None:
        """
        A frame that never ends counts for nothing when the connection does, and
        its descriptor is closed.
        """
        frame = encodeBatch([msgspec.msgpack.encode((b"x" * 100, b""))])
        consumer = Consumer(self)
        self.speak(frame[:50], self.file())
        self.turn()
        self.sender.abort()
        self.until(lambda: consumer.done.called)
        self.failureResultOf(consumer.done, ProtocolError)
        self.assertEqual(consumer.taken, [])

    def test_undecodable(self) -> None:
        """
        A socket whose data is no MessagePack is given back, and the next ones
        are taken.
        """
        consumer = Consumer(self)
        good = msgspec.msgpack.encode(("good", b""))
        bad = msgspec.msgpack.encode("bad")
        self.speak(encodeBatch([good, bad, b"\xc1", good]), *[self.file()] * 4)
        self.until(lambda: consumer.has(2))
        self.assertEqual(consumer.data, ["good", "good"])

    def test_wrongAnswers(self) -> None:
        """
        An answer to what was never sent ends the connection; what was sent
        fails.
        """
        ours, theirs = socket.socketpair()
        self.opened(theirs)
        sender = ClientSocketSendPipe(self.reactor, ours)
        sent = sender.send(self.file())
        self.turn()
        theirs.send(b"T\0\0\0\x02")
        self.assertIn("never sent", self.failed(sent, TransferFailed))
        self.until(lambda: sender.whenClosed().called)

    def test_reset(self) -> None:
        """
        A client that resets its connection before it is adopted is said to be
        gone, and nothing is left of it.
        """
        consumer = Consumer(self)
        client, server = self.accepted("IPv4")
        sent = self.sender.send(server)
        server.close()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        self.until(lambda: sent.called)
        self.assertRaises(ConnectionGone, consumer.taken[0].adopt, Factory())

    def test_senderAtItsLimit(self) -> None:
        """
        A sender that may open no more files says so at once, in an OSError; what
        went before arrives.
        """
        consumer = Consumer(self)
        descriptor = self.file()
        before = self.sender.send(descriptor, "before")
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
        try:
            sent = self.sender.send(descriptor, "beyond")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        self.assertIn("Too many open files", self.failed(sent, OSError))
        after = self.sender.send(descriptor, "after")
        self.until(lambda: before.called and after.called)
        self.assertEqual(consumer.data, ["before", "after"])

    def test_receiverAtItsLimit(self) -> None:
        """
        What a receiver at its limit of open files cannot hold is given back with
        that reason; afterwards all goes well.
        """
        consumer = Consumer(self)
        descriptor = self.file()
        sent = [self.sender.send(descriptor, number) for number in range(20)]
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        limit = descriptors() + 4
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        try:
            self.until(lambda: all(each.called for each in sent))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        taken = len(consumer.taken)
        self.assertTrue(0 < taken < 20, taken)
        for each in sent[:taken]:
            self.successResultOf(each)
        for each in sent[taken:]:
            self.assertIn("Too many open files", self.failed(each, TransferFailed))
        last = self.sender.send(descriptor, "last")
        self.until(lambda: last.called)
        self.assertEqual(consumer.data, [*range(taken), "last"])
