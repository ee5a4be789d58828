"""
The options of a cluster, and C{twistd cluster}, which makes a service of them.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from typing import Any, Optional

from twisted.application.service import Service
from twisted.copyright import version as twistedVersion
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python import usage
from twisted.python.failure import Failure

from twisted_cluster import __version__
from twisted_cluster.ipc import titles
from twisted_cluster.policy.recycling import RecycleLimits
from twisted_cluster.supervisor import coercions, options
from twisted_cluster.supervisor.actions import (
    Watcher,
    WatcherActions,
    stopReactor,
    summary,
)
from twisted_cluster.supervisor.commandline import Group, GroupedOptions
from twisted_cluster.supervisor.inherited import inheritedDescriptors
from twisted_cluster.supervisor.mail import logMessages
from twisted_cluster.supervisor.signals import SignalHandlers

_log = Logger("twisted_cluster")


class BaseOptions(GroupedOptions):
    """
    What C{twistd cluster} and C{twisted-cluster run} have in common.

    @cvar environ: the environment.
    """

    environ: Mapping[str, str] = os.environ

    def opt_version(self) -> None:
        """
        Display the versions and exit.
        """
        print(versions())
        raise SystemExit(0)

    def postOptions(self) -> None:
        """
        Check what one option cannot know of another.
        """
        if not self["target"]:
            raise usage.UsageError(
                "no target: say what the workers run, such as server.py, "
                "-m MODULE or web"
            )
        if self["target"] == ["-m"]:
            raise usage.UsageError("-m needs the name of a module")
        if self["workers"] is None:
            self["workers"] = self._concurrency()
        for name in ("uid", "gid"):
            if self[name] is not None and os.geteuid() not in (0, self[name]):
                raise usage.UsageError(
                    f"--{name}: only root can start workers as somebody else"
                )

    def _concurrency(self) -> int:
        text = self.environ.get("WEB_CONCURRENCY", "").strip()
        if not text:
            return coercions.AUTO
        try:
            return coercions.workers(text)
        except ValueError as error:
            raise usage.UsageError(f"WEB_CONCURRENCY: {error}") from None

    def watcherArguments(self) -> dict[str, Any]:
        """
        Say the options as keywords of L{ClusterWatcher
        <twisted_cluster.watcher.ClusterWatcher>}, C{workers} excepted.
        """
        return {
            "binds": list(self["bind"]),
            "backlog": self["backlog"],
            "balance": self["balance"],
            "startTimeout": self["start-timeout"],
            "heartbeatTimeout": self["heartbeat-timeout"],
            "shutdownTimeout": self["shutdown-timeout"],
            "drainIdle": self["drain-idle"],
            "drainDelay": self["drain-delay"],
            "restartBatch": self["restart-batch"],
            "recycle": RecycleLimits(
                self["recycle-age"],
                self["recycle-connections"],
                self["recycle-memory"],
                self["recycle-jitter"],
            ),
            "maxMessageSize": self["max-message-size"],
            "logLevel": self["log-level"],
            "waitReady": bool(self["wait-ready"]),
            "workerReactor": self["reactor"],
            "name": self["name"],
            "uid": self["uid"],
            "gid": self["gid"],
            "exitOnCrashLoop": bool(self["exit-on-crash-loop"]),
        }

    @property
    def workers(self) -> Optional[int]:
        """
        The number of workers, or L{None} to count the processors.
        """
        return self["workers"] or None


class Options(BaseOptions):
    """
    The options of C{twistd cluster}.
    """

    synopsis = "[options] TARGET [argument ...]"
    introduction = options.INTRODUCTION
    groups = (
        options.WORKERS,
        options.SOCKETS,
        options.LIMITS,
        options.RECYCLING,
        Group("Log (its file is twistd's --logfile)", [options.LOG_LEVEL]),
    )
    conclusion = f"""\
{options.OTHERS}

{options.SIGNALS}

