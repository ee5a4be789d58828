"""
Changes Twisted's own launchers, so that a target which is itself twistd or
twist runs as one process of many: see L{twisted_cluster.worker.twistd}.

The launchers are not imported for that: they are changed when, and if, the
target imports them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Final, Optional

from twisted.logger import Logger, globalLogBeginner

_log = Logger()

Undo = Callable[[], None]
_Patch = Callable[[ModuleType], list[Undo]]


def installForeign() -> Undo:
    """
    Change the launchers from now on.

    @return: what changes them back.
    """
    undos: list[Undo] = []
    later: dict[str, _Patch] = {}
    for name, patch in _PATCHES.items():
        module = sys.modules.get(name)
        if module is not None:
            undos += patch(module)
        else:
            later[name] = patch
    finder = _Finder(later, undos)
    sys.meta_path.insert(0, finder)

    def undo() -> None:
        if finder in sys.meta_path:
            sys.meta_path.remove(finder)
        while undos:
            undos.pop()()

    return undo


class _Finder(MetaPathFinder):
    """
    Sees to it that modules are changed as soon as they have been imported.
    """

    def __init__(self, patches: dict[str, _Patch], undos: list[Undo]) -> None:
        self._patches = patches
        self._undos = undos

    def find_spec(
        self,
        fullname: str,
        path: Optional[Sequence[str]],
        target: Optional[ModuleType] = None,
    ) -> Optional[ModuleSpec]:
        """
        Let the others find the module, and change what they found.
        """
        patch = self._patches.pop(fullname, None)
        if patch is None:
            return None
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _PatchingLoader(spec.loader, patch, self._undos)
        return spec


class _PatchingLoader(Loader):
    def __init__(self, loader: Loader, patch: _Patch, undos: list[Undo]) -> None:
        self._loader = loader
        self._patch = patch
        self._undos = undos

    def create_module(self, spec: ModuleSpec) -> Optional[ModuleType]:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._undos += self._patch(module)


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
