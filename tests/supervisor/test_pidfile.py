"""
The pid file and its rules.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.errors import PIDFileError, PIDFileInUse
from twisted_cluster.supervisor.pidfile import PIDFile


class PIDFileTests(SynchronousTestCase):
    """
    L{PIDFile}.
    """

    def setUp(self) -> None:
        directory = Path(self.mktemp())
        directory.mkdir()
        self.path = directory / "app.pid"

    def acquired(self) -> PIDFile:
        """
        Take the file until the test ends.
        """
        pidFile = PIDFile(str(self.path))
        pidFile.acquire()
        self.addCleanup(pidFile.release)
        return pidFile

    def deadPID(self) -> int:
        """
        Make a pid that is nobody's.
        """
        process = subprocess.Popen([sys.executable, "-c", ""])
        process.wait(60)
        return process.pid

    def names(self) -> list[str]:
        """
        List what is in the directory.
        """
        return sorted(os.listdir(self.path.parent))

    def test_written(self) -> None:
        """
        The file holds our pid, may be read by all, and is alone.
        """
        before = os.umask(0o077)
        self.addCleanup(os.umask, before)
        self.acquired()
        self.assertEqual(self.path.read_text(), f"{os.getpid()}\n")
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o644)
        self.assertEqual(self.names(), ["app.pid"])

    def test_released(self) -> None:
        """
        At the end the file is gone, and nothing is left open.  A second
        release does nothing.
        """
        before = os.listdir("/dev/fd")
        pidFile = self.acquired()
        pidFile.release()
        pidFile.release()
        self.assertEqual(self.names(), [])
        self.assertEqual(os.listdir("/dev/fd"), before)

    def test_workingDirectory(self) -> None:
        """
        The file is found again when the working directory has changed.
        """
        self.addCleanup(os.chdir, os.getcwd())
        path = self.path
        os.chdir(path.parent)
        pidFile = PIDFile("app.pid")
        pidFile.acquire()
        os.chdir("/")
        pidFile.release()
        self.assertFalse(path.exists())

    def test_liveOwner(self) -> None:
        """
        A file that names a process that lives is refused, with its pid, and
        left as it is.
        """
        self.path.write_text(f"{os.getppid()}\n")
        error = self.assertRaises(PIDFileInUse, PIDFile(str(self.path)).acquire)
        self.assertEqual(error.pid, os.getppid())
        self.assertIn(str(os.getppid()), str(error))
        self.assertIn(str(self.path), str(error))
        self.assertEqual(self.path.read_text(), f"{os.getppid()}\n")
        self.assertEqual(self.names(), ["app.pid"])

    def test_lockedOwner(self) -> None:
        """
        Whoever wrote the file and lives has it, also from us.
        """
        self.acquired()
        before = os.listdir("/dev/fd")
        error = self.assertRaises(PIDFileInUse, PIDFile(str(self.path)).acquire)
        self.assertEqual(error.pid, os.getpid())
        self.assertEqual(os.listdir("/dev/fd"), before)

    def test_stale(self) -> None:
        """
        The file of a process that is gone is replaced.
        """
        self.path.write_text(f"{self.deadPID()}\n")
        self.acquired()
        self.assertEqual(self.path.read_text(), f"{os.getpid()}\n")

    def test_ownPID(self) -> None:
        """
        A file that names ourselves is left over from an earlier process of the
        same pid, as in a container that was started again.
        """
        self.path.write_text(f"{os.getpid()}\n")
        self.acquired()

    def test_garbage(self) -> None:
        """
        A file that names no process is replaced.
        """
        for content in ("", "nobody\n", "-1", "0", "9" * 30, "\x00\xff"):
            self.path.write_text(content)
            pidFile = self.acquired()
            self.assertEqual(self.path.read_text(), f"{os.getpid()}\n")
            pidFile.release()

    def test_danglingLink(self) -> None:
        """
        A link to nowhere is replaced.
        """
        self.path.symlink_to("nowhere")
        self.acquired()
        self.assertFalse(self.path.is_symlink())

    def test_notAFile(self) -> None:
        """
        A directory, or a pipe, is refused without waiting for anybody.
        """
        self.path.mkdir()
        self.assertRaises(PIDFileError, PIDFile(str(self.path)).acquire)
        self.path.rmdir()
        os.mkfifo(self.path)
        self.assertRaises(PIDFileError, PIDFile(str(self.path)).acquire)
        self.assertEqual(self.names(), ["app.pid"])

    def test_noDirectory(self) -> None:
        """
        Where there is no directory, the error says so.
        """
        path = str(self.path.parent / "missing" / "app.pid")
        error = self.assertRaises(PIDFileError, PIDFile(path).acquire)
        self.assertIn("No such file or directory", str(error))
        self.assertIn(path, str(error))

    def test_replacedMeanwhile(self) -> None:
        """
        A file that is somebody else's by now is left alone.
        """
        pidFile = self.acquired()
        self.path.unlink()
        self.path.write_text("1\n")
        pidFile.release()
        self.assertEqual(self.path.read_text(), "1\n")

    def test_fork(self) -> None:
        """
        A fork of the owner does not remove the file.
        """
        pidFile = self.acquired()
        self.patch(os, "getpid", lambda: -1)
        pidFile.release()
        self.assertTrue(self.path.exists())

    def test_race(self) -> None:
        """
        Of several processes that start at once, one gets the file, whether
        there was none before or a stale one; the others are told who did.
        """
        code = (
            "import sys\n"
            "from twisted_cluster.errors import PIDFileInUse\n"
            "from twisted_cluster.supervisor.pidfile import PIDFile\n"
            "print('up', flush=True)\n"
            "sys.stdin.readline()\n"
            "try:\n"
            "    PIDFile(sys.argv[1]).acquire()\n"
            "except PIDFileInUse:\n"
            "    print('refused', flush=True)\n"
            "else:\n"
            "    print('taken', flush=True)\n"
            "sys.stdin.readline()\n"
        )
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        for content in (None, f"{self.deadPID()}\n"):
            if content is not None:
                self.path.write_text(content)
            processes = [
                subprocess.Popen(
                    [sys.executable, "-c", code, str(self.path)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env=environ,
                )
                for _ in range(4)
            ]
            try:
                pipes = [(p.stdin, p.stdout) for p in processes if p.stdin and p.stdout]
                for _, stdout in pipes:
                    self.assertEqual(stdout.readline(), "up\n")
                for stdin, _ in pipes:
                    stdin.write("go\n")
                    stdin.flush()
                said = sorted(stdout.readline() for _, stdout in pipes)
                self.assertEqual(said, ["refused\n"] * 3 + ["taken\n"])
                self.assertIn(int(self.path.read_text()), [p.pid for p in processes])
            finally:
                for process in processes:
                    process.communicate(timeout=60)
            self.path.unlink()
