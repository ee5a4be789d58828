"""
Makes a socket that came from another process a live connection of a reactor.
"""

from __future__ import annotations

import errno
import socket
from typing import Any, Optional

from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_cluster.errors import ConnectionGone, NotTransferable
from twisted_cluster.sockets.clients.detach import isReading

_log = Logger("twisted_cluster")

_GONE = (errno.ENOTCONN, errno.EINVAL, errno.ECONNRESET)
_SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class NoDescriptor(OSError):
    """
    This process cannot open another descriptor at the moment, which adopting a
    socket takes; the socket was not touched.
    """


def attach(
    reactor: Any, descriptor: int, factory: IProtocolFactory, unread: bytes = b""
) -> Optional[IProtocol]:
    """
    Let a factory's protocol go on with a connected stream socket: of IPv4, IPv6
    or UNIX.  The connection is accepted, not made: the factory is one of servers.

    @param reactor: an L{IReactorSocket
        <twisted.internet.interfaces.IReactorSocket>}.
    @param descriptor: the socket, which is this function's from now on, unless it
        raises L{NotTransferable} or L{NoDescriptor}.  It is made non-blocking for
        all who share it.
    @param unread: what was read from the connection and belongs to the protocol:
        the first that its C{dataReceived} is given, as soon as it reads.
    @return: the protocol, or L{None} when the factory wants none; the socket
        is closed then.
    @raise ConnectionGone: when the client has gone already; the socket has been
        closed.
    @raise NotTransferable: when it is no connected stream socket; the descriptor
        is still the caller's.
    @raise NoDescriptor: when this process is at its limit of open files; the
        descriptor is still the caller's, who may try again later.
    @raise Exception: what the factory's C{buildProtocol} or the protocol's
        C{makeConnection} raises.
    """
    with _asSocket(descriptor) as skt:
        skt.setblocking(False)
        builder = _Builder(factory)
        try:
            if skt.family == socket.AF_UNIX:
                # Else Twisted would first build a protocol.
                skt.getpeername()
            transport = reactor.adoptStreamConnection(skt.fileno(), skt.family, builder)
        except BaseException as error:
            builder.abandon()
            if not isinstance(error, OSError):
                raise
            if error.errno in _SCARCE and builder.protocol is None:
                raise _noDescriptor(skt.detach(), error) from error
            if error.errno not in _GONE:
                raise
            if skt.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                raise _refusal(skt.detach(), "a listening socket") from error
            raise ConnectionGone(
                f"the client has gone before its connection was adopted: {error}"
            ) from error
    builder.check()
    if transport is not None and unread:
        Unread(transport, unread)
    return builder.protocol


class _Builder:
    """
    Builds a factory's protocol.  Twisted forgets its duplicate of the socket when
    the factory raises, and a transport when its protocol does.
    """

    def __init__(self, factory: IProtocolFactory) -> None:
        self._factory = factory
        self._failure: Optional[Failure] = None
        self.protocol: Optional[IProtocol] = None

    def buildProtocol(self, address: IAddress) -> Optional[IProtocol]:
        try:
            self.protocol = self._factory.buildProtocol(address)
        except BaseException:
            self._failure = Failure()
            return None
        return self.protocol

    def check(self) -> None:
        """
        Raise what the factory raised.
        """
        if self._failure is not None:
            self._failure.raiseException()

    def abandon(self) -> None:
        """
        End the connection of a protocol that raised when it was made, and go on
        raising that.
        """
        transport: Any = getattr(self.protocol, "transport", None)
        if transport is not None:
            transport.connectionLost(Failure())
            raise


def _asSocket(descriptor: int) -> socket.socket:
    """
    @raise NotTransferable: when it cannot be a connection; it is untouched.
    """
    try:
        skt = socket.socket(fileno=descriptor)
    except OSError as error:
        raise NotTransferable(
            f"descriptor {descriptor} is no socket: {error}"
        ) from error
    if skt.type != socket.SOCK_STREAM:
        raise _refusal(skt.detach(), f"a socket of type {skt.type!r}")
    if skt.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        raise _refusal(skt.detach(), f"a socket of family {skt.family!r}")
    return skt


def _refusal(descriptor: int, what: str) -> NotTransferable:
    return NotTransferable(
        f"descriptor {descriptor} is {what}, not a connected stream socket"
    )


def _noDescriptor(descriptor: int, error: OSError) -> NoDescriptor:
    return NoDescriptor(
        error.errno,
        f"cannot adopt descriptor {descriptor} now: {error.strerror} (see "
        "RLIMIT_NOFILE); it is open still, try again later",
    )


class Unread:
    """
    Gives a transport's protocol what was read before, once it reads, and
    before anything else.
    """

    def __init__(self, transport: Any, data: bytes) -> None:
        self._transport = transport
        self._data = data
        if isReading(transport):
            self._deliver()
        else:
            # Whoever pauses in connectionMade is not called before it resumes.
            self._start = transport.startReading
            transport.startReading = self._startReading

    def _startReading(self) -> None:
        self._transport.doRead = self._deliver
        self._start()
        self._transport.reactor.callLater(0, self._later)

    def _later(self) -> None:
        if self._data and isReading(self._transport):
            self._deliver()

    def _deliver(self) -> None:
        transport, data = self._transport, self._data
        self._data = b""
        for name in ("startReading", "doRead"):
            vars(transport).pop(name, None)
        if not data or transport.disconnected:
            return
        try:
            transport.protocol.dataReceived(data)
        except Exception:
            failure = Failure()
            _log.failure("a protocol failed on what was read before", failure)
            transport.connectionLost(failure)
