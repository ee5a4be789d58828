"""
The worker's end of the control channel, in its three times.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any, Optional

from twisted.internet import main
from twisted.protocols import amp
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.errors import ChannelClosed, NotRunning
from twisted_cluster.ipc.logs import decodeRecords, encodeEvent
from twisted_cluster.testing import DescriptorReactor
from twisted_cluster.worker.link import Link


class LinkTests(SynchronousTestCase):
    """
    What a worker says, and when it is written.
    """

    def setUp(self) -> None:
        self.reactor = DescriptorReactor()
        ours, theirs = socket.socketpair()
        self.watcher = ours
        self.theirs = theirs.fileno()
        self.link = Link(theirs, 1024)
        self.addCleanup(self._close, self.watcher, self.reactor, theirs)

    def _close(
        self, watcher: socket.socket, reactor: DescriptorReactor, theirs: socket.socket
    ) -> None:
        watcher.close()
        reactor.settle()
        theirs.close()

    def boxes(self) -> list[tuple[bytes, dict[bytes, bytes]]]:
        """
        The commands that the watcher could read now, without waiting.
        """
        self.watcher.setblocking(False)
        data = b""
        try:
            while chunk := self.watcher.recv(65536):
                data += chunk
        except BlockingIOError:
            pass
        boxes: list[Any] = amp.parseString(data)
        return [(box.pop(b"_command", b""), dict(box)) for box in boxes]

    def commands(self) -> list[bytes]:
        """
        The names of the commands that the watcher could read now.
        """
        return [name for name, _ in self.boxes()]

    def log(self, text: str, level: int = 20) -> None:
        """
        Log an event, as the relay does.
        """
        _, data = encodeEvent({"log_format": text, "log_time": 0.0})
        self.link.put(level, data)

    def texts(self) -> list[str]:
        """
        The events that the watcher could read now.
        """
        return [
            record.text
            for name, box in self.boxes()
            if name == b"LogEvents"
            for record in decodeRecords(box[b"data"])
        ]

    def test_before(self) -> None:
        """
        Before the reactor runs, everything is written at once.
        """
        self.link.hello()
        self.log("early")
        self.assertEqual(self.commands(), [b"Hello", b"LogEvents"])

    def test_messagesBefore(self) -> None:
        """
        So are messages; that they were taken over is known once it runs.
        """
        sent = self.link.send("early")
        self.assertEqual(self.commands(), [b"Messages"])
        self.assertNoResult(sent)
        asked = self.link.request("early")
        self.failureResultOf(asked, NotRunning)

    def test_batched(self) -> None:
        """
        While it runs, what is said during one turn leaves as one batch at its
        end.
        """
        self.link.attach(self.reactor)
        for number in range(100):
            self.log(f"event {number}")
        self.assertEqual(self.commands(), [])
        self.reactor.settle()
        self.assertEqual(self.commands(), [b"LogEvents"])

    def test_urgent(self) -> None:
        """
        An error is written at once, and what was said before it too.
        """
        self.link.attach(self.reactor)
        self.log("info")
        self.log("error", 40)
        self.assertEqual(self.texts(), ["info", "error"])

    def test_after(self) -> None:
        """
        When the reactor has stopped, what is left is written, and from then on
        everything at once.
        """
        self.link.attach(self.reactor)
        self.log("left")
        self.link.detach()
        self.assertEqual(self.texts(), ["left"])
        self.log("late")
        self.assertEqual(self.texts(), ["late"])
        self.assertEqual(self.reactor.getReaders(), [])

    def test_reactorEndsConnections(self) -> None:
        """
        A reactor that stops and ends all its connections does not end this
        one.
        """
        self.link.attach(self.reactor)
        self.log("left")
        for reader in self.reactor.removeAll():
            reader.connectionLost(Failure(main.CONNECTION_LOST))
        self.log("late")
        self.assertEqual(self.texts(), ["left", "late"])

    def test_ready(self) -> None:
        """
        Events that were logged before the worker was ready arrive before that.
        """
        self.link.attach(self.reactor)
        self.log("first")
        self.link.ready()
        self.assertEqual(self.commands(), [b"LogEvents", b"Ready"])

    def test_longReason(self) -> None:
        """
        Of a failure's traceback that is too long, the end is kept.
        """
        self.link.failed("load", "why", "x" * 100_000 + "the end")
        [(name, box)] = self.boxes()
        self.assertEqual(name, b"Failed")
        self.assertTrue(box[b"traceback"].endswith(b"the end"))
        self.assertLess(len(box[b"traceback"]), 65_535)

    def test_watcherGone(self) -> None:
        """
        When the watcher goes, the worker is told, and whoever waits.
        """
        orphaned: list[bool] = []
        self.link.orphaned = lambda: orphaned.append(True)
        self.link.attach(self.reactor)
        sent = self.link.send("x")
        self.watcher.close()
        self.reactor.settle()
        self.assertEqual(orphaned, [True])
        self.failureResultOf(sent, ChannelClosed)
        self.failureResultOf(self.link.send("y"), ChannelClosed)
        self.log("nobody hears this")

    def test_watcherGoneBefore(self) -> None:
        """
        A watcher that is gone before the reactor runs is no reason to fail.
        """
        self.watcher.close()
        self.log("nobody hears this", 40)
        self.link.hello()

    def test_forked(self) -> None:
        """
        A forked child keeps out of the conversation.
        """
        pid = os.fork()
        if not pid:
            self.log("from the child", 40)
            os._exit(0)
        os.waitpid(pid, 0)
        self.log("from the worker", 40)
        self.assertEqual(self.texts(), ["from the worker"])

    def inThread(self, call: Callable[[], object]) -> None:
        """
        Call something in another thread, and wait until that is done.
        """
        thread = threading.Thread(target=call)
        thread.start()
        thread.join(30)
        self.assertFalse(thread.is_alive())

    def test_urgentInThread(self) -> None:
        """
        An error in another thread is written at once, with all that was said
        before, while the reactor does something else.
        """
        self.link.attach(self.reactor)
        self.log("info")
        self.inThread(lambda: self.log("error", 40))
        self.assertEqual(self.texts(), ["info", "error"])
        self.reactor.settle()
        self.assertEqual(self.texts(), [])

    def test_longInThread(self) -> None:
        """
        What the kernel does not take of it follows, in order, when the reactor
        turns; meanwhile others wait for that.
        """
        self.link.attach(self.reactor)
        self.inThread(lambda: self.link.put(40, b"x" * 900_000))
        self.inThread(lambda: self.log("next", 40))
        self.log("last", 40)
        boxes = self._answerAll()
        data = b"".join(box[b"data"] for _, box in boxes)
        self.assertLess(data.index(b"next"), data.index(b"last"))
        self.assertEqual(data.index(b"x" * 900_000), 5)

    def test_manyInThread(self) -> None:
        """
        What another thread says below an error costs the reactor one call,
        however much it is.
        """
        self.link.attach(self.reactor)
        before = len(self.reactor.getDelayedCalls())
        self.inThread(lambda: [*map(self.log, map(str, range(1000)))])
        self.assertEqual(len(self.reactor.getDelayedCalls()), before + 1)
        self.reactor.settle()
        self.assertEqual(self.texts(), [str(number) for number in range(1000)])
        self.inThread(lambda: self.log("later"))
        self.reactor.settle()
        self.assertEqual(self.texts(), ["later"])

    def replace(self) -> socket.socket:
        """
        Close the worker's end behind its back and reuse the number, as a program
        does that closes every descriptor.

        @return: the other end of the program's own socket.
        """
        mine, others = socket.socketpair()
        os.dup2(mine.fileno(), self.theirs)
        mine.close()
        self.addCleanup(others.close)
        self.addCleanup(self._closeReplaced, self.link._socket, self.theirs)
        others.setblocking(False)
        return others

    def _closeReplaced(self, forgotten: socket.socket, number: int) -> None:
        if forgotten.fileno() == -1:
            os.close(number)

    def assertUntouched(self, others: socket.socket) -> None:
        """
        The program's own socket is open, and nothing was written to it.
        """
        self.assertRaises(BlockingIOError, others.recv, 1)
        self.assertEqual(others.send(b"to the program"), 14)
        self.assertEqual(os.read(self.theirs, 100), b"to the program")

    def test_replacedBefore(self) -> None:
        """
        Where a descriptor is not the channel any more, nothing is written to it,
        and it is not closed; the channel counts as closed when the reactor runs.
        """
        orphaned: list[bool] = []
        self.link.orphaned = lambda: orphaned.append(True)
        others = self.replace()
        self.log("error", 40)
        self.link.hello()
        self.assertUntouched(others)
        self.link.attach(self.reactor)
        self.assertEqual(orphaned, [True])
        self.log("error", 40)
        self.failureResultOf(self.link.send("x"), ChannelClosed)
        self.reactor.settle()
        self.assertUntouched(others)

    def test_replacedWhile(self) -> None:
        """
        Likewise while the reactor runs: it ends with the next that is said, in
        whichever thread, or comes in.
        """
        for say in (
            lambda: self.log("error", 40),
            lambda: self.inThread(lambda: self.log("error", 40)),
            lambda: None,
        ):
            self.setUp()
            orphaned: list[bool] = []
            self.link.orphaned = lambda: orphaned.append(True)  # noqa: B023
            self.link.attach(self.reactor)
            others = self.replace()
            if say() is None and not orphaned:
                others.send(b"in")
                self.reactor.settle()
                self.assertEqual(os.read(self.theirs, 10), b"in")
            self.assertEqual(orphaned, [True])
            self.assertUntouched(others)
            self.assertEqual(self.reactor.getReaders(), [])

    def test_replacedBeforeTheEnd(self) -> None:
        """
        What is said outside of a turn is not written to it either.
        """
        orphaned: list[bool] = []
        self.link.orphaned = lambda: orphaned.append(True)
        self.link.attach(self.reactor)
        others = self.replace()
        self.link.stopping()
        self.reactor.settle()
        self.assertEqual(orphaned, [True])
        self.assertUntouched(others)

    def test_loggedWhileQueueing(self) -> None:
        """
        The garbage collector may log an error while an event is being queued,
        and another thread flush at that moment: neither waits for ever.
        """
        inside, held = threading.Event(), threading.Event()
        put = self.link._events._put

        def interrupted(level: int, data: bytes) -> None:
            put(level, data)
            if not inside.is_set():
                inside.set()
                held.wait(0.5)
                self.log("collected", 40)

        def queue() -> None:
            self.link.attach(self.reactor)
            self.log("x")

        def flush() -> None:
            inside.wait(30)
            with self.link._lock:
                held.set()
                self.link._events.take(1000)

        self.patch(self.link._events, "_put", interrupted)
        threads = [
            threading.Thread(target=each, daemon=True) for each in (queue, flush)
        ]
        for each in threads:
            each.start()
        for each in threads:
            each.join(10)
        self.assertEqual([each.is_alive() for each in threads], [False, False])

    def test_forkedWhileWriting(self) -> None:
        """
        A child that is forked while a thread writes does not wait for it.
        """
        held, release = threading.Event(), threading.Event()

        def hold() -> None:
            with self.link._lock:
                held.set()
                release.wait(30)

        thread = threading.Thread(target=hold, daemon=True)
        thread.start()
        held.wait(30)
        pid = os.fork()
        if not pid:
            signal.alarm(10)
            self.link.detach()
            self.log("from the child", 40)
            os._exit(0)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        release.set()
        thread.join(30)

    def test_replacedAfter(self) -> None:
        """
        And when it has stopped.
        """
        self.link.attach(self.reactor)
        self.log("left")
        others = self.replace()
        self.link.detach()
        self.log("late")
        self.assertUntouched(others)

    def test_replacedInFork(self) -> None:
        """
        A child does not close what is not the channel.
        """
        others = self.replace()
        pid = os.fork()
        if not pid:
            try:
                os.fstat(self.theirs)
            except OSError:
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        self.assertEqual(status, 0)
        self.assertUntouched(others)

    def test_flood(self) -> None:
        """
        What is logged while nobody reads is bounded, and what was dropped is
        counted and said when there is room again.
        """
        self.link.attach(self.reactor)
        for number in range(3000):
            self.log(f"{number} " + "x" * 5000)
            if number % 100 == 0:
                self.reactor.settle()
        boxes = self._answerAll()
        records = [record for _, box in boxes for record in decodeRecords(box[b"data"])]
        dropped = sum(int(box[b"dropped"]) for _, box in boxes)
        self.assertGreater(dropped, 500)
        self.assertEqual(len(records) + dropped, 3000)

    def _answerAll(self) -> list[tuple[bytes, dict[bytes, bytes]]]:
        """
        Answer every command until none comes, as a watcher does.
        """
        boxes: list[tuple[bytes, dict[bytes, bytes]]] = []
        parser = _Parser()
        while True:
            self.reactor.settle()
            before = len(parser.boxes)
            try:
                self.watcher.setblocking(False)
                while chunk := self.watcher.recv(1 << 20):
                    parser.feed(chunk)
            except BlockingIOError:
                pass
            new = parser.boxes[before:]
            for box in new:
                boxes.append((box[b"_command"], box))
                if b"_ask" in box:
                    self.watcher.send(amp.Box(_answer=box[b"_ask"]).serialize())
            if not new:
                return boxes


class _Parser:
    """
    Boxes from chunks.
    """

    def __init__(self) -> None:
        self.boxes: list[Any] = []
        self._protocol = amp.BinaryBoxProtocol(self)
        self._transport: Optional[Any] = None

    def startReceivingBoxes(self, sender: Any) -> None:
        pass

    def ampBoxReceived(self, box: Any) -> None:
        self.boxes.append(box)

    def stopReceivingBoxes(self, reason: Failure) -> None:
        pass

    def feed(self, data: bytes) -> None:
        """
        Parse more.
        """
        self._protocol.dataReceived(data)
