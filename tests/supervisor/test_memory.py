"""
How much memory a process takes.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.supervisor.memory import memoryOf

STATUS = "Name:\tpython\nState:\tS (sleeping)\nVmRSS:\t  300 kB\n"
ROLLUP = (
    "00400000-7ffd0000 ---p 00000000 00:00 0  [rollup]\nRss:  300 kB\nPss:  120 kB\n"
)
SWAPPED = "VmSwap:\t  50 kB\n"


class MemoryTests(SynchronousTestCase):
    """
    L{memoryOf}.
    """

    def told(self, **files: str) -> str:
        """
        Make a F{/proc} that tells this of process 7.
        """
        root: str = self.mktemp()
        Path(root, "7").mkdir(parents=True)
        for name, text in files.items():
            Path(root, "7", name).write_text(text)
        return root

    def test_share(self) -> None:
        """
        What counts is the process's share of its pages, in bytes.
        """
        root = self.told(status=STATUS, smaps_rollup=ROLLUP)
        self.assertEqual(120 * 1024, memoryOf(7, root=root))

    def test_resident(self) -> None:
        """
        Where the share is not told, all its resident pages count.
        """
        for files in ({}, {"smaps_rollup": ""}, {"smaps_rollup": "Pss: many kB\n"}):
            root = self.told(status=STATUS, **files)
            self.assertEqual(300 * 1024, memoryOf(7, root=root), files)

    def test_swapped(self) -> None:
        """
        What is swapped out counts as well.
        """
        root = self.told(status=STATUS + SWAPPED)
        self.assertEqual(350 * 1024, memoryOf(7, root=root))
        root = self.told(
            status=STATUS + SWAPPED, smaps_rollup=ROLLUP + "SwapPss:  40 kB\n"
        )
        self.assertEqual(160 * 1024, memoryOf(7, root=root))

    def test_enough(self) -> None:
        """
        The share is not asked for where the resident pages are few enough.
        """
        root = self.told(status=STATUS, smaps_rollup=ROLLUP)
        self.assertEqual(300 * 1024, memoryOf(7, 300 * 1024, root))
        self.assertEqual(120 * 1024, memoryOf(7, 300 * 1024 - 1, root))

    def test_gone(self) -> None:
        """
        A process that is gone takes none that could be told, and neither does one
        whose parent has not heard of its end.
        """
        self.assertIsNone(memoryOf(7, root=self.mktemp()))
        zombie = self.told(status="Name:\tpython\nState:\tZ (zombie)\n")
        self.assertIsNone(memoryOf(7, root=zombie))

    def test_own(self) -> None:
        """
        A real process that takes more memory is seen to.
        """
        before = memoryOf(os.getpid())
        size = 64 * 1024**2
        with mmap.mmap(-1, size) as pages:
            pages.write(b"x" * size)
            after = memoryOf(os.getpid())
        assert before is not None and after is not None
        self.assertGreater(after - before, size // 2)
