"""
C{python -m benchmarks [NAME …] [--rounds N] [--json FILE]}
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Union

import twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import react

from benchmarks.connections import balance, connections
from benchmarks.logs import logs
from benchmarks.measuring import Contender, Result
from benchmarks.messages import long, messages, requests
from benchmarks.operations import operations
from benchmarks.start import start
from benchmarks.tables import Table, align
from benchmarks.transfers import transfers

Found = Union[Result, Table]
Benchmark = Callable[
    [Any, int, Callable[[str], None]], Awaitable[Union[list[Result], list[Table]]]
]
BENCHMARKS: dict[str, Benchmark] = {
    "messages": messages,
    "requests": requests,
    "long": long,
    "log": logs,
    "start": start,
    "transfers": transfers,
    "connections": connections,
    "balance": balance,
    "operations": operations,
}


def progress(text: str) -> None:
    """
    Say what is done at the moment, on a terminal.
    """
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def table(result: Found) -> str:
    """
    What a benchmark found, for people.
    """
    if isinstance(result, Table):
        return align([result.head, *result.rows])
    head = (result.title, f"{result.unit}/s", "lowest", "highest", "ratio")
    rows: list[Sequence[str]] = [(*head, "CPU each", "CPU ratio")]
    rows.extend(row(each, result.baseline) for each in result.contenders)
    return align(rows)


def row(contender: Contender, baseline: Contender | None) -> Sequence[str]:
    """
    The cells of one line.
    """
    lowest, highest = contender.spread
    ratios = ("", "")
    if baseline is not None and baseline is not contender:
        ratios = (
            f"{contender.rate / baseline.rate:.2f}",
            f"1/{baseline.cpu / contender.cpu:.2f}",
        )
    return (
        contender.name,
        *(
            f"{rate:,.4g}" if rate < 100 else f"{rate:,.0f}"
            for rate in (
                contender.rate,
                lowest,
                highest,
            )
        ),
        ratios[0],
        f"{contender.cpu * 1e6:,.1f} µs",
        ratios[1],
    )


def plain(result: Found) -> dict[str, Any]:
    """
    What a benchmark found, for programs.
    """
    if isinstance(result, Table):
        return {"title": result.title, "figures": result.figures}
    return {
        "title": result.title,
        "unit": result.unit,
        "contenders": [
            {
                "name": each.name,
                "baseline": each.baseline,
                "rate": each.rate,
                "lowest": each.spread[0],
                "highest": each.spread[1],
                "cpu": each.cpu,
                "runs": [
                    {"count": run.count, "wall": run.wall, "cpu": run.cpu}
                    for run in each.taken
                ],
            }
            for each in result.contenders
        ],
    }


async def run(reactor: Any, arguments: argparse.Namespace) -> None:
    """
    Run what was asked for, one benchmark after the other.
    """
    found: list[Found] = []
    for name in arguments.names or BENCHMARKS:
        results = await BENCHMARKS[name](reactor, arguments.rounds, progress)
        progress("")
        for result in results:
            print(table(result), end="\n\n", flush=True)
        found.extend(results)
    if arguments.json is not None:
        with open(arguments.json, "w") as file:
            versions = {
                "python": platform.python_version(),
                "twisted": twisted.__version__,
            }
            figures = [plain(result) for result in found]
            json.dump({"versions": versions, "results": figures}, file, indent=2)


def main() -> None:
    """
    Read the command line.
    """
    parser = argparse.ArgumentParser(
        "benchmarks",
        description="Measure twisted_cluster beside what one would use without it.",
        epilog="CPU each: of all processes together, for one message, event, …",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"one of {', '.join(BENCHMARKS)}; by default, all",
    )
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--json", metavar="FILE", help="write the figures to a file")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}")
    react(lambda reactor: Deferred.fromCoroutine(run(reactor, arguments)))


main()
