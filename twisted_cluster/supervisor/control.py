"""
The watcher's end of a worker's control channel.
"""

from __future__ import annotations

from typing import Protocol as Shape

from twisted_cluster.ipc import commands
from twisted_cluster.ipc.protocol import ControlProtocol
from twisted_cluster.supervisor.workerlog import WorkerLog


class Hearer(Shape):
    """
    Who is told what a worker says.
    """

    def becameReady(self) -> None: ...

    def hasFailed(self, stage: str, reason: str, traceback: str) -> None: ...

    def announcedStop(self) -> None: ...

    def greeted(self, version: str) -> None: ...

    def drains(self) -> None: ...

    def wantsRecycling(self, why: str) -> None: ...


class WatcherProtocol(ControlProtocol):
    """
    Hears what a worker says on its control channel.
    """

    def __init__(self, worker: Hearer, log: WorkerLog) -> None:
        super().__init__()
        self._worker = worker
        self._log = log

    @commands.Hello.responder
    def hello(self, pid: int, version: str) -> dict[str, object]:
        """
        The worker's bootstrap runs.
        """
        self._worker.greeted(version)
        return {}

    @commands.Ready.responder
    def ready(self) -> dict[str, object]:
        """
        The worker serves.
        """
        self._worker.becameReady()
        return {}

    @commands.Failed.responder
    def failed(self, stage: str, reason: str, traceback: str) -> dict[str, object]:
        """
        The worker cannot serve, and ends.
        """
        self._worker.hasFailed(stage, reason, traceback)
        return {}

    @commands.Stopping.responder
    def stopping(self) -> dict[str, object]:
        """
        The worker ends by itself.
        """
        self._worker.announcedStop()
        return {}

    @commands.Draining.responder
    def draining(self) -> dict[str, object]:
        """
        The worker accepts no more connections.
        """
        self._worker.drains()
        return {}

    @commands.Recycle.responder
    def recycle(self, why: str) -> dict[str, object]:
        """
        The worker wants to be replaced.
        """
        self._worker.wantsRecycling(why)
        return {}

    @commands.LogEvents.responder
    def logEvents(self, data: bytes, more: bool, dropped: int) -> dict[str, object]:
        """
        Take over a piece of a batch of log events.
        """
        self._log.eventsReceived(data, more, dropped)
        return {}
