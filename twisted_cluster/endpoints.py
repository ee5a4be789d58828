"""
The endpoint descriptions C{cluster:…} and C{local:…}, which say of a listen
whose it is.

C{cluster:tcp:8080} is the cluster's whenever it is opened, and
C{cluster:tcp:8080:balance=sticky} says who gets its next connection;
C{local:tcp:9000} is each worker's own, and nobody else's.  In a program that runs
alone, all of them just listen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.endpoints import quoteStringArgument, serverFromString
from twisted.internet.interfaces import IProtocolFactory, IStreamServerEndpoint
from zope.interface import implementer

from twisted_cluster.errors import InvalidEndpoint
from twisted_cluster.policy.balance import BALANCERS, KERNEL
from twisted_cluster.worker.modes import Mode, listenMode

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IListeningPort


@implementer(IStreamServerEndpoint)
@attrs.frozen
class MarkedEndpoint:
    """
    An endpoint whose listens are the cluster's, or this process's own.
    """

    _endpoint: IStreamServerEndpoint
    _mode: Mode
    _balance: str = ""

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """
        Listen as the inner endpoint does.
        """
        with listenMode(self._mode, self._balance):
            return self._endpoint.listen(protocolFactory)


def _quote(word: str) -> str:
    return str(quoteStringArgument(word)).replace("=", "\\=")


def _inner(prefix: str, words: tuple[str, ...], options: dict[str, str]) -> str:
    """
    Put the description together again that was within.
    """
    if not words:
        raise InvalidEndpoint(
            f"{prefix}: needs an endpoint after it, as in {prefix}:tcp:8080"
        )
    if words[0] in ("cluster", "local"):
        raise InvalidEndpoint(f"{prefix}: needs an ordinary endpoint, not {words[0]}:")
    pairs = [f"{_quote(name)}={_quote(value)}" for name, value in options.items()]
    return ":".join([*map(_quote, words), *pairs])


def clusterEndpoint(reactor: Any, *args: Any, **kwargs: Any) -> IStreamServerEndpoint:
    """
    Make the endpoint of C{cluster:ENDPOINT}, with an optional
    C{balance=NAME}, which listens for the whole cluster.

    Code of one's own can be named as well, if the watcher was given the same
    name: otherwise listening fails with C{CannotListenError}.

    @param args: the words after C{cluster:}, as Twisted has taken them apart.
    @param kwargs: its options.
    @raise InvalidEndpoint: when there is no ordinary endpoint within, or no such
        way of balancing.
    @raise ValueError: when the endpoint within cannot be understood.
    """
    balance = kwargs.pop("balance", "")
    names = [KERNEL, *BALANCERS]
    if balance and balance not in names and not {".", ":"} & set(balance):
        raise InvalidEndpoint(
            f"there is no balance={balance}; it can be {', '.join(names)}, or what "
            f"the watcher was given as --balance"
        )
    inner = serverFromString(reactor, _inner("cluster", args, kwargs))
    return MarkedEndpoint(inner, "cluster", balance)


def localEndpoint(reactor: Any, *args: Any, **kwargs: Any) -> IStreamServerEndpoint:
    """
    Make the endpoint of C{local:ENDPOINT}, which listens for this process
    alone.

    @raise InvalidEndpoint: when there is no ordinary endpoint within.
    @raise ValueError: when the endpoint within cannot be understood.
    """
    inner = serverFromString(reactor, _inner("local", args, kwargs))
    return MarkedEndpoint(inner, "local")
