"""
Everything that can go wrong here, as one tree of exceptions.

The branch says whose fault it is: L{UsageError} is the caller's,
L{TargetError} the application's, L{ChannelError} the connection's or the
peer's, L{LifecycleError} reports what the cluster could not do.
"""

from __future__ import annotations

from typing import Optional


class ClusterError(Exception):
    """
    The base of every exception that C{twisted_cluster} raises by itself.
    """


class UsageError(ClusterError):
    """
    The calling code asked for something that makes no sense here: correct the
    call.
    """


class NotAWorker(UsageError):
    """
    A call that needs the watcher was made in a process that has none.  Ask
    C{cluster.isWorker()} first.
    """


class InsideWorker(UsageError):
    """
    A worker tried to start a cluster of its own.  Start it in the watcher's
    process, or in a process that is no worker.
    """


class AlreadyStarted(UsageError):
    """
    A watcher, or a hub, was started twice.  Each L{ClusterWatcher
    <twisted_cluster.watcher.ClusterWatcher>} runs once; make another.
    """


class NotRunning(UsageError):
    """
    A running watcher, or hub, was needed, and this one was not started yet or
    has stopped.
    """


class InvalidWorkerCount(UsageError, ValueError):
    """
    A number of workers that is not a whole number of one or more.
    """


class AlreadyConsumed(UsageError):
    """
    A second consumer tried to iterate messages that have one already.
    """


class InvalidEndpoint(UsageError, ValueError):
    """
    An endpoint description, or an address, that cannot be understood or that
    the cluster cannot bind.
    """


class InvalidBalance(UsageError, ValueError):
    """
    A way of balancing that does not exist, or whose code cannot be used.
    """


class NotTransferable(UsageError, TypeError):
    """
    What was to be sent is no socket, or none that another process could go on
    with: it speaks TLS, is closed, or is closing.  It is untouched.
    """


class InvalidKey(UsageError, ValueError):
    """
    A text that is no key of a hub; or, where a hub was asked to wait for who
    says it, none that it still knows: somebody waits for it already, it was
    used, or it has expired.
    """


class PIDFileError(UsageError):
    """
    The pid file cannot be written where it was asked for.

    @ivar path: the file.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"cannot write {path!r}: {reason}")
        self.path = path


class PIDFileInUse(PIDFileError):
    """
    The pid file belongs to a process that lives: stop that, or name another
    file.

    @ivar pid: the process, where the file names one.
    """

    def __init__(self, path: str, pid: Optional[int]) -> None:
        who = "another watcher is starting" if pid is None else f"process {pid} runs"
        super().__init__(
            path,
            f"{who}; stop it, name another file, or delete this one if that "
            f"process is something else",
        )
        self.pid = pid


class TargetError(ClusterError):
    """
    The application could not be loaded or started.

    @ivar reason: one line that says what is wrong.
    @ivar traceback: the traceback of the application's own code as text, or
        an empty string where there is none.
    """

    def __init__(self, reason: str, traceback: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.traceback = traceback

    def __str__(self) -> str:
        return f"{self.reason}\n{self.traceback}".rstrip()


class TargetLoadError(TargetError):
    """
    The target is missing, misspelt, or does not import: see the traceback.
    """


class TargetUsageError(TargetError):
    """
    The target refused the options that it was given.
    """


class TargetStartError(TargetError):
    """
    The target was loaded and then failed before it was ready: a port that is
    taken, say.
    """


class ChannelError(ClusterError):
    """
    What was sent did not arrive, or cannot be known to have arrived.
    """


class ChannelClosed(ChannelError):
    """
    The other side is gone.  Whether it saw what was sent last is unknown.
    """


class ChannelFull(ChannelError):
    """
    More was sent than the other side takes, and nobody waited: the queue of
    unsent messages is at its limit.  Await what C{send()} returns.
    """


class MessageTooLarge(ChannelError, ValueError):
    """
    A message over the limit of C{--max-message-size}; it was not sent.
    """


class MessageNotSerializable(ChannelError, TypeError):
    """
    A message that MessagePack cannot express; it was not sent.  Send plain
    data: None, bool, int, float, str, bytes, lists, dicts, C{msgspec.Struct}.
    """


class ProtocolError(ChannelError):
    """
    The peer broke the rules of the wire.  The channel was closed.
    """


class FrameIncomplete(ProtocolError):
    """
    The peer is gone, and what it said last is not complete: it died, most likely.
    """


class TransferFailed(ChannelError):
    """
    A socket was not taken over by the other side, which the text explains.  It
    is still the sender's.
    """


class ConnectionGone(ChannelError):
    """
    The client of a socket that was to be adopted has gone already.  Nothing is
    to be done about it: the socket has been closed.
    """


class HubRefused(ChannelError):
    """
    A hub did not let this process in: the key is wrong, was used already, or
    has expired; or the process belongs to another user.
    """


class HubClosed(ChannelError, ConnectionError):
    """
    There is no such hub, or no longer: it was closed, or its process has
    ended.  A process that was to connect to it has to be started anew.
    """


class HubTimeout(ChannelError, TimeoutError):
    """
    Nobody came to a hub in time and said the key, or the hub did not answer in
    time.
    """


class UnknownWorker(ChannelError, LookupError):
    """
    A message was addressed to a worker that does not live.
    """


class RequestTimeout(ChannelError):
    """
    No reply arrived within the time that C{request()} was given.
    """


class RequestFailed(ChannelError):
    """
    The other side's responder raised, or it has none: the text says which.
    """


class LifecycleError(ClusterError):
    """
    The cluster could not reach the state that it was asked for.
    """


class StartFailed(LifecycleError):
    """
    The first worker never became ready, so there is no cluster.

    @ivar status: the exit status of C{twisted-cluster run} that tells this
        failure: 2, 3 or 4.
    """

    def __init__(self, reason: str, status: int = 3) -> None:
        super().__init__(reason)
        self.status = status


class RestartFailed(LifecycleError):
    """
    The new workers did not become ready; the old ones serve on.  The text
    tells why.
    """


class Stopped(LifecycleError):
    """
    The cluster was stopped before what was asked for had happened.
    """


class CrashLooping(LifecycleError):
    """
    Workers keep dying early, and the watcher was told to give up then.
    """
