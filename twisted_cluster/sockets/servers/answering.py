"""
The answering end of a server-socket channel.

Whatever is not one of the two commands, in full and with its descriptor, ends
the connection.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Any, Final
from typing import Protocol as Shape

from twisted.logger import Logger
from twisted.protocols import amp

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
from twisted_cluster.sockets.servers.commands import ReleaseSocket, RequestSocket
from twisted_cluster.sockets.wire.strictamp import LOST, StrictAMP, capital

_log = Logger("twisted_cluster")


_UNREAD: Final = 64 * 1024
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


class ServerSocketProtocol(StrictAMP):
    """
    Answers one peer's questions for listening sockets.
    """

    def __init__(self, decider: Decider, asker: int, name: str) -> None:
        """
        @param asker: who is at the other end, for the decider.
        @param name: what the log calls it, such as C{worker 7}.
        """
        super().__init__(name)
        self._decider = decider
        self._asker = asker

    def boxReceived(self, box: amp.AmpBox) -> None:
        """
        Carry one command out.
        """
        command = box.get(amp.COMMAND)
        if command == _REQUEST.commandName:
            if getattr(self.transport, "pending", 0) > _UNREAD:
                self.breakOff("it asks without reading the answers")
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
            self.breakOff(f"an unknown command {command!r}")

    def _request(self, values: dict[str, Any]) -> dict[str, Any]:
        descriptor = self.claim(values["socket"])
        if descriptor == LOST:
            return _answer(b"refused", errno.EMFILE, os.strerror(errno.EMFILE))
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
                values["balance"] or "",
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
                    name=capital(self.name),
                    address=address,
                    error=error,
                )
        if isinstance(verdict, Shared):
            number = verdict.socket.fileno()
            return _answer(
                b"shared",
                descriptor=number,
                listener=verdict.listener,
                accepts=verdict.accepts,
                port=verdict.address.port,
            )
        if isinstance(verdict, Refused):
            return _answer(b"refused", verdict.errno, verdict.message)
        return _answer(b"own")


def _answer(
    verdict: bytes,
    number: int = 0,
    message: str = "",
    descriptor: int | None = None,
    listener: int = 0,
    accepts: bool = True,
    port: int | None = None,
) -> dict[str, Any]:
    return {
        "verdict": verdict,
        "errno": number,
        "message": message,
        "socket": descriptor,
        "listener": listener,
        "accepts": accepts,
        "port": port,
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
