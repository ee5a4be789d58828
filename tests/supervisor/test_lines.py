"""
Tests for L{twisted_cluster.supervisor.lines}.
"""

from __future__ import annotations

import fcntl
import os
from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.testing import MemoryReactor
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from twisted_cluster.supervisor.lines import MAX_LINE, LineReader


class LineReaderTests(SynchronousTestCase):
    """
    A worker's output arrives line by line.
    """

    def setUp(self) -> None:
        self.lines: list[str] = []
        self.closings = 0
        self.reactor = MemoryReactor()
        read, self.write = os.pipe()
        self.fd = read
        self.addCleanup(self.closeWriter)
        self.reader = LineReader(self.reactor, read, self.lines.append, self.closed)
        self.addCleanup(self.reader.close)
        self.reader.startReading()

    def closeWriter(self) -> None:
        if self.write >= 0:
            os.close(self.write)
            self.write = -1

    def closed(self) -> None:
        self.closings += 1

    def received(self, data: bytes) -> list[str]:
        """
        Write, let the reactor read once, and give the lines that came of it.
        """
        os.write(self.write, data)
        self.reader.doRead()
        lines = list(self.lines)
        self.lines.clear()
        return lines

    def test_interface(self) -> None:
        """
        The reader is what reactors read from.
        """
        verifyObject(IReadDescriptor, self.reader)
        self.assertEqual(self.reader.fileno(), self.fd)
        self.assertFalse(os.get_blocking(self.fd))
        self.assertEqual(self.reactor.getReaders(), [self.reader])

    def test_lines(self) -> None:
        """
        Lines arrive whole, however they were written.
        """
        self.assertEqual(self.received(b"one\ntwo\nth"), ["one", "two"])
        self.assertEqual(self.received(b"ree"), [])
        self.assertEqual(self.received(b"\n\nfour\r\n"), ["three", "", "four"])

    def test_encoding(self) -> None:
        """
        What is no UTF-8 is escaped; a character that arrives in two parts is not.
        """
        self.assertEqual(self.received(b"\xff\xc3\xa9\n"), ["\\xffé"])
        self.assertEqual(self.received(b"\xc3"), [])
        self.assertEqual(self.received(b"\xa9\n"), ["é"])

    def test_longLine(self) -> None:
        """
        A line without end arrives in parts, none longer than the limit and no
        character torn.
        """
        line = "x" + "\U0001f600" * 40_000
        data = line.encode()
        for start in range(0, len(data), 5000):
            os.write(self.write, data[start : start + 5000])
            self.reader.doRead()
        self.assertGreaterEqual(len(self.lines), 2)
        for part in self.lines:
            self.assertLessEqual(len(part.encode()), MAX_LINE)
        self.assertTrue("".join(self.received(b"\n")) == line)

    def test_longLineOfGarbage(self) -> None:
        """
        Continuation bytes that continue nothing do not stop it.
        """
        for _ in range(40):
            os.write(self.write, b"\x80" * 5000)
            self.reader.doRead()
        os.write(self.write, b"\n")
        self.reader.doRead()
        self.assertEqual("".join(self.lines), "\\x80" * 200_000)

    def test_bounded(self) -> None:
        """
        One wake-up reads at most 64 KiB, so that others get their turn.
        """
        fcntl.fcntl(self.write, fcntl.F_SETPIPE_SZ, 256 * 1024)
        os.write(self.write, b"1234567\n" * 32 * 1024)
        self.reader.doRead()
        self.assertEqual(len(self.lines), 8 * 1024)

    def test_nothingToRead(self) -> None:
        """
        A wake-up for nothing does no harm.
        """
        self.reader.doRead()
        self.assertEqual((self.lines, self.closings), ([], 0))

    def test_end(self) -> None:
        """
        When the last writer has gone, the incomplete line arrives, and the
        descriptor is closed.
        """
        self.assertEqual(self.received(b"whole\npart"), ["whole"])
        self.closeWriter()
        self.reader.doRead()
        self.assertEqual((self.lines, self.closings), (["part"], 1))
        self.assertEqual(self.reactor.getReaders(), [])
        self.assertEqual(self.reader.fileno(), -1)
        self.assertRaises(OSError, os.fstat, self.fd)

    def test_drain(self) -> None:
        """
        The last words of a process arrive at once, though another one still holds
        the pipe.
        """
        os.write(self.write, b"last\nwords\nand")
        self.reader.drain()
        self.assertEqual((self.lines, self.closings), (["last", "words"], 0))
        self.reader.close()
        self.assertEqual(self.lines, ["last", "words", "and"])

    def test_drainToTheEnd(self) -> None:
        """
        Draining a pipe that nobody holds closes it.
        """
        os.write(self.write, b"last\n")
        self.closeWriter()
        self.reader.drain()
        self.assertEqual((self.lines, self.closings), (["last"], 1))

    def test_drainEnds(self) -> None:
        """
        A writer that never stops does not keep the watcher from going on.
        """

        def refill(line: str) -> None:
            refills.append(line)
            if len(refills) > 1000:
                raise RuntimeError("drain() does not end")
            os.write(self.write, b"x" * 4000 + b"\n")

        refills: list[str] = []
        self.addCleanup(setattr, self.reader, "_lineReceived", self.lines.append)
        self.reader._lineReceived = refill
        os.write(self.write, b"first\n")
        self.reader.drain()
        self.assertLess(len(refills), 1000)

    def test_closeTwice(self) -> None:
        """
        Closing again, reading or draining a closed one does nothing.
        """
        self.reader.close()
        self.reader.close()
        self.reader.drain()
        self.reader.startReading()
        self.assertEqual((self.closings, self.reactor.getReaders()), (1, []))

    def test_reactorGivesUp(self) -> None:
        """
        When the reactor reports the loss of the pipe (a hang-up without data, on
        some), what is left arrives first.
        """
        os.write(self.write, b"last\n")
        self.reader.connectionLost(Failure(ConnectionLost()))
        self.assertEqual((self.lines, self.closings), (["last"], 1))

    def test_stopReading(self) -> None:
        """
        Reading can be suspended.
        """
        self.reader.stopReading()
        self.assertEqual(self.reactor.getReaders(), [])

    def test_receiverRaises(self) -> None:
        """
        A receiver that raises loses that line, not the next.
        """

        def receive(line: str) -> None:
            if line == "bad":
                raise RuntimeError(line)
            lines.append(line)

        lines: list[Any] = []
        self.reader._lineReceived = receive
        self.received(b"bad\ngood\n")
        self.assertEqual(lines, ["good"])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
