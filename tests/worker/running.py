"""
Runs L{tests.worker.logprogram}.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import attrs

from twisted_cluster.ipc.logs import LogRecord, decodeRecords

_PROGRAM = Path(__file__).with_name("logprogram.py")


@attrs.frozen
class Run:
    """
    What a program left behind.

    @ivar records: what was relayed.
    @ivar stdout: what it printed.
    @ivar stderr: likewise.
    @ivar status: its exit status, negative for a signal.
    """

    records: list[LogRecord]
    stdout: str
    stderr: str
    status: int

    def texts(self) -> list[str]:
        """
        Give all that arrives in the watcher as an event of its own.
        """
        events = [
            record.text.removesuffix(record.traceback or "\0")
            for record in self.records
        ]
        return events + self.stdout.splitlines() + self.stderr.splitlines()

    def count(self, text: str) -> int:
        """
        Count how often something arrives.
        """
        return sum(each.count(text) for each in self.texts())


def runRelayed(path: str, code: str, level: str = "debug", *flags: str) -> Run:
    """
    Run code as a worker would.

    @param path: a file for what is relayed, which does not exist yet.
    @param flags: options of the interpreter.
    """
    environment = {
        key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"
    }
    done = subprocess.run(
        [sys.executable, *flags, str(_PROGRAM), path, level, dedent(code)],
        env=environment,
        capture_output=True,
        timeout=60,
    )
    records: list[LogRecord] = []
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        data = b""
    while data:
        size = 4 + int.from_bytes(data[:4], "big")
        records += decodeRecords(data[4:size])
        data = data[size:]
    return Run(
        records,
        done.stdout.decode("utf-8", "backslashreplace"),
        done.stderr.decode("utf-8", "backslashreplace"),
        done.returncode,
    )
