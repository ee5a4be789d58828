"""
Doubles for tests: of a reactor that runs when it is told to, with descriptors
and processes; and of the watcher, for programs that call C{cluster}.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Optional, Union

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import (
    ProcessDone,
    ProcessExitedAlready,
    ProcessTerminated,
)
from twisted.internet.interfaces import (
    IAddress,
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

from twisted_cluster.interfaces import Data
from twisted_cluster.ipc.commands import (
    Failed,
    Hello,
    LogEvents,
    Ready,
    Stopping,
    Terminate,
)
from twisted_cluster.ipc.conversation import Conversation
from twisted_cluster.ipc.inbox import Inbox
from twisted_cluster.ipc.protocol import ControlProtocol
from twisted_cluster.ipc.settings import WorkerSettings
from twisted_cluster.policy.readiness import Readiness
from twisted_cluster.sockets.transport import UNIXTransport
from twisted_cluster.worker import context
from twisted_cluster.worker.link import Link
from twisted_cluster.worker.startup import Startup

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

    def callFromThread(self, callable: Callable[..., Any], *args: Any) -> None:
        """
        Call when L{settle} is called next.
        """
        self.callLater(0, callable, *args)

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


class _WatcherProtocol(ControlProtocol):
    """
    A watcher's end that remembers.
    """

    def __init__(self, watcher: PlayedWatcher) -> None:
        super().__init__()
        self._watcher = watcher

    @Hello.responder
    def hello(self, pid: int, version: str) -> dict[str, object]:
        return {}

    @Ready.responder
    def ready(self) -> dict[str, object]:
        self._watcher.ready = True
        return {}

    @Failed.responder
    def failed(self, stage: str, reason: str, traceback: str) -> dict[str, object]:
        self._watcher.failure = (stage, reason, traceback)
        return {}

    @Stopping.responder
    def stopping(self) -> dict[str, object]:
        self._watcher.stopping = True
        return {}

    @LogEvents.responder
    def logEvents(self, data: bytes, more: bool, dropped: int) -> dict[str, object]:
        self._watcher.logged.append((data, more, dropped))
        return {}


class PlayedWatcher:
    """
    A watcher's side of a worker that is this very process, so that code which
    calls C{cluster} can be tested.

    Make one, test, and L{close} it.  Nothing moves but by L{pump}.

    @ivar reactor: the L{DescriptorReactor} that carries the channel.
    @ivar messages: the data of all messages that the worker sent.
    @ivar ready: whether the worker said that it serves.
    @ivar stopping: whether it said that it ends.
    @ivar failure: the stage, reason and traceback with which it gave up.
    @ivar logged: the pieces of batches of log events that it sent.
    """

    def __init__(
        self, worker: int = 1, slot: int = 0, limit: int = 1024 * 1024
    ) -> None:
        """
        Make this process a worker.
        """
        self.reactor = DescriptorReactor()
        self.ready = False
        self.stopping = False
        self.failure: Optional[tuple[str, str, str]] = None
        self.logged: list[tuple[bytes, bool, int]] = []
        self.messages: list[Data] = []
        ours, theirs = socket.socketpair()
        settings = WorkerSettings(
            worker=worker,
            slot=slot,
            generation=1,
            watcher=os.getpid(),
            control=theirs.fileno(),
            sockets=-1,
            maxMessageSize=limit,
        )
        self.link = Link(theirs, limit)
        startup = Startup(
            Readiness(waitReady=True, isService=False),
            self.link.ready,
            self.link.failed,
        )
        self.worker = context.Worker(settings, self.link, startup)
        self.link.terminated = lambda: self.worker.stop(asked=True)
        context.become(self.worker)
        self._protocol = _WatcherProtocol(self)
        inbox: Inbox[Data] = Inbox("look at PlayedWatcher.messages")
        self.conversation: Conversation[Data] = Conversation(
            lambda: self.reactor,
            self._protocol.sendPiece,
            self._schedule,
            inbox,
            self._received,
            limit,
        )
        self._protocol.conversation = self.conversation
        self._protocol.nonsense = lambda failure: None
        self._protocol.lost = lambda reason: None
        self._transport = UNIXTransport(self.reactor, ours, self._protocol)
        self._transport.start()
        self.link.attach(self.reactor)
        startup.reactorRuns(self.reactor)

    def send(self, data: Data) -> None:
        """
        Send the worker a message.
        """
        self.conversation.send(data)
        self.pump()

    def request(self, data: Data) -> Deferred[Data]:
        """
        Ask the worker's responder.
        """
        asked = self.conversation.request(data)
        self.pump()
        return asked

    def terminate(self) -> None:
        """
        Tell the worker to leave.
        """
        self._protocol.call(Terminate)
        self.pump()

    def pump(self) -> None:
        """
        Move everything that is on its way.
        """
        self.reactor.settle()

    def close(self) -> None:
        """
        Be a worker no longer.
        """
        context.become(None)
        self._transport.discard()
        self.reactor.settle()

    def _schedule(self) -> None:
        self.reactor.callLater(0, self.conversation.flush)

    def _received(self, data: Data, sender: Optional[int]) -> Data:
        self.messages.append(data)
        return data
