"""
The benchmark of what operators do.
"""

from __future__ import annotations

import json
import sys

from tests.integration.support import ClusterTestCase


class Operations(ClusterTestCase):
    """
    C{python -m benchmarks operations}.
    """

    async def test_runs(self) -> None:
        """
        It runs what the environment names, and tells failures and the outcome.
        """
        path = self.directory / "figures.json"
        command = self.execute(
            [
                *(sys.executable, "-m", "benchmarks", "operations"),
                *("--rounds", "1", "--json", str(path)),
            ],
            environment={"OPERATIONS": "kill -9; Daphne"},
        )
        self.assertEqual(await command.whenEnded(100), 0, command.text)
        self.assertIn("kill -9 of a worker: Daphne", command.text)
        [table] = json.loads(path.read_text())["results"]
        [figure] = table["figures"]
        self.assertGreater(figure["coldStart"], 0)
        [result] = figure["results"]
        self.assertIn("replaced in", result["outcome"])
        [load] = figure["loads"]
        for offer in load["offers"]:
            self.assertEqual(offer["offered"], offer["succeeded"] + offer["failed"])
            self.assertGreater(offer["succeeded"], 0)
