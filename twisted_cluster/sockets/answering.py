"""
The answering end of a server-socket channel.

Whatever is not one of the two commands, in full and with its descriptor, ends
the connection: who breaks the rules once cannot be believed again.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any, Final, Optional
from typing import Protocol as Shape

from twisted.internet.interfaces import IUNIXTransport
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols import amp
from twisted.python.failure import Failure

from twisted_cluster.errors import ProtocolError
from twisted_cluster.sockets.addresses import (
    Address,
    BindRequest,
    Kind,
    Refused,
    Shared,
    SocketRequest,
    Verdict,
    canonicalHost,
)
from twisted_cluster.sockets.commands import ReleaseSocket, RequestSocket
from twisted_cluster.sockets.quietamp import QuietAMP

_log = Logger("twisted_cluster")


LARGEST: Final = 128 * 1024
"""
The most bytes that an unfinished question may have.
"""

MOST_DESCRIPTORS: Final = 8
"""
The most descriptors that may wait for the question that they belong to.
"""

_UNREAD: Final = 64 * 1024
_AMP: Final[Any] = QuietAMP
_REQUEST: Final[Any] = RequestSocket
_RELEASE: Final[Any] = ReleaseSocket
_KINDS: Final[dict[bytes, Kind]] = {b"tcp": "tcp", b"udp": "udp", b"unix": "unix"}


class Decider(Shape):
    """
    Who decides what is answered, and owns every socket that is shared.
    """

    def request(
        self, asker: int, request: SocketRequest, skt: socket.socket, /
    ) -> Verdict:
        """
        Answer one who wants to listen.

        @param skt: an unbound socket with the options that are wanted; it is
            taken over.
        @return: in L{Shared}, the socket stays the decider's.
        """

    def release(self, asker: int, address: Address, /) -> None:
        """
        One stopped listening.
        """


class ServerSocketProtocol(QuietAMP):
    """
    Answers one peer's questions for listening sockets.

    It owns each descriptor that arrives until that is part of a question.

    @ivar ended: called once, when the connection has ended: with the
        L{ProtocolError} of a peer that broke the rules, or L{None}.
    """

    transport: IUNIXTransport
    ended: Callable[[Optional[ProtocolError]], None]

    def __init__(self, decider: Decider, asker: int, name: str) -> None:
        """
        @param asker: who is at the other end, for the decider.
        @param name: what the log calls it, such as C{worker 7}.
        """
        self._amp: Any = super()
        _AMP.__init__(self)
        self._decider = decider
        self._asker = asker
        self._name = name
        self.ended = lambda error: None
        self._unclaimed: set[int] = set()
        self._pending = 0
        self._broken: Optional[ProtocolError] = None

    def fileDescriptorReceived(self, descriptor: int) -> None:
        """
        Take a descriptor over until the question that it belongs to arrives.
        """
        if self._broken:
            os.close(descriptor)
            return
        self._amp.fileDescriptorReceived(descriptor)
        self._unclaimed.add(descriptor)
        if len(self._unclaimed) > MOST_DESCRIPTORS:
            self._break("more descriptors than questions")

    def dataReceived(self, data: bytes) -> None:
        """
        Answer each question that is complete.
        """
        if self._broken:
            return
        self._pending += len(data)
        try:
            self._amp.dataReceived(data)
        except Exception as error:
            self._break(f"{type(error).__name__}: {error}")
        if self._pending > LARGEST:
            self._break("an endless question")

    def lengthLimitExceeded(self, length: int) -> None:
        """
        What arrived is no AMP.
        """
        self._break(f"a key of {length} bytes")

    def ampBoxReceived(self, box: amp.AmpBox) -> None:
        """
        Carry one command out.
        """
        self._pending = 0
        if self._broken:
            return
        command = box.get(amp.COMMAND)
        if command == _REQUEST.commandName:
            if getattr(self.transport, "pending", 0) > _UNREAD:
                self._break("it asks without reading the answers")
                return
            answer = _REQUEST.makeResponse(
                self._request(_REQUEST.parseArguments(box, self)), self
            )
            answer[amp.ANSWER] = box[amp.ASK]
            self._amp.sendBox(answer)
        elif command == _RELEASE.commandName:
            values = _RELEASE.parseArguments(box, self)
            self._decider.release(self._asker, _addressOf(values))
        else:
            self._break(f"an unknown command {command!r}")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Close what was never claimed.
        """
        error = self._broken
        if isinstance(reason.value, ProtocolError) and error is None:
            error = reason.value
            _log.error(
                "The server-socket channel of {name} is closed: {why}",
                name=self._name,
                why=reason.getErrorMessage(),
            )
        elif self._pending and error is None:
            _log.warn(
                "{name} ended in the middle of a question for a socket.",
                name=_capital(self._name),
            )
        self._broken = error or ProtocolError("the connection has ended")
        self._closeUnclaimed()
        self._amp.connectionLost(reason)
        self.ended(error)

    def _request(self, values: dict[str, Any]) -> dict[str, Any]:
        descriptor: int = values["socket"]
        self._unclaimed.discard(descriptor)
        try:
            skt = socket.socket(fileno=descriptor)
        except OSError:
            os.close(descriptor)
            raise
        try:
            skt.set_inheritable(False)
            address = _addressOf(values)
            if (skt.family, skt.type) != (address.family, address.type):
                raise ValueError(f"a socket of {skt.family!r} for {address}")
            request = SocketRequest(
                BindRequest(address, values["backlog"], values["mode"], values["lock"]),
                values["index"],
                values["explicit"],
                values["starting"],
            )
        except BaseException:
            skt.close()
            raise
        verdict = self._decider.request(self._asker, request, skt)
        if isinstance(verdict, Shared):
            try:
                os.close(os.dup(verdict.socket.fileno()))
            except OSError as error:
                self._decider.release(self._asker, verdict.address)
                verdict = Refused(error.errno or 0, error.strerror or str(error))
                _log.error(
                    "{name} cannot be given {address}: {error}",
                    name=_capital(self._name),
                    address=address,
                    error=error,
                )
        if isinstance(verdict, Shared):
            return _answer(b"shared", descriptor=verdict.socket.fileno())
        if isinstance(verdict, Refused):
            return _answer(b"refused", verdict.errno, verdict.message)
        return _answer(b"own")

    def _break(self, why: str) -> None:
        if self._broken:
            return
        self._broken = ProtocolError(why)
        _log.error(
            "{name} broke the rules of its server-socket channel, which is "
            "closed: {why}",
            name=_capital(self._name),
            why=why,
        )
        self._closeUnclaimed()
        self.transport.loseConnection()

    def _closeUnclaimed(self) -> None:
        while self._unclaimed:
            os.close(self._unclaimed.pop())


def _capital(name: str) -> str:
    return name[:1].upper() + name[1:]


def _answer(
    verdict: bytes, errno: int = 0, message: str = "", descriptor: int | None = None
) -> dict[str, Any]:
    return {
        "verdict": verdict,
        "errno": errno,
        "message": message,
        "socket": descriptor,
    }


def _addressOf(values: dict[str, Any]) -> Address:
    """
    @raise KeyError: for an unknown kind.
    @raise OSError: for a host that is not numeric.
    @raise ValueError: for a port or a path that nothing can be bound to.
    """
    kind = _KINDS[values["kind"]]
    if kind == "unix":
        path: bytes = values["path"]
        if path[:1] not in (b"/", b"\0"):
            raise ValueError(f"not an absolute path: {path!r}")
        return Address(kind, path=path)
    if not 0 <= values["port"] <= 65535:
        raise ValueError(f"no port: {values['port']}")
    return Address(kind, canonicalHost(values["host"]), values["port"])
