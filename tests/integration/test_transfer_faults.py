"""
What may go wrong between two processes that move client sockets: limits, silence,
death and nonsense on either side, and what is open on both sides afterwards.
"""

from __future__ import annotations

import os
import pwd
import signal
import socket
import struct
import sys
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory

from tests.integration.faults import descriptorsOf
from tests.integration.support import DEADLINE, Command, isAlive, reactor, until
from tests.integration.test_transfers import Outcomes, TransfersTestCase
from tests.sockethelpers import descriptors
from tests.sockets.reactors import Recorder
from twisted_cluster.errors import FrameIncomplete
from twisted_cluster.sockets.clients.attach import attach
from twisted_cluster.sockets.clients.receiver import (
    MOST_BYTES_WAITING,
    MOST_WAITING,
    ClientSocketReceivePipe,
)
from twisted_cluster.sockets.clients.sender import ClientSocketSendPipe
from twisted_cluster.sockets.wire.frames import encodeBatch, encodeTaken

BIG = 10_000_000
"""More bytes than the kernel keeps for a socket."""


def frame(*data: Any) -> bytes:
    """
    A batch of sockets, one for each piece of data.
    """
    return encodeBatch([msgspec.msgpack.encode((each, b"")) for each in data])


def reset(client: socket.socket) -> None:
    """
    Close a connection so that the other side is told of an error.
    """
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


class FaultsTestCase(TransfersTestCase):
    """
    A process at the other end of a pipe, which is brought into trouble.
    """

    def other(self, *words: str) -> tuple[Command, socket.socket]:
        """
        Start L{tests.integration.pipefaults}.

        @return: it, and this end of the connection, which is closed with the test.
        """
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        with theirs:
            command = self.execute(
                [sys.executable, "-m", "tests.integration.pipefaults", *words],
                childFDs={0: "w", 1: "r", 2: "r", 3: theirs.fileno()},
            )
        return command, ours

    def receiver(self, ours: socket.socket) -> ClientSocketReceivePipe:
        """
        Receive what the other process sends.
        """
        pipe = ClientSocketReceivePipe(reactor, ours)
        self.addCleanup(pipe.abort)
        return pipe

    async def ended(self, command: Command, word: str = "left") -> Any:
        """
        Wait until a process has ended in good order, with as many descriptors as
        before.

        @return: what it said under a name.
        """
        self.assertEqual(await command.whenEnded(), 0, command.text)
        self.assertEqual((await self.said(command, "left"))["left"], 0, command.text)
        return await self.said(command, word)

    def connected(self) -> tuple[socket.socket, socket.socket]:
        """
        A client, which is closed with the test, and its server's side.
        """
        with socket.create_server(("127.0.0.1", 0)) as server:
            client = socket.create_connection(server.getsockname())
            self.addCleanup(client.close)
            return client, server.accept()[0]

    def served(self) -> tuple[Recorder, socket.socket]:
        """
        A live connection and its client.
        """
        client, server = self.connected()
        protocol = Recorder()
        factory = Factory.forProtocol(lambda: protocol)
        attach(reactor, server.detach(), factory)
        return protocol, client

    async def goesOn(self, protocol: Recorder, client: socket.socket) -> None:
        """
        Check that a connection lives here, and close it.
        """
        client.sendall(b"still here")
        await until(lambda: protocol.data == b"still here")
        client.close()
        await until(lambda: protocol.lost)


