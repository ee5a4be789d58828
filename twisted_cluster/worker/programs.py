"""
Runs scripts and modules in the real C{__main__}, as C{python server.py} and
C{python -m module} do.

This is C{runpy}'s work, done again because C{runpy} runs scripts elsewhere
than in C{__main__}, and exits where a module is missing.
"""

from __future__ import annotations

import importlib.util
import io
import os
import sys
import warnings
from collections.abc import Mapping
from importlib.machinery import (
    ModuleSpec,
    PathFinder,
    SourceFileLoader,
    SourcelessFileLoader,
)
from types import CodeType
from typing import Final

import attrs

from twisted_cluster.errors import TargetLoadError
from twisted_cluster.interfaces import IStartup
from twisted_cluster.worker.failures import targetError
from twisted_cluster.worker.surroundings import (
    reactorHasRun,
    setCommandLine,
    setFirstPath,
)
from twisted_cluster.worker.target import Target

_MAIN: Final = "__main__"


@attrs.frozen
class Program:
    """
    Code that is ready to be run as C{__main__}.

    @ivar code: the code.
    @ivar names: what the namespace of C{__main__} says of where it came from.
    """

    code: CodeType
    names: Mapping[str, object]


def loadProgram(target: Target) -> Program:
    """
    Find and compile a script or a module, having put C{sys.argv} and
    C{sys.path} in place.  Of a module, the packages that hold it are imported.

    @raise TargetLoadError: when it is missing, does not compile, or when a
        package that holds it does not import.
    """
    what = f"module {target.name}" if target.kind == "module" else target.name
    try:
        if target.kind == "module":
            return _loadModule(target)
        if target.name.endswith(".py") or not _isContainer(target.name):
            return _loadScript(target)
        return _loadContainer(target)
    except Exception as exc:
        raise targetError(what, exc) from exc


def runProgram(target: Target, startup: IStartup) -> None:
    """
    Run a script or a module to its end.

    @raise TargetLoadError: when it cannot be loaded, or raised before its
        reactor ran.
    @raise TargetStartError: when it raised before its reactor ran, for want of
        an address to listen on.
    @raise BaseException: whatever the program raises later; C{SystemExit} and
        C{KeyboardInterrupt} at any time.
    """
    program = loadProgram(target)
    main = vars(sys.modules[_MAIN])
    for name in list(main):
        if not (name.startswith("__") and name.endswith("__")):
            del main[name]
    main.update(program.names)
    try:
        exec(program.code, main)
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as exc:
        if startup.ready or reactorHasRun():
            raise
        raise targetError(target.name, exc) from exc


def _loadScript(target: Target) -> Program:
    path = os.path.join(os.getcwd(), target.name)
    setCommandLine([target.name, *target.args])
    setFirstPath(os.path.dirname(os.path.realpath(target.name)))
    loader: SourceFileLoader | SourcelessFileLoader
    if path.endswith(".pyc"):
        loader = SourcelessFileLoader(_MAIN, path)
        code = loader.get_code(_MAIN)
    else:
        loader = SourceFileLoader(_MAIN, path)
        with io.open_code(path) as source:
            code = compile(source.read(), path, "exec", dont_inherit=True)
    if code is None:
        raise TargetLoadError(f"{target.name} holds no code")
    names = {
        "__name__": _MAIN,
        "__doc__": None,
        "__package__": None,
        "__loader__": loader,
        "__spec__": None,
        "__file__": path,
        "__cached__": None,
    }
    return Program(code, names)


def _isContainer(name: str) -> bool:
    return os.path.isdir(name) or PathFinder.find_spec(_MAIN, [name]) is not None


def _loadContainer(target: Target) -> Program:
    setCommandLine([target.name, *target.args])
    path = os.path.join(os.getcwd(), target.name)
    setFirstPath(path, always=True)
    spec = PathFinder.find_spec(_MAIN, [path])
    if spec is None:
        raise TargetLoadError(f"there is no __main__.py in {target.name}")
    return _fromSpec(spec)


def _loadModule(target: Target) -> Program:
    setCommandLine(["-m", *target.args])
    setFirstPath(os.getcwd())
    program = _fromSpec(_findModule(target.name))
    setCommandLine([str(program.names["__file__"]), *target.args])
    return program


def _findModule(name: str) -> ModuleSpec:
    parent = name.rpartition(".")[0]
    imported = name in sys.modules
    spec = _findSpec(name)
    if parent and not imported:
        existing = sys.modules.get(name)
        if existing is not None and not hasattr(existing, "__path__"):
            warnings.warn(
                f"{name!r} found in sys.modules after import of package "
                f"{parent!r}, but prior to execution of {name!r}; this may result "
                "in unpredictable behaviour",
                RuntimeWarning,
                stacklevel=2,
            )
    if spec is None:
        hint = ""
        if name.endswith(".py"):
            hint = f"; without the ending it is -m {name[:-3]}"
        raise TargetLoadError(f"there is no module named {name}{hint}")
    if spec.submodule_search_locations is None:
        return spec
    main = _findSpec(f"{name}.{_MAIN}")
    if main is None:
        raise TargetLoadError(
            f"{name} is a package without a __main__ module, it cannot be run"
        )
    return main


def _findSpec(name: str) -> ModuleSpec | None:
    """
    Find a module, importing the packages that hold it.

    @return: L{None} when it, or one of the packages, does not exist.
    @raise Exception: whatever the packages raise.
    """
    existing = sys.modules.get(name)
    if existing is not None and getattr(existing, "__spec__", None) is None:
        return None
    try:
        return importlib.util.find_spec(name)
    except ModuleNotFoundError as exc:
        missing = exc.name
        if missing is not None and f"{name}.".startswith(f"{missing}."):
            return None
        raise


def _fromSpec(spec: ModuleSpec) -> Program:
    getCode = getattr(spec.loader, "get_code", None)
    code = None if getCode is None else getCode(spec.name)
    if code is None:
        raise TargetLoadError(f"{spec.name} is no Python code that could be run")
    names = {
        "__name__": _MAIN,
        "__doc__": None,
        "__package__": spec.parent,
        "__loader__": spec.loader,
        "__spec__": spec,
        "__file__": spec.origin,
        "__cached__": spec.cached,
    }
    return Program(code, names)
