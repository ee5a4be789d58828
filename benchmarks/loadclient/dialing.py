"""
Connections to ports of this machine: plain ones on raw sockets, since asyncio's
transports cost several times as much to make, and asyncio's own for TLS.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from typing import Any, Final, Optional, Protocol

HOST: Final = "127.0.0.1"
_PIECE: Final = 262_144
_CONNECTING: Final = {0, errno.EAGAIN, errno.EINPROGRESS}


class Dialed(Protocol):
    """
    What hears of a connection.
    """

    def connectionMade(self, wire: Wire) -> None:
        """
        It is there, or will be: what is written meanwhile is kept.
        """

    def dataReceived(self, data: bytes) -> None:
        """
        Bytes have come.
        """

    def connectionLost(self, error: Optional[BaseException]) -> None:
        """
        It has ended, or never began, and no byte follows.  None: the other side
        closed it in order.  Not called for what was ended by L{Wire.close}.
        """


class Wire(Protocol):
    """
    What a connection is written to.
    """

    def write(self, data: bytes) -> None:
        """
        Send, in order, as soon as possible.
        """

    def close(self) -> None:
        """
        End it, without telling anybody.  What was written may be lost.
        """


class PlainWire:
    """
    A connection on a raw socket.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, dialed: Dialed) -> None:
        self._loop = loop
        self._dialed = dialed
        self._unsent = b""
        self._writing = False
        self._error: Optional[OSError] = None
        self._socket: Optional[socket.socket] = None

    def dial(self, port: int) -> None:
        """
        Connect.  Whatever goes wrong is told later, in a turn of its own.
        """
        self._dialed.connectionMade(self)
        try:
            made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        except OSError as error:
            self._loop.call_soon(self._lose, error)
            return
        self._socket = made
        made.setblocking(False)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        number = made.connect_ex((HOST, port))
        if number not in _CONNECTING:
            self._loop.call_soon(self._lose, OSError(number, "connecting"))
            return
        self._loop.add_reader(made.fileno(), self._readable)
        self._flush()

    def write(self, data: bytes) -> None:
        self._unsent += data
        if self._socket is not None and not self._writing:
            self._flush()

    def close(self) -> None:
        made, self._socket = self._socket, None
        if made is not None:
            self._loop.remove_reader(made.fileno())
            if self._writing:
                self._loop.remove_writer(made.fileno())
            made.close()

    def _flush(self) -> None:
        made = self._socket
        if made is None:
            return
        try:
            sent = made.send(self._unsent) if self._unsent else 0
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            # Reading tells what came before; but why it ended is told only once.
            if error.errno != errno.EPIPE:
                self._error = error
            self._unsent = b""
            sent = 0
        self._unsent = self._unsent[sent:]
        if bool(self._unsent) != self._writing:
            self._writing = not self._writing
            if self._writing:
                self._loop.add_writer(made.fileno(), self._flush)
            else:
                self._loop.remove_writer(made.fileno())

    def _readable(self) -> None:
        # Twice, so that an end that has come already is known before this
        # connection is used again.
        for _ in range(2):
            made = self._socket
            if made is None:
                return
            try:
                data = made.recv(_PIECE)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._lose(error)
                return
            if not data:
                self._lose(self._error)
                return
            self._dialed.dataReceived(data)

    def _lose(self, error: Optional[BaseException]) -> None:
        self.close()
        self._dialed.connectionLost(error)


class TLSWire(asyncio.Protocol):
    """
    A connection on asyncio's transport.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        dialed: Dialed,
        context: ssl.SSLContext,
    ) -> None:
        self._loop = loop
        self._dialed = dialed
        self._context = context
        self._unsent = b""
        self._closed = False
        self._transport: Any = None
        self._task: Optional[asyncio.Task[None]] = None

    def dial(self, port: int) -> None:
        """
        Connect.  Whatever goes wrong is told later, in a turn of its own.
        """
        self._dialed.connectionMade(self)
        self._task = self._loop.create_task(self._connect(port))

    async def _connect(self, port: int) -> None:
        try:
            await self._loop.create_connection(
                lambda: self, HOST, port, ssl=self._context, server_hostname="localhost"
            )
        except (OSError, ssl.SSLError) as error:
            if not self._closed:
                self._closed = True
                self._dialed.connectionLost(_cause(error))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        if self._closed:
            self._transport.abort()
            return
        unsent, self._unsent = self._unsent, b""
        if unsent:
            self._transport.write(unsent)

    def data_received(self, data: bytes) -> None:
        if not self._closed:
            self._dialed.dataReceived(data)

    def connection_lost(self, exc: Optional[Exception]) -> None:
        if not self._closed:
            self._closed = True
            self._dialed.connectionLost(exc)

    def write(self, data: bytes) -> None:
        if self._transport is None:
            self._unsent += data
        elif not self._closed:
            self._transport.write(data)

    def close(self) -> None:
        self._closed = True
        if self._transport is not None:
            self._transport.abort()


def _cause(error: BaseException) -> Optional[BaseException]:
    """
    What ended a handshake: asyncio calls an end of file a reset that has no
    number.
    """
    if isinstance(error, ConnectionResetError) and error.errno is None:
        return None
    return error


class Dialer:
    """
    Makes connections.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._contexts: dict[str, ssl.SSLContext] = {}

    def dial(self, dialed: Dialed, port: int, tls: bool, protocol: str) -> None:
        """
        Connect to a port.

        @param protocol: what is negotiated in the handshake.
        """
        if tls:
            TLSWire(self._loop, dialed, self._context(protocol)).dial(port)
        else:
            PlainWire(self._loop, dialed).dial(port)

    def _context(self, protocol: str) -> ssl.SSLContext:
        context = self._contexts.get(protocol)
        if context is None:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            context.set_alpn_protocols([protocol])
            self._contexts[protocol] = context
        return context
