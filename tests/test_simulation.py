"""
The simulation of the ways of balancing.
"""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.simulation import (
    MODEL,
    Traffic,
    main,
    makeTraffic,
    moves,
    simulate,
    stickyShares,
    summarize,
)

WORKERS = 20


def ignore(text: str) -> None:
    """
    Show no progress.
    """


class SimulationTests(SynchronousTestCase):
    """
    What it computes, with few workers and connections.
    """

    def traffic(self) -> Traffic:
        """
        Make the same connections each time.
        """
        return makeTraffic(WORKERS, 5000, 500, 20, 1)

    def test_traffic(self) -> None:
        """
        Connections come one after the other and last, the same in each run; some
        clients make many, and have one address each.
        """
        traffic = self.traffic()
        self.assertEqual(traffic, self.traffic())
        self.assertEqual(sorted(traffic.arrivals), list(traffic.arrivals))
        self.assertEqual(5000, len(traffic.durations))
        self.assertGreaterEqual(min(traffic.durations), 10)
        self.assertEqual(500, len(set(traffic.addresses)))
        self.assertGreater(traffic.clients.count(0), 3 * traffic.clients.count(100))

    def test_ways(self) -> None:
        """
        C{round-robin} gives everybody equally many, C{least-connections} leaves
        everybody with equally many, chance does neither, and C{sticky} goes by
        what the clients do.
        """
        traffic = self.traffic()
        found = {
            name: simulate(name, traffic, WORKERS, 1, ignore)
            for name in (MODEL, "round-robin", "least-connections", "sticky")
        }
        for samples in found.values():
            self.assertEqual(200, len(samples))
            self.assertEqual(traffic.arrivals[-1], samples[-1].time)
        self.assertEqual((1.0, 1.0), found["round-robin"][-1].accepted)
        short = {name: summarize(samples) for name, samples in found.items()}
        least = short["least-connections"].open
        self.assertLess(least[0] - least[1], 0.2)
        for name in (MODEL, "round-robin", "sticky"):
            most, fewest = short[name].open
            self.assertGreater(most - fewest, 0.4, name)
        self.assertEqual(short["sticky"].accepted, stickyShares(traffic, WORKERS))

    def test_moves(self) -> None:
        """
        No client moves without need, and one of as many as there are workers does.
        """
        addresses = makeTraffic(WORKERS, 1, 4000, 20, 1).addresses
        found = moves(addresses, WORKERS, 1, ignore)
        self.assertEqual(0, found.strays)
        for moved in (found.died, found.added):
            self.assertTrue(0.03 < moved / 4000 < 0.07, moved)
        self.assertGreater(found.modulo / 4000, 0.9)

    def run_(self, *words: str) -> str:
        """
        Run the command, and return what it prints.
        """
        few = ["--workers=10", "--connections=1000", "--clients=100", "--keys=100"]
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            main([*few, *words])
        return printed.getvalue()

    def test_command(self) -> None:
        """
        The command prints its figures, and writes them to a file.
        """
        path = Path(self.mktemp())
        printed = self.run_("--json", str(path))
        self.assertIn("1,000 connections, 10 workers", printed)
        self.assertIn("round-robin", printed)
        self.assertEqual(4, len(json.loads(path.read_text())["courses"]))

    def test_plot(self) -> None:
        """
        It draws a picture, the same one each time.
        """
        try:
            import matplotlib
        except ImportError:
            raise SkipTest("needs matplotlib") from None
        paths = [Path(f"{self.mktemp()}.svg") for _ in range(2)]
        for path in paths:
            self.run_("--plot", str(path))
        self.assertIn("<svg", paths[0].read_text())
        self.assertEqual(*(path.read_bytes() for path in paths))
        self.assertEqual("agg", matplotlib.get_backend().lower())
