"""
One worker's process, with its channels and its output.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Optional

import msgspec
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import (
    IProcessTransport,
    IReactorFDSet,
    IReactorProcess,
    IReactorTime,
)
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

import twisted_cluster
from twisted_cluster.ipc.settings import WorkerSettings
from twisted_cluster.sockets.wire.handover import Handover
from twisted_cluster.sockets.wire.transport import Receiver, UNIXTransport
from twisted_cluster.supervisor.death import Exit
from twisted_cluster.supervisor.lines import LineReader

_ROOT = str(Path(twisted_cluster.__file__).resolve().parent.parent)
_BOOTSTRAP = (
    "import sys; sys.path[0] or sys.path.pop(0); sys.path.append({root!r}); "
    "from twisted_cluster.worker.bootstrap import main; "
    "sys.path.pop(); main()"
)


class ClusterReactor(IReactorProcess, IReactorTime, IReactorFDSet):
    """
    What the watcher needs of a reactor.
    """


def interpreterFlags() -> list[str]:
    """
    The flags (C{-W}, C{-O}, C{-X} …) that this interpreter was started with.
    """
    flags = getattr(subprocess, "_args_from_interpreter_flags", list)
    return list(flags())


class WorkerProcess(ProcessProtocol):
    """
    Spawns a worker and owns all that connects it with the watcher.

    What the process wrote before it ended is read before its end is reported,
    even when something else holds the other ends open.
    """

    def __init__(
        self,
        reactor: ClusterReactor,
        lineReceived: Callable[[str, str], None],
        exited: Callable[[Exit], None],
        control: Receiver,
        sockets: Receiver,
        clients: Callable[[socket.socket], Handover],
    ) -> None:
        """
        @param lineReceived: called with C{stdout} or C{stderr} and each line.
        @param exited: called once, when the process has ended and all that it
            wrote has been read.
        @param control: the protocol of the control channel.
        @param sockets: the protocol of the server-socket channel.
        @param clients: takes the watcher's end of the client-socket channel over.
        """
        self._reactor: Any = reactor
        self._lineReceived = lineReceived
        self._exited = exited
        self._control = control
        self._sockets = sockets
        self._clients = clients
        self._transports: list[UNIXTransport] = []
        self._handover: Optional[Handover] = None
        self._readers: list[LineReader] = []
        self._process: Optional[IProcessTransport] = None
        self.pid: Optional[int] = None

    def spawn(
        self,
        settings: WorkerSettings,
        words: Sequence[str],
        inherited: Sequence[int],
    ) -> None:
        """
        Start the process.

        @param settings: its C{control}, C{sockets} and C{clients} are set here.
        @param words: the target, as the user wrote it.
        @param inherited: descriptors to pass on under the same numbers; they
            stay the caller's.
        @raise OSError: when descriptors or processes have run out; nothing is
            left behind.
        """
        children: list[int] = []
        try:
            null = os.open(os.devnull, os.O_RDONLY)
            children.append(null)
            for stream in ("stdout", "stderr"):
                ours, theirs = os.pipe()
                children.append(theirs)
                self._readers.append(self._reader(ours, stream))
            for protocol in (self._control, self._sockets):
                mine, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
                children.append(other.detach())
                self._transports.append(UNIXTransport(self._reactor, mine, protocol))
            mine, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            children.append(other.detach())
            self._handover = self._clients(mine)
            numbers = _free(inherited, 3)
            childFDs = dict(zip((0, 1, 2, *numbers), children, strict=True))
            childFDs.update((number, number) for number in inherited)
            settings = msgspec.structs.replace(
                settings, control=numbers[0], sockets=numbers[1], clients=numbers[2]
            )
            self._process = self._reactor.spawnProcess(
                self,
                sys.executable,
                [
                    sys.executable,
                    *interpreterFlags(),
                    "-c",
                    _BOOTSTRAP.format(root=_ROOT),
                    settings.toArgument(),
                    *words,
                ],
                env=None,
                childFDs=childFDs,
            )
        except BaseException:
            self._close()
            raise
        finally:
            for descriptor in children:
                os.close(descriptor)
        self.pid = getattr(self._process, "pid", None)
        for reader in self._readers:
            reader.startReading()
        for transport in self._transports:
            transport.start()
        self._handover.start()

    def signal(self, number: int) -> None:
        """
        Send the process a signal, if it lives.
        """
        if self._process is not None:
            try:
                self._process.signalProcess(number)
            except ProcessExitedAlready:
                pass

    def processExited(self, reason: Failure) -> None:
        """
        Read what is left, then tell how the process ended.
        """
        self._process = None
        for reader in self._readers:
            reader.drain()
        for transport in self._transports:
            transport.drain()
        if self._handover is not None:
            self._handover.drain()
        self._close()
        value: Any = reason.value
        self._exited(Exit(value.exitCode, value.signal))

    def _reader(self, descriptor: int, stream: str) -> LineReader:
        def received(line: str) -> None:
            self._lineReceived(stream, line)

        return LineReader(self._reactor, descriptor, received, lambda: None)

    def _close(self) -> None:
        for reader in self._readers:
            reader.close()
        for transport in self._transports:
            transport.discard()
        if self._handover is not None:
            self._handover.abort()


def _free(taken: Sequence[int], count: int) -> list[int]:
    """
    The lowest descriptors above stderr that are not taken.
    """
    numbers: list[int] = []
    number = 3
    while len(numbers) < count:
        if number not in taken:
            numbers.append(number)
        number += 1
    return numbers
