"""
A process that the test plays.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Optional, Union

from twisted.internet.address import UNIXAddress
from twisted.internet.error import (
    ProcessDone,
    ProcessExitedAlready,
    ProcessTerminated,
)
from twisted.internet.interfaces import (
    IAddress,
    IProcessProtocol,
    IProcessTransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_cluster.ipc.settings import WorkerSettings

_ROUNDS = 10_000


@implementer(IProcessTransport)
class PlayedProcess:
    """
    A process that does not exist.

    @ivar protocol: the L{IProcessProtocol} that it was spawned with.
    @ivar args: its command line.
    @ivar descriptors: its descriptors, by the numbers that it would know them
        by; they are this object's, until L{take}n or L{end}ed.
    @ivar signals: what it was sent.
    """

    _nextPID = 2_000_000_000

    def __init__(
        self,
        protocol: IProcessProtocol,
        args: Sequence[Union[bytes, str]],
        childFDs: Mapping[int, Union[int, str]],
    ) -> None:
        PlayedProcess._nextPID += 1
        self.pid: Optional[int] = PlayedProcess._nextPID
        self.protocol = protocol
        self.args = list(args)
        self.descriptors = {
            number: os.dup(descriptor)
            for number, descriptor in childFDs.items()
            if isinstance(descriptor, int)
        }
        self.signals: list[int] = []
        self._ended = False

    @property
    def settings(self) -> WorkerSettings:
        """
        The settings of the worker that this process would be.
        """
        words = [word for word in self.args if isinstance(word, str)]
        return WorkerSettings.fromArgument(words[words.index("-c") + 2])

    def take(self, number: int) -> socket.socket:
        """
        Take one of the descriptors, a socket.  It is the caller's.
        """
        return socket.socket(fileno=self.descriptors.pop(number))

    def emit(self, number: int, data: bytes) -> None:
        """
        Write to one of the descriptors, as the process would.
        """
        os.write(self.descriptors[number], data)

    def end(self, status: int = 0, signalled: Optional[int] = None) -> None:
        """
        End, with a status or by a signal.
        """
        if self._ended:
            return
        self._ended = True
        self.close()
        error: Union[ProcessDone, ProcessTerminated]
        if status == 0 and signalled is None:
            error = ProcessDone(0)
        elif signalled is None:
            error = ProcessTerminated(status, None, status << 8)
        else:
            error = ProcessTerminated(None, signalled, signalled)
        self.protocol.processExited(Failure(error))
        self.protocol.processEnded(Failure(error))

    def close(self) -> None:
        """
        Close the descriptors.
        """
        for descriptor in self.descriptors.values():
            os.close(descriptor)
        self.descriptors.clear()

    def signalProcess(self, signalID: Union[str, int]) -> None:
        """
        Record a signal; KILL also ends the process.
        """
        if self._ended:
            raise ProcessExitedAlready()
        if isinstance(signalID, str):
            signalID = int(getattr(signal, f"SIG{signalID}"))
        self.signals.append(int(signalID))
        if signalID == signal.SIGKILL:
            self.end(signalled=signal.SIGKILL)

    def closeStdin(self) -> None:
        """
        There is none.
        """

    closeStdout = closeStderr = closeStdin

    def closeChildFD(self, descriptor: int) -> None:
        """
        There are none.
        """

    def writeToChild(self, childFD: int, data: bytes) -> None:
        """
        There are none.
        """

    def write(self, data: bytes) -> None:
        """
        There is no stdin.
        """

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """
        There is no stdin.
        """

    def loseConnection(self) -> None:
        """
        There is none.
        """

    def getHost(self) -> IAddress:
        """
        It has none.
        """
        return UNIXAddress(None)

    getPeer = getHost
