"""
Client sockets go from one process to another, in whatever state these are.
"""

from __future__ import annotations

import json
import os
import pwd
import random
import signal
import socket
import sys
from typing import Any, Optional

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater

from tests.integration.support import (
    DEADLINE,
    ClusterTestCase,
    Command,
    reactor,
    until,
)
from tests.sockethelpers import descriptors
from tests.sockets.reactors import Recorder
from twisted_cluster.errors import ChannelFull, TransferFailed
from twisted_cluster.sockets.clients.attach import attach
from twisted_cluster.sockets.clients.receiver import ClientSocketReceivePipe
from twisted_cluster.sockets.clients.sender import ClientSocketSendPipe
from twisted_cluster.sockets.clients.transferred import TransferredSocket

POOL = 50
"""Sockets that are sent again and again."""


class Outcomes:
    """
    What became of transfers.
    """

    def __init__(self, sent: list[Deferred[None]]) -> None:
        self.taken: list[int] = []
        self.failed: list[tuple[int, str]] = []
        self.count = len(sent)
        for number, each in enumerate(sent):
            each.addCallbacks(
                self._taken, self._failed, callbackArgs=(number,), errbackArgs=(number,)
            )

    def _taken(self, _: None, number: int) -> None:
        self.taken.append(number)

    def _failed(self, failure: Any, number: int) -> None:
        failure.trap(TransferFailed, ChannelFull)
        self.failed.append((number, failure.getErrorMessage()))

    def known(self) -> bool:
        """
        Whether all have been answered.
        """
        return len(self.taken) + len(self.failed) == self.count


