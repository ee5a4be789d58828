"""
Every zope interface of the library, and the plain values that they pass.

Messages are structs of msgspec, which are made many times faster than the
library's other values.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Optional

import attrs
import msgspec
from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

Data = Any
"""
What a message may hold: None, bool, int, float, str, bytes, datetimes, UUIDs,
lists, tuples (they arrive as lists), sets (likewise), dicts and
C{msgspec.Struct}s (they arrive as dicts) of these.
"""

Responder = Callable[..., Any]
"""
What answers requests: called with the request's data, and in the watcher with
the L{IWorkerHandle} that asks as a second argument.  It returns the reply, or
a Deferred or a coroutine of it; what it raises becomes the asker's
L{RequestFailed<twisted_cluster.errors.RequestFailed>}.
"""


class Message(msgspec.Struct, frozen=True):
    """
    A message that a worker received.

    @ivar data: what was sent.
    @ivar sender: the id of the worker that sent it, or L{None} when it came
        from the watcher.
    """

    data: Data
    sender: Optional[int] = None


class WorkerMessage(msgspec.Struct, frozen=True):
    """
    A message that the watcher received.

    @ivar data: what was sent.
    @ivar worker: the L{IWorkerHandle} of the worker that sent it.
    """

    data: Data
    worker: Any


class IMessageSender(Interface):
    """
    One end of a connection that carries messages, as its user sees it.

    Messages arrive whole and in the order of the calls.  Nothing is ever sent
    twice.
    """

    def send(data: Data) -> Deferred[None]:
        """
        Send one message.  The data is encoded before this returns, so that it
        may be changed afterwards.

        @return: a Deferred that fires when the other side's queue has taken
            the message over.  It fails with L{MessageNotSerializable},
            L{MessageTooLarge}, L{ChannelFull} (too much is waiting: await the
            earlier ones first), L{ChannelClosed}.
        """

    def sendMany(items: Iterable[Data]) -> Deferred[None]:
        """
        Send several messages, as if by one L{send} each, at a lower price.

        @return: a Deferred that fires when all have been taken over; it fails
            as that of L{send} does.  When one item cannot be sent, none is.
        """

    def request(data: Data, timeout: float = 30.0) -> Deferred[Data]:
        """
        Ask the other side's responder.

        @param timeout: seconds to wait for the reply.
        @return: a Deferred of the reply.  It fails with L{RequestTimeout},
            L{RequestFailed}, or as that of L{send} does.
        """


class IChannel(IMessageSender):
    """
    A worker's connection to its watcher: what C{cluster.channel()} returns.

    It belongs to the reactor's thread: elsewhere, call its methods by
    C{reactor.callFromThread}.
    """

    def send(data: Data, to: Optional[int] = None) -> Deferred[None]:
        """
        Send one message to the watcher, or to another worker.

        @param to: the id of a worker, or L{None} for the watcher.
        @return: as L{IMessageSender.send}; for another worker, it fires when
            the watcher has taken the message over, and fails with
            L{UnknownWorker} when there is no such worker, and with
            L{ChannelFull} when too much waits for it already.
        """

    def responder(callable: Optional[Responder]) -> None:
        """
        Set what answers the watcher's requests, or unset it.
        """

    def __aiter__() -> AsyncIterator[Message]:
        """
        Iterate over the messages that arrive, as L{Message}.  One consumer
        may do so at a time; another gets L{AlreadyConsumed}.  The iteration
        ends when the channel closes.
        """


class IWorkerHandle(IMessageSender):
    """
    A worker, as the watcher and its user see it.
    """

    id = Attribute("The worker's id: 1, 2, 3 …, never reused. C{int}.")
    slot = Attribute("The place it takes, 0 … N-1. C{int}.")
    generation = Attribute("Which generation of the code it runs, from 1. C{int}.")
    pid = Attribute("Its process id, or None before it was spawned. C{int} or None.")
    state = Attribute(
        "C{starting}, C{ready}, C{draining}, C{stopping} or C{dead}. C{str}."
    )


@attrs.frozen
class Connection:
    """
    A connection that waits for a worker.

    @ivar address: what the client connected to, such as C{tcp:0.0.0.0:8080}.
    @ivar peer: the client's numeric address, without its port; empty for a
        client of a UNIX socket.
    @ivar firstBytes: what the client has sent so far, at most as much as the
        balancer wants to see.  It is still in the socket: the worker reads it.
    @ivar final: whether no more will be shown: the time is over, there is
        enough, the client sends no more, or the balancer wants to see nothing.
    """

    address: str
    peer: str
    firstBytes: bytes = b""
    final: bool = True


@attrs.define(eq=False)
class Candidate:
    """
    A worker that could take a connection.

    @ivar worker: its id.
    @ivar slot: its slot.
    @ivar connections: how many it was given that have not ended, as far as the
        watcher knows; of all the addresses that are balanced.
    """

    worker: int
    slot: int
    connections: int = 0


class IBalancer(Interface):
    """
    Decides which worker gets a connection.  It runs in the watcher, for each
    connection at least once: it must not block.

    One object serves one listening address.  C{--balance} and C{balance=} name
    what makes it: a class or a function without arguments.
    """

    firstBytes = Attribute(
        "How many of a connection's first bytes to look at before choosing; 0 to "
        "choose at once. C{int}."
    )
    patience = Attribute(
        "Seconds to wait for those bytes, after which the choice is to be made "
        "without. C{float}."
    )

    def choose(
        connection: Connection, candidates: Sequence[Candidate]
    ) -> Optional[Candidate]:
        """
        Choose a worker.

        That is asked once for most connections.  It is asked again about one when
        more of its first bytes may have come, and when the worker that was chosen
        did not take it, or leaves and lets another have it.  So to count questions
        is not to count connections.

        @param candidates: one or more, ordered by id: the workers that listen
            on the address and keep up.  The sequence is the caller's, and valid
            only until this returns.
        @return: one of the candidates.  L{None} says, while the connection is
            not C{final}, that more of the first bytes are needed; and when it is,
            that any worker will do.
        """


class IDrainable(Interface):
    """
    How a connection ends when its worker leaves.

    A protocol provides this, or its class is adapted to it, by
    C{twisted.python.components.registerAdapter(adapter, ProtocolClass, IDrainable)}.
    Connections of C{twisted.web}'s HTTP/1.1 and HTTP/2, and of Autobahn's
    WebSockets, have theirs.  Any other is left alone until it ends by itself, or
    the time is over.
    """

    def drain(drain: IDrain) -> None:
        """
        End the connection as soon as nobody loses anything by that: what has been
        asked for is answered, nothing new is taken on, and then it is closed, by
        either side, or moved.  The reactor runs on, and the worker waits until the
        connection has ended.

        Called once for each connection.  What it raises is logged, and the
        connection left alone.
        """


class IDrain(Interface):
    """
    What the protocol of one connection may do with it when it is to be drained.
    """

    transport = Attribute(
        "The transport of the socket itself, beneath TLS. "
        "L{ITransport<twisted.internet.interfaces.ITransport>}."
    )
    idle = Attribute(
        "Seconds that a client which has asked for nothing is given, where the "
        "connection cannot move (--drain-idle). C{float}."
    )
    clock = Attribute(
        "Keeps time. L{IReactorTime<twisted.internet.interfaces.IReactorTime>}."
    )

    def move(unread: bytes = b"") -> Deferred[None]:
        """
        Let another worker have the connection, whose factory builds a protocol for
        it as for a new one.  The client does not notice.  To be called while the
        client waits for nothing; until the outcome, the protocol must leave the
        transport alone.

        @param unread: what the protocol has read and not used.
        @return: a Deferred that fires when another process has it: this protocol's
            C{connectionLost} was called.  It fails, and the connection goes on here,
            with L{NotTransferable} (it speaks TLS, say) or L{TransferFailed} (there is
            no other worker, say).
        """

    def close() -> bool:
        """
        Close an idle connection, unless the client has sent something at this very
        moment, which would be lost.

        @return: whether it was closed; if not, the request that comes is to be
            answered.
        """


class ILogSink(Interface):
    """
    Takes encoded log events on their way to the watcher.
    """

    def put(level: int, data: bytes) -> None:
        """
        Take one event over.  May be called from any thread.

        @param level: 10 (debug), 20 (info), 30 (warn), 40 (error) or 50
            (critical).  From 40 on the event is written at once.
        @param data: the event, as L{twisted_cluster.ipc.logs.encodeEvent}
            makes it.
        """


class IStartup(Interface):
    """
    What the parts of a worker tell of its start, and ask of it.
    """

    ready = Attribute("Whether the worker is ready. C{bool}.")

    def portOpened() -> None:
        """
        The program opened a listening port, of whatever kind.
        """

    def serviceStarted() -> None:
        """
        A target that is a service has started, and the listens that it began
        have ended well.  Never called for scripts and modules.
        """

    def failed(stage: str, reason: str, traceback: str) -> None:
        """
        The target failed, see L{twisted_cluster.ipc.commands.Failed}.  The
        first call counts.
        """

    def whenReady(callable: Callable[[], object]) -> None:
        """
        Have something called when the worker becomes ready; at once if it is.
        """
