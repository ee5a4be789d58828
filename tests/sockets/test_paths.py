"""
UNIX sockets whose paths are too long.
"""

from __future__ import annotations

import errno
import os
import socket

from twisted.trial.unittest import SynchronousTestCase

from tests.sockethelpers import descriptors, shortDirectory
from twisted_cluster.sockets.paths import LONGEST, fits, shortened


class PathsTests(SynchronousTestCase):
    """
    C{fits} and C{shortened}.
    """

    def setUp(self) -> None:
        self.directory = shortDirectory(self)
        before = descriptors()
        self.addCleanup(lambda: self.assertEqual(before, descriptors()))

    def deep(self, name: bytes = b"s") -> bytes:
        """
        Name a file deep in the test's directory.
        """
        directory = os.path.join(self.directory, "d" * 100, "e" * 200)
        os.makedirs(directory, exist_ok=True)
        return os.fsencode(directory) + b"/" + name

    def test_fits(self) -> None:
        """
        What fits is what the kernel takes.
        """
        for path in (self.directory.encode() + b"/", b"\0"):
            for length in (107, 108, 109):
                name = path + b"n" * (length - len(path))
                with socket.socket(socket.AF_UNIX) as skt:
                    try:
                        skt.bind(name)
                    except OSError:
                        bound = False
                    else:
                        bound = True
                self.assertEqual(bound, fits(name), (path, length))

    def test_short(self) -> None:
        """
        What fits, and what would not become a path, is left alone.
        """
        for path in (b"/s", b"/" + b"s" * (LONGEST - 1), b"\0" + b"s" * 200):
            with shortened(path) as short:
                self.assertIs(path, short)

    def test_long(self) -> None:
        """
        A long path can be bound and connected to; the file is in its place.
        """
        path = self.deep()
        with (
            socket.socket(socket.AF_UNIX) as server,
            socket.socket(socket.AF_UNIX) as client,
        ):
            with shortened(path) as short:
                server.bind(short)
            self.assertTrue(os.path.exists(path))
            server.listen()
            with shortened(path) as short:
                client.connect(short)

    def test_tooLong(self) -> None:
        """
        A name that does not fit by itself is refused, with its length.
        """
        path = self.deep(b"n" * 100)
        error = self.assertRaises(OSError, shortened(path).__enter__)
        self.assertEqual(errno.ENAMETOOLONG, error.errno)
        self.assertIn(f"the path has {len(path)} bytes", error.strerror)
        self.assertIn("use a shorter name", error.strerror)

    def test_withoutProc(self) -> None:
        """
        Without F{/proc} there is no way, which is said likewise.
        """
        self.patch(os.path, "isdir", lambda path: False)
        error = self.assertRaises(OSError, shortened(self.deep()).__enter__)
        self.assertEqual(errno.ENAMETOOLONG, error.errno)

    def test_noDirectory(self) -> None:
        """
        A directory that is not there is ENOENT.
        """
        path = self.directory.encode() + b"/" + b"d" * 200 + b"/s"
        error = self.assertRaises(OSError, shortened(path).__enter__)
        self.assertEqual(errno.ENOENT, error.errno)
