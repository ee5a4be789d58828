"""
Tests for L{twisted_cluster.supervisor.pipes}.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
from typing import Any

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