class Limits(FaultsTestCase):
    """
    Processes at their limit of open files, and of what may be on its way.
    """

    async def test_sender(self) -> None:
        """
        A sender that may open no more files says so of each socket that it cannot
        duplicate, and those before arrive.
        """
        before = descriptors()
        command, ours = self.other("send", "50", "0", "10")
        taken = []
        async for each in self.receiver(ours):
            taken.append(each.data[0])
            each.close()
        self.assertEqual(taken, list(range(10)))
        fates = (await self.ended(command, "fates"))["fates"]
        self.assertEqual(fates.pop("taken"), 10)
        [(why, count)] = fates.items()
        self.assertEqual(count, 40)
        self.assertIn("Too many open files", why)
        self.assertEqual(descriptors(), before)

    async def test_receiverOfLive(self) -> None:
        """
        A live connection for which the receiver has no room goes on here.
        """
        command, ours = self.other("receive", "full")
        await self.said(command, "ready")
        theirs = len(descriptorsOf(command.pid))
        pipe = ClientSocketSendPipe(reactor, ours)
        self.addCleanup(pipe.abort)
        protocol, client = self.served()
        before = descriptors()
        outcomes = Outcomes([pipe.send(protocol.transport), pipe.send(self.file())])
        await until(outcomes.known)
        self.assertEqual([number for number, _ in outcomes.failed], [0, 1])
        for _, why in outcomes.failed:
            self.assertIn("Too many open files", why)
        self.assertEqual(descriptors(), before + 1)
        self.assertEqual(len(descriptorsOf(command.pid)), theirs)
        await self.goesOn(protocol, client)
        self.assertFalse(pipe.closed)
        await pipe.close()
        self.assertTrue(pipe.closed)
        self.assertEqual((await self.ended(command, "count"))["count"], 0)

    async def test_tooManyOnTheirWay(self) -> None:
        """
        When a receiver goes while more are to be on their way than the kernel
        allows to an ordinary user, all stay with the sender.
        """
        user = str(pwd.getpwnam("nobody").pw_uid if not os.geteuid() else os.geteuid())
        before = descriptors()
        command, ours = self.other("send", "200", "0", "", user)
        await self.said(command, "refused")
        ours.close()
        fates = (await self.ended(command, "fates"))["fates"]
        self.assertEqual(list(fates.values()), [200], fates)
        self.assertIn("TransferFailed", *fates)
        self.assertEqual(descriptors(), before)


class Stuck(FaultsTestCase):
    """
    A receiver that stands still while a frame is half written, others are queued,
    and live connections wait for their clients.
    """

    async def stuck(self) -> None:
        """
        Bring it about.
        """
        self.process, ours = self.other("receive")
        await self.said(self.process, "ready")
        self.process.signal(signal.SIGSTOP)
        self.before = descriptors()
        self.pipe = ClientSocketSendPipe(reactor, ours, maxDataSize=10 * BIG)
        self.addCleanup(self.pipe.abort)
        self.quick = self.served()
        self.slow = self.served()
        self.slow[0].transport.write(b"x" * BIG)
        await until(lambda: self.quick[0].transport and self.slow[0].transport)
        skt = self.file()
        data = b"x" * BIG
        sent = [self.pipe.send(skt, data)]
        sent += [self.pipe.send(skt, number) for number in range(20)]
        sent.append(self.pipe.send(self.quick[0].transport, "quick"))
        sent.append(self.pipe.send(self.slow[0].transport, "slow"))
        self.outcomes = Outcomes(sent)
        await until(lambda: self.pipe.waiting == 22)

    async def afterwards(self) -> None:
        """
        Check that all failed, and that live connections go on.
        """
        await until(self.outcomes.known)
        self.assertEqual([each for each, _ in self.outcomes.failed], [*range(23)])
        await self.pipe.whenClosed().addTimeout(DEADLINE, reactor)
        left = BIG
        client = self.slow[1]
        client.settimeout(0)

        def read() -> bool:
            nonlocal left
            try:
                left -= len(client.recv(1 << 20))
            except BlockingIOError:
                pass
            return left == 0

        await until(read)
        await self.goesOn(*self.quick)
        await self.goesOn(*self.slow)

    async def test_close(self) -> None:
        """
        A pipe that is closed does not wait for it for ever; when it goes on, it
        finds half a frame, and takes nothing.
        """
        await self.stuck()
        await self.pipe.close(timeout=0.2).addTimeout(DEADLINE, reactor)
        await self.afterwards()
        # Without the pipe, and with what was sent.
        self.assertEqual(descriptors(), self.before)
        self.process.signal(signal.SIGCONT)
        found = await self.ended(self.process, "ended")
        self.assertIn("FrameIncomplete", found["ended"])
        self.assertEqual((found["count"], found["closed"]), (0, True))

    async def test_killed(self) -> None:
        """
        When it is killed, all that was not taken stays here.
        """
        await self.stuck()
        self.process.signal(signal.SIGKILL)
        await self.afterwards()
        self.assertEqual(await self.process.whenEnded(), -signal.SIGKILL)
        # Its stdin, stdout and stderr have gone, too.
        self.assertEqual(descriptors(), self.before - 3)


