"""
Finds what C{package.module:callable} names, calls it, and makes an application
of what it returns.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
from collections.abc import Callable
from typing import Any, Optional

from twisted.application.service import (
    Application,
    IProcess,
    IService,
    IServiceCollection,
    Service,
)
from twisted.internet.defer import Deferred
from twisted.python.components import Componentized

from twisted_cluster.errors import TargetLoadError
from twisted_cluster.worker.failures import targetError
from twisted_cluster.worker.starting import ServiceStart
from twisted_cluster.worker.surroundings import setCommandLine, setFirstPath
from twisted_cluster.worker.target import Target


def loadCallable(target: Target) -> object:
    """
    Import a callable, having put C{sys.argv} and C{sys.path} in place: the
    working directory is searched first.

    @raise TargetLoadError: when the module or the attribute is missing, does
        not import, or is neither a callable nor a service.
    """
    setCommandLine([target.name, *target.args])
    setFirstPath(os.getcwd())
    moduleName, _, path = target.name.partition(":")
    if not moduleName or not path:
        raise TargetLoadError(
            f"{target.name!r} is not of the form package.module:callable"
        )
    found: object = _import(moduleName)
    where = moduleName
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError as exc:
            near = difflib.get_close_matches(name, dir(found), 3)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise TargetLoadError(f"there is no {name!r} in {where}{hint}") from exc
        where = f"{where}.{name}"
    if not callable(found) and IService(found, None) is None:
        raise TargetLoadError(
            f"{target.name} is of type {type(found).__name__}, which is neither "
            "callable nor a service"
        )
    return found


def callFor(found: object, target: Target) -> object:
    """
    Call what L{loadCallable} found, with the reactor if it wants one.

    @return: what it returned, or itself where it is a service already.
    @raise TargetError: when it raised, or wants more than a reactor.
    """
    if not callable(found) or (
        IService.providedBy(found) and not isinstance(found, type)
    ):
        return found
    required = _countRequired(found)
    if required > 1:
        raise TargetLoadError(
            f"{target.name} wants {required} arguments; it may have one, the reactor"
        )
    try:
        if not required:
            return found()
        from twisted.internet import reactor

        return found(reactor)
    except Exception as exc:
        raise targetError(target.name, exc) from exc


def makeApplication(
    result: object, target: Target, start: ServiceStart
) -> Componentized:
    """
    Make an application of what a callable returned.

    @param result: a service or an application; a Deferred or a coroutine of a
        service, or of anything else; or L{None} from a callable that did its
        work with the reactor.
    @param start: what waits for that which is still to come.
    @raise TargetLoadError: when the result is something else.
    """
    if isinstance(result, Componentized) and IProcess(result, None) is not None:
        return result
    application: Componentized = Application(target.name)
    collection = IServiceCollection(application)
    service: Optional[IService] = IService(result, None)
    if service is None and _isAwaited(result):
        service = _Eventual(result, collection, start)
    if service is not None:
        service.setServiceParent(collection)
    elif result is not None:
        raise TargetLoadError(
            f"{target.name} returned an object of type {type(result).__name__}; a "
            "service, a Deferred, a coroutine or None was expected"
        )
    return application


class _Eventual(Service):
    """
    Holds the place of a service that a callable promised.

    What a coroutine does up to its first wait, it does with the privileges that
    the process was started with, as C{privilegedStartService} would.
    """

    def __init__(
        self, result: Any, collection: IServiceCollection, start: ServiceStart
    ) -> None:
        self._result = result
        self._collection = collection
        self._start = start

    def privilegedStartService(self) -> None:
        """
        Begin to wait.
        """
        super().privilegedStartService()
        result, self._result = self._result, None
        if inspect.iscoroutine(result):
            result = Deferred.fromCoroutine(result)
        result.addCallback(self._arrived)
        self._start.wait(result)
        result.addErrback(lambda reported: None)

    def _arrived(self, value: object) -> None:
        service: Optional[IService] = IService(value, None)
        if service is not None:
            self._start.watchStarts([service])
            service.setServiceParent(self._collection)


def _isAwaited(result: object) -> bool:
    return isinstance(result, Deferred) or inspect.iscoroutine(result)


def _import(name: str) -> object:
    """
    @raise TargetLoadError: when the module is missing or does not import.
    """
    try:
        return importlib.import_module(name)
    except Exception as exc:
        missing = exc.name if isinstance(exc, ModuleNotFoundError) else None
        if missing is not None and f"{name}.".startswith(f"{missing}."):
            raise TargetLoadError(
                f"there is no module named {missing} in {os.getcwd()} or on the "
                "module search path"
            ) from exc
        raise targetError(name, exc) from exc


def _countRequired(function: Callable[..., object]) -> int:
    """
    Count the positional arguments that a callable insists on.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 0
    return sum(
        parameter.default is parameter.empty
        and parameter.kind
        in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        for parameter in parameters
    )
