"""
C{ClusterWatcher}: the service that owns the workers.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Sequence
from typing import Any, Optional, Union

import msgspec
from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail
from twisted.logger import (
    ILogObserver,
    Logger,
    LogLevel,
    LogPublisher,
    globalLogPublisher,
)
from twisted.python.failure import Failure

from twisted_cluster.errors import (
    AlreadyStarted,
    ChannelError,
    InsideWorker,
    NotRunning,
    RestartFailed,
    Stopped,
    UsageError,
)
from twisted_cluster.interfaces import Data, Responder, WorkerMessage
from twisted_cluster.ipc import codec
from twisted_cluster.ipc.inbox import Inbox
from twisted_cluster.ipc.settings import WorkerSettings
from twisted_cluster.policy.balance import KERNEL
from twisted_cluster.policy.fleet import Fleet
from twisted_cluster.policy.recycling import NEVER, RecycleLimits
from twisted_cluster.supervisor.cpus import availableCPUs, checkedCount
from twisted_cluster.supervisor.crew import Crew, Events
from twisted_cluster.supervisor.distributor import Distributor
from twisted_cluster.supervisor.handle import Limits, WorkerHandle
from twisted_cluster.supervisor.inherited import (
    InheritedDescriptors,
    activatedDescriptors,
)
from twisted_cluster.supervisor.listeners import Listeners
from twisted_cluster.supervisor.outcomes import Outcomes
from twisted_cluster.supervisor.process import ClusterReactor
from twisted_cluster.supervisor.procfs import Credentials, processCredentials
from twisted_cluster.worker import context

_log = Logger("twisted_cluster")


class ClusterWatcher(Service):
    """
    Runs a program in several workers, on the same sockets.  It is a service, starts
    and stops as one, and runs once.
    """

    def __init__(
        self,
        reactor: ClusterReactor,
        target: Union[str, Sequence[str]],
        workers: Optional[int] = None,
        *,
        binds: Sequence[str] = (),
        backlog: int = socket.SOMAXCONN,
        balance: str = KERNEL,
        startTimeout: float = 60.0,
        heartbeatTimeout: float = 30.0,
        shutdownTimeout: float = 30.0,
        drainIdle: float = 5.0,
        drainDelay: float = 0.0,
        restartBatch: int = 1,
        recycle: RecycleLimits = NEVER,
        maxMessageSize: int = 256 * 1024 * 1024,
        logLevel: Any = LogLevel.info,
        waitReady: bool = False,
        workerReactor: Optional[str] = None,
        name: Optional[str] = None,
        uid: Optional[int] = None,
        gid: Optional[int] = None,
        exitOnCrashLoop: bool = False,
        check: bool = False,
        inherited: Optional[InheritedDescriptors] = None,
        publisher: Optional[ILogObserver] = None,
    ) -> None:
        """
        @param target: what the workers run, as one would type it after
            C{twisted-cluster run}: one word, or several.
        @param workers: how many; L{None}: as many as there are processors that
            may be used.
        @param binds: endpoint descriptions to bind at the start.
        @param backlog: the least backlog of every listening socket.
        @param balance: who gets the next connection: C{kernel} (whichever idle
            worker it wakes), C{round-robin}, C{least-connections}, C{sticky}, or
            the dotted name of what makes an L{IBalancer}.
        @param startTimeout: seconds for a worker to become ready.
        @param heartbeatTimeout: seconds after which a mute worker is replaced.
        @param shutdownTimeout: seconds for a worker to leave: nine tenths for its
            connections, the rest for the program.
        @param drainIdle: seconds that idle connections are given when their worker
            leaves, and they cannot move to another.
        @param drainDelay: seconds for which workers serve on when all are to stop,
            having told the program (C{cluster.whenStopping()}).
        @param restartBatch: how many workers a restart replaces at a time.
        @param recycle: when workers that work are replaced by fresh ones.
        @param maxMessageSize: the most bytes of one message, encoded.
        @param logLevel: the lowest level of log events that workers relay.
        @param waitReady: whether the program says itself when it is ready.
        @param workerReactor: the short name of the reactor that workers
            install when the program does not choose one.
        @param name: how the processes are titled.
        @param uid: the user that workers become once they have started.
        @param gid: the group likewise.
        @param exitOnCrashLoop: stop when workers keep dying early.
        @param inherited: descriptors that workers get under the same numbers;
            they stay the caller's.  By default, those of socket activation.
        @param check: load the target in one worker, and end.
        @param publisher: where the workers' log events go; by default, to all
            observers of this process.
        @raise InvalidWorkerCount: for a number that is not one or more.
        @raise InsideWorker: in a worker.
        @raise InvalidBalance: for a way of balancing that does not exist.
        @raise UsageError: for an empty target.
        """
        if context.current() is not None:
            raise InsideWorker(
                "this process is a worker of a cluster, and cannot start another: "
                "ask cluster.isWorker() first"
            )
        words = [target] if isinstance(target, str) else list(target)
        if not words or not words[0]:
            raise UsageError("there is no target: name a script, a plugin, …")
        self._settings = WorkerSettings(
            worker=0,
            slot=0,
            generation=0,
            watcher=0,
            control=-1,
            sockets=-1,
            clients=-1,
            shutdownTimeout=shutdownTimeout,
            drainIdle=drainIdle,
            maxMessageSize=maxMessageSize,
            logLevel=logLevel.name,
            waitReady=waitReady,
            check=check,
            reactor=workerReactor,
            uid=uid,
            gid=gid,
        )
        self._binds = binds
        self._inherited = inherited
        self._plan = Fleet(
            checkedCount(availableCPUs() if workers is None else workers),
            checkedCount(restartBatch, "number of workers that restart at a time"),
        )
        self._listeners = Listeners(
            backlog,
            reactor,
            self._rightsOf,
            grace=startTimeout,
            distributor=Distributor(reactor, balance),
        )
        self._outcomes = Outcomes()
        self._inbox: Inbox[WorkerMessage] = Inbox("iterate over watcher.messages()")
        self._crew = Crew(
            reactor,
            words,
            self._plan,
            Limits(startTimeout, heartbeatTimeout, shutdownTimeout),
            self._listeners,
            self._inbox,
            globalLogPublisher if publisher is None else LogPublisher(publisher),
            Events(
                serving=self._serves,
                restarted=self._restarted,
                looping=self._outcomes.looping,
                settled=self._outcomes.settled,
                ended=self._end,
            ),
            title=name,
            exitOnCrashLoop=exitOnCrashLoop,
            drainDelay=drainDelay,
            recycle=recycle,
        )
        self._bound = False
        self._started = False
        self._ended = False

    # A service.

    def privilegedStartService(self) -> None:
        """
        Bind what is to be bound, while this process still may.

        @raise twisted.internet.error.CannotListenError: when one of the
            addresses cannot be bound.
        """
        if self._bound:
            return
        self._bound = True
        try:
            for description in self._binds:
                self._listeners.bind(description)
        except Exception as error:
            self._started = True
            self._end(error)
            raise

    def startService(self) -> None:
        """
        Bind what is to be bound, and start the first worker; the others follow
        when it is ready.

        @raise AlreadyStarted: the second time.
        @raise twisted.internet.error.CannotListenError: when one of the
            addresses cannot be bound.
        """
        if self._started:
            raise AlreadyStarted(
                "this ClusterWatcher is running already or has run: make another"
            )
        self.privilegedStartService()
        self._started = True
        super().startService()
        pid = os.getpid()
        inherited = self._inherited or activatedDescriptors(os.environ, pid)
        self._crew.start(
            msgspec.structs.replace(
                self._settings, watcher=pid, listenDescriptors=inherited.listen
            ),
            inherited.descriptors,
        )

    def stopService(self) -> Deferred[None]:
        """
        Have all workers leave, gracefully and within the limit.

        @return: a Deferred that fires when all are gone and every socket is
            closed.
        """
        super().stopService()
        if not self._started:
            self._started = True
            self._end(None)
        if not self._ended:
            self._crew.act(self._plan.stop())
        return self._outcomes.over.wait().addErrback(lambda _: None)

    def stopNow(self) -> None:
        """
        End all workers at once.
        """
        if self._started and not self._ended:
            self._crew.kill("the cluster stops now")
            self._crew.act(self._plan.stop())

    # What its user calls.

    @property
    def workers(self) -> list[WorkerHandle]:
        """
        The workers that live, by id: L{IWorkerHandle}s.
        """
        return list(self._crew.handles.values())

    @property
    def addresses(self) -> list[str]:
        """
        What the cluster listens on.
        """
        return self._listeners.addresses

    def whenReady(self) -> Deferred[None]:
        """
        A Deferred that fires when all workers serve for the first time.  It
        fails with L{StartFailed}; with L{CrashLooping}, when those of a slot
        keep dying (the others serve on); or with L{Stopped}.
        """
        return self._outcomes.serving.wait()

    def whenStopped(self) -> Deferred[None]:
        """
        A Deferred that fires when the cluster is no more.  It fails with
        L{StartFailed} or L{CrashLooping}, when the cluster ended for that.
        """
        return self._outcomes.over.wait()

    def restart(self) -> Deferred[None]:
        """
        Replace every worker by a new one, slot by slot, each old one leaving
        when its replacement is ready.

        @return: a Deferred that fires when that is done.  It fails with
            L{RestartFailed} when a new worker did not become ready (the old
            ones that are left serve on), L{Stopped}, L{NotRunning}.
        """
        if not self._running():
            return fail(NotRunning("the cluster does not run: nothing to restart"))
        waiter = self._outcomes.whenRestarted(self._plan.restarting)
        self._crew.restart()
        return waiter

    def scale(self, workers: int) -> Deferred[None]:
        """
        Change the number of workers.

        @return: a Deferred that fires when there are as many as were asked for
            last, all ready.  It fails with L{CrashLooping}, when those of a
            slot keep dying; with L{Stopped}, L{NotRunning}.
        @raise InvalidWorkerCount: for a number that is not one or more.
        """
        checkedCount(workers)
        if not self._running():
            return fail(NotRunning("the cluster does not run: nothing to scale"))
        waiter = self._outcomes.whenScaled()
        self._crew.scale(workers)
        return waiter

    @property
    def desired(self) -> int:
        """
        How many workers there should be.
        """
        return self._plan.desired

    def messages(self) -> AsyncIterator[WorkerMessage]:
        """
        Iterate over the messages of all workers, as L{WorkerMessage}, until
        the cluster is no more.

        @raise twisted_cluster.errors.AlreadyConsumed: when somebody else does
            so at the moment.
        """
        return self._inbox.consume()

    def responder(self, callable: Optional[Responder]) -> None:
        """
        Set what answers the workers' requests, called with the data and the
        L{IWorkerHandle} that asks; or unset it.
        """
        self._crew.responder(callable)

    def broadcast(self, data: Data) -> Deferred[None]:
        """
        Send a message to every worker that lives.

        @return: a Deferred that fires when each has taken it over or died.  It
            fails as that of L{IWorkerHandle.send} does.
        """
        try:
            encoded = codec.encode(data, self._settings.maxMessageSize)
        except ChannelError:
            return fail(Failure())
        return self._crew.broadcast(encoded)

    # What becomes of the workers.

    def _serves(self) -> None:
        count = self._plan.desired
        _log.info(
            "{count} {workers} {addresses}",
            count=count,
            workers="worker serves" if count == 1 else "workers serve",
            addresses=", ".join(self.addresses) or "no address",
        )
        self._outcomes.serving.fire()

    def _restarted(self, why: Optional[str]) -> None:
        if why is None:
            _log.info("the restart is done")
            self._outcomes.restarted(None)
        elif self._plan.stopping:
            self._outcomes.restarted(Stopped(why))
        else:
            _log.error(
                "the restart has failed, {count} of {desired} workers serve: {why}",
                count=self._plan.serving,
                desired=self._plan.desired,
                why=why,
            )
            self._outcomes.restarted(RestartFailed(why))

    def _end(self, reason: Optional[Exception]) -> None:
        self._ended = True
        self._listeners.closeAll()
        self._inbox.close()
        self._outcomes.ended(reason)

    def _running(self) -> bool:
        return self._started and not self._ended and not self._plan.stopping

    def _rightsOf(self, worker: int) -> Optional[Credentials]:
        pid = self._crew.pidOf(worker)
        return None if pid is None else processCredentials(pid)