class Killed(FaultsTestCase):
    """
    The sender is killed.
    """

    async def dead(self, *words: str) -> ClientSocketReceivePipe:
        """
        Kill a sender when it has sent what it can.

        @return: a pipe that finds what is left of it.
        """
        command, ours = self.other(*words)
        await self.said(command, "sent")
        command.signal(signal.SIGKILL)
        await until(lambda: not isAlive(command.pid))
        return self.receiver(ours)

    async def test_inAFrame(self) -> None:
        """
        In the middle of a frame: this is said, nothing is taken, and no descriptor
        is left.
        """
        before = descriptors()
        pipe = await self.dead("send", "3", str(BIG))
        taken = []

        async def consume() -> None:
            async for each in pipe:
                taken.append(each)

        await self.assertFailure(Deferred.fromCoroutine(consume()), FrameIncomplete)
        self.assertEqual((taken, pipe.closed), ([], True))
        await until(lambda: descriptors() == before, what="no descriptor is left")

    async def test_live(self) -> None:
        """
        With a live connection on its way: nobody takes it, and its client is told
        that it has ended.
        """
        before = descriptors()
        with socket.create_server(("127.0.0.1", 0)) as server:
            command, ours = self.other("live", str(server.getsockname()[1]))
            server.settimeout(DEADLINE)
            client, _ = server.accept()
        with client:
            client.sendall(b"hello")
            await self.said(command, "sent")
            command.signal(signal.SIGKILL)
            await command.whenEnded()
            client.settimeout(DEADLINE)
            self.assertEqual(client.recv(5, socket.MSG_WAITALL), b"xxxxx")
            client.setblocking(False)
            # It is in the kernel's hands.
            self.assertRaises(BlockingIOError, client.recv, 1)
            pipe = self.receiver(ours)
            await pipe.whenClosed().addTimeout(DEADLINE, reactor)
            self.assertEqual([each async for each in pipe], [])
            self.assertEqual(client.recv(1), b"")
        self.assertEqual(descriptors(), before)


