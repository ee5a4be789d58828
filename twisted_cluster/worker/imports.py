"""
Does something to a module as soon as the program imports it, and not before.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Optional


def whenImported(
    name: str, action: Callable[[ModuleType], object]
) -> Callable[[], None]:
    """
    Have something called with a module: now if it is loaded, otherwise when
    its code has run.  What the action raises comes out of the import.

    @return: what calls it off.
    """
    if name in sys.modules:
        action(sys.modules[name])
        return lambda: None
    finder = _Finder(name, action)
    sys.meta_path.insert(0, finder)
    return finder.leave


class _Finder(MetaPathFinder):
    """
    Waits for one import, and steps aside for the real finders.
    """

    def __init__(self, name: str, action: Callable[[ModuleType], object]) -> None:
        self._name = name
        self._action = action

    def leave(self) -> None:
        """
        Wait no longer.
        """
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(
        self,
        fullname: str,
        path: Optional[Sequence[str]],
        target: Optional[ModuleType] = None,
    ) -> Optional[ModuleSpec]:
        """
        Find the module as it would be found without us.
        """
        if fullname != self._name:
            return None
        self.leave()
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._action)
        return spec


class _Loader(Loader):
    """
    Loads a module as its own loader does, then acts.
    """

    def __init__(self, loader: Loader, action: Callable[[ModuleType], object]) -> None:
        self._loader = loader
        self._action = action

    def create_module(self, spec: ModuleSpec) -> Optional[ModuleType]:
        """
        Leave that to the module's own loader.
        """
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """
        Run the module's code, then act.
        """
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._action(module)
