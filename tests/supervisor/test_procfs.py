"""
What the kernel says of a process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.supervisor.procfs import (
    Credentials,
    isStopped,
    memoryIn,
    processCredentials,
    tableOf,
    whyHangs,
)

STATUS = """\
Name:\tworker: 1
State:\tS (sleeping)
Uid:\t0\t33\t0\t33
Gid:\t0\t34\t0\t34
Groups:\t{groups}
"""


class ProcessTests(SynchronousTestCase):
    """
    L{processCredentials}, L{isStopped} and L{whyHangs}.
    """

    def told(self, **files: str) -> str:
        """
        Make a F{/proc} that tells this of process 7.
        """
        root = tempfile.TemporaryDirectory()
        self.addCleanup(root.cleanup)
        Path(root.name, "7").mkdir()
        for name, text in files.items():
            Path(root.name, "7", name).write_text(text)
        return root.name

    def test_own(self) -> None:
        """
        A living process tells its effective ids and its groups, one that is
        gone none.
        """
        found = processCredentials(os.getpid())
        assert found is not None
        self.assertEqual((os.geteuid(), os.getegid()), (found.uid, found.gid))
        self.assertEqual(sorted(os.getgroups()), sorted(found.groups))
        self.assertIsNone(processCredentials(2**22 + 1))

    def test_credentials(self) -> None:
        """
        It is the effective ids that count, and all groups, which may be none.
        """
        for groups, expected in [("4 27 ", (4, 27)), (" ", ())]:
            root = self.told(status=STATUS.format(groups=groups))
            self.assertEqual(Credentials(33, 34, expected), processCredentials(7, root))

    def test_nothingUseful(self) -> None:
        """
        What cannot be read tells nothing.
        """
        for text in ["", "Uid:\t0\nGid:\t0\nGroups:\t\n", "Uid: a b c d\n", "?"]:
            self.assertIsNone(processCredentials(7, self.told(status=text)))

    def test_stopped(self) -> None:
        """
        A process is stopped by a signal or by a debugger, whatever it is
        called.
        """
        for state, expected in [("T", True), ("t", True), ("S", False), ("R", False)]:
            root = self.told(status=f"Name:\tState:\tT (T)\nState:\t{state} (so)\n")
            self.assertEqual(expected, isStopped(7, root))
        self.assertFalse(isStopped(7, self.told()))

    def test_hangs(self) -> None:
        """
        What keeps a process from running is told, the most telling of it.
        """
        little, much = "VmRSS:\t 10 kB\n", "VmRSS:\t 10 kB\nVmSwap:\t 20 kB\n"
        for state, memory, expected in [
            ("T (stopped)", much, "it is stopped (SIGSTOP)"),
            ("t (tracing stop)", much, "it is being traced"),
            ("D (disk sleep)", little, "it waits for a disk (state D)"),
            ("D (disk sleep)", much, "most of it is swapped out"),
            ("S (sleeping)", much, "most of it is swapped out"),
            ("S (sleeping)", little, ""),
            ("R (running)", little + "VmSwap:\t 10 kB\n", ""),
            ("Z (zombie)", "", ""),
        ]:
            root = self.told(status=f"Name:\tx\nState:\t{state}\n{memory}")
            self.assertEqual(expected, whyHangs(7, root), (state, memory))

    def test_hangsNot(self) -> None:
        """
        A process that runs, is gone, or of which nothing useful is told, is kept by
        nothing.
        """
        self.assertEqual("", whyHangs(os.getpid()))
        self.assertEqual("", whyHangs(2**22 + 1))
        for text in ("", "State:\n", "VmSwap:\tmuch\nVmRSS:\n"):
            self.assertEqual("", whyHangs(7, self.told(status=text)))

    def test_realStop(self) -> None:
        """
        A real process that is stopped is told to be.
        """
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1, stdout=-3)
        self.addCleanup(child.wait)
        assert child.stdin is not None
        self.addCleanup(child.stdin.close)
        self.addCleanup(child.kill)
        os.kill(child.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
        self.assertEqual("it is stopped (SIGSTOP)", whyHangs(child.pid))
        self.assertTrue(isStopped(child.pid))


class TableTests(SynchronousTestCase):
    """
    L{tableOf} and L{memoryIn}.
    """

    def test_memory(self) -> None:
        """
        Amounts are told in kB and returned in bytes; what is none is none.
        """
        table = {"Rss": "  3 kB", "Pss": "", "Name": "\tx"}
        self.assertEqual(3072, memoryIn(table, "Rss"))
        for name in ("Pss", "Name", "Swap"):
            self.assertIsNone(memoryIn(table, name))

    def test_gone(self) -> None:
        """
        A process that is gone, and a file that there is not, say nothing.
        """
        self.assertEqual({}, tableOf(2**22 + 1, "status"))
        self.assertEqual({}, tableOf(os.getpid(), "no such file"))
