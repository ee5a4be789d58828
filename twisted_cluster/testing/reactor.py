"""
A reactor that runs when it is told to, with descriptors and processes.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional, Union

from twisted.internet.interfaces import (
    IProcessProtocol,
    IProcessTransport,
    IReactorFDSet,
    IReactorProcess,
    IReadDescriptor,
    IWriteDescriptor,
)
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_cluster.testing.process import PlayedProcess

_ROUNDS = 10_000


@implementer(IReactorFDSet, IReactorProcess)
class DescriptorReactor(Clock):
    """
    A clock that also watches descriptors, whenever L{settle} is called, and
    "spawns" processes that the test plays.

    @ivar processes: every process that was spawned, in order.
    """

    running = True

    def __init__(self) -> None:
        super().__init__()
        self._readers: dict[IReadDescriptor, None] = {}
        self._writers: dict[IWriteDescriptor, None] = {}
        self.processes: list[PlayedProcess] = []
        self.spawnError: Optional[OSError] = None

    def addReader(self, reader: IReadDescriptor) -> None:
        """
        See L{IReactorFDSet.addReader}.
        """
        self._readers[reader] = None

    def addWriter(self, writer: IWriteDescriptor) -> None:
        """
        See L{IReactorFDSet.addWriter}.
        """
        self._writers[writer] = None

    def removeReader(self, reader: IReadDescriptor) -> None:
        """
        See L{IReactorFDSet.removeReader}.
        """
        self._readers.pop(reader, None)

    def removeWriter(self, writer: IWriteDescriptor) -> None:
        """
        See L{IReactorFDSet.removeWriter}.
        """
        self._writers.pop(writer, None)

    def removeAll(self) -> list[Union[IReadDescriptor, IWriteDescriptor]]:
        """
        See L{IReactorFDSet.removeAll}.
        """
        removed: list[Union[IReadDescriptor, IWriteDescriptor]] = []
        removed.extend(self._readers)
        removed.extend(self._writers)
        self._readers.clear()
        self._writers.clear()
        return removed

    def getReaders(self) -> list[IReadDescriptor]:
        """
        See L{IReactorFDSet.getReaders}.
        """
        return list(self._readers)

    def getWriters(self) -> list[IWriteDescriptor]:
        """
        See L{IReactorFDSet.getWriters}.
        """
        return list(self._writers)

    def callFromThread(
        self, callable: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> None:
        """
        Call when L{settle} is called next.
        """
        self.callLater(0, callable, *args, **kwargs)

    def spawnProcess(
        self,
        processProtocol: IProcessProtocol,
        executable: Union[bytes, str],
        args: Sequence[Union[bytes, str]] = (),
        env: Optional[Mapping[Any, Any]] = None,
        path: Union[bytes, str, None] = None,
        uid: Optional[int] = None,
        gid: Optional[int] = None,
        usePTY: Any = False,
        childFDs: Optional[Mapping[int, Union[int, str]]] = None,
    ) -> IProcessTransport:
        """
        Pretend to start a process.  It holds duplicates of the descriptors
        that the real one would be given.

        @raise OSError: C{spawnError}, if that is set.
        """
        if self.spawnError is not None:
            raise self.spawnError
        process = PlayedProcess(processProtocol, args, childFDs or {})
        self.processes.append(process)
        return process

    def settle(self) -> None:
        """
        Run whatever is due and whatever descriptors are ready for, until
        nothing is left.  Time does not pass.

        @raise AssertionError: when it never comes to rest.
        """
        for _ in range(_ROUNDS):
            due = [
                call
                for call in self.getDelayedCalls()
                if call.getTime() <= self.seconds()
            ]
            self.advance(0)
            readable, writable, _unused = select.select(
                list(self._readers), list(self._writers), [], 0
            )
            for reader in readable:
                if reader in self._readers:
                    self._did(reader, reader.doRead())
            for writer in writable:
                if writer in self._writers:
                    self._did(writer, writer.doWrite())
            if not due and not readable and not writable:
                return
        raise AssertionError("the reactor never comes to rest")

    def elapse(self, seconds: float, step: float = 0.1) -> None:
        """
        Let time pass in small steps, settling at each.
        """
        end = self.seconds() + seconds
        self.settle()
        while self.seconds() < end:
            self.advance(min(step, end - self.seconds()))
            self.settle()

    def _did(self, descriptor: Any, result: Any) -> None:
        if result is not None:
            self.removeReader(descriptor)
            self.removeWriter(descriptor)
            descriptor.connectionLost(Failure(result))
