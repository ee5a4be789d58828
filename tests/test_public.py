"""
The names that users import.
"""

from __future__ import annotations

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

import twisted_cluster
from twisted_cluster import sockets


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

    def test_sockets(self) -> None:
        """
        So can those of C{twisted_cluster.sockets}, and no other.
        """
        names: dict[str, object] = {}
        exec("from twisted_cluster.sockets import *", names)
        self.assertLessEqual(set(sockets.__all__), set(names))
        self.assertEqual(sockets.__all__, sorted(sockets._HOMES))
        self.assertFalse(hasattr(sockets, "Pipe"))

    def test_others(self) -> None:
        """
        Another name is missing in the ordinary way.
        """
        self.assertFalse(hasattr(twisted_cluster, "Watcher"))

    def test_cheap(self) -> None:
        """
        A program that imports C{cluster} pays neither for the watcher nor for
        what moves sockets nor, since it is free to choose one, for a reactor.
        """
        dear = [
            "twisted.internet.reactor",
            "twisted_cluster.sockets.clients.sender",
            "twisted_cluster.sockets.hub.hub",
            "twisted_cluster.sockets.servers.pipes",
            "twisted_cluster.watcher",
        ]
        program = (
            "import sys; from twisted_cluster import cluster; "
            f"print(*(set({dear}) & set(sys.modules)))"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        self.assertEqual(done.stdout.strip(), "")
