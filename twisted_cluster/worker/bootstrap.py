"""
The first code of ours that runs in a worker's process, and the last.

C{main()} makes the process a worker, hands over to the target, and ends the
process as the target would have ended by itself.
"""

from __future__ import annotations

import atexit
import faulthandler
import fcntl
import os
import resource
import signal
import socket
import sys
import traceback
from functools import partial
from typing import Any, NoReturn

import msgspec
from twisted.logger import LogLevel

from twisted_cluster import __version__
from twisted_cluster.errors import (
    TargetError,
    TargetLoadError,
    TargetStartError,
    TargetUsageError,
    UsageError,
)
from twisted_cluster.ipc.settings import STACKS_SIGNAL, WorkerSettings
from twisted_cluster.ipc.titles import setTitle
from twisted_cluster.policy.readiness import Readiness
from twisted_cluster.worker import context
from twisted_cluster.worker.asyncservers import installAsyncServers
from twisted_cluster.worker.connections import Connections
from twisted_cluster.worker.drain.drain import Drain
from twisted_cluster.worker.failures import describeFailure, userTraceback
from twisted_cluster.worker.incoming import Incoming
from twisted_cluster.worker.launch import checkTarget, runTarget
from twisted_cluster.worker.link import Link
from twisted_cluster.worker.orphan import Orphanage
from twisted_cluster.worker.ports import installPorts
from twisted_cluster.worker.reactor import chooseReactor, followReactor
from twisted_cluster.worker.relay import installRelay
from twisted_cluster.worker.socketclient import SocketClient
from twisted_cluster.worker.startup import Startup
from twisted_cluster.worker.stdio import installStreams
from twisted_cluster.worker.target import Target, parseTarget

_DRAINING = 0.9
"""The part of C{--shutdown-timeout} that connections have; then services stop."""
_HIGH = 512
"""Where the channels' descriptors go: above what programs close in a loop."""


def main() -> NoReturn:
    """
    Be a worker, with the settings and the target on the command line.
    """
    settings = _prepareDescriptors(_readSettings(sys.argv[1]))
    words = sys.argv[2:]
    _leaveSession()
    _prepareSignals()
    installStreams()
    worker = _becomeWorker(settings)
    try:
        target = parseTarget(words)
        _installHooks(worker, target)
        if settings.check:
            checkTarget(target)
            worker.startup.failed("checked", "the target loads", "")
        else:
            runTarget(target, settings, worker.startup)
    except BaseException as error:
        _end(worker, error)
    _end(worker, None)


def _readSettings(argument: str) -> WorkerSettings:
    try:
        return WorkerSettings.fromArgument(argument)
    except msgspec.MsgspecError as error:
        sys.exit(
            f"twisted_cluster {__version__} cannot be a worker of this watcher "
            f"({error}): it was upgraded; stop the cluster and start it again"
        )


def _leaveSession() -> None:
    """
    Keep what a terminal sends its foreground processes away from this one.
    """
    try:
        os.setsid()
    except PermissionError:
        pass


def _prepareDescriptors(settings: WorkerSettings) -> WorkerSettings:
    """
    Keep the channels from whatever the program will execute, and out of the way
    of one that closes the low descriptors; make what a service manager passed
    to the watcher valid here.

    @return: the settings, with the channels' new numbers.
    """
    if settings.listenDescriptors:
        os.environ["LISTEN_PID"] = str(os.getpid())
    return msgspec.structs.replace(
        settings,
        control=_lift(settings.control),
        sockets=_lift(settings.sockets),
        clients=_lift(settings.clients),
    )


def _lift(descriptor: int) -> int:
    """
    Move a descriptor up, and make it close-on-exec.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = _HIGH if limit == resource.RLIM_INFINITY else min(_HIGH, limit - 8)
    try:
        lifted = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, lowest)
    except OSError:
        os.set_inheritable(descriptor, False)
        return descriptor
    os.close(descriptor)
    return lifted


def _prepareSignals() -> None:
    """
    Survive the signals that mean something to the watcher, should they be sent
    to everybody.  A handler that does nothing, other than ignoring, is not
    inherited by what the program executes; a program's own handlers win.
    """
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT):
        signal.signal(number, lambda signum, frame: None)
    faulthandler.register(STACKS_SIGNAL, file=2, all_threads=True)


def _becomeWorker(settings: WorkerSettings) -> context.Worker:
    link = Link(socket.socket(fileno=settings.control), settings.maxMessageSize)
    link.hello()
    installRelay(link, LogLevel.lookupByName(settings.logLevel))
    atexit.register(link.detach)
    startup = Startup(
        Readiness(settings.waitReady, isService=False, portless=settings.portless),
        link.ready,
        link.failed,
    )
    incoming, connections = Incoming(settings.clients), Connections()
    limit = settings.shutdownTimeout * _DRAINING
    connections.most = settings.connections
    connections.tired = lambda: link.recycle(
        f"it has had {connections.most} connections (--recycle-connections)"
    )
    worker = context.Worker(
        settings,
        link,
        startup,
        incoming,
        connections,
        drain=Drain(connections, incoming, settings.drainIdle, limit),
    )
    context.become(worker)
    os.register_at_fork(after_in_child=lambda: context.become(None))
    return worker


def _installHooks(worker: context.Worker, target: Target) -> None:
    """
    Put ourselves in the places from which a program that knows nothing of us
    is served: its ports, its reactor, its launcher.
    """
    settings, link, startup = worker.settings, worker.link, worker.startup
    incoming, connections = worker.incoming, worker.connections
    assert incoming is not None and connections is not None
    startup.isService(target.kind in ("plugin", "tac", "callable"))
    orphanage = Orphanage(settings.watcher, settings.shutdownTimeout, worker.orphaned)
    orphanage.prepare()
    link.terminated = partial(worker.stop, True)
    link.orphaned = orphanage.orphaned
    client = SocketClient(settings.sockets, settings.socketTimeout)
    connections.install()
    installPorts(client, startup, incoming, connections)
    installAsyncServers(client, startup)
    if settings.reactor is not None:
        chooseReactor(settings.reactor)

    def reactorRuns(reactor: Any) -> None:
        link.attach(reactor)
        incoming.attach(reactor)
        orphanage.attach(reactor)
        startup.reactorRuns(reactor)
        worker.reactorRuns(reactor)

    followReactor(reactorRuns, worker.reactorStops, link.detach)
    if settings.title is not None:
        setTitle(settings.title)


def _end(worker: context.Worker, error: object) -> NoReturn:
    """
    End the process as the target ended, having told the watcher why if the
    worker was not ready yet.
    """
    startup = worker.startup
    if isinstance(error, SystemExit):
        raise error
    if error is None:
        sys.exit(0)
    if isinstance(error, TargetUsageError):
        startup.failed("usage", error.reason, error.traceback)
        sys.exit(2)
    if isinstance(error, (TargetLoadError, UsageError)):
        text = error.traceback if isinstance(error, TargetError) else ""
        startup.failed("load", str(getattr(error, "reason", error)), text)
        sys.exit(1)
    if isinstance(error, TargetStartError):
        startup.failed("start", error.reason, error.traceback)
        sys.exit(1)
    assert isinstance(error, BaseException)
    reason = traceback.format_exception_only(type(error), error)[-1].strip()
    startup.failed("start", reason, describeFailure(error))
    if startup.ready or sys.excepthook is not sys.__excepthook__:
        sys.excepthook(type(error), error, userTraceback(error))
    sys.exit(1)
