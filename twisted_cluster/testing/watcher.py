"""
A watcher that the test plays, for programs that call C{cluster}.
"""

from __future__ import annotations

import os
import socket
from typing import Optional

from twisted.internet.defer import Deferred

from twisted_cluster.interfaces import Data
from twisted_cluster.ipc.commands import (
    Failed,
    Hello,
    LogEvents,
    Ready,
    Stopping,
    Terminate,
)
from twisted_cluster.ipc.conversation import Conversation
from twisted_cluster.ipc.inbox import Inbox
from twisted_cluster.ipc.protocol import ControlProtocol
from twisted_cluster.ipc.settings import WorkerSettings
from twisted_cluster.policy.readiness import Readiness
from twisted_cluster.sockets.wire.transport import UNIXTransport
from twisted_cluster.testing.reactor import DescriptorReactor
from twisted_cluster.worker import context
from twisted_cluster.worker.link import Link
from twisted_cluster.worker.startup import Startup

_ROUNDS = 10_000


class _WatcherProtocol(ControlProtocol):
    """
    A watcher's end that remembers.
    """

    def __init__(self, watcher: PlayedWatcher) -> None:
        super().__init__()
        self._watcher = watcher

    @Hello.responder
    def hello(self, pid: int, version: str) -> dict[str, object]:
        return {}

    @Ready.responder
    def ready(self) -> dict[str, object]:
        self._watcher.ready = True
        return {}

    @Failed.responder
    def failed(self, stage: str, reason: str, traceback: str) -> dict[str, object]:
        self._watcher.failure = (stage, reason, traceback)
        return {}

    @Stopping.responder
    def stopping(self) -> dict[str, object]:
        self._watcher.stopping = True
        return {}

    @LogEvents.responder
    def logEvents(self, data: bytes, more: bool, dropped: int) -> dict[str, object]:
        self._watcher.logged.append((data, more, dropped))
        return {}


class PlayedWatcher:
    """
    A watcher's side of a worker that is this very process, so that code which
    calls C{cluster} can be tested.

    Make one, test, and L{close} it.  Nothing moves but by L{pump}.

    @ivar reactor: the L{DescriptorReactor} that carries the channel.
    @ivar messages: the data of all messages that the worker sent.
    @ivar ready: whether the worker said that it serves.
    @ivar stopping: whether it said that it ends.
    @ivar failure: the stage, reason and traceback with which it gave up.
    @ivar logged: the pieces of batches of log events that it sent.
    """

    def __init__(
        self, worker: int = 1, slot: int = 0, limit: int = 1024 * 1024
    ) -> None:
        """
        Make this process a worker.
        """
        self.reactor = DescriptorReactor()
        self.ready = False
        self.stopping = False
        self.failure: Optional[tuple[str, str, str]] = None
        self.logged: list[tuple[bytes, bool, int]] = []
        self.messages: list[Data] = []
        ours, theirs = socket.socketpair()
        settings = WorkerSettings(
            worker=worker,
            slot=slot,
            generation=1,
            watcher=os.getpid(),
            control=theirs.fileno(),
            sockets=-1,
            clients=-1,
            maxMessageSize=limit,
        )
        self.link = Link(theirs, limit)
        startup = Startup(
            Readiness(waitReady=True, isService=False),
            self.link.ready,
            self.link.failed,
        )
        self.worker = context.Worker(settings, self.link, startup)
        self.link.terminated = lambda delay, others: self.worker.stop(asked=True)
        context.become(self.worker)
        self._protocol = _WatcherProtocol(self)
        inbox: Inbox[Data] = Inbox("look at PlayedWatcher.messages")
        self.conversation: Conversation[Data] = Conversation(
            lambda: self.reactor,
            self._protocol.sendPiece,
            self._schedule,
            inbox,
            self._received,
            limit,
        )
        self._protocol.conversation = self.conversation
        self._protocol.nonsense = lambda failure: None
        self._protocol.lost = lambda reason: None
        self._transport = UNIXTransport(self.reactor, ours, self._protocol)
        self._transport.start()
        self.link.attach(self.reactor)
        startup.reactorRuns(self.reactor)

    def send(self, data: Data) -> None:
        """
        Send the worker a message.
        """
        self.conversation.send(data)
        self.pump()

    def request(self, data: Data) -> Deferred[Data]:
        """
        Ask the worker's responder.
        """
        asked = self.conversation.request(data)
        self.pump()
        return asked

    def terminate(self) -> None:
        """
        Tell the worker to leave.
        """
        self._protocol.call(Terminate, delay=0.0, others=False)
        self.pump()

    def pump(self) -> None:
        """
        Move everything that is on its way.
        """
        self.reactor.settle()

    def close(self) -> None:
        """
        Be a worker no longer.
        """
        context.become(None)
        self._transport.discard()
        self.reactor.settle()

    def _schedule(self) -> None:
        self.reactor.callLater(0, self.conversation.flush)

    def _received(self, data: Data, sender: Optional[int]) -> Data:
        self.messages.append(data)
        return data
