"""
The watcher's end of a worker's server-socket channel.

Whatever is not one of the two commands, in full and with its descriptor, ends
the connection: a worker that breaks the rules once cannot be believed again.
"""

from __future__ import annotations

import os
import socket
from typing import Any, Final

from twisted.internet.interfaces import IUNIXTransport
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols import amp
from twisted.python.failure import Failure

from twisted_cluster.errors import ProtocolError
from twisted_cluster.ipc.commands import ReleaseSocket, RequestSocket
from twisted_cluster.ipc.protocol import QuietAMP
from twisted_cluster.sockets.addresses import (
    Address,
    BindRequest,
    Kind,
    Refused,
    Shared,
    SocketRequest,
    canonicalHost,
)
from twisted_cluster.supervisor.listeners import Listeners

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


class ServerSocketProtocol(QuietAMP):
    """
    Answers one worker's questions for listening sockets.

    It owns each descriptor that arrives until that is part of a question.
    """

    transport: IUNIXTransport

    def __init__(self, listeners: Listeners, worker: int) -> None:
        """
        @param worker: the id of the worker at the other end.
        """
        self._amp: Any = super()
        _AMP.__init__(self)
        self._listeners = listeners
        self._worker = worker
        self._unclaimed: set[int] = set()
        self._pending = 0
        self._broken = False

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
            self._listeners.release(self._worker, _addressOf(values))
        else:
            self._break(f"an unknown command {command!r}")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Close what was never claimed.
        """
        if reason.check(ProtocolError) and not self._broken:
            _log.error(
                "The server-socket channel of worker {worker} is closed: {why}",
                worker=self._worker,
                why=reason.getErrorMessage(),
            )
        elif self._pending and not self._broken:
            _log.warn(
                "Worker {worker} ended in the middle of a question for a socket.",
                worker=self._worker,
            )
        self._broken = True
        self._closeUnclaimed()
        self._amp.connectionLost(reason)

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
        verdict = self._listeners.request(self._worker, request, skt)
        if isinstance(verdict, Shared):
            try:
                os.close(os.dup(verdict.socket.fileno()))
            except OSError as error:
                self._listeners.release(self._worker, verdict.address)
                verdict = Refused(error.errno or 0, error.strerror or str(error))
                _log.error(
                    "Worker {worker} cannot be given {address}: {error}",
                    worker=self._worker,
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
        self._broken = True
        _log.error(
            "Worker {worker} broke the rules of its server-socket channel, which "
            "is closed: {why}",
            worker=self._worker,
            why=why,
        )
        self._closeUnclaimed()
        self.transport.loseConnection()

    def _closeUnclaimed(self) -> None:
        while self._unclaimed:
            os.close(self._unclaimed.pop())


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
