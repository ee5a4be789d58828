"""
A program whose streams and log are those of a worker; run by the tests of both.

C{python logprogram.py FILE LEVEL CODE}: what is relayed goes to the file, read
by L{tests.worker.running.runRelayed}.
"""

import sys

sys.path.insert(0, sys.path.pop(0).removesuffix("/tests/worker"))

from twisted.logger import LogLevel

from twisted_cluster.ipc.logqueue import joinRecords
from twisted_cluster.worker.relay import installRelay
from twisted_cluster.worker.stdio import installStreams


class FileSink:
    """
    Writes each event at once.
    """

    def __init__(self, path: str) -> None:
        self.file = open(path, "ab", buffering=0)  # noqa: SIM115

    def put(self, level: int, data: bytes) -> None:
        """
        See C{ILogSink.put}.
        """
        batch = joinRecords([data])
        self.file.write(len(batch).to_bytes(4, "big") + batch)


def mark(name: str) -> str:
    """
    Give a text that stands in no source line, and so in no traceback.
    """
    return f"<{name}>"


installStreams()
installRelay(FileSink(sys.argv[1]), LogLevel.lookupByName(sys.argv[2]))  # type: ignore[arg-type]
exec(compile(sys.argv[3], "<program>", "exec"), {"mark": mark, "__name__": "program"})
