"""
A worker as the watcher sees it: what it says, whether it answers, its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

import attrs
from twisted.logger import ILogObserver, Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_cluster import __version__
from twisted_cluster.interfaces import IWorkerHandle, WorkerMessage
from twisted_cluster.ipc import commands
from twisted_cluster.ipc.conversation import Conversation
from twisted_cluster.ipc.inbox import Inbox
from twisted_cluster.ipc.settings import STACKS_SIGNAL, WorkerSettings
from twisted_cluster.policy import lifewords
from twisted_cluster.policy.lifecycle import READY, Life
from twisted_cluster.sockets.servers.answering import ServerSocketProtocol
from twisted_cluster.supervisor.control import WatcherProtocol
from twisted_cluster.supervisor.correspondent import Correspondent
from twisted_cluster.supervisor.death import Death, Exit, Failing, explain
from twisted_cluster.supervisor.listeners import Listeners
from twisted_cluster.supervisor.owner import Owner
from twisted_cluster.supervisor.process import ClusterReactor, WorkerProcess
from twisted_cluster.supervisor.procfs import isStopped, whyHangs
from twisted_cluster.supervisor.pulse import Pulse
from twisted_cluster.supervisor.timers import Timers
from twisted_cluster.supervisor.workerlog import WorkerLog

_log = Logger("twisted_cluster")

_SIGTERM, _SIGKILL = 15, 9
_REAP_TIME = 1.0
"""Seconds that a process which has closed its channel has to end, before it is
taken for one that only does not speak any more."""
_STACKS_TIME = 1.0
"""Seconds that a hung worker has to write its stacks before it is killed."""
_MUTE = (
    "it had closed its control channel: it executed another program, closed all its "
    "descriptors, or went to the background"
)
"""Why a process is killed that lives on without its channel."""


@attrs.frozen
class Limits:
    """
    The seconds that a worker is given.
    """

    start: float
    heartbeat: float
    shutdown: float


@implementer(IWorkerHandle)
class WorkerHandle(Correspondent):
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
        self._life = Life()
        self.failing: Optional[Failing] = None
        self._control = WatcherProtocol(self, self._output)
        self.conversation = Conversation(
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
        self._pulse = Pulse(
            reactor,
            limits.heartbeat,
            lambda: self._control.call(commands.Ping),
            lambda seconds: self._hear(lifewords.AnswersLate(seconds)),
            self._hangs,
        )
        self._timers = Timers(reactor)
        self._starting = Timers(reactor)
        self._started = 0.0
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
    def state(self) -> str:
        """
        Where it is in its life, see L{twisted_cluster.policy.lifecycle}.
        """
        return self._life.state

    @property
    def delay(self) -> float:
        """
        By how many seconds, at most, its reactor was late before it last said so.
        """
        return self._pulse.delay

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
        self._starting.limit(self._limits.start, self._notReady)
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
        self._hear(lifewords.Exited())
        return Death(
            how=f"cannot be started: {error}",
            status=None,
            failing=None,
            lifetime=0.0,
            wasReady=False,
            expected=False,
        )

    def stop(self, why: str, delay: float = 0.0, others: bool = True) -> None:
        """
        Have the worker leave within the limit.

        @param delay: for how many seconds one that is ready serves on before it
            drains; the limit begins after them.
        @param others: whether other workers serve on, so that its connections
            can move to them.
        """
        decisions = self._life.hear(lifewords.ToldToStop(delay, others))
        if decisions:
            _log.info("worker {id} is told to stop: {why}", id=self.id, why=why)
        self._carryOut(decisions)

    def kill(self, why: str) -> None:
        """
        End the worker now.
        """
        self._hear(lifewords.ToldToDie(why))

    # What the worker does.

    def becameReady(self) -> None:
        """
        The worker said that it serves.
        """
        self._hear(lifewords.SaidReady())

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
        self._hear(lifewords.SaidFailed())

    def announcedStop(self) -> None:
        """
        The worker said that it ends.
        """
        self._hear(lifewords.SaidStopping())

    def drains(self) -> None:
        """
        The worker said that it accepts no more connections.
        """
        self._owner.workerDrains(self)

    def wantsRecycling(self, why: str) -> None:
        """
        The worker wants to be replaced.
        """
        self._hear(lifewords.AskedForRecycling(why))

    def exited(self, how: Exit) -> None:
        """
        The worker's process has ended.
        """
        life = self._life
        expected = (life.told and how.signal == _SIGTERM) or (
            life.asked and how.status == 0
        )
        self._hear(lifewords.Exited())
        text = explain(
            how,
            killedFor=self._killedFor,
            unasked=not life.asked and self.failing is None,
            wasReady=life.wasReady,
            lastLines=self._output.lastLines,
            whoKilled=self._owner.whoKilled,
        )
        self._owner.workerDied(
            self,
            Death(
                how=text,
                status=how.status,
                failing=self.failing,
                lifetime=self.lifetime,
                wasReady=life.wasReady,
                expected=expected,
            ),
        )

    def _nonsense(self, failure: Failure) -> None:
        _log.failure(
            "worker {id}: its control channel carried nonsense and is closed",
            failure,
            id=self.id,
        )
        self._hear(lifewords.BrokeRules())

    def _channelLost(self, reason: Failure) -> None:
        self.conversation.close(f"worker {self.id} is gone")
        self._hear(lifewords.ChannelLost())

    # Time.

    def _hangs(self, seconds: float) -> None:
        stopped = self.pid is not None and isStopped(self.pid)
        outcome = "is replaced" if self.state == READY else "is ended"
        self._hear(
            lifewords.Hangs(
                f"has not answered for {seconds:.1f} s and {outcome}",
                f"it had not answered for {seconds:.1f} s (--heartbeat-timeout)",
                stopped,
            )
        )

    def _notReady(self) -> None:
        limit = self._limits.start
        self._hear(
            lifewords.NotReadyInTime(
                f"is not ready after {limit} s and is ended",
                f"it was not ready within {limit:g} s (--start-timeout)",
            )
        )

    # What is decided.

    def _hear(self, happened: lifewords.Input) -> None:
        self._carryOut(self._life.hear(happened))

    def _carryOut(self, decisions: Sequence[lifewords.Decision]) -> None:
        for decision in decisions:
            self._do(decision)

    def _do(self, decision: lifewords.Decision) -> None:
        match decision:
            case lifewords.Watch():
                self._pulse.start()
            case lifewords.Unwatch():
                self._starting.cancel()
                self._pulse.stop()
            case lifewords.SayTerminate(delay, others):
                self._control.call(commands.Terminate, delay=delay, others=others)
            case lifewords.SendTerm():
                self._process.signal(_SIGTERM)
            case lifewords.AllowDrain(delay):
                self._allow(delay + self._limits.shutdown)
            case lifewords.AllowTime():
                self._allow(self._limits.shutdown)
            case lifewords.AwaitExit():
                self._later(_REAP_TIME, lifewords.LivesOn(_MUTE))
            case lifewords.Warn(seconds):
                _log.warn(
                    "worker {id} has not answered for {seconds:.1f} s",
                    id=self.id,
                    seconds=seconds,
                )
            case lifewords.ShowStacks(what, why, stopped):
                self._showStacks(what, why, stopped)
            case lifewords.Kill(why):
                self._kill(why)
            case lifewords.TellReady():
                _log.info(
                    "worker {id} is ready after {seconds:.2f} s",
                    id=self.id,
                    seconds=self.lifetime,
                )
                self._owner.workerReady(self)
            case lifewords.TellLeaving():
                self._owner.workerLeaving(self)
            case lifewords.TellRecycling(why):
                self._owner.workerWantsRecycling(self, why)
            case lifewords.Forget():
                self._timers.cancel()
                self.conversation.close(f"worker {self.id} is gone")

    def _allow(self, seconds: float) -> None:
        why = f"it did not stop within {seconds:g} s"
        self._timers.limit(seconds, lambda: self._hear(lifewords.TimeOver(why)))

    def _later(self, seconds: float, happens: lifewords.Input) -> None:
        self._timers.later(seconds, lambda: self._hear(happens))

    def _showStacks(self, what: str, why: str, stopped: bool) -> None:
        hindrance = "" if self.pid is None else whyHangs(self.pid)
        stacks = "" if stopped else "its Python stacks follow"
        _log.error(
            "worker {id} (pid {pid}) {what}; {how}",
            id=self.id,
            pid=self.pid,
            what=what,
            how="; ".join(filter(None, (hindrance, stacks))),
        )
        if not stopped:
            self._process.signal(STACKS_SIGNAL)
        self._later(0.0 if stopped else _STACKS_TIME, lifewords.ToldToDie(why))

    def _kill(self, why: str) -> None:
        self._killedFor = self._killedFor or why
        self._process.signal(_SIGKILL)

    # How things are sent.

    def _schedule(self) -> None:
        self._reactor.callLater(0, self.conversation.flush)
