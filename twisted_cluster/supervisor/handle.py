"""
A worker as the watcher sees it: what it says, whether it answers, its end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Optional
from typing import Protocol as Shape

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_cluster import __version__
from twisted_cluster.interfaces import Data, IWorkerHandle, WorkerMessage
from twisted_cluster.ipc import commands
from twisted_cluster.ipc.conversation import Conversation
from twisted_cluster.ipc.inbox import Inbox
from twisted_cluster.ipc.settings import STACKS_SIGNAL, WorkerSettings
from twisted_cluster.policy.heartbeat import Ask, Heartbeat, Hung, Late
from twisted_cluster.sockets.servers.answering import ServerSocketProtocol
from twisted_cluster.supervisor.control import WatcherProtocol
from twisted_cluster.supervisor.death import Death, Exit, Failing, explain
from twisted_cluster.supervisor.listeners import Listeners
from twisted_cluster.supervisor.process import ClusterReactor, WorkerProcess
from twisted_cluster.supervisor.procfs import isStopped
from twisted_cluster.supervisor.timers import Timers
from twisted_cluster.supervisor.workerlog import WorkerLog

_log = Logger("twisted_cluster")

_SIGTERM, _SIGKILL = 15, 9
_REAP_TIME = 1.0
"""Seconds that a process which has closed its channel has to end, before it is
taken for one that only does not speak any more."""
_STACKS_TIME = 1.0
"""Seconds that a hung worker has to write its stacks before it is killed."""


@attrs.frozen
class Limits:
    """
    The seconds that a worker is given.
    """

    start: float
    heartbeat: float
    shutdown: float


class Owner(Shape):
    """
    Who is told of a worker's life.
    """

    def workerReady(self, worker: WorkerHandle) -> None: ...

    def workerLeaving(self, worker: WorkerHandle) -> None: ...

    def workerDied(self, worker: WorkerHandle, death: Death) -> None: ...

    def forward(
        self, sender: int, to: int, encoded: bytes
    ) -> Optional[BaseException]: ...


@implementer(IWorkerHandle)
class WorkerHandle:
    """
    One worker, from its start to its end.
    """

    def __init__(
        self,
        reactor: ClusterReactor,
        owner: Owner,
        settings: WorkerSettings,
        limits: Limits,
        listeners: Listeners,
        inbox: Inbox[WorkerMessage],
        publisher: ILogObserver,
    ) -> None:
        """
        @param settings: says who the worker is.
        @param inbox: where its messages go, with those of all others.
        @param publisher: takes its log events, and never raises.
        """
        self._reactor: Any = reactor
        self._owner = owner
        self._settings = settings
        self._limits = limits
        self._output = WorkerLog(settings.worker, settings.slot, publisher)
        self.id = settings.worker
        self.slot = settings.slot
        self.generation = settings.generation
        self.state = "starting"
        self.failing: Optional[Failing] = None
        self._control = WatcherProtocol(self, self._output)
        self.conversation: Conversation[WorkerMessage] = Conversation(
            lambda: reactor,
            self._control.sendPiece,
            self._schedule,
            inbox,
            lambda data, _: WorkerMessage(data, self),
            settings.maxMessageSize,
        )
        self.conversation.forward = lambda to, raw: owner.forward(self.id, to, raw)
        self._control.conversation = self.conversation
        self._control.nonsense = self._nonsense
        self._control.lost = self._channelLost
        self._process = WorkerProcess(
            reactor,
            self._output.lineReceived,
            self.exited,
            self._control,
            ServerSocketProtocol(listeners, self.id, f"worker {self.id}"),
            listeners.intake(self.id, self.slot).connect,
        )
        self._heartbeat = Heartbeat(limits.heartbeat, min(5.0, limits.heartbeat / 6))
        self._timers = Timers(reactor)
        self._started = 0.0
        self._wasReady = False
        self._leaving = False
        self._told = False
        self._doomed = False
        self._brokeRules = False
        self._killedFor: Optional[str] = None

    def __repr__(self) -> str:
        return f"<worker {self.id} slot {self.slot} pid {self.pid} {self.state}>"

    @property
    def pid(self) -> Optional[int]:
        """
        The worker's process id, once it has been spawned.
        """
        return self._process.pid

    @property
    def lifetime(self) -> float:
        """
        Seconds since it was started.
        """
        return float(self._reactor.seconds() - self._started)

    # What the watcher does.

    def start(self, words: Sequence[str], inherited: Sequence[int]) -> None:
        """
        Spawn the worker.

        @raise OSError: when descriptors or processes have run out.
        """
        self._started = self._reactor.seconds()
        self._process.spawn(self._settings, words, inherited)
        self._timers.limit(self._limits.start, self._notReady)
        _log.info(
            "worker {id} started: slot {slot}, pid {pid}",
            id=self.id,
            slot=self.slot,
            pid=self.pid,
        )

    def neverStarted(self, error: OSError) -> Death:
        """
        The worker could not be spawned: end it as if it had been.
        """
        self._die()
        return Death(
            how=f"cannot be started: {error}",
            status=None,
            failing=None,
            lifetime=0.0,
            wasReady=False,
            expected=False,
        )

    def stop(self, why: str) -> None:
        """
        Have the worker leave within the limit.
        """
        if self.state in ("stopping", "dead"):
            return
        self._told = True
        _log.info("worker {id} is told to stop: {why}", id=self.id, why=why)
        if self._wasReady:
            self._control.call(commands.Terminate, delay=0.0, others=True)
        else:
            self._process.signal(_SIGTERM)
        self._stopping()

    def kill(self, why: str) -> None:
        """
        End the worker now.
        """
        if self.state != "dead":
            self._killedFor = self._killedFor or why
            self._process.signal(_SIGKILL)

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

    # What the worker does.

    def becameReady(self) -> None:
        """
        The worker said that it serves.
        """
        if self.state != "starting" or self._doomed:
            return
        self.state = "ready"
        self._wasReady = True
        self._timers.cancel()
        _log.info(
            "worker {id} is ready after {seconds:.2f} s",
            id=self.id,
            seconds=self.lifetime,
        )
        self._tick()
        self._owner.workerReady(self)

    def greeted(self, version: str) -> None:
        """
        The worker's bootstrap runs.

        @param version: of this package, as the worker has it.
        """
        if version != __version__:
            _log.warn(
                "worker {id} has twisted_cluster {theirs} and the watcher {ours}: "
                "it was upgraded; stop the cluster and start it again",
                id=self.id,
                theirs=version,
                ours=__version__,
            )

    def hasFailed(self, stage: str, reason: str, traceback: str) -> None:
        """
        The worker said that it cannot serve.
        """
        self.failing = Failing(stage, reason, traceback)

    def announcedStop(self) -> None:
        """
        The worker said that it ends.
        """
        self._leaving = True
        if self.state in ("starting", "ready"):
            self._stopping()
            self._owner.workerLeaving(self)

    def exited(self, how: Exit) -> None:
        """
        The worker's process has ended.
        """
        announced = self._leaving and self._wasReady
        expected = (self._told and how.signal == _SIGTERM) or (
            (self._told or announced) and how.status == 0
        )
        self._die()
        text = explain(
            how,
            killedFor=self._killedFor,
            unasked=not (self._told or announced) and self.failing is None,
            wasReady=self._wasReady,
            lastLines=self._output.lastLines,
        )
        self._owner.workerDied(
            self,
            Death(
                how=text,
                status=how.status,
                failing=self.failing,
                lifetime=self.lifetime,
                wasReady=self._wasReady,
                expected=expected,
            ),
        )

    def _die(self) -> None:
        self._timers.cancel()
        self.state = "dead"
        self.conversation.close(f"worker {self.id} is gone")

    def _nonsense(self, failure: Failure) -> None:
        self._brokeRules = True
        _log.failure(
            "worker {id}: its control channel carried nonsense and is closed",
            failure,
            id=self.id,
        )

    def _channelLost(self, reason: Failure) -> None:
        self.conversation.close(f"worker {self.id} is gone")
        if self.state in ("starting", "ready"):
            self._stopping()
            self._timers.later(_REAP_TIME, self._isMute)

    def _isMute(self) -> None:
        self._owner.workerLeaving(self)
        if not self._brokeRules:
            why = (
                "it had closed its control channel: it executed another program, "
                "closed all its descriptors, or went to the background"
            )
            _log.error(
                "worker {id} (pid {pid}) is ended: {why}",
                id=self.id,
                pid=self.pid,
                why=why,
            )
            self.kill(why)

    # Time.

    def _tick(self) -> None:
        if self.state != "ready":
            return
        decision = self._heartbeat.tick(self._reactor.seconds())
        if isinstance(decision, Ask):
            answer = self._control.call(commands.Ping)
            answer.addCallbacks(
                lambda _: self._heartbeat.answered(), lambda reason: None
            )
        elif isinstance(decision, Late):
            _log.warn(
                "worker {id} has not answered for {seconds:.1f} s",
                id=self.id,
                seconds=decision.seconds,
            )
        elif isinstance(decision, Hung):
            self._hangs(decision.seconds)
            return
        self._timers.later(self._heartbeat.interval, self._tick)

    def _hangs(self, seconds: float) -> None:
        stopped = self.pid is not None and isStopped(self.pid)
        how = "it is stopped (SIGSTOP)" if stopped else "its Python stacks follow"
        _log.error(
            "worker {id} (pid {pid}) has not answered for {seconds:.1f} s and is "
            "replaced; {how}",
            id=self.id,
            pid=self.pid,
            seconds=seconds,
            how=how,
        )
        why = f"it had not answered for {seconds:.1f} s (--heartbeat-timeout)"
        self._dumpAndKill(why, stopped)

    def _notReady(self) -> None:
        _log.error(
            "worker {id} (pid {pid}) is not ready after {limit} s and is ended; its "
            "Python stacks follow",
            id=self.id,
            pid=self.pid,
            limit=self._limits.start,
        )
        self._dumpAndKill(
            f"it was not ready within {self._limits.start:g} s (--start-timeout)", False
        )

    def _dumpAndKill(self, why: str, stopped: bool) -> None:
        self._doomed = True
        if not stopped:
            self._process.signal(STACKS_SIGNAL)
        self._timers.later(0.0 if stopped else _STACKS_TIME, lambda: self.kill(why))

    def _stopping(self) -> None:
        if self.state in ("stopping", "dead"):
            return
        self._timers.cancel()
        self.state = "stopping"
        limit = self._limits.shutdown
        self._timers.limit(
            limit, lambda: self.kill(f"it did not stop within {limit:g} s")
        )

    # How things are sent.

    def _schedule(self) -> None:
        self._reactor.callLater(0, self.conversation.flush)
