"""
How one socket is bound, and what is left of it.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import sys

from twisted.python.lockfile import isLocked
from twisted.trial.unittest import SynchronousTestCase

from tests.sockethelpers import descriptors, shortDirectory
from twisted_cluster.sockets.addresses import LEAVE_MODE, Address, BindRequest
from twisted_cluster.sockets.paths import shortened
from twisted_cluster.sockets.servers.binding import (
    BoundSocket,
    LockHeld,
    bindSocket,
    makeSocket,
)


class BindingTests(SynchronousTestCase):
    """
    C{bindSocket} and the end of what it made.
    """

    def setUp(self) -> None:
        self.directory = shortDirectory(self)
        self.path = os.path.join(self.directory, "s").encode()
        before = descriptors()
        self.addCleanup(lambda: self.assertEqual(before, descriptors()))

    def bind(self, wanted: BindRequest, backlog: int = 128) -> BoundSocket:
        return bindSocket(wanted, makeSocket(wanted.address), backlog)

    def unix(self, mode: int = 0o666, lock: bool = False) -> BindRequest:
        return BindRequest(Address.unix(self.path), 50, mode, lock)

    def test_tcp(self) -> None:
        """
        A TCP socket is bound and listens; port 0 has become a real one; it is
        non-blocking and not inherited.
        """
        bound = self.bind(BindRequest(Address("tcp", "127.0.0.1")))
        self.addCleanup(bound.close)
        self.assertGreater(bound.address.port, 0)
        self.assertEqual(128, bound.backlog)
        self.assertFalse(bound.socket.get_inheritable())
        self.assertEqual(0.0, bound.socket.gettimeout())
        with socket.create_connection(("127.0.0.1", bound.address.port), timeout=5):
            pass

    def test_moreBacklog(self) -> None:
        """
        The backlog is the larger of what was asked and what was configured,
        and only ever grows.
        """
        bound = self.bind(BindRequest(Address("tcp", "127.0.0.1"), backlog=200))
        self.addCleanup(bound.close)

        def actual() -> int:
            info = bound.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
            return int.from_bytes(info[28:32], sys.byteorder)

        self.assertEqual(200, actual())
        bound.atLeast(100)
        self.assertEqual(200, actual())
        bound.atLeast(300)
        self.assertEqual((300, 300), (bound.backlog, actual()))

    def test_taken(self) -> None:
        """
        A taken port raises what C{bind} raises, and nothing stays open.
        """
        with socket.create_server(("127.0.0.1", 0)) as other:
            address = Address.ofSocket(other)
            error = self.assertRaises(OSError, self.bind, BindRequest(address))
        self.assertEqual(errno.EADDRINUSE, error.errno)

    def test_unixIsRemoved(self) -> None:
        """
        A path gets its mode, answers, and is gone at the end, together with
        its lock file.
        """
        bound = self.bind(self.unix(0o640, lock=True))
        self.assertEqual(0o640, stat.S_IMODE(os.stat(self.path).st_mode))
        self.assertTrue(isLocked(self.path + b".lock"))
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            client.connect(self.path)
        bound.close()
        self.assertEqual([], os.listdir(self.directory))

    def test_longPath(self) -> None:
        """
        A path that is too long for the kernel is bound nevertheless, and has
        its mode, its lock file and its end like any other.
        """
        directory = os.path.join(self.directory, "d" * 150)
        os.mkdir(directory)
        self.path = os.fsencode(directory) + b"/s"
        bound = self.bind(self.unix(0o640, lock=True))
        self.assertEqual(self.path, bound.address.path)
        self.assertEqual(0o640, stat.S_IMODE(os.stat(self.path).st_mode))
        self.assertTrue(isLocked(self.path + b".lock"))
        bound.changeMode(0o600)
        self.assertEqual(0o600, stat.S_IMODE(os.stat(self.path).st_mode))
        self.assertFalse(bound.vanished())
        with socket.socket(socket.AF_UNIX) as client, shortened(self.path) as short:
            client.settimeout(5)
            client.connect(short)
        bound.close()
        self.assertEqual([], os.listdir(directory))

    def test_longPathTaken(self) -> None:
        """
        A long path that somebody else has is in use, and stays.
        """
        directory = os.path.join(self.directory, "d" * 150)
        os.mkdir(directory)
        self.path = os.fsencode(directory) + b"/s"
        bound = self.bind(self.unix())
        self.addCleanup(bound.close)
        error = self.assertRaises(OSError, self.bind, self.unix())
        self.assertEqual(errno.EADDRINUSE, error.errno)
        self.assertTrue(bound.ownsPath())

    def test_modeIsLeft(self) -> None:
        """
        Where no mode is asked for, the umask decides.
        """
        before = os.umask(0o027)
        try:
            bound = self.bind(self.unix(LEAVE_MODE))
        finally:
            os.umask(before)
        self.addCleanup(bound.close)
        self.assertEqual(0o750, stat.S_IMODE(os.stat(self.path).st_mode))

    def test_notOurs(self) -> None:
        """
        A path that has become somebody else's is left alone at the end.
        """
        bound = self.bind(self.unix())
        os.unlink(self.path)
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(self.path)
            bound.close()
            self.assertTrue(os.path.exists(self.path))

    def test_lockHeld(self) -> None:
        """
        A path whose lock file belongs to a living process is refused; its
        files stay.
        """
        os.symlink(str(os.getpid()), self.path + b".lock")
        self.assertRaises(LockHeld, self.bind, self.unix(lock=True))
        self.assertEqual(["s.lock"], os.listdir(self.directory))

    def leaveSocket(self, locked: bool) -> None:
        """
        Leave a socket in the file system that nobody listens on any more, with
        the lock file of a process that is dead.
        """
        with socket.socket(socket.AF_UNIX) as old:
            old.bind(self.path)
        if locked:
            done = subprocess.run(
                [sys.executable, "-c", "import os; print(os.getpid())"],
                capture_output=True,
                text=True,
                check=True,
                timeout=60,
            )
            os.symlink(done.stdout.strip(), self.path + b".lock")

    def test_stale(self) -> None:
        """
        A socket that a dead process left behind, with its lock file, is
        replaced.
        """
        self.leaveSocket(locked=True)
        bound = self.bind(self.unix(lock=True))
        self.assertTrue(bound.ownsPath())
        bound.close()
        self.assertEqual([], os.listdir(self.directory))

    def test_perhapsStale(self) -> None:
        """
        A socket without a lock file may be somebody's: the path is in use.
        """
        self.leaveSocket(locked=False)
        error = self.assertRaises(OSError, self.bind, self.unix(lock=True))
        self.assertEqual(errno.EADDRINUSE, error.errno)
        self.assertEqual(["s"], os.listdir(self.directory))

    def test_regularFile(self) -> None:
        """
        A file that is no socket is never touched, whatever its lock says.
        """
        self.leaveSocket(locked=True)
        os.unlink(self.path)
        with open(self.path, "w") as file:
            file.write("precious")
        error = self.assertRaises(OSError, self.bind, self.unix(lock=True))
        self.assertEqual(errno.EADDRINUSE, error.errno)
        with open(self.path) as file:
            self.assertEqual("precious", file.read())
        self.assertEqual(["s"], os.listdir(self.directory))

    def test_noDirectory(self) -> None:
        """
        A directory that does not exist is ENOENT, with a lock file and
        without.
        """
        self.path = self.path + b"/missing/s"
        for lock in (False, True):
            error = self.assertRaises(OSError, self.bind, self.unix(lock=lock))
            self.assertEqual(errno.ENOENT, error.errno)

    def test_abstract(self) -> None:
        """
        A name in the abstract namespace has no file, no mode and no lock.
        """
        name = b"\0twisted-cluster-binding-%d" % os.getpid()
        bound = self.bind(BindRequest(Address.unix(name), lock=True))
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            client.connect(name)
        self.assertFalse(bound.vanished())
        bound.close()
        self.assertEqual([], os.listdir(self.directory))

    def test_changeMode(self) -> None:
        """
        A mode is changed on our own path only.
        """
        bound = self.bind(self.unix(0o666))
        bound.changeMode(0o600)
        self.assertEqual(0o600, stat.S_IMODE(os.stat(self.path).st_mode))
        os.unlink(self.path)
        self.assertTrue(bound.vanished())
        with open(self.path, "w"):
            pass
        os.chmod(self.path, 0o644)
        bound.changeMode(0o666)
        self.assertEqual(0o644, stat.S_IMODE(os.stat(self.path).st_mode))
        bound.close()
