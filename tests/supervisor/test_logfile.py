"""
The log file, rotated by others.
"""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.supervisor.logfile import LogFile


class LogFileTests(SynchronousTestCase):
    """
    L{LogFile}.
    """

    def setUp(self) -> None:
        directory = Path(self.mktemp())
        directory.mkdir()
        self.path = directory / "app.log"

    def opened(self) -> LogFile:
        """
        Open the file until the test ends.
        """
        file = LogFile.open(str(self.path))
        self.addCleanup(file.close)
        return file

    def test_appended(self) -> None:
        """
        Lines are added to what is there, at once.
        """
        self.path.write_text("old\n")
        file = self.opened()
        file.write("new\n")
        self.assertEqual(self.path.read_text(), "old\nnew\n")

    def test_flushed(self) -> None:
        """
        A piece of a line is written when it is flushed.
        """
        file = self.opened()
        file.write("piece")
        file.flush()
        self.assertEqual(self.path.read_text(), "piece")

    def test_anyText(self) -> None:
        """
        Text that no encoding knows is written somehow.
        """
        self.opened().write("\u20ac \udcff\n")
        self.assertEqual(self.path.read_text("utf-8"), "\u20ac \\udcff\n")

    def test_moved(self) -> None:
        """
        Once the file was moved away, the next line goes to a new one, and the
        old one is closed.
        """
        file = self.opened()
        file.write("one\n")
        before = len(os.listdir("/dev/fd"))
        moved = self.path.rename(self.path.with_suffix(".1"))
        file.write("two\n")
        self.assertEqual(moved.read_text(), "one\n")
        self.assertEqual(self.path.read_text(), "two\n")
        self.assertEqual(len(os.listdir("/dev/fd")), before)

    def test_replaced(self) -> None:
        """
        A new file that the rotation has already made is used.
        """
        file = self.opened()
        self.path.rename(self.path.with_suffix(".1"))
        self.path.write_text("made\n")
        file.write("two\n")
        self.assertEqual(self.path.read_text(), "made\ntwo\n")

    def test_cannotBeMade(self) -> None:
        """
        Where no new file can be made, the old one is written on.
        """
        file = self.opened()
        moved = self.path.parent.rename(self.path.parent.with_suffix(".moved"))
        file.write("two\n")
        self.assertEqual((moved / "app.log").read_text(), "two\n")

    def test_cannotBeOpened(self) -> None:
        """
        A file that cannot be opened at all is an error with its name.
        """
        path = str(self.path / "x" / "app.log")
        error = self.assertRaises(OSError, LogFile.open, path)
        self.assertEqual(error.filename, os.path.abspath(path))

    def test_noTerminal(self) -> None:
        """
        A file is no terminal.
        """
        self.assertFalse(self.opened().isatty())