class Nonsense(FaultsTestCase):
    """
    What no pipe would say.
    """

    async def toReceiver(self, data: bytes, count: int, why: str) -> None:
        """
        Send a socket as it should be, and then something else.

        @param count: how many descriptors go along.
        @param why: with what the receiver's iteration ends.
        """
        before = descriptors()
        command, ours = self.other("receive")
        skt = self.file()
        socket.send_fds(ours, [frame("good")], [skt.fileno()])
        await self.said(command, "ready")
        answer = encodeTaken(1)
        ours.settimeout(DEADLINE)
        self.assertEqual(ours.recv(len(answer), socket.MSG_WAITALL), answer)
        socket.send_fds(ours, [data], [skt.fileno()] * count)
        if why.startswith("FrameIncomplete"):
            ours.close()
        found = await self.ended(command, "ended")
        self.assertIn(why, found["ended"])
        self.assertEqual((found["data"], found["closed"]), (["good"], True))
        ours.close()
        self.assertEqual(descriptors(), before + 1)

    async def test_garbage(self) -> None:
        """
        Bytes that mean nothing.
        """
        await self.toReceiver(b"?garbage", 1, "ProtocolError: a frame of unknown kind")

    async def test_halfAFrame(self) -> None:
        """
        A frame that never ends, and its descriptor.
        """
        half = frame(b"x" * 100)[:50]
        await self.toReceiver(half, 1, "FrameIncomplete: the stream ended within")

    async def test_noDescriptor(self) -> None:
        """
        A frame without its descriptor.
        """
        await self.toReceiver(frame(1), 0, "a frame came without its descriptor")

    async def test_noFrame(self) -> None:
        """
        A descriptor without its frame.
        """
        await self.toReceiver(encodeTaken(0), 1, "a descriptor came without its frame")

    async def test_otherNumber(self) -> None:
        """
        More descriptors than the frame has sockets, and fewer.
        """
        await self.toReceiver(frame(1), 2, "2 descriptors for 1 sockets")
        await self.toReceiver(frame(1, 2, 3), 2, "2 descriptors for 3 sockets")

    async def toSender(self, data: bytes, count: int, why: str) -> None:
        """
        Answer what was sent with something else.

        @param count: how many descriptors go along.
        @param why: with what all that was sent fails.
        """
        before = descriptors()
        command, ours = self.other("send", "10")
        await self.said(command, "sent")
        skt = self.file()
        socket.send_fds(ours, [data], [skt.fileno()] * count)
        if "within" in why:
            ours.close()
        await self.said(command, "left")
        # The process's stdin, which it sent, is in there.
        ours.close()
        found = await self.ended(command, "fates")
        [(fate, number)] = found["fates"].items()
        self.assertEqual((number, found["closed"]), (10, True))
        self.assertTrue(fate.startswith("TransferFailed: "), fate)
        self.assertIn(why, fate)
        self.assertEqual(descriptors(), before + 1)

    async def test_garbageAnswer(self) -> None:
        """
        Bytes that mean nothing, for an answer.
        """
        await self.toSender(b"!", 0, "a frame of unknown kind")

    async def test_halfAnAnswer(self) -> None:
        """
        An answer that never ends.
        """
        await self.toSender(encodeTaken(1)[:3], 0, "the stream ended within a frame")

    async def test_tooManyAnswers(self) -> None:
        """
        An answer to more than was sent.
        """
        await self.toSender(encodeTaken(11), 0, "never sent")

    async def test_descriptorForAnswer(self) -> None:
        """
        A descriptor with an answer.
        """
        await self.toSender(encodeTaken(0), 1, "a descriptor came without its frame")

    async def test_socketForAnswer(self) -> None:
        """
        A socket, from the side that is to receive them.
        """
        await self.toSender(frame(1), 1, "the receiver sent a socket itself")


class Resets(FaultsTestCase):
    """
    A client that resets its connection before it is adopted.
    """

    async def adopted(self, command: Command, pipe: ClientSocketSendPipe) -> None:
        """
        Let the other process adopt what it has taken, and check what comes of it.
        """
        command.signal(signal.SIGUSR1)
        found = await self.said(command, "gone")
        self.assertEqual(found, {"gone": 1, "descriptor": -1, "more": 0})
        await pipe.close()
        await self.ended(command)

    async def test_onItsWay(self) -> None:
        """
        Before the receiver has it.
        """
        before = descriptors()
        command, ours = self.other("adopt")
        pipe = ClientSocketSendPipe(reactor, ours)
        client, server = self.connected()
        with server:
            sent = pipe.send(server, "client")
        reset(client)
        await sent.addTimeout(DEADLINE, reactor)
        self.assertEqual((await self.said(command, "taken"))["taken"], "client")
        await self.adopted(command, pipe)
        self.assertEqual(descriptors(), before)

    async def test_taken(self) -> None:
        """
        When the receiver has taken it.
        """
        before = descriptors()
        command, ours = self.other("adopt")
        pipe = ClientSocketSendPipe(reactor, ours)
        protocol, client = self.served()
        await pipe.send(protocol.transport, "client").addTimeout(DEADLINE, reactor)
        await self.said(command, "taken")
        reset(client)
        await self.adopted(command, pipe)
        self.assertEqual(len(protocol.lost), 1)
        self.assertEqual(descriptors(), before)


