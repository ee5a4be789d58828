"""
Every command that crosses a channel, and which way.

Two channels connect the watcher with each worker.  The I{control} channel
carries everything but descriptors, both ways, once the worker's reactor runs;
before that and after it, the worker only writes to it.  On the
I{server-socket} channel the worker asks, one question at a time and waiting
for the answer, and the watcher answers.

AMP ends a value at 65,535 bytes.  What may be longer travels as a I{batch} in
pieces: consecutive commands of one kind whose C{data} is to be joined, all but
the last with C{more} true.
"""

from __future__ import annotations

from typing import ClassVar, Final

from twisted.protocols import amp

Arguments = list[tuple[bytes, amp.Argument]]

PIECE: Final = 60_000
"""
The most bytes of a batch that one command carries: below AMP's 65,535, with
room for the other values of the box in a 64 KiB read.
"""

TAKEN: Final = 0
UNKNOWN: Final = 1
"""Of a message for another worker: there is no such worker."""
FULL: Final = 2
"""Of a message for another worker: too much waits for that one."""


class Hello(amp.Command):
    """
    Worker to watcher, first of all, written before the target is touched: the
    bootstrap runs.
    """

    arguments = [
        (b"pid", amp.Integer()),
        (b"version", amp.Unicode()),
    ]
    requiresAnswer = False


class Ready(amp.Command):
    """
    Worker to watcher, once: now I serve.
    """

    arguments: ClassVar[Arguments] = []
    requiresAnswer = False


class Failed(amp.Command):
    """
    Worker to watcher, once, instead of L{Ready}: the target could not be
    loaded or started, and the process ends now.

    C{stage} is C{load} (missing, does not import), C{usage} (the target's own
    options), C{help} (the target printed its help and wants nothing more) or
    C{start} (loaded, then failed).  C{reason} is one line; C{traceback} is the
    application's own, cut to its last L{PIECE} bytes.
    """

    arguments = [
        (b"stage", amp.Unicode()),
        (b"reason", amp.Unicode()),
        (b"traceback", amp.Unicode()),
    ]
    requiresAnswer = False


class Ping(amp.Command):
    """
    Watcher to worker: does your reactor turn?  The answer comes from the
    reactor, never from a thread.  C{delay} is by how many seconds, at most, it was
    late for what was due since the last ping.
    """

    arguments: ClassVar[Arguments] = []
    response = [(b"delay", amp.Float())]


class Messages(amp.Command):
    """
    Both ways: a piece of a batch of messages.

    The batch is a MessagePack array.  Its items depend on C{kind}:

      - C{m}: messages; an item is the data itself.
      - C{q}: requests; an item is C{[id, data]}.
      - C{r}: replies; an item is C{[id, true, data]}, or C{[id, false, text]}
        where the responder failed.
      - C{f}: messages for another worker, to the watcher; an item is
        C{[to, data]}.
      - C{w}: messages from another worker, to a worker; an item is
        C{[sender, data]}.

    The answer to the last piece comes when all of the batch has been taken
    over by the receiver's queue, which is what the sender waits for.  Its
    C{refused} is empty, unless forwards could not be passed on; then it has a
    byte for each item of the batch, one of L{TAKEN}, L{UNKNOWN} and L{FULL}.
    """

    arguments = [
        (b"kind", amp.String()),
        (b"data", amp.String()),
        (b"more", amp.Boolean()),
    ]
    response = [(b"refused", amp.String())]


class UnconfirmedMessages(Messages):
    """
    A batch of messages, in one piece, that is not answered.  Requests and
    replies come so, but for one piece in each L{PIECE} bytes: they are answered
    by their like, and what is on its way is bounded all the same.
    """

    commandName = Messages.commandName
    requiresAnswer = False


class LogEvents(amp.Command):
    """
    Worker to watcher: a piece of a batch of log events, see
    L{twisted_cluster.ipc.logs}.  C{dropped} counts the events that were
    discarded since the last batch because the queue was full.
    """

    arguments = [
        (b"data", amp.String()),
        (b"more", amp.Boolean()),
        (b"dropped", amp.Integer()),
    ]
    response: ClassVar[Arguments] = []


class Stopping(amp.Command):
    """
    Worker to watcher: I end by myself (C{cluster.shutdown()}, a signal, the
    program stopped its reactor).
    """

    arguments: ClassVar[Arguments] = []
    requiresAnswer = False


class Draining(amp.Command):
    """
    Worker to watcher: I accept no more connections.
    """

    arguments: ClassVar[Arguments] = []
    requiresAnswer = False


class Recycle(amp.Command):
    """
    Worker to watcher: replace me, for the reason C{why}; I serve on until then.
    """

    arguments = [(b"why", amp.Unicode())]
    requiresAnswer = False


class Terminate(amp.Command):
    """
    Watcher to worker: drain, then leave.  C{delay} is for how many seconds to serve
    on before that, having told the program; C{others} says whether other workers
    serve on, so that idle connections can move to them.
    """

    arguments = [(b"delay", amp.Float()), (b"others", amp.Boolean())]
    requiresAnswer = False
