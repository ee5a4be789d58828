"""
Limits that count only the time in which the watcher ran.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.policy.patience import TICK, Patience


class PatienceTests(SynchronousTestCase):
    """
    What is left of a limit.
    """

    def test_passes(self) -> None:
        """
        Looked at every tick, a limit is passed when it says.
        """
        patience = Patience(2.5, 0.0)
        self.assertEqual(
            [patience.look(now) for now in (0.0, 1.0, 2.0, 2.5)], [1.0, 1.0, 0.5, 0.0]
        )

    def test_standstill(self) -> None:
        """
        Of an hour in which nobody looked, two ticks count.
        """
        patience = Patience(10.0, 0.0)
        patience.look(3600.0)
        self.assertEqual(patience.left, 10.0 - 2 * TICK)

    def test_rounding(self) -> None:
        """
        What rounding leaves of a limit is not waited for.
        """
        patience = Patience(0.3, 0.0)
        for now in (0.1, 0.2):
            patience.look(now)
        self.assertEqual(patience.look(0.1 + 0.2 - 1e-12), 0.0)
