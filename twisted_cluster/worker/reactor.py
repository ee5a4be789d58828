"""
How a worker learns of the reactor that its program runs, without importing or
installing one.

Everything that installs a reactor calls
C{twisted.internet.main.installReactor}, looked up when it is called; so that
is the place to listen.  A program may install several, one after another, as
Daphne does: whichever runs is the one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import default, main
from twisted.python.reflect import namedAny

from twisted_cluster.errors import UsageError


def followReactor(
    runs: Callable[[Any], None],
    stops: Callable[[], None],
    stopped: Callable[[], None],
) -> Callable[[], None]:
    """
    Follow the life of whatever reactor the program runs.

    @param runs: called with the reactor when it has started to run.
    @param stops: called when it begins to shut down.
    @param stopped: called when it has shut down.
    @return: a callable that undoes this.
    """
    original = main.installReactor

    def installReactor(reactor: Any) -> None:
        original(reactor)
        reactor.callWhenRunning(runs, reactor)
        reactor.addSystemEventTrigger("before", "shutdown", stops)
        reactor.addSystemEventTrigger("after", "shutdown", stopped)

    def undo() -> None:
        main.installReactor = original

    main.installReactor = installReactor
    return undo


def chooseReactor(name: str) -> None:
    """
    Have C{import twisted.internet.reactor} install another reactor than
    Twisted's own choice.  An explicit install by the program wins.

    @param name: the short name of a reactor, as C{twistd --help-reactors}
        lists them.
    @raise UsageError: when there is no such reactor.
    """
    from twisted.application.reactors import getReactorTypes

    kinds = {kind.shortName: kind for kind in getReactorTypes()}
    if name not in kinds:
        raise UsageError(
            f"--reactor: there is no reactor {name!r}; "
            f"there are: {', '.join(sorted(kinds))}"
        )
    kind: Any = kinds[name]

    def install() -> None:
        namedAny(kind.moduleName).install()

    default.install = install
