"""
Makes Twisted's own ports listen on the cluster's sockets.

The hooks are where a port opens its socket, so that it does not matter which
reactor there is, when it was installed, or who holds a bound C{listenTCP}.
This is the one place that touches these private parts of Twisted:
C{_preexistingSocket}, C{_bindSocket}, C{_bindPath}, besides those that
L{twisted_cluster.sockets.servers.adoption} needs.  They are looked for before anything
is changed.

A shared socket is never shut down, and a shared UNIX socket's path is never
touched: both are the watcher's.  No server accepts anything before the worker
is ready.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Callable
from typing import Any, Final, Optional

from twisted.internet import tcp, udp, unix
from twisted.internet.address import UNIXAddress
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorCore
from twisted.python.failure import Failure

from twisted_cluster.errors import ClusterError
from twisted_cluster.interfaces import IStartup
from twisted_cluster.sockets.addresses import (
    Address,
    BindRequest,
    Refused,
    Shared,
    resolveHost,
)
from twisted_cluster.sockets.paths import fits
from twisted_cluster.sockets.servers.adoption import NEEDED, adoptUNIX
from twisted_cluster.worker import incoming
from twisted_cluster.worker.accepting import takeTurns
from twisted_cluster.worker.asking import Asker
from twisted_cluster.worker.connections import Connections
from twisted_cluster.worker.incoming import Incoming
from twisted_cluster.worker.modes import currentBalance, currentMode
from twisted_cluster.worker.socketclient import SocketClient

_NEEDED: Final[list[tuple[Any, str]]] = [
    *NEEDED,
    *incoming.NEEDED,
    (tcp.Port, "_preexistingSocket"),
    (udp.Port, "_preexistingSocket"),
    (udp.Port, "_bindSocket"),
]

_MOST: Final = 2**31 - 1


def installPorts(
    client: SocketClient,
    startup: IStartup,
    incoming: Incoming,
    connections: Connections,
) -> Callable[[], None]:
    """
    Make every port that is opened from now on ask for its socket.

    @param incoming: where those connections come from that the watcher accepted.
    @param connections: what is to know of the ports on sockets that others have,
        too.
    @return: what undoes it, for ports that are opened afterwards.
    @raise ClusterError: when the installed Twisted is not built as expected;
        nothing was changed.
    """
    missing = [f"{owner}.{name}" for owner, name in _NEEDED if not hasattr(owner, name)]
    if missing:
        raise ClusterError(
            f"this version of Twisted cannot be clustered: {', '.join(missing)} "
            "is not there; please report it"
        )
    return _Ports(Asker(client, startup), incoming, connections).install()


def _connected(port: Any) -> bool:
    return bool(port.connected) and not port.disconnecting


class _Ports:
    """
    The hooks.  A port on a shared socket has C{_clusterAddress}, and a UNIX
    port on any socket that it did not bind has C{_clusterAdopted}.
    """

    def __init__(
        self, asker: Asker, incoming: Incoming, connections: Connections
    ) -> None:
        self._asker = asker
        self._incoming = incoming
        self._connections = connections
        self._reactors: list[Any] = []
        self._startTCP: Callable[[Any], None] = tcp.Port.startListening
        self._startUNIX: Callable[[Any], None] = unix.Port.startListening
        self._startUDP: Callable[[Any], None] = udp.Port.startListening
        self._bindUDP: Callable[[Any], None] = udp.Port._bindSocket
        self._loseTCP: Callable[[Any, Failure], None] = tcp.Port.connectionLost
        self._loseUNIX: Callable[[Any, Failure], None] = unix.Port.connectionLost
        self._loseUDP: Callable[[Any, Any], None] = udp.Port.connectionLost

    def install(self) -> Callable[[], None]:
        hooks = self

        def startTCP(self: Any) -> None:
            hooks.startTCP(self)

        def startUNIX(self: Any) -> None:
            hooks.startUNIX(self)

        def startUDP(self: Any) -> None:
            hooks.startUDP(self)

        def bindUDP(self: Any) -> None:
            hooks.bindUDP(self)

        def loseTCP(self: Any, reason: Failure) -> None:
            hooks.lose(self, lambda: hooks._loseTCP(self, reason))

        def loseUNIX(self: Any, reason: Failure) -> None:
            adopted = self.__dict__.pop("_clusterAdopted", False)
            lose = hooks._loseTCP if adopted else hooks._loseUNIX
            hooks.lose(self, lambda: lose(self, reason))

        def loseUDP(self: Any, reason: Any = None) -> None:
            hooks.lose(self, lambda: hooks._loseUDP(self, reason))

        undo: list[tuple[Any, str, Any]] = []
        for owner, name, hook in [
            (tcp.Port, "startListening", startTCP),
            (tcp.Port, "connectionLost", loseTCP),
            (unix.Port, "startListening", startUNIX),
            (unix.Port, "connectionLost", loseUNIX),
            (udp.Port, "startListening", startUDP),
            (udp.Port, "_bindSocket", bindUDP),
            (udp.Port, "connectionLost", loseUDP),
        ]:
            undo.append((owner, name, getattr(owner, name)))
            setattr(owner, name, hook)

        def restore() -> None:
            for owner, name, original in undo:
                setattr(owner, name, original)

        return restore

    def startTCP(self, port: Any) -> None:
        adopted = port._preexistingSocket is not None
        if adopted:
            self._startTCP(port)
        else:
            self._openTCP(port)
        self._opened(port, adopted)

    def _openTCP(self, port: Any) -> None:
        if not _ordinary(port.port, port.backlog, port.interface):
            self._startTCP(port)
            return
        try:
            host = resolveHost(port.interface, port.addressFamily)
            skt = port.createInternetSocket()
        except OSError as error:
            raise CannotListenError(port.interface, port.port, error) from None
        wanted = BindRequest(Address("tcp", host, port.port), port.backlog)
        shared = self._ask(port, wanted, skt, port.interface, port.port)
        if shared is None:
            self._startOwn(port, wanted.address, self._startTCP)
            return
        port._preexistingSocket = shared.socket
        self._startShared(port, shared, self._startTCP)

    def startUNIX(self, port: Any) -> None:
        adopted = port._preexistingSocket is not None
        if adopted:
            skt, port._preexistingSocket = port._preexistingSocket, None
            adoptUNIX(port, skt)
        else:
            self._openUNIX(port)
        self._opened(port, adopted)

    def _openUNIX(self, port: Any) -> None:
        path = getattr(port, "_bindPath", port.port)
        if not (isinstance(path, bytes) and path and _ordinary(0, port.backlog, "")):
            self._startUNIX(port)
            return
        if not fits(path):
            self._startUNIX(port)
            return
        address = Address.unix(path)
        try:
            skt = port.createInternetSocket()
        except OSError as error:
            raise CannotListenError(None, path, error) from None
        wanted = BindRequest(address, port.backlog, port.mode, bool(port.wantPID))
        shared = self._ask(port, wanted, skt, None, path)
        if shared is None:
            self._startOwn(port, address, self._startUNIX)
            return
        skt = shared.socket
        self._startShared(port, shared, lambda port: adoptUNIX(port, skt))
        if not fits(address.path):
            port.getHost = lambda: UNIXAddress(address.path)

    def startUDP(self, port: Any) -> None:
        if not _isServer(port) or not self._asker.mustWait():
            self._startUDP(port)
            return
        # Whoever speaks first, a client, needs the answers before it is ready.
        spoken = False

        def resume() -> None:
            nonlocal spoken
            spoken = True
            port.__dict__.pop("write", None)
            if port.connected:
                port.startReading()

        def write(*arguments: Any) -> Any:
            resume()
            return port.write(*arguments)

        port.write = write
        try:
            self._startUDP(port)
        except BaseException:
            port.__dict__.pop("write", None)
            raise
        if not spoken:
            port.stopReading()
            self._asker.whenReady(lambda: None if spoken else resume())

    def bindUDP(self, port: Any) -> None:
        if port._preexistingSocket is not None or not _isServer(port):
            self._bindUDP(port)
        else:
            self._openUDP(port)
        if _isServer(port):
            self._asker.opened()
            self._quietAtEndOf(port.reactor)

    def _openUDP(self, port: Any) -> None:
        if not _ordinary(port.port, 0, port.interface):
            self._bindUDP(port)
            return
        try:
            host = resolveHost(port.interface, port.addressFamily)
            skt = port.createInternetSocket()
        except OSError as error:
            raise CannotListenError(port.interface, port.port, error) from None
        wanted = BindRequest(Address("udp", host, port.port), 0)
        shared = self._ask(port, wanted, skt, port.interface, port.port)
        if shared is None:
            self._startOwn(port, wanted.address, self._bindUDP)
            return
        port._preexistingSocket = shared.socket
        self._startShared(port, shared, self._bindUDP)

    def lose(self, port: Any, lose: Callable[[], None]) -> None:
        """
        Let a port lose its socket, then release it.
        """
        address: Optional[Address] = port.__dict__.pop("_clusterAddress", None)
        try:
            lose()
        finally:
            self._connections.ports.discard(port)
            if address is not None:
                self._incoming.leave(port)
                self._asker.release(address)

    def _ask(
        self,
        port: Any,
        wanted: BindRequest,
        skt: socket.socket,
        interface: Optional[str],
        name: Any,
    ) -> Optional[Shared]:
        with skt:
            verdict = self._asker.ask(wanted, skt, currentBalance())
        if isinstance(verdict, Refused):
            raise _refusal(verdict, wanted, interface, name)
        return verdict if isinstance(verdict, Shared) else None

    def _startShared(
        self, port: Any, shared: Shared, start: Callable[[Any], None]
    ) -> None:
        port._clusterAddress = shared.address
        if shared.accepts and shared.address.kind != "udp":
            takeTurns(port)
        if shared.listener:
            self._incoming.enter(port, shared.listener, shared.accepts)
        try:
            start(port)
        except BaseException:
            self._incoming.leave(port)
            del port._clusterAddress
            port._preexistingSocket = None
            shared.socket.close()
            self._asker.release(shared.address)
            raise

    def _startOwn(
        self, port: Any, address: Address, start: Callable[[Any], None]
    ) -> None:
        try:
            try:
                start(port)
            except OSError as error:
                # Two processes may bind an address before either listens; the
                # second C{listen} fails, which Twisted does not expect.
                if error.errno != errno.EADDRINUSE or address.kind != "tcp":
                    raise
                raise CannotListenError(port.interface, port.port, error) from None
        except CannotListenError as error:
            if currentMode() != "local":
                self._asker.ownFailed(address, error.socketError)
            raise

    def _opened(self, port: Any, adopted: bool) -> None:
        if adopted or hasattr(port, "_clusterAddress"):
            self._connections.ports.add(port)
        if self._asker.mustWait():
            port.stopReading()
            self._asker.whenReady(
                lambda: port.startReading() if _connected(port) else None
            )
        self._asker.opened()
        self._quietAtEndOf(port.reactor)

    def _quietAtEndOf(self, reactor: Any) -> None:
        if IReactorCore.providedBy(reactor) and not any(
            each is reactor for each in self._reactors
        ):
            self._reactors.append(reactor)
            reactor.addSystemEventTrigger("before", "shutdown", self._asker.quiet)


def _ordinary(port: object, backlog: object, interface: object) -> bool:
    """
    Whether Twisted would get as far as C{bind} with this; otherwise it raises
    what it raises.
    """
    return (
        isinstance(port, int)
        and 0 <= port <= 65535
        and isinstance(backlog, int)
        and -_MOST <= backlog <= _MOST
        and isinstance(interface, str)
    )


def _isServer(port: Any) -> bool:
    """
    Whether a UDP port is one that could serve anybody: no port 0, no
    multicast, no UNIX socket, no question of a resolver.
    """
    if isinstance(port, (udp.MulticastPort, unix.DatagramPort)):
        return False
    if currentMode() == "local" or port.port == 0:
        return False
    client = sys.modules.get("twisted.names.client")
    controller = getattr(port.protocol, "controller", None)
    return client is None or not isinstance(controller, client.Resolver)


def _refusal(
    refused: Refused, wanted: BindRequest, interface: Optional[str], name: Any
) -> Exception:
    """
    Make the exception that Twisted raises alone.
    """
    if refused.errno == 0:
        return CannotListenError(interface, name, refused.message)
    error = OSError(refused.errno, refused.message)
    if wanted.lock and refused.errno in (
        errno.EACCES,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EROFS,
    ):
        # The lock file comes before the bind, and Twisted does not catch it.
        lock = wanted.address.path + b".lock"
        return OSError(refused.errno, refused.message, str(os.getpid()), None, lock)
    return CannotListenError(interface, name, error)