class Flooding(FaultsTestCase):
    """
    A sender that keeps to no window.
    """

    async def turned(self, command: Command) -> None:
        """
        Wait until the other process has read whatever it wants to.
        """
        # A turn that had begun before does not count.
        for _ in range(2):
            number = command.text.count('"ping":')
            command.signal(signal.SIGUSR1)
            await command.waitFor(f'"ping": {number},')

    async def flood(
        self, command: Command, ours: socket.socket, data: bytes, most: int
    ) -> tuple[int, memoryview]:
        """
        Send sockets, each in a batch of its own, until the kernel takes no more
        since the other process reads none.

        @param most: how many would be too many.
        @return: how many have begun to leave, and what is left of the last.
        """
        ours.setblocking(False)
        skt = self.file()
        sent, rest = 0, memoryview(b"")
        new = True
        while new:
            new = False
            try:
                while sent < most:
                    if rest:
                        rest = rest[ours.send(rest) :]
                    else:
                        all_ = memoryview(frame([sent, data]))
                        rest = all_[socket.send_fds(ours, [all_], [skt.fileno()]) :]
                        sent += 1
                    new = True
            except BlockingIOError:
                pass
            self.assertTrue(sent < most, f"{sent} were read")
            await self.turned(command)
        return sent, rest

    async def test_bytes(self) -> None:
        """
        It is read no more when enough bytes wait, so that the kernel holds it up;
        nothing is lost by it.
        """
        before = descriptors()
        command, ours = self.other("wait")
        await self.said(command, "ready")
        size = 100_000
        most = MOST_BYTES_WAITING // size
        sent, rest = await self.flood(command, ours, b"x" * size, 3 * most)
        self.assertTrue(sent >= most, sent)
        waiting = (await self.said(command, "ping"))["open"]
        self.assertTrue(most <= waiting <= most + 4, waiting)
        command.signal(signal.SIGUSR2)
        answers = b""

        def answered() -> bool:
            nonlocal rest, answers
            try:
                if rest:
                    rest = rest[ours.send(rest) :]
                answers += ours.recv(65536)
            except BlockingIOError:
                pass
            counts = [count for _, count in struct.iter_unpack("!cI", answers)]
            return bool(sum(counts) == sent)

        await until(answered)
        ours.close()
        found = await self.ended(command, "sizes")
        self.assertEqual(found["sizes"], [[number, size] for number in range(sent)])
        self.assertEqual(descriptors(), before + 1)

    async def unread(self, *words: str) -> Any:
        """
        Flood a process, read none of its answers, and go.

        @return: what it said at the end.
        """
        before = descriptors()
        command, ours = self.other("receive", *words)
        await self.said(command, "ready")
        sent, _ = await self.flood(command, ours, b"", 20_000)
        self.assertTrue(sent >= MOST_WAITING, sent)
        opened = len(descriptorsOf(command.pid))
        self.assertTrue(opened < MOST_WAITING + 100, opened)
        ours.close()
        found = await self.ended(command, "ended")
        self.assertEqual(descriptors(), before + 1)
        return found

    async def test_unreadAnswers(self) -> None:
        """
        So it is when it reads no answers, so that nothing more can be taken.
        """
        found = await self.unread("close")
        self.assertTrue(0 < found["count"] < 20_000, found["count"])

    async def test_unreadRefusals(self) -> None:
        """
        So it is when the receiver has no room, and cannot say so.
        """
        found = await self.unread("full")
        self.assertEqual(found["count"], 0)
