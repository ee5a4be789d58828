"""
Runs twistd plugins, C{.tac} files and callables as twistd runs an application:
C{privilegedStartService}, shed privileges, C{startService}, run the reactor.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import PathFinder
from typing import Any, Optional

from twisted.application.service import (
    Application,
    IService,
    IServiceCollection,
    loadApplication,
)
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.python.usage import UsageError
from twisted.scripts._twistd_unix import ServerOptions, UnixApplicationRunner
from zope.interface import provider

from twisted_cluster.errors import (
    TargetLoadError,
    TargetStartError,
    TargetUsageError,
)
from twisted_cluster.interfaces import IStartup
from twisted_cluster.ipc.settings import WorkerSettings
from twisted_cluster.worker.callables import callFor, loadCallable, makeApplication
from twisted_cluster.worker.failures import describeFailure, startError, targetError
from twisted_cluster.worker.starting import ServiceStart
from twisted_cluster.worker.surroundings import (
    reactorHasRun,
    setCommandLine,
    setFirstPath,
    twistdScript,
    whenReactorRuns,
)
from twisted_cluster.worker.target import Target
from twisted_cluster.worker.twistd import WorkerLogger, tame


def runApplication(target: Target, settings: WorkerSettings, startup: IStartup) -> None:
    """
    Load a plugin, a C{.tac} file or a callable, start it and run the reactor to
    its end.

    @raise TargetError: as L{loadCallable}, L{loadPlugin} and L{loadTac} say, and
        L{TargetStartError} when it did not start.
    @raise SystemExit: when the application, or its C{--help}, exits.
    """
    config = ServerOptions()
    start = ServiceStart(target.name, startup)
    if target.kind == "callable":
        found = loadCallable(target)
        config.parseOptions([])
        with whenReactorRuns(startup.serviceStarted):
            result = callFor(found, target)
        if reactorHasRun():
            return
        application = makeApplication(result, target, start)
    elif target.kind == "tac":
        application = loadTac(target, config)
    else:
        try:
            application = loadPlugin(target, config)
        except SystemExit as exc:
            if not exc.code:
                startup.failed("help", "", "")
            raise
    if settings.uid is not None:
        config["uid"] = settings.uid
    if settings.gid is not None:
        config["gid"] = settings.gid
    tame(config)
    WorkerRunner(config, application, start).run()
    if start.error is not None:
        raise start.error


def checkApplication(target: Target) -> None:
    """
    Load what L{runApplication} would, and start nothing.  A callable is found,
    not called.

    @raise TargetError: as L{runApplication}.
    """
    if target.kind == "callable":
        loadCallable(target)
    elif target.kind == "tac":
        loadTac(target, ServerOptions())
    else:
        loadPlugin(target, ServerOptions())


def loadTac(target: Target, config: ServerOptions) -> Any:
    """
    Execute a C{.tac} file.

    @return: the application that it made.
    @raise TargetLoadError: when it raised, or made none.
    @raise TargetUsageError: when the words after it are no options of twistd.
    """
    setCommandLine([twistdScript(), "-n", "-y", target.name, *target.args])
    setFirstPath(os.path.dirname(os.path.realpath(twistdScript())))
    try:
        config.parseOptions(["-n", "-y", target.name, *target.args])
    except UsageError as exc:
        raise TargetUsageError(f"twistd -y {target.name}: {exc}", str(config)) from exc
    if config.subCommand:
        raise TargetUsageError(
            f"a .tac file takes no command, and {config.subCommand!r} is one"
        )
    try:
        return loadApplication(target.name, "python")
    except Exception as exc:
        if isinstance(exc, KeyError) and exc.args == ("application",):
            raise TargetLoadError(
                f"{target.name} must put an application into a variable named "
                "'application', and does not"
            ) from exc
        raise targetError(target.name, exc) from exc


def loadPlugin(target: Target, config: ServerOptions) -> Any:
    """
    Find a plugin, have it parse its options and make its service.

    @return: an application that holds the service.
    @raise TargetLoadError: when there is no such plugin, or it raised.
    @raise TargetUsageError: when it refused its options.
    @raise SystemExit: when its options exit, as C{--help} does.
    """
    words = ["-n", target.name, *target.args]
    setCommandLine([twistdScript(), *words])
    setFirstPath(os.path.dirname(os.path.realpath(twistdScript())))
    with _collectFailures() as failures:
        try:
            config.parseOptions(words)
        except UsageError as exc:
            if not config.subCommand:
                raise _noSuchPlugin(target, config, failures) from exc
            options = getattr(config, "subOptions", config)
            raise TargetUsageError(f"{target.name}: {exc}", str(options)) from exc
        except Exception as exc:
            raise targetError(target.name, exc) from exc
    plugin = config.loadedPlugins[config.subCommand]
    try:
        service = plugin.makeService(config.subOptions)
        application = Application(plugin.tapname)
        service.setServiceParent(application)
    except Exception as exc:
        raise targetError(target.name, exc) from exc
    return application


def _noSuchPlugin(
    target: Target, config: ServerOptions, failures: list[BaseException]
) -> TargetLoadError:
    names = sorted(config.loadedPlugins)
    near = difflib.get_close_matches(target.name, names, 3)
    reason = f"there is no twistd plugin named {target.name!r}"
    if near:
        reason += f"; did you mean {', '.join(near)}?"
    if _isModule(target.name):
        reason += f"; for the module of that name, say -m {target.name}"
    reason += f"; known are {', '.join(names)}"
    traceback = "".join(map(describeFailure, failures))
    if traceback:
        reason += "; some plugins did not import, see the traceback"
    return TargetLoadError(reason, traceback)


def _isModule(name: str) -> bool:
    return PathFinder.find_spec(name, [os.getcwd(), *sys.path]) is not None


@contextmanager
def _collectFailures() -> Iterator[list[BaseException]]:
    """
    Collect what is logged as failed meanwhile: Twisted passes over plugins that
    do not import.
    """
    failures: list[BaseException] = []

    @provider(ILogObserver)
    def observe(event: LogEvent) -> None:
        failure: Optional[Failure] = event.get("log_failure") or event.get("failure")
        if failure is not None and failure.value is not None:
            failures.append(failure.value)

    globalLogPublisher.addObserver(observe)
    try:
        yield failures
    finally:
        globalLogPublisher.removeObserver(observe)


class WorkerRunner(UnixApplicationRunner):
    """
    twistd's runner for an application that is loaded already.
    """

    loggerFactory = WorkerLogger

    def __init__(self, config: ServerOptions, application: Any, start: ServiceStart):
        super().__init__(config)
        self._loaded = application
        self._start = start

    def createOrGetApplication(self) -> Any:
        """
        Give the application.
        """
        return self._loaded

    def startApplication(self, application: Any) -> None:
        """
        Start the application, and watch how it goes.

        @raise TargetStartError: when it raised.
        """
        try:
            start: Any = super().startApplication
            with self._start:
                self._start.watchStarts(IServiceCollection(application, ()))
                start(application)
        except Exception as exc:
            name = IService(application).name
            raise startError(f"{name} did not start", exc) from exc
        from twisted.internet import reactor

        self._start.runsWith(reactor)

    def shedPrivileges(
        self, euid: bool, uid: Optional[int], gid: Optional[int]
    ) -> None:
        """
        Become another user.

        @raise TargetStartError: when that is not allowed.
        """
        try:
            shed: Any = super().shedPrivileges
            shed(euid, uid, gid)
        except SystemExit as exc:
            raise TargetStartError(
                f"the user and group cannot become {uid}/{gid}: {exc.__context__}"
            ) from exc
