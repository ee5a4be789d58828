"""
How the watcher writes to a worker.
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.defer import Deferred

from twisted_cluster.interfaces import Data, WorkerMessage
from twisted_cluster.ipc.conversation import Conversation


class Correspondent:
    """
    The L{twisted_cluster.interfaces.IMessageSender} at the watcher's end of a
    conversation.
    """

    conversation: Conversation[WorkerMessage]

    def send(self, data: Data) -> Deferred[None]:
        """
        See L{twisted_cluster.interfaces.IMessageSender.send}.
        """
        return self.conversation.send(data)

    def sendMany(self, items: Iterable[Data]) -> Deferred[None]:
        """
        See L{twisted_cluster.interfaces.IMessageSender.sendMany}.
        """
        return self.conversation.sendMany(items)

    def request(self, data: Data, timeout: float = 30.0) -> Deferred[Data]:
        """
        See L{twisted_cluster.interfaces.IMessageSender.request}.
        """
        return self.conversation.request(data, timeout)
