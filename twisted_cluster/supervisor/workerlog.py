"""
Where a worker's log events and the lines that it prints enter the watcher's
log.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from twisted.logger import ILogObserver, Logger

from twisted_cluster.errors import ProtocolError
from twisted_cluster.ipc.commands import PIECE
from twisted_cluster.ipc.logs import MAX_EVENT, decodeRecords, lineRecord, toEvent

_log = Logger("twisted_cluster")


_MOST_PARTS = 2 * MAX_EVENT // PIECE
_LAST_LINES = 20


class WorkerLog:
    """
    The log of one worker.

    @ivar lastLines: what it wrote to its stderr last.
    """

    def __init__(
        self,
        worker: int,
        slot: int,
        publisher: ILogObserver,
        time: Callable[[], float] = time.time,
    ) -> None:
        """
        @param publisher: takes the events, and never raises.
        @param time: gives the seconds since the epoch.
        """
        self._worker = worker
        self._slot = slot
        self._publisher = publisher
        self._time = time
        self._parts: list[bytes] = []
        self.lastLines: deque[str] = deque(maxlen=_LAST_LINES)

    def lineReceived(self, stream: str, line: str) -> None:
        """
        The worker's process wrote a line to its C{stdout} or C{stderr}.
        """
        if stream == "stderr":
            self.lastLines.append(line)
        record = lineRecord(stream, line, self._time())
        self._publisher(toEvent(record, self._worker, self._slot))

    def eventsReceived(self, data: bytes, more: bool, dropped: int) -> None:
        """
        A piece of a batch of log events has arrived.

        @raise ProtocolError: when the batch is longer than any can be, or
            cannot be decoded.
        """
        if dropped:
            _log.warn(
                "worker {id} logs too fast: {dropped} events were dropped",
                id=self._worker,
                dropped=dropped,
            )
        self._parts.append(data)
        if len(self._parts) > _MOST_PARTS:
            raise ProtocolError(f"a batch of events in over {_MOST_PARTS} pieces")
        if more:
            return
        batch = b"".join(self._parts)
        self._parts.clear()
        if batch:
            for record in decodeRecords(batch):
                self._publisher(toEvent(record, self._worker, self._slot))
