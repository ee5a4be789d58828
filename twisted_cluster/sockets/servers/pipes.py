"""
Gives listening sockets to other processes, and listens on what is given.

A L{ServerSocketPipeProvider} binds; a L{ServerSocketPipeFactory}, in another
process, makes the endpoints that listen on what it bound.  Between them is a
connected UNIX stream socket: a C{socketpair} that a child inherits, or one that
L{twisted_cluster.sockets.hub.hub} made.

The rules:

  1. One address is bound once, however many ask for it: they accept from the
     same socket, and connections go to whoever takes them first.
  2. A socket is closed when the last that listens on it stops, or is gone.
  3. Whoever asks is told what C{bind} said.
  4. What a peer listens on, it serves on when the provider is gone.
"""

from __future__ import annotations

import errno
import os
import socket
from itertools import count
from typing import Final

import attrs
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IReactorFDSet,
    IReactorSocket,
    IReactorTime,
    IStreamServerEndpoint,
)
from twisted.logger import Logger
from zope.interface import implementer

from twisted_cluster.errors import (
    ChannelClosed,
    InvalidEndpoint,
    ProtocolError,
    UsageError,
)
from twisted_cluster.sockets.addresses import (
    Address,
    BindRequest,
    Refused,
    Shared,
    SocketRequest,
    Verdict,
    parseBind,
)
from twisted_cluster.sockets.servers.adoption import adoptPort
from twisted_cluster.sockets.servers.answering import ServerSocketProtocol
from twisted_cluster.sockets.servers.asking import AskingProtocol, AskingTransport
from twisted_cluster.sockets.servers.binding import LockHeld
from twisted_cluster.sockets.servers.sharing import SharedSocket, SharedSockets, refusal
from twisted_cluster.sockets.wire.connections import checkConnection
from twisted_cluster.sockets.wire.transport import UNIXTransport

_log = Logger("twisted_cluster")


TIMEOUT: Final = 30.0
"""
Seconds that a listen waits for the provider.
"""


class ServerReactor(IReactorSocket, IReactorFDSet, IReactorTime):
    """
    What a process needs of its reactor to listen.
    """


@attrs.define(eq=False)
class _Peer:
    """
    One who may ask.

    @ivar gone: fires when it is gone, unless that was cancelled.
    """

    transport: UNIXTransport
    gone: Deferred[None]
    cancelled: bool = False


