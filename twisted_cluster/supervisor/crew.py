"""
The workers that live, and the plan that they are there by.

What happens to a worker is told to the plan (L{twisted_cluster.policy.fleet}),
and what the plan answers is done here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Optional, Union

import attrs
import msgspec
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import ILogObserver, Logger
from twisted.python.failure import Failure

from twisted_cluster.errors import (
    ChannelClosed,
    CrashLooping,
    StartFailed,
    UnknownWorker,
)
from twisted_cluster.interfaces import Responder, WorkerMessage
from twisted_cluster.ipc import codec
from twisted_cluster.ipc.inbox import Inbox
from twisted_cluster.ipc.settings import WorkerSettings
from twisted_cluster.policy import fleet
from twisted_cluster.policy.recycling import NEVER, RecycleLimits
from twisted_cluster.policy.restarts import CrashLoop, Respawn
from twisted_cluster.supervisor.death import Death, foundAddressTaken
from twisted_cluster.supervisor.formers import Formers
from twisted_cluster.supervisor.handle import Limits, WorkerHandle
from twisted_cluster.supervisor.killcounts import KillWatch
from twisted_cluster.supervisor.listeners import Listeners
from twisted_cluster.supervisor.pauses import HEALTHY_AFTER, Pauses
from twisted_cluster.supervisor.process import ClusterReactor
from twisted_cluster.supervisor.recycler import Recycler

_log = Logger("twisted_cluster")


_STATUSES = {"load": 4, "usage": 2, "help": 0, "checked": 0}
"""The exit status that tells at which stage the first worker failed."""
_NEVER_READY = 3
_USAGE = 2
"""What programs exit with when they refuse their options, argparse's for one."""
_COMPLAIN_EVERY = 60.0
"""Seconds between two complaints about a crash loop."""


@attrs.frozen
class Events:
    """
    Whom to tell of what became of all the workers.

    @ivar serving: every slot has its first worker.
    @ivar restarted: a restart is over; why it failed, or L{None}.
    @ivar looping: the workers of a slot keep dying, so that nothing that
        everybody has to be ready for can be waited for; which and why.
    @ivar settled: every slot has its worker, and there are no others.
    @ivar ended: no worker is left; what was wrong, or L{None}.
    """

    serving: Callable[[], None]
    restarted: Callable[[Optional[str]], None]
    looping: Callable[[str], None]
    settled: Callable[[], None]
    ended: Callable[[Optional[Exception]], None]


