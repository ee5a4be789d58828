"""
The benchmarks run.
"""

from __future__ import annotations

import json
import sys

from tests.integration.support import ClusterTestCase


class Benchmarks(ClusterTestCase):
    """
    C{python -m benchmarks}.
    """

    async def test_runs(self) -> None:
        """
        A benchmark prints a table and writes its figures to a file.
        """
        path = self.directory / "figures.json"
        command = self.execute(
            [
                *(sys.executable, "-m", "benchmarks", "messages", "start"),
                *("--rounds", "1", "--json", str(path)),
            ]
        )
        self.assertEqual(await command.whenEnded(100), 0, command.text)
        self.assertIn("100 bytes, worker to watcher", command.text)
        titles = [each["title"] for each in json.loads(path.read_text())["results"]]
        self.assertEqual(len(titles), 3)

    async def test_connections(self) -> None:
        """
        The benchmarks of connections tell rates, and the shares of workers.
        """
        path = self.directory / "figures.json"
        script = (
            "from benchmarks import connections\n"
            "connections.FAST = 200\n"
            "connections.WORKERS = (2,)\n"
            "for each in connections.TRAFFIC.values():\n"
            "    each['count'] = 50\n"
            "import benchmarks.__main__\n"
        )
        command = self.execute(
            [
                *(sys.executable, "-c", script, "connections", "balance"),
                *("--rounds", "1", "--json", str(path)),
            ]
        )
        self.assertEqual(await command.whenEnded(100), 0, command.text)
        self.assertIn("kernel, 2 workers, 500/s", command.text)
        rates, shares = json.loads(path.read_text())["results"]
        self.assertGreater(rates["figures"][0]["rate"], 0)
        for figure in shares["figures"]:
            self.assertAlmostEqual(figure["busiest"] + figure["idlest"], 1)
            [run] = figure["runs"]
            one, two = run["answers"]
            self.assertEqual(figure["difference"], abs(one - two))

    async def test_transfers(self) -> None:
        """
        The benchmark of transfers compares the pipe with a blocking loop.
        """
        path = self.directory / "figures.json"
        script = (
            "from benchmarks import transfers\n"
            "transfers.COUNT = 1000\n"
            "import benchmarks.__main__\n"
        )
        command = self.execute(
            [
                *(sys.executable, "-c", script, "transfers"),
                *("--rounds", "1", "--json", str(path)),
            ]
        )
        self.assertEqual(await command.whenEnded(100), 0, command.text)
        [result] = json.loads(path.read_text())["results"]
        self.assertEqual([each["baseline"] for each in result["contenders"]], [1, 0])
        for each in result["contenders"]:
            self.assertEqual([run["count"] for run in each["runs"]], [1000])
            self.assertIn(each["name"], command.text)

    async def test_unknown(self) -> None:
        """
        An unknown name is refused.
        """
        command = self.execute([sys.executable, "-m", "benchmarks", "nothing"])
        self.assertEqual(await command.whenEnded(), 2)
        self.assertIn("there is no benchmark nothing", command.text)
