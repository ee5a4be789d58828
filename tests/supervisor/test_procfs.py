"""
What the kernel says of a process.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.supervisor.procfs import Credentials, isStopped, processCredentials

STATUS = """\
Name:\tworker: 1
State:\tS (sleeping)
Uid:\t0\t33\t0\t33
Gid:\t0\t34\t0\t34
Groups:\t{groups}
"""


class ProcessTests(SynchronousTestCase):
    """
    C{processCredentials} and C{isStopped}.
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
            root = self.told(stat=f"7 (a) T (b) {state} 1 7 7")
            self.assertEqual(expected, isStopped(7, root))
        self.assertFalse(isStopped(7, self.told()))