class Crew:
    """
    Starts, hears and buries workers.
    """

    def __init__(
        self,
        reactor: ClusterReactor,
        words: Sequence[str],
        plan: fleet.Fleet,
        limits: Limits,
        listeners: Listeners,
        inbox: Inbox[WorkerMessage],
        publisher: ILogObserver,
        events: Events,
        *,
        title: Optional[str],
        exitOnCrashLoop: bool,
        drainDelay: float = 0.0,
        recycle: RecycleLimits = NEVER,
    ) -> None:
        """
        @param words: the target, as the user wrote it.
        @param title: how the processes are titled, if at all.
        @param exitOnCrashLoop: whether to stop when workers keep dying early.
        @param drainDelay: seconds for which workers serve on when all are to stop.
        @param recycle: what workers may reach before they are replaced.
        """
        self._reactor = reactor
        self._words = words
        self._plan = plan
        self._limits = limits
        self._listeners = listeners
        self._inbox = inbox
        self._publisher = publisher
        self._events = events
        self._title = title
        self._exitOnCrashLoop = exitOnCrashLoop
        self._drainDelay = drainDelay
        self._recycler = Recycler(reactor, recycle, self._recycle)
        self._pauses = Pauses(reactor, self._resume)
        self._formers = Formers(listeners, limits.start / 2)
        self._responder: Optional[Responder] = None
        self._reason: Optional[Exception] = None
        self._status = _NEVER_READY
        self._complained = -_COMPLAIN_EVERY
        self._hinted = False
        self._accepting: set[int] = set()
        self._kills = KillWatch(reactor)
        self.handles: dict[int, WorkerHandle] = {}

    def start(self, settings: WorkerSettings, inherited: Sequence[int]) -> None:
        """
        Start the first worker; the others follow when it is ready.

        @param settings: what all workers have in common.
        @param inherited: descriptors that workers get under the same numbers;
            they stay the caller's.
        """
        self._settings = settings
        self._inherited = inherited
        self._kills.start()
        self.act(self._plan.start())

    def restart(self) -> None:
        """
        Replace all workers, and wait for nothing before that.
        """
        self._pauses.drop()
        self.act(self._plan.restart())

    def scale(self, workers: int) -> None:
        """
        Change the number of workers.
        """
        self._pauses.drop(workers)
        self.act(self._plan.scale(workers))

    def kill(self, why: str) -> None:
        """
        End all workers at once.
        """
        for handle in list(self.handles.values()):
            handle.kill(why)

    def broadcast(self, encoded: bytes) -> Deferred[None]:
        """
        Send a message to every worker; those that die meanwhile do not count.
        """

        def outcome(results: Any) -> None:
            for succeeded, result in results:
                if not succeeded and not result.check(ChannelClosed):
                    result.raiseException()

        handles = list(self.handles.values())
        sent = [h.conversation.sendEncoded(b"m", encoded) for h in handles]
        return DeferredList(sent, consumeErrors=True).addCallback(outcome)

    def pidOf(self, worker: int) -> Optional[int]:
        """
        Find the process of a worker.
        """
        handle = self.handles.get(worker)
        return None if handle is None else handle.pid

    def responder(self, responder: Optional[Responder]) -> None:
        """
        Set what answers the requests of all workers, or unset it.
        """
        self._responder = responder
        for handle in self.handles.values():
            self._introduce(handle)

    # What the workers do.

    def workerReady(self, worker: WorkerHandle) -> None:
        """
        A worker serves.
        """
        self._formers.workerReady(worker.slot, worker.id)
        self._listeners.workerReady(worker.id)
        self._accepting.add(worker.id)
        if worker.pid is not None:
            self._recycler.watch(worker.id, worker.pid)
        self.act(self._plan.ready(worker.id))

    def workerLeaving(self, worker: WorkerHandle) -> None:
        """
        A worker ends by itself, or has closed its channel.  It is replaced at
        once, unless it lived so short that its death may call for a pause.
        """
        self._listeners.workerStopping(worker.id)
        self._recycler.forget(worker.id)
        healthy = worker.lifetime >= HEALTHY_AFTER
        if healthy:
            self._pauses.policyOf(worker.slot).workerDied(worker.lifetime)
        self.act(self._plan.leaving(worker.id, pause=not healthy))

    def workerDrains(self, worker: WorkerHandle) -> None:
        """
        A worker accepts no more connections.  When none does, none is to come.
        """
        self._accepting.discard(worker.id)
        if self._plan.stopping and not self._accepting:
            self._listeners.refuse()

    def workerWantsRecycling(self, worker: WorkerHandle, why: str) -> None:
        """
        A worker has had as much as it is meant to.
        """
        self._recycle(worker.id, why)

    def workerDied(self, worker: WorkerHandle, death: Death) -> None:
        """
        A worker's process has ended.
        """
        self._bury(worker, death)

    def whoKilled(self) -> str:
        """
        Say whether the kernel killed the worker whose death is known now.
        """
        return self._kills.hint()

    def forward(self, sender: int, to: int, encoded: bytes) -> Optional[BaseException]:
        """
        Pass a message from one worker on to another.

        @return: why that worker does not take it, or L{None}.
        """
        handle = self.handles.get(to)
        if handle is None:
            return UnknownWorker(f"there is no worker {to}")
        refused: list[Failure] = []
        sent = handle.conversation.sendEncoded(b"w", codec.pair(sender, encoded))
        sent.addErrback(refused.append)
        return refused[0].value if refused else None

    def _recycle(self, worker: int, why: str) -> None:
        self.act(self._plan.recycle(worker, why))

    def _bury(self, worker: WorkerHandle, death: Death) -> None:
        del self.handles[worker.id]
        self._formers.workerDied(worker.slot, worker.id)
        self._listeners.workerGone(worker.id)
        self._recycler.forget(worker.id)
        self.workerDrains(worker)
        if death.failing is None:
            why = f"worker {worker.id} {death.how}"
            log = _log.info if death.expected else _log.error
            log("worker {worker} {how}", worker=worker.id, how=death.how)
            if death.status == _USAGE and not death.wasReady:
                self._status = _USAGE
        else:
            why = str(death.failing)
            self._status = _STATUSES.get(death.failing.stage, _NEVER_READY)
            if self._status:
                _log.error(
                    "worker {worker} could not start: {why}", worker=worker.id, why=why
                )
        if self.handles and not death.wasReady and foundAddressTaken(why):
            self._hint()
        decision: Union[Respawn, CrashLoop] = Respawn(0.0)
        if self._plan.needs(worker.id):
            decision = self._pauses.policyOf(worker.slot).workerDied(death.lifetime)
        self.act(self._plan.died(worker.id, why, decision.delay > 0))
        looping = isinstance(decision, CrashLoop)
        ends = self._plan.stopping or (looping and self._exitOnCrashLoop)
        if decision.delay > 0 and not ends:
            self._pauses.begin(worker.slot, decision.delay)
        if isinstance(decision, CrashLoop):
            self._crashLoops(worker.slot, decision.deaths, why)

    def _hint(self) -> None:
        if not self._hinted:
            self._hinted = True
            _log.warn(
                "if the program opens that address by itself, with socket.bind() or "
                "the like, its workers cannot share it: have the reactor listen, or "
                "run one worker"
            )

    def _resume(self, slot: int) -> None:
        self.act(self._plan.resume(slot))

    def _crashLoops(self, slot: int, deaths: int, why: str) -> None:
        text = f"the workers of slot {slot} keep dying: {deaths} early deaths in a row"
        if self._exitOnCrashLoop:
            self._reason = self._reason or CrashLooping(text)
            self.act(self._plan.stop())
            return
        if self._reactor.seconds() - self._complained >= _COMPLAIN_EVERY:
            self._complained = self._reactor.seconds()
            _log.critical("{text}", text=text)
        text = f"{text}, the last because {why}"
        self.act(self._plan.giveUpRestart(text))
        self._events.looping(text)

    # What the plan says.

    def act(self, actions: list[fleet.Action]) -> None:
        """
        Do what the plan says, in its order.
        """
        for action in actions:
            if isinstance(action, fleet.Spawn):
                self._spawn(action)
            elif isinstance(action, fleet.Stop):
                self._stop(action)
            elif isinstance(action, fleet.Serving):
                self._events.serving()
            elif isinstance(action, fleet.StartFailed):
                self._reason = self._reason or StartFailed(action.why, self._status)
                self.act(self._plan.stop())
            elif isinstance(action, fleet.RestartEnded):
                self._events.restarted(action.why)
            elif isinstance(action, fleet.Settled):
                self._listeners.settle(list(self.handles))
                self._events.settled()
            elif isinstance(action, fleet.Ended):
                self._pauses.drop()
                self._kills.stop()
                self._events.ended(self._reason)

    def _spawn(self, action: fleet.Spawn) -> None:
        self._listeners.unsettle()
        title = None
        if self._title is not None:
            title = f"{self._title}: worker {action.worker} (slot {action.slot})"
        settings = msgspec.structs.replace(
            self._settings,
            worker=action.worker,
            slot=action.slot,
            generation=action.generation,
            portless=self._formers.portless(action.slot),
            connections=self._recycler.limits.drawConnections(),
            title=title,
        )
        handle = WorkerHandle(
            self._reactor,
            self,
            settings,
            self._limits,
            self._listeners,
            self._inbox,
            self._publisher,
        )
        self._introduce(handle)
        self.handles[action.worker] = handle
        try:
            handle.start(self._words, self._inherited)
        except OSError as error:
            death = handle.neverStarted(error)
            self._reactor.callLater(0, self._bury, handle, death)

    def _stop(self, action: fleet.Stop) -> None:
        """
        Have a worker leave.  If all do, they serve on for a while before that.
        """
        delay = 0.0 if action.others else self._drainDelay
        if not action.others and not delay:
            self._listeners.acceptWaiting()
        self._recycler.forget(action.worker)
        if delay > 0:
            stopping = self._listeners.workerStopping
            self._reactor.callLater(delay, stopping, action.worker)
        else:
            self._listeners.workerStopping(action.worker)
        if action.worker in self.handles:
            self.handles[action.worker].stop(action.why, delay, action.others)

    def _introduce(self, handle: WorkerHandle) -> None:
        responder = self._responder
        handle.conversation.responder(
            None if responder is None else lambda data: responder(data, handle)
        )