Examples:
  twistd -n cluster --workers=4 web --listen=tcp:8080 --path=/srv/www
  twistd --pidfile=/run/app.pid --logfile=/var/log/app.log cluster app.tac"""
    elsewhere = {
        "log-file": "the log is twistd's: twistd --logfile=FILE cluster ...",
        "log-format": (
            "the log is twistd's: twistd --logger=FACTORY cluster ..., or use "
            "twisted-cluster run"
        ),
        "pid-file": "the pid file is twistd's: twistd --pidfile=FILE cluster ...",
        "check": "use twisted-cluster run --check",
    }

    def postOptions(self) -> None:
        """
        Take over what was asked of twistd and is meant for workers, too.
        """
        super().postOptions()
        if self["reactor"] is None and self.parent is not None:
            self["reactor"] = self.parent.get("reactor")


class ClusterService(Service):
    """
    A watcher under twistd: takes the signals while it runs, and stops the
    reactor when the cluster ends by itself.

    @param reactor: the reactor that twistd runs.
    @param watcher: starts and stops with this service.
    @param title: the process title's first word, or L{None}.
    """

    def __init__(self, reactor: Any, watcher: Watcher, title: Optional[str]) -> None:
        self._reactor = reactor
        self._watcher = watcher
        self._title = title
        self._signals = SignalHandlers(
            reactor, WatcherActions(watcher, self._stopReactor), chain=True
        )

    def privilegedStartService(self) -> None:
        """
        Bind what needs privileges.
        """
        super().privilegedStartService()
        self._logged(self._watcher.privilegedStartService)

    def startService(self) -> None:
        """
        Start the watcher.

        @raise Exception: what the watcher's own C{startService} raises; it has
            been logged.
        """
        super().startService()
        setTitle(self._title)
        self._signals.install(running=False)
        self._logged(self._watcher.startService)
        logMessages(self._watcher.messages())
        self._watcher.whenStopped().addCallbacks(self._over, self._failed)
        self._reactor.callWhenRunning(self._signals.install)

    def stopService(self) -> Optional[Deferred[None]]:
        """
        Stop the watcher.

        @return: what the watcher's own C{stopService} returns.
        """
        super().stopService()
        return self._watcher.stopService()

    def _logged(self, start: Callable[[], object]) -> None:
        try:
            start()
        except Exception as error:
            _log.critical("The cluster cannot start: {error}", error=str(error))
            raise

    def _over(self, result: None) -> None:
        self._signals.uninstall()
        self._stopReactor()

    def _failed(self, failure: Failure) -> None:
        reason = failure.value
        _log.critical(
            "The cluster has ended: {reason}",
            reason="for no reason" if reason is None else summary(reason),
        )
        self._over(None)

    def _stopReactor(self) -> None:
        self._reactor.callWhenRunning(stopReactor, self._reactor)


def setTitle(name: Optional[str]) -> None:
    """
    Give this process, the watcher, its title, where C{setproctitle} is
    installed.

    @param name: the value of C{--name}; L{None} leaves the title alone.
    """
    if name is not None and not titles.setTitle(f"{name}: watcher"):
        Logger("twisted_cluster").info(
            "--name shows nowhere: setproctitle is not installed."
        )


def versions() -> str:
    """
    Say which versions are at work here.
    """
    return (
        f"twisted-cluster {__version__} (Twisted {twistedVersion}, "
        f"{platform.python_implementation()} {platform.python_version()})"
    )


def makeService(
    config: Options, factory: Optional[Callable[..., Watcher]] = None
) -> ClusterService:
    """
    Make the service of C{twistd cluster}.  The workers get what this process
    was started with, before twistd makes a daemon of it.

    @param config: the options, parsed.
    @param factory: makes the watcher; L{ClusterWatcher
        <twisted_cluster.watcher.ClusterWatcher>} unless given.
    """
    inherited = inheritedDescriptors(os.environ, os.getpid())

    from twisted.internet import reactor as installed

    reactor: Any = installed
    if factory is None:
        from twisted_cluster.watcher import ClusterWatcher

        factory = ClusterWatcher
    watcher = factory(
        reactor,
        config["target"],
        config.workers,
        inherited=inherited,
        **config.watcherArguments(),
    )
    return ClusterService(reactor, watcher, config["name"])
