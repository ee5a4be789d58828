"""
Tests for L{twisted_cluster.worker.stdio}.
"""

from __future__ import annotations

import io

from twisted.trial.unittest import SynchronousTestCase

from tests.worker.running import runRelayed
from twisted_cluster.ipc.logs import LogRecord
from twisted_cluster.worker import publications
from twisted_cluster.worker.publications import Publication
from twisted_cluster.worker.stdio import WorkerStream

EVENT = LogRecord(20, 0.0, "app", "an event")


class StreamTests(SynchronousTestCase):
    """
    The streams of a worker, as its program meets them.
    """

    def test_asPythons(self) -> None:
        """
        What a program may ask of its streams is answered as by Python's own.
        """
        run = runRelayed(
            self.mktemp(),
            """
            import io, sys
            for stream, fd, errors in (
                (sys.stdout, 1, "surrogateescape"), (sys.stderr, 2, "backslashreplace")
            ):
                assert stream.fileno() == fd, stream
                assert stream.errors == errors, stream.errors
                assert stream.encoding == "utf-8", stream.encoding
                assert stream.name in ("<stdout>", "<stderr>"), stream.name
                assert stream.mode == "w", stream.mode
                assert stream.line_buffering and not stream.isatty()
                assert isinstance(stream, io.TextIOBase) and stream.writable()
                assert stream.write("text\\n") == 5
                stream.writelines(["two\\n", "lines\\n"])
                stream.buffer.write(b"bytes\\n")
                stream.flush()
                stream.reconfigure(encoding="latin-1")
                stream.write("\\xe9\\n")
            assert sys.stdout is sys.__stdout__ and sys.stderr is sys.__stderr__
            """,
            "debug",
            "-X",
            "utf8",
        )
        self.assertEqual(run.status, 0, run.stderr)
        expected = "text\ntwo\nlines\nbytes\n\\xe9\n"
        self.assertEqual((run.stdout, run.stderr), (expected, expected))

    def test_lineAtOnce(self) -> None:
        """
        A complete line has left the process when C{print} returns, also when
        C{os._exit} comes next.
        """
        run = runRelayed(
            self.mktemp(),
            """
            import os, sys
            print("whole")
            print("whole, too", file=sys.stderr)
            print("part", end="")
            os._exit(7)
            """,
        )
        self.assertEqual(run.status, 7)
        self.assertEqual((run.stdout, run.stderr), ("whole\n", "whole, too\n"))

    def test_orderlyExit(self) -> None:
        """
        An incomplete line has left it at an orderly exit.
        """
        run = runRelayed(self.mktemp(), "print('part', end='')")
        self.assertEqual(run.stdout, "part")

    def test_unbuffered(self) -> None:
        """
        With C{python -u} an incomplete line leaves at once.
        """
        run = runRelayed(
            self.mktemp(),
            "import os; print('part', end=''); os._exit(0)",
            "debug",
            "-u",
        )
        self.assertEqual(run.stdout, "part")

    def test_detached(self) -> None:
        """
        A program that wraps the streams anew keeps every line.
        """
        run = runRelayed(
            self.mktemp(),
            """
            import io, logging, sys
            sys.stdout = io.TextIOWrapper(sys.stdout.detach(), encoding="utf-8")
            logging.basicConfig(stream=sys.stdout)
            print("before")
            logging.warning("record")
            print("after")
            """,
        )
        self.assertIn("before\n", run.stdout)
        self.assertIn("after\n", run.stdout)

    def test_nobodyReads(self) -> None:
        """
        A program whose watcher has died prints into the void instead of failing.
        """
        run = runRelayed(
            self.mktemp(),
            """
            import os, sys
            reader, writer = os.pipe()
            os.dup2(writer, 1)
            os.close(reader)
            os.close(writer)
            print("nobody reads this")
            print("survived", file=sys.stderr)
            """,
        )
        self.assertEqual((run.status, run.stderr), (0, "survived\n"))


class CopyTests(SynchronousTestCase):
    """
    Text that repeats an event does not reach the stream.
    """

    def setUp(self) -> None:
        self.raw = io.BytesIO()
        self.stream = WorkerStream(self.raw, encoding="utf-8", line_buffering=True)
        self.patch(publications, "_active", True)

    def test_dropped(self) -> None:
        """
        What repeats an event while it is published is dropped; what was written
        before and flushed then is not.
        """
        self.stream.write("kept ")
        with Publication({}, EVENT):
            self.assertEqual(self.stream.write("an event\n"), 9)
            self.stream.writelines(["12:00 an event\n", "info: an event\n"])
            print("12:01", "an event", file=self.stream)
            self.stream.flush()
        self.stream.write("whole\n")
        self.assertEqual(self.raw.getvalue(), b"kept whole\n")

    def test_kept(self) -> None:
        """
        What does not is written as soon as its line is complete, and at the
        latest when the event has been published.
        """
        with Publication({}, EVENT):
            self.stream.write("another ")
            self.stream.write("event is news\n")
            self.assertEqual(self.raw.getvalue(), b"another event is news\n")
            self.stream.write(".")
        self.stream.flush()
        self.assertEqual(self.raw.getvalue(), b"another event is news\n.")

    def test_whatever(self) -> None:
        """
        Where everything is a copy, everything is dropped.
        """
        with Publication(None):
            self.stream.write("a warning\n  its source\nand half a line")
        self.stream.flush()
        self.assertEqual(self.raw.getvalue(), b"")

    def test_badWrites(self) -> None:
        """
        Dropping text hides no error of its writer.
        """
        with Publication({}, EVENT):
            self.assertRaises(TypeError, self.stream.write, b"bytes")
            self.stream.close()
            self.assertRaises(ValueError, self.stream.write, "text")
