"""
Stand-ins that several tests share.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Optional

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from twisted_cluster.interfaces import WorkerMessage


class FakeWatcher:
    """
    Stands in for a C{ClusterWatcher} in tests of the commands: it records what
    it is told, and ends when it is told to.

    @ivar arguments: what it was made with.
    @ivar calls: what was called, in order.
    @ivar desired: the number of workers that are wanted.
    @ivar result: what C{restart} and C{scale} return, if not an immediate
        success.
    @ivar mail: the messages that workers have sent.
    @ivar startError: what C{startService} raises.
    """

    def __init__(self, *args: Any, desired: int = 1, **kwargs: Any) -> None:
        self.arguments = (args, kwargs)
        self.calls: list[str] = []
        self.desired = desired
        self.result: Optional[Deferred[None]] = None
        self.startError: Optional[Exception] = None
        self.mail: list[WorkerMessage] = []
        self._stopping: list[Deferred[None]] = []
        self._ended: list[Deferred[None]] = []

    def privilegedStartService(self) -> None:
        """
        Record it.
        """
        self.calls.append("privilegedStartService")

    def startService(self) -> None:
        """
        Record it, or fail.
        """
        self.calls.append("startService")
        if self.startError is not None:
            raise self.startError

    def stopService(self) -> Deferred[None]:
        """
        Record it.

        @return: a Deferred that fires when the test calls L{end}.
        """
        self.calls.append("stopService")
        self._stopping.append(Deferred())
        return self._stopping[-1]

    async def messages(self) -> AsyncIterator[WorkerMessage]:
        """
        There are none.
        """
        for message in self.mail:
            yield message

    def stopNow(self) -> None:
        """
        Record it.
        """
        self.calls.append("stopNow")

    def whenStopped(self) -> Deferred[None]:
        """
        @return: a Deferred that fires when the test calls L{end}.
        """
        self._ended.append(Deferred())
        return self._ended[-1]

    def restart(self) -> Deferred[None]:
        """
        Record it.
        """
        self.calls.append("restart")
        return succeed(None) if self.result is None else self.result

    def scale(self, workers: int) -> Deferred[None]:
        """
        Record it.
        """
        self.desired = workers
        self.calls.append(f"scale {workers}")
        return succeed(None) if self.result is None else self.result

    def end(self, reason: Optional[Exception] = None) -> None:
        """
        Be over, for a reason or as asked.
        """
        for ended in self._ended:
            if reason is None:
                ended.callback(None)
            else:
                ended.errback(Failure(reason))
        for stopped in self._stopping:
            stopped.callback(None)
        self._ended, self._stopping = [], []
