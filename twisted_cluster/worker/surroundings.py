"""
What lies around a program: the command line and the module search path that it
finds when it is started alone, and the reactor that it brings.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from twisted.internet import main


def setCommandLine(argv: Sequence[str]) -> None:
    """
    Replace C{sys.argv}, the list of which is kept.
    """
    sys.argv[:] = argv


def setFirstPath(entry: str, *, always: bool = False) -> None:
    """
    Put C{entry} in front of the module search path, where Python puts a
    script's directory or the working directory, in place of what C{python -c}
    put there.

    @param always: do so even if the interpreter was told to leave the path
        alone (C{-P}, C{-I}).
    """
    flags = sys.flags
    safe = bool(getattr(flags, "safe_path", False) or flags.isolated)
    if safe and not always:
        return
    if sys.path[:1] == [""]:
        del sys.path[0]
    sys.path.insert(0, entry)


def twistdScript() -> str:
    """
    Find the C{twistd} that belongs to this interpreter.

    @return: its path; where none is installed, the one that it would have.
    """
    directories = [
        os.path.dirname(sys.executable),
        sysconfig.get_path("scripts"),
    ]
    paths = [os.path.join(directory, "twistd") for directory in directories]
    return next(filter(os.path.exists, paths), paths[0])


def reactorHasRun() -> bool:
    """
    Tell whether the program has run its reactor, or runs it now.  The reactor
    is not imported for that.
    """
    reactor = sys.modules.get("twisted.internet.reactor")
    return any(
        bool(getattr(reactor, name, False))
        for name in ("running", "_started", "_startedBefore")
    )


@contextmanager
def whenReactorRuns(callable: Callable[[], object]) -> Iterator[None]:
    """
    Have something called if the reactor begins to run within this context, also
    if it is installed only there.
    """
    within = True

    def runs() -> None:
        if within:
            callable()

    original: Callable[[Any], None] = main.installReactor

    def installReactor(reactor: Any) -> None:
        original(reactor)
        reactor.callWhenRunning(runs)

    reactor: Any = sys.modules.get("twisted.internet.reactor")
    if reactor is not None:
        reactor.callWhenRunning(runs)
    main.installReactor = installReactor
    try:
        yield
    finally:
        within = False
        if main.installReactor is installReactor:
            main.installReactor = original
