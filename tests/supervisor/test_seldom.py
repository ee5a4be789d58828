"""
How often something is said that lasts.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.supervisor.seldom import Seldom


class SeldomTests(SynchronousTestCase):
    """
    Once a minute.
    """

    def test_due(self) -> None:
        """
        At once, and again a minute after the last time.
        """
        clock = Clock()
        seldom = Seldom(clock)
        found = []
        for _ in range(5):
            found.append(seldom.due())
            clock.advance(30)
        self.assertEqual(found, [True, False, True, False, True])
