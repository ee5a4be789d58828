"""
The names that users import.
"""

from __future__ import annotations

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

import twisted_cluster


class PublicNamesTests(SynchronousTestCase):
    """
    What C{from twisted_cluster import ...} gives.
    """

    def test_names(self) -> None:
        """
        Every public name can be imported.
        """
        names: dict[str, object] = {}
        exec("from twisted_cluster import *", names)
        for name in ("ClusterWatcher", "cluster", "registerMessage"):
            self.assertIn(name, names)

    def test_others(self) -> None:
        """
        Another name is missing in the ordinary way.
        """
        self.assertFalse(hasattr(twisted_cluster, "Watcher"))

    def test_cheap(self) -> None:
        """
        A program that imports C{cluster} pays neither for the watcher nor, since
        it is free to choose one, for a reactor.
        """
        program = (
            "import sys; from twisted_cluster import cluster; "
            "print(*({'twisted_cluster.watcher', 'twisted.internet.reactor'} "
            "& set(sys.modules)))"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        self.assertEqual(done.stdout.strip(), "")
