"""
The titles of processes.
"""

from __future__ import annotations

import sys

from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.ipc.titles import setTitle


class TitlesTests(SynchronousTestCase):
    """
    L{setTitle}.
    """

    def test_installed(self) -> None:
        """
        C{setproctitle} is given the title.
        """
        titles: list[str] = []

        class Module:
            setproctitle = staticmethod(titles.append)

        self.patch(sys, "modules", {**sys.modules, "setproctitle": Module})
        self.assertTrue(setTitle("shop: worker 1 (slot 0)"))
        self.assertEqual(titles, ["shop: worker 1 (slot 0)"])

    def test_notInstalled(self) -> None:
        """
        Without it, nothing happens, and the caller is told.
        """
        self.patch(sys, "modules", {**sys.modules, "setproctitle": None})
        self.assertFalse(setTitle("shop"))
