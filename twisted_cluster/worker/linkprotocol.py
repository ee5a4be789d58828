"""
What a worker hears on its control channel.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted_cluster.ipc import commands
from twisted_cluster.ipc.protocol import ControlProtocol


class WorkerProtocol(ControlProtocol):
    """
    Hears the watcher's commands.

    @ivar terminated: called when the watcher wants the worker to leave, with what
        L{commands.Terminate} says.
    @ivar takeDelay: tells by how many seconds the reactor was late at most since the
        last time.
    """

    terminated: Callable[[float, bool], None]
    takeDelay: Callable[[], float]

    @commands.Ping.responder
    def ping(self) -> dict[str, object]:
        """
        Answer: the reactor turns.
        """
        return {"delay": self.takeDelay()}

    @commands.Terminate.responder
    def terminate(self, delay: float, others: bool) -> dict[str, object]:
        """
        Leave.
        """
        self.terminated(delay, others)
        return {}
