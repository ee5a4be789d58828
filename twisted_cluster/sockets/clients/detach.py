"""
Takes a live connection out of its reactor, so that its socket can go to another
process.

The rules:

  1. From the first moment nothing more is read: what the client sends stays in
     the kernel and travels with the socket.
  2. What the protocol has written is sent first; then nothing more is.  What
     the protocol does to its transport in the meantime (write, close, pause,
     resume) is held back: it happens if the connection stays, and never if it
     goes.
  3. If it goes, the socket is closed here without C{shutdown(2)} and without
     SO_LINGER, which act on every process's copy; the protocol hears
     L{ConnectionTransferred}.  If it stays, nobody notices anything.

This is the one place that touches these private parts of Twisted for that:
C{_shouldShutdown}, C{_aborting}, C{_writeDisconnecting}, C{_writeDisconnected},
C{_tempDataLen}, C{_sendmsgQueue}, besides C{dataBuffer}, C{offset} and C{TLS},
and, to spare a search, the reactors' C{_reads} and C{_readers}.  They are looked
for before the first use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Optional

from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, ISSLTransport
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure

from twisted_cluster.errors import ClusterError, NotTransferable, TransferFailed

_log = Logger("twisted_cluster")

FLUSH_TIMEOUT: Final = 30.0
"""
Seconds that a client may take to read what was written, by default.
"""

NEEDED: Final = (
    "TLS",
    "connected",
    "disconnected",
    "disconnecting",
    "producer",
    "dataBuffer",
    "offset",
    "_tempDataLen",
    "_writeDisconnecting",
    "_writeDisconnected",
    "_shouldShutdown",
    "_aborting",
)
"""
What the installed Twisted's transports must have for this.
"""

NEEDED_OF_UNIX: Final = (*NEEDED, "_sendmsgQueue")
"""
What those of UNIX sockets must have.
"""


class ConnectionTransferred(ConnectionDone):
    """
    Another process has taken the connection over.
    """

    MESSAGE = "Connection was transferred to another process"


def checkTransferable(transport: object, mayProduce: bool = False) -> None:
    """
    Look whether a transport's connection could go to another process.

    @param mayProduce: see L{detach}.
    @raise NotTransferable: when it could not, saying why and what to do.
    @raise ClusterError: when this version of Twisted is not known well enough.
    """
    if isinstance(transport, tcp.Connection):
        isUNIX = isinstance(transport, (unix.Server, unix.Client))
        needed = NEEDED_OF_UNIX if isUNIX else NEEDED
        missing = [name for name in needed if not hasattr(transport, name)]
        if missing:
            raise ClusterError(
                "this version of Twisted cannot send connections to another process: "
                f"{', '.join(missing)} is not there; please report it"
            )
    why = _whyNot(transport, mayProduce)
    if why:
        raise NotTransferable(f"cannot send {transport!r} to another process: {why}")


def _whyNot(transport: Any, mayProduce: bool) -> str:
    if getattr(transport, "TLS", False) or ISSLTransport.providedBy(transport):
        return (
            "it speaks TLS, whose keys cannot be sent; send the connection before "
            "TLS begins, and let the other process speak it"
        )
    if isinstance(transport, ProtocolWrapper):
        return "it wraps a transport; send that one, its .transport"
    if not isinstance(transport, tcp.Connection):
        return (
            "it is no stream transport of Twisted's own over a socket; send the "
            "transport beneath, the socket, or its descriptor"
        )
    if not transport.connected:
        return "it is not connected" + " any more" * bool(transport.disconnected)
    if "startReading" in vars(transport):
        return (
            "it is being sent already, or came from another process and its protocol "
            "has not yet read what came along"
        )
    if transport.disconnecting or transport._aborting:
        return "it is closing"
    if transport._writeDisconnecting or transport._writeDisconnected:
        return "its writing side is closed (loseWriteConnection)"
    if transport.producer is not None and not mayProduce:
        return (
            f"{transport.producer!r} is registered as its producer and may go on "
            "writing; unregister it first"
        )
    return ""


def isReading(transport: Any) -> bool:
    """
    Whether a reactor watches for what a transport's client sends.
    """
    reactor = transport.reactor
    for name, key in (("_reads", transport.fileno()), ("_readers", transport)):
        found = getattr(reactor, name, None)
        if isinstance(found, (set, dict)) and key in found:
            return True
    return transport in reactor.getReaders()


def detach(
    transport: Any, timeout: float = FLUSH_TIMEOUT, mayProduce: bool = False
) -> Deferred[Detached]:
    """
    Take a live connection out of its reactor: stop reading at once, and send
    what was written.

    @param transport: of a TCP or UNIX stream connection, from either side.
    @param timeout: seconds that the client may take to read what was written.
    @param mayProduce: accept a transport with a registered producer: the caller
        knows that it has nothing more to write.
    @return: a Deferred of the L{Detached}; it has fired already when nothing is
        left to be sent.  Cancelling it lets the connection go on.  It fails, and
        the connection lives on where it can, with L{NotTransferable} (at once,
        or when that changes while the rest is sent: by C{startTLS}, or a
        producer); with L{TransferFailed} when the connection ended meanwhile, of
        which the protocol was told as always, or when the client did not read in
        time; with L{ClusterError} when this version of Twisted is not known well
        enough.
    """
    try:
        checkTransferable(transport, mayProduce)
    except ClusterError:
        return fail()
    return Detached(transport, mayProduce)._flush(timeout)


class Detached:
    """
    A live connection that no reactor watches.  Either L{complete} or L{resume}
    is to be called, once.

    @ivar transport: its transport.
    """

    def __init__(self, transport: Any, mayProduce: bool) -> None:
        """
        Made by L{detach} only.
        """
        self.transport = transport
        self._mayProduce = mayProduce
        self._reading = isReading(transport)
        self._aborted = False
        self._waiter: Optional[Deferred[Detached]] = None
        self._timeout: Optional[IDelayedCall] = None
        self._before: dict[str, Any] = {}
        self._hooks: dict[str, Callable[..., Any]] = {}
        self._stopReading()

    @property
    def descriptor(self) -> int:
        """
        The socket's descriptor.  It is the transport's, and stays open until
        L{complete}, or as long as the connection lives after L{resume}.
        """
        number: int = self.transport.fileno()
        return number

    def complete(self) -> None:
        """
        Let the connection go: another process has its socket.  The socket is
        closed, and the protocol's C{connectionLost} is called with
        L{ConnectionTransferred}; so is, for a client, its factory's
        C{clientConnectionLost}.
        """
        self._unhook(*self._hooks)
        self.transport._shouldShutdown = False
        try:
            self.transport.connectionLost(Failure(ConnectionTransferred()))
        except Exception:
            _log.failure("a protocol failed when its connection had been transferred")

    def resume(self) -> None:
        """
        Let the connection live on here, and do what its protocol asked for in
        the meantime.
        """
        self._unhook(*self._hooks)
        transport = self.transport
        if not transport.connected:
            return
        if self._aborted:
            transport.abortConnection()
            return
        if self._reading and not transport.disconnecting:
            transport.startReading()
        if (
            _unsent(transport)
            or transport.disconnecting
            or transport._writeDisconnecting
        ):
            transport.startWriting()

    def _flush(self, timeout: float) -> Deferred[Detached]:
        if not _unsent(self.transport):
            self._hold()
            return succeed(self)
        flush, lose = self.transport.doWrite, self.transport.connectionLost
        self._hook(
            doWrite=lambda: self._doWrite(flush),
            connectionLost=lambda reason: self._connectionLost(lose, reason),
        )
        self._timeout = self.transport.reactor.callLater(timeout, self._late, timeout)
        self._waiter = Deferred(self._cancelled)
        return self._waiter

    def _stopReading(self) -> None:
        self.transport.stopReading()
        self._hook(
            doRead=lambda: None,
            startReading=lambda: self._wantReading(True),
            stopReading=lambda: self._wantReading(False),
        )

    def _hold(self) -> None:
        self.transport.stopWriting()
        self._hook(startWriting=lambda: None, abortConnection=self._abort)

    def _doWrite(self, flush: Callable[[], Any]) -> Any:
        why = flush()
        if why is None and self._waiter is not None and not _unsent(self.transport):
            waiter = self._settled(*self._hooks)
            try:
                checkTransferable(self.transport, self._mayProduce)
            except ClusterError as error:
                self.resume()
                waiter.errback(error)
            else:
                self._stopReading()
                self._hold()
                waiter.callback(self)
        return why

    def _connectionLost(self, lose: Callable[[Any], None], reason: Failure) -> None:
        waiter = self._settled(*self._hooks)
        try:
            lose(reason)
        finally:
            waiter.errback(
                TransferFailed(
                    "the connection ended before all that was written had been sent: "
                    + reason.getErrorMessage()
                )
            )

    def _cancelled(self, _: object) -> None:
        self._resumed()

    def _late(self, timeout: float) -> None:
        self._timeout = None
        self._resumed().errback(
            TransferFailed(
                f"the client did not read what was written to it within {timeout:g} s"
            )
        )

    def _settled(self, *hooks: str) -> Deferred[Detached]:
        """
        End the waiting for the client, and the hooks that it needs no more.
        """
        waiter, self._waiter = self._waiter, None
        timeout, self._timeout = self._timeout, None
        assert waiter is not None
        if timeout is not None:
            timeout.cancel()
        self._unhook(*hooks)
        return waiter

    def _resumed(self) -> Deferred[Detached]:
        """
        End the waiting, and let the connection live on.
        """
        waiter = self._settled(*self._hooks)
        self.resume()
        return waiter

    def _wantReading(self, wanted: bool) -> None:
        self._reading = wanted

    def _abort(self) -> None:
        self._aborted = True

    def _hook(self, **hooks: Callable[..., Any]) -> None:
        attributes = vars(self.transport)
        for name, hook in hooks.items():
            if name in attributes:
                self._before[name] = attributes[name]
            self._hooks[name] = attributes[name] = hook

    def _unhook(self, *names: str) -> None:
        attributes = vars(self.transport)
        for name in names:
            if attributes.get(name) is self._hooks.pop(name):
                del attributes[name]
                if name in self._before:
                    attributes[name] = self._before[name]


def _unsent(transport: Any) -> bool:
    """
    Whether the kernel has not yet been given all that was written.
    """
    return bool(
        len(transport.dataBuffer) - transport.offset
        or transport._tempDataLen
        or getattr(transport, "_sendmsgQueue", None)
    )