class TransfersTestCase(ClusterTestCase):
    """
    A process at the other end of a pipe.
    """

    def other(self, *words: str) -> tuple[Command, socket.socket]:
        """
        Start the other process.

        @return: it, and this end of the connection.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            command = self.execute(
                [sys.executable, "-m", "tests.integration.transferring", *words],
                childFDs={0: "w", 1: "r", 2: "r", 3: theirs.fileno()},
            )
        return command, ours

    def sender(self, *words: str, **limits: Any) -> tuple[Command, Any]:
        """
        Start a process that receives.

        @return: it, and the pipe to it.
        """
        command, ours = self.other(*words)
        pipe = ClientSocketSendPipe(reactor, ours, **limits)
        self.addCleanup(pipe.abort)
        return command, pipe

    async def said(self, command: Command, word: str, seconds: float = DEADLINE) -> Any:
        """
        What a process has said under a name.
        """
        await command.waitFor(f'"{word}":', seconds)
        for line in reversed(command.text.splitlines()):
            if f'"{word}":' in line:
                return json.loads(line)
        raise AssertionError(command.text)

    def file(self) -> socket.socket:
        """
        A socket to be sent; it is closed with the test.
        """
        skt = socket.socket()
        self.addCleanup(skt.close)
        return skt


class Many(TransfersTestCase):
    """
    Very many transfers.
    """

    async def transfer(self, count: int, seconds: float) -> None:
        """
        Send so many sockets in random sizes and with random pauses to a process
        that checks each.
        """
        chance = random.Random(count)
        command, pipe = self.sender("check")
        before = descriptors()
        pool = [socket.socket() for _ in range(POOL)]
        inodes = [os.fstat(each.fileno()).st_ino for each in pool]
        sent: list[Deferred[None]] = []
        for number in range(count):
            if chance.random() < 0.01:
                # Another one under the same number.
                which = chance.randrange(POOL)
                pool[which].close()
                pool[which] = socket.socket()
                inodes[which] = os.fstat(pool[which].fileno()).st_ino
            which = chance.randrange(POOL)
            luck = chance.random()
            size = int(300_000 * luck) if luck < 0.0003 else int(luck * 80)
            text = bytes([number & 255]) * (size if luck > 0.001 else size * 1000)
            data = [number, inodes[which], len(text), text]
            sent.append(pipe.send(pool[which], data))
            if len(sent) >= 300:
                for each in sent[:150]:
                    await each
                del sent[:150]
            if chance.random() < 0.0005:
                await deferLater(reactor, chance.random() * 0.002)
        for each in sent:
            await each
        for skt in pool:
            skt.close()
        self.assertEqual(descriptors(), before)
        await pipe.close()
        found = await self.said(command, "count")
        self.assertEqual(found, {"count": count, "wrong": [], "left": 0})
        self.assertEqual(await command.whenEnded(seconds), 0, command.text)

    async def test_twentyThousand(self) -> None:
        """
        None is lost, doubled, or swapped with another's data, and no descriptor
        is left on either side.
        """
        await self.transfer(20_000, 60)

    @pytest.mark.slow
    @pytest.mark.timeout(900)
    async def test_million(self) -> None:
        """
        Nor of a million.
        """
        await self.transfer(1_000_000, 60)

    test_million.timeout = 880  # type: ignore[attr-defined]


class Limits(TransfersTestCase):
    """
    Processes at their limit of open files, and of what may be on its way.
    """

    async def test_receiver(self) -> None:
        """
        A receiver at its limit gives back what it cannot hold, with that reason,
        and takes what comes when it has room again.
        """
        command, pipe = self.sender("keep", "10")
        await self.said(command, "ready")
        before = descriptors()
        outcomes = Outcomes([pipe.send(self.file(), number) for number in range(100)])
        await until(outcomes.known)
        self.assertEqual(outcomes.taken, list(range(len(outcomes.taken))))
        self.assertTrue(0 < len(outcomes.taken) <= 10, outcomes.taken)
        for _, why in outcomes.failed:
            self.assertIn("Too many open files", why)
        command.signal(signal.SIGUSR1)
        self.assertEqual(await self.said(command, "left"), {"left": 0})
        await pipe.send(self.file())
        self.assertEqual(descriptors(), before + 101)
        await pipe.close()
        self.assertEqual(await command.whenEnded(), 0)

    async def test_tooManyOnTheirWay(self) -> None:
        """
        When more are on their way than the kernel allows to an ordinary user, the
        sender waits, and nothing is lost.
        """
        user = str(pwd.getpwnam("nobody").pw_uid) if os.geteuid() == 0 else ""
        command, ours = self.other("crowd", "200", user)
        await self.said(command, "refused")
        pipe = ClientSocketReceivePipe(reactor, ours)
        self.addCleanup(pipe.abort)
        received = []
        async for taken in pipe:
            received.append(taken.data)
            taken.close()
            if len(received) == 200:
                break
        self.assertEqual(received, list(range(200)))
        found = await self.said(command, "taken")
        self.assertEqual((found["taken"], found["left"]), (200, 0))
        self.assertTrue(found["refused"] > 0, found)
        self.assertEqual(await command.whenEnded(), 0, command.text)

    async def test_neverReads(self) -> None:
        """
        A receiver that stands still gets no more than the window, so many wait
        here as may, and the rest is refused; when it goes on, it gets them all.
        """
        command, pipe = self.sender("keep", "1000", window=50, maxQueued=100)
        await self.said(command, "ready")
        command.signal(signal.SIGSTOP)
        skt = self.file()
        before = descriptors()
        outcomes = Outcomes([pipe.send(skt, number) for number in range(200)])
        self.assertEqual([number for number, _ in outcomes.failed], [*range(150, 200)])
        self.assertEqual((pipe.waiting, descriptors()), (100, before + 150))
        command.signal(signal.SIGCONT)
        await until(outcomes.known)
        self.assertEqual(outcomes.taken, list(range(150)))
        self.assertEqual(descriptors(), before)


class Deaths(TransfersTestCase):
    """
    One of the two processes is killed.
    """

    async def test_receiver(self) -> None:
        """
        What a killed receiver had not taken fails, queued or on its way, and
        stays here: live connections go on.
        """
        command, pipe = self.sender("take", "7", window=50)
        await self.said(command, "ready")
        protocol = Recorder()
        factory = Factory.forProtocol(lambda: protocol)
        with socket.create_server(("127.0.0.1", 0)) as server:
            client = socket.create_connection(server.getsockname())
            self.addCleanup(client.close)
            attach(reactor, server.accept()[0].detach(), factory)
        skt = self.file()
        before = descriptors()
        sent = [pipe.send(skt, number) for number in range(100)]
        sent.append(pipe.send(protocol.transport, "live"))
        outcomes = Outcomes(sent)
        await self.said(command, "taken")
        command.signal(signal.SIGKILL)
        await until(outcomes.known)
        taken = len(outcomes.taken)
        self.assertEqual(outcomes.taken, list(range(taken)))
        self.assertTrue(7 <= taken < 16, taken)
        self.assertEqual([each for each, _ in outcomes.failed], [*range(taken, 101)])
        client.sendall(b"still here")
        await until(lambda: protocol.data == b"still here")
        await command.whenEnded()
        # The pipe is closed, and the other process's stdin, stdout and stderr.
        self.assertEqual(descriptors(), before - 4)
        protocol.transport.abortConnection()
        await until(lambda: protocol.lost)

    async def test_senderBefore(self) -> None:
        """
        Nothing is taken from a sender that was killed before, and of what it had
        sent no descriptor is left.
        """
        before = descriptors()
        command, ours = self.other("send", "200")
        pipe = ClientSocketReceivePipe(reactor, ours)
        self.addCleanup(pipe.abort)
        await self.said(command, "sent")
        command.signal(signal.SIGKILL)
        await pipe.whenClosed().addTimeout(DEADLINE, reactor)
        taken = [each async for each in pipe]
        self.assertEqual(taken, [])
        await command.whenEnded()
        await until(lambda: descriptors() == before, what="no descriptor is left")

    async def test_senderMeanwhile(self) -> None:
        """
        What was taken from a sender is there when that is killed.
        """
        before = descriptors()
        command, ours = self.other("send", "200")
        pipe = ClientSocketReceivePipe(reactor, ours)
        self.addCleanup(pipe.abort)
        taken: list[TransferredSocket] = []
        pause: Optional[Deferred[None]] = Deferred()

        async def consume() -> None:
            async for each in pipe:
                taken.append(each)
                if len(taken) == 20 and pause is not None:
                    await pause

        consuming = Deferred.fromCoroutine(consume())
        await until(lambda: len(taken) == 20)
        command.signal(signal.SIGKILL)
        await pipe.whenClosed().addTimeout(DEADLINE, reactor)
        assert pause is not None
        pause.callback(None)
        await consuming
        self.assertTrue(20 <= len(taken) < 64, len(taken))
        self.assertEqual([each.data for each in taken], list(range(len(taken))))
        for each in taken:
            os.fstat(each.descriptor)
            each.close()
        await command.whenEnded()
        await until(lambda: descriptors() == before, what="no descriptor is left")