class ServerSocketPipeProvider:
    """
    Binds sockets for all peers that it serves, and owns them.
    """

    def __init__(self, reactor: IReactorFDSet, backlog: int = socket.SOMAXCONN) -> None:
        """
        @param backlog: how many connections may wait on a socket, at least; the
            kernel's own limit holds besides.
        """
        self._reactor = reactor
        self._sockets = SharedSockets(SharedSocket, backlog, _log)
        self._peers: dict[int, _Peer] = {}
        self._ids = count(1)
        self._closed = False

    @property
    def addresses(self) -> list[str]:
        """
        What is listened on, as text.
        """
        return sorted(map(str, self._sockets.addresses))

    def provideFor(self, connection: socket.socket) -> Deferred[None]:
        """
        Bind whatever the peer at the other end of a connection asks for, with
        the rights of this process, until it is gone.

        @param connection: a connected UNIX stream socket, which is taken over
            even when this fails.  It is made non-blocking, for all who share it.
        @return: a Deferred that fires when the peer is gone, or when L{close} was
            called; sockets that nobody else uses have been closed.  It fails
            with L{ProtocolError} when the peer broke the rules and was cut off,
            with L{ChannelClosed} after L{close}, and with L{UsageError} for a
            socket of another kind.  Cancelling it cuts the peer off, and it fails
            with C{CancelledError}.
        """
        try:
            checkConnection(connection)
        except UsageError as error:
            return fail(error)
        if self._closed:
            connection.close()
            return fail(ChannelClosed("this provider was closed"))
        peer = next(self._ids)
        protocol = ServerSocketProtocol(self, peer, f"peer {peer}")
        protocol.ended = lambda error: self._ended(peer, error)
        transport = UNIXTransport(self._reactor, connection, protocol)
        gone: Deferred[None] = Deferred(lambda _: self._cancel(peer))
        self._peers[peer] = _Peer(transport, gone)
        transport.start()
        return gone

    def close(self) -> None:
        """
        Close every socket and the connections to all peers, and remove what is
        left of them in the file system.  What peers listen on, they serve on
        until they stop: but for UNIX sockets, whose paths are gone.
        """
        self._closed = True
        for peer in list(self._peers.values()):
            peer.transport.discard()

    def request(self, peer: int, request: SocketRequest, skt: socket.socket) -> Verdict:
        """
        Answer a peer: see L{twisted_cluster.sockets.servers.answering.Decider}.
        """
        wanted = request.wanted
        found = self._sockets.find(request)
        if found is not None and peer in found.users:
            skt.close()
            return Refused(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        if found is not None and found.bound.vanished():
            _log.warn(
                "Somebody removed the file of {address}: it is bound anew.  Only "
                "those that listen from now on can be reached there.",
                address=wanted.address,
            )
        try:
            shared = self._sockets.use(peer, request, skt)
        except (LockHeld, OSError) as error:
            return refusal(error)
        return Shared(shared.bound.socket, shared.bound.address)

    def release(self, peer: int, address: Address) -> None:
        """
        A peer stopped listening.
        """
        shared = self._sockets.get(address)
        if shared is not None:
            self._release(peer, shared)

    def _release(self, peer: int, shared: SharedSocket) -> None:
        if peer in shared.users:
            shared.users.discard(peer)
            if not shared.users:
                self._sockets.close(shared, "nobody listens on it any more")

    def _cancel(self, peer: int) -> None:
        cancelled = self._peers[peer]
        cancelled.cancelled = True
        cancelled.transport.discard()

    def _ended(self, peer: int, error: ProtocolError | None) -> None:
        for shared in self._sockets:
            self._release(peer, shared)
        ended = self._peers.pop(peer)
        if ended.cancelled:
            return
        if error is None:
            ended.gone.callback(None)
        else:
            ended.gone.errback(error)


@implementer(IStreamServerEndpoint)
@attrs.frozen(eq=False)
class _ProvidedEndpoint:
    """
    Listens on a socket that a provider bound.
    """

    _reactor: ServerReactor
    _asking: AskingProtocol
    _wanted: BindRequest

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """
        Listen.

        @return: a Deferred of the port, whose end gives the socket back to the
            provider and neither shuts it down nor removes its path.  It fails
            with L{CannotListenError}, whose C{socketError} is what C{bind} said
            in the provider, or what went wrong here (C{EMFILE}, or C{ETIMEDOUT}
            for a provider that does not answer); with L{ChannelClosed} when the
            provider is gone or the factory was closed; with L{ProtocolError}
            when the provider broke the rules; with what the protocol factory's
            C{doStart} raises.  It may be cancelled.
        """
        return Deferred.fromCoroutine(self._listen(protocolFactory))

    async def _listen(self, protocolFactory: IProtocolFactory) -> IListeningPort:
        verdict = await self._asking.ask(self._wanted)
        if isinstance(verdict, Refused):
            raise self._failed(verdict)
        address = verdict.address
        try:
            return adoptPort(
                self._reactor,
                verdict,
                protocolFactory,
                lambda: self._asking.release(address),
            )
        except OSError as error:
            raise self._failed(refusal(error)) from error

    def _failed(self, refused: Refused) -> CannotListenError:
        address = self._wanted.address
        error: object = refused.message
        if refused.errno:
            error = OSError(refused.errno, refused.message)
        if address.kind == "unix":
            return CannotListenError(None, address.path, error)
        # Twisted's own word for all interfaces is none.
        host = "" if address.host == "0.0.0.0" else address.host
        return CannotListenError(host, address.port, error)


class ServerSocketPipeFactory:
    """
    Makes endpoints that listen on what a provider in another process binds.
    """

    def __init__(
        self,
        reactor: ServerReactor,
        connection: socket.socket,
        timeout: float = TIMEOUT,
    ) -> None:
        """
        @param reactor: listens.
        @param connection: a connected UNIX stream socket with a
            L{ServerSocketPipeProvider} at its other end.  It is taken over, also
            if this raises, and made non-blocking for all who share it.
        @param timeout: seconds that a listen waits for the provider.
        @raise UsageError: for a socket of another kind.
        """
        checkConnection(connection)
        self._reactor = reactor
        self._asking = AskingProtocol(reactor, timeout, "the provider")
        AskingTransport(reactor, connection, self._asking).start()

    def endpoint(self, description: str) -> IStreamServerEndpoint:
        """
        Make an endpoint, which may listen more than once.  Listening on port 0
        gets a new port each time: the n-th that this process asks for on a host
        is the n-th of every other peer, too.

        @param description: C{tcp:8080}, C{tcp:8080:interface=::1}, C{tcp6:8080},
            C{unix:/run/app.sock:mode=660}: the syntax and the defaults are those
            of Twisted's endpoint descriptions.  A relative path is taken from
            this process's working directory as it is now.
        @raise InvalidEndpoint: when it cannot be understood, or is none of a
            stream socket.
        """
        wanted = parseBind(description)
        if wanted.address.kind == "udp":
            raise InvalidEndpoint(
                f"cannot listen on {description!r}: endpoints are for streams; open "
                "the port with reactor.listenUDP(), or provide tcp: or unix:"
            )
        return _ProvidedEndpoint(self._reactor, self._asking, wanted)

    def close(self) -> None:
        """
        End the connection to the provider: listens that wait for it fail with
        L{ChannelClosed}, as does every one from now on.  Ports that listen serve
        on until they are stopped; but the provider closes its own sockets when
        nobody else uses them, and removes the paths of UNIX sockets, so stop the
        ports first.
        """
        self._asking.close("this factory was closed")
