"""
Changes Twisted's own launchers, so that a target which is itself twistd or
twist runs as one process of many: see L{twisted_cluster.worker.twistd}.

The launchers are not imported for that: they are changed when, and if, the
target imports them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Final

from twisted.logger import Logger, globalLogBeginner

from twisted_cluster.worker.imports import whenImported

_log = Logger("twisted_cluster")

Undo = Callable[[], None]
_Patch = Callable[[ModuleType], list[Undo]]


def installForeign() -> Undo:
    """
    Change the launchers from now on.

    @return: what changes them back.
    """
    undos: list[Undo] = []
    for name, patch in _PATCHES.items():
        undos.append(_patchWhenImported(name, patch, undos))

    def undo() -> None:
        while undos:
            undos.pop()()

    return undo


def _patchWhenImported(name: str, patch: _Patch, undos: list[Undo]) -> Undo:
    return whenImported(name, lambda module: undos.extend(patch(module)))


def _replace(owner: Any, name: str, value: object) -> list[Undo]:
    """
    Set an attribute, where there is one of that name.
    """
    if not hasattr(owner, name):
        _log.debug(
            "This Twisted has no {name} in {owner}; it is left as it is",
            name=name,
            owner=owner,
        )
        return []
    own = name in vars(owner)
    original = getattr(owner, name)

    def undo() -> None:
        if own:
            setattr(owner, name, original)
        else:
            delattr(owner, name)

    setattr(owner, name, value)
    return [undo]


def _stay(number: int) -> None:
    """
    Stand in for twistd's raising the signal again that stopped it: a stop that
    was asked for is a clean end.
    """


def _patchApp(module: ModuleType) -> list[Undo]:
    return _replace(module, "_exitWithSignal", _stay)


def _patchTwistd(module: ModuleType) -> list[Undo]:
    runner: Any = getattr(module, "UnixApplicationRunner", None)
    if runner is None:
        return []
    original = runner.__init__

    def __init__(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
        from twisted_cluster.worker.twistd import tame

        tame(config)
        original(self, config, *args, **kwargs)

    def loggerFactory(options: Any) -> object:
        from twisted_cluster.worker.twistd import WorkerLogger

        return WorkerLogger(options)

    def daemonize(self: Any, reactor: object) -> None:
        _log.warn("The target wanted to become a daemon; a worker stays as it is")

    return [
        *_replace(runner, "__init__", __init__),
        *_replace(runner, "loggerFactory", staticmethod(loggerFactory)),
        *_replace(runner, "daemonize", daemonize),
    ]


def _patchRunner(module: ModuleType) -> list[Undo]:
    runner: Any = getattr(module, "Runner", None)

    def startLogging(self: object) -> None:
        from twisted_cluster.worker.twistd import discard

        globalLogBeginner.beginLoggingTo([discard])

    return _replace(runner, "startLogging", startLogging)


def _patchTwist(module: ModuleType) -> list[Undo]:
    return _replace(module, "_exitWithSignal", _stay)


def _patchTwistOptions(module: ModuleType) -> list[Undo]:
    def openNothing(name: str, mode: str = "a") -> Any:
        return open(os.devnull, mode)

    return _replace(module, "openFile", openNothing)


_PATCHES: Final[Mapping[str, _Patch]] = {
    "twisted.application.app": _patchApp,
    "twisted.scripts._twistd_unix": _patchTwistd,
    "twisted.application.runner._runner": _patchRunner,
    "twisted.application.twist._twist": _patchTwist,
    "twisted.application.twist._options": _patchTwistOptions,
}
"""
What is changed, by the module that it is in.
"""
