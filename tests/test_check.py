"""
Trying whether a target loads.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.check import checkTarget
from twisted_cluster.errors import InvalidEndpoint, StartFailed
from twisted_cluster.testing.reactor import DescriptorReactor


class CheckTests(SynchronousTestCase):
    """
    L{checkTarget}.
    """

    def setUp(self) -> None:
        self.reactor: Any = DescriptorReactor()

    def test_bindsNothing(self) -> None:
        """
        What is to be bound is not: the cluster that runs may have it.
        """
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            checking = checkTarget(
                self.reactor, "web", binds=[f"tcp:{port}:interface=127.0.0.1"]
            )
        [process] = self.reactor.processes
        self.assertNoResult(checking)
        process.end(1)
        self.reactor.settle()
        self.failureResultOf(checking, StartFailed)

    def test_readsBinds(self) -> None:
        """
        It is read all the same, and mistakes are told.
        """
        error = self.assertRaises(
            InvalidEndpoint, checkTarget, self.reactor, "web", binds=["tpc:80"]
        )
        self.assertIn("tpc:80", str(error))
        self.assertEqual(self.reactor.processes, [])
