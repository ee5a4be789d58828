"""
Decides what a listen of the program is: a question to the watcher, or this
process's own affair.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable
from typing import Final

from twisted.logger import Logger

from twisted_cluster.interfaces import IStartup
from twisted_cluster.policy.balance import KERNEL
from twisted_cluster.sockets.addresses import (
    Address,
    BindRequest,
    Own,
    Refused,
    Shared,
    SocketRequest,
    Verdict,
)
from twisted_cluster.worker.modes import currentMode
from twisted_cluster.worker.socketclient import SocketClient

_log = Logger("twisted_cluster")


QUIET: Final = 60.0
"""
Seconds without another word on ports of the same host: a program may be trying
all those of a range, as FTP's passive transfers do.
"""


class Asker:
    """
    Asks the watcher on behalf of whatever opens sockets in this process.
    """

    def __init__(self, client: SocketClient, startup: IStartup) -> None:
        self._client = client
        self._startup = startup
        self._saidAt: dict[tuple[str, str], float] = {}

    def ask(
        self, wanted: BindRequest, skt: socket.socket, balance: str = KERNEL
    ) -> Verdict:
        """
        Ask whose an address is, and for its socket.  A watcher that cannot be
        reached, or does not answer in time, is a refusal with an errno; or it is
        passed over, for what is probably none of the cluster's.

        @param skt: an unbound socket with the options that the program wants.
            It stays the caller's.
        @param balance: how connections are to be balanced, empty for the
            default; those who can only accept by themselves say so.
        @return: in L{Shared}, the socket is the caller's.
        """
        mode = currentMode()
        explicit = mode == "cluster"
        starting = not self._startup.ready or not self._client.opened
        address = wanted.address
        if mode == "local" or (address.ephemeral and not (explicit or starting)):
            return Own()
        host = (address.kind, address.host)
        index = self._client.indices.get(host, 0)
        try:
            verdict = self._client.request(
                SocketRequest(
                    wanted,
                    index if address.ephemeral else 0,
                    explicit,
                    starting,
                    balance,
                ),
                skt,
            )
        except OSError as error:
            if self._client.broken and not (explicit or starting or _exists(address)):
                return Own()
            return Refused(error.errno or errno.EIO, error.strerror or str(error))
        if isinstance(verdict, Shared) and address.ephemeral:
            self._client.indices[host] = index + 1
        return verdict

    def opened(self) -> None:
        """
        The program opened a server.
        """
        if currentMode() != "local":
            self._client.opened = True
        self._startup.portOpened()

    def release(self, address: Address) -> None:
        """
        The program stopped listening on a shared socket.
        """
        self._client.release(address)

    def quiet(self) -> None:
        """
        The program ends: release nothing any more.
        """
        self._client.quiet()

    def mustWait(self) -> bool:
        """
        Whether what is opened now may not accept yet.
        """
        return not self._startup.ready and currentMode() != "local"

    def whenReady(self, resume: Callable[[], object]) -> None:
        """
        Have something called when the worker is ready.
        """
        self._startup.whenReady(resume)

    def ownFailed(self, address: Address, error: object) -> None:
        """
        An address that is none of the cluster's could not be opened; say how
        it would become the cluster's, if that was the reason.
        """
        if getattr(error, "errno", None) != errno.EADDRINUSE:
            return
        now, host = time.monotonic(), (address.kind, address.host)
        if now - self._saidAt.get(host, -QUIET) < QUIET:
            return
        self._saidAt[host] = now
        if address.kind == "unix":
            bind = f"unix:{os.fsdecode(address.path)}"
        else:
            bind = f"{address.kind}:{address.port}"
        endpoint = "" if address.kind == "udp" else f" the endpoint cluster:{bind}, or"
        _log.warn(
            "{address} was opened after the start, so that it is this worker's "
            "alone, and another process has it already.  To share it among the "
            "workers, open it while the program starts, or use{endpoint} "
            "--bind {bind}.",
            address=address,
            endpoint=endpoint,
            bind=bind,
        )


def _exists(address: Address) -> bool:
    """
    Whether there is a file that asyncio would replace if it were asked to bind
    the address.
    """
    return address.inFilesystem and os.path.lexists(address.path)
