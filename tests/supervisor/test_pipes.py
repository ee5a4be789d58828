"""
Tests for L{twisted_cluster.supervisor.pipes}.
"""

from __future__ import annotations

import json
import os
import select
import socket
import tempfile
from collections.abc import Callable
from types import SimpleNamespace
from typing import IO, Any

from twisted.internet.task import Clock, LoopingCall
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.supervisor import pipes
from twisted_cluster.supervisor.console import observerFor
from twisted_cluster.supervisor.pipes import PipeWriter, isPipe


class PipeWriterTests(SynchronousTestCase):
    """
    Writing to a reader that may stop.
    """

    def setUp(self) -> None:
        self.patch(pipes, "PATIENCE", 0.05)
        self.reader, writer = os.pipe()
        os.set_blocking(self.reader, False)
        self.stream = os.fdopen(writer, "w", encoding="utf-8")
        self.addCleanup(self.stream.close)
        self.addCleanup(lambda: os.close(self.reader))

    def read(self) -> str:
        """
        All that is in the pipe.
        """
        data = b""
        while True:
            try:
                data += os.read(self.reader, 1 << 20)
            except BlockingIOError:
                return data.decode()

    def test_atOnce(self) -> None:
        """
        What is written has left, after what was written to the stream before.
        """
        self.stream.write("before\n")
        writer = PipeWriter(self.stream, str)
        self.assertEqual(writer.write("é\n"), 2)
        self.assertEqual(self.read(), "before\né\n")

    def test_nobodyReads(self) -> None:
        """
        When nobody reads, writing goes on and what is written is dropped; the
        reader gets no half line, and is told of what it missed.
        """
        writer = PipeWriter(self.stream, lambda count: f"{count} dropped\n")
        for number in range(300):
            writer.write(f"{number} " + "x" * 1000 + "\n")
        held = self.read()
        writer.write("again\n")
        lines = (held + self.read()).splitlines()
        kept = [line for line in lines if line.endswith("x" * 1000)]
        self.assertEqual([int(line.split()[0]) for line in kept], [*range(len(kept))])
        self.assertLess(len(kept), 100)
        self.assertEqual(lines[len(kept) :], [f"{300 - len(kept)} dropped", "again"])

    def test_longEvent(self) -> None:
        """
        An event that is longer than the pipe is continued when there is room.
        """
        writer = PipeWriter(self.stream, lambda count: "")
        writer.write("x" * 200_000 + "\n")
        text = self.read()
        for _ in range(3):
            writer.write("")
            text += self.read()
        self.assertEqual(text, "x" * 200_000 + "\n")

    def test_readerGone(self) -> None:
        """
        A reader that is gone is an error, as ever.
        """
        writer = PipeWriter(self.stream, str)
        os.dup2(os.open(os.devnull, os.O_RDONLY), self.reader)
        self.assertRaises(BrokenPipeError, writer.write, "text\n")

    def test_log(self) -> None:
        """
        A log in a pipe says in its own format how many events were dropped.
        """
        observer = observerFor(self.stream, "json")
        event: dict[str, Any] = {"log_format": "x" * 1000, "log_time": 0.0}
        for _ in range(300):
            observer(event)
        text = self.read()
        observer(event)
        text += self.read()
        entries = [json.loads(line) for line in text.splitlines()]
        [told] = [entry for entry in entries if "x" not in entry["message"]]
        self.assertEqual(told["level"], "warn")
        self.assertEqual(
            told["message"],
            f"nobody read the log: {301 - len(entries) + 1} events were dropped",
        )

    def test_kinds(self) -> None:
        """
        Pipes and sockets lead to other processes, files and what is none do
        not.
        """
        self.assertTrue(isPipe(self.stream))
        ours, theirs = socket.socketpair()
        with ours, theirs, ours.makefile("w") as stream:
            self.assertTrue(isPipe(stream))
        with tempfile.TemporaryFile("w") as file:
            self.assertFalse(isPipe(file))
        self.assertFalse(isPipe(object()))  # type: ignore[arg-type]


class _Poll:
    """
    A poll whose waiting is played.
    """

    def __init__(self, wait: Callable[[float], None]) -> None:
        """
        @param wait: is called with the seconds of each wait.
        """
        self._poll = select.poll()
        self._wait = wait

    def register(self, stream: IO[Any], events: int) -> None:
        self._poll.register(stream, events)

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        if timeout and not self._poll.poll(0):
            self._wait(timeout / 1000)
        return self._poll.poll(0)


class PatienceTests(SynchronousTestCase):
    """
    How long a slow reader is waited for.  Time is played.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.waited = 0.0
        self.dropped: list[int] = []
        played = SimpleNamespace(poll=lambda: _Poll(self.wait), POLLOUT=select.POLLOUT)
        self.patch(pipes, "select", played)
        self.patch(pipes, "monotonic", self.clock.seconds)
        self.reader, writer = os.pipe()
        os.set_blocking(self.reader, False)
        stream = os.fdopen(writer, "w", encoding="utf-8")
        self.addCleanup(stream.close)
        self.addCleanup(os.close, self.reader)
        self.writer = PipeWriter(stream, self.report)

    def report(self, count: int) -> str:
        self.dropped.append(count)
        return "dropped\n"

    def read(self, size: int) -> None:
        try:
            os.read(self.reader, size)
        except BlockingIOError:
            pass

    def wait(self, seconds: float) -> None:
        """
        Wait for whatever the reader does next.
        """
        due = [call.getTime() for call in self.clock.getDelayedCalls()]
        seconds = min([seconds, *(time - self.clock.seconds() for time in due)])
        self.clock.advance(seconds)
        self.waited += seconds

    def fill(self) -> None:
        """
        Write more than the pipe holds.
        """
        for _ in range(100):
            self.writer.write("x" * 1000 + "\n")

    def test_slow(self) -> None:
        """
        A reader that is too slow, but reads, does not make up for what was
        waited: that is 5 seconds in all, and no more than 5 in each later minute.
        """
        reading = LoopingCall(self.read, 4096)
        reading.clock = self.clock
        reading.start(0.5)
        while self.clock.seconds() < 600:
            self.writer.write("x" * 1000 + "\n")
            self.clock.advance(0.01)
        reading.stop()
        self.assertGreaterEqual(self.waited, 5.0)
        self.assertLess(self.waited, 5.0 + 50.0)
        self.assertGreater(sum(self.dropped), 1000)

    def test_atOnce(self) -> None:
        """
        When the patience is used up, nothing waits.
        """
        self.fill()
        self.assertAlmostEqual(self.waited, 5.0)
        self.clock.advance(600)
        self.fill()
        self.assertAlmostEqual(self.waited, 5.0)

    def test_regained(self) -> None:
        """
        While the reader keeps up, patience comes back within a minute, and
        never exceeds what it was.
        """
        self.fill()
        for minutes, patience in ((0.5, 2.5), (1, 5.0), (10, 5.0)):
            self.read(1 << 20)
            self.writer.write("")
            self.clock.advance(minutes * 60)
            self.waited = 0.0
            self.fill()
            self.assertAlmostEqual(self.waited, patience)
