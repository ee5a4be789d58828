"""
The asking end of a server-socket channel, for a process whose reactor runs.

One question is asked at a time; the others wait for their turn.  A socket that
nobody waits for any more, since its question was cancelled or took too long, is
given back, as is one for whose descriptor there was no room.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from typing import Any, Final, Optional, Union

import attrs
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.protocols import amp
from twisted.python.failure import Failure

from twisted_cluster.errors import ChannelClosed, ChannelError, ProtocolError
from twisted_cluster.sockets.addresses import (
    Address,
    BindRequest,
    Refused,
    Shared,
    SocketRequest,
)
from twisted_cluster.sockets.servers.binding import makeSocket
from twisted_cluster.sockets.servers.commands import (
    ReleaseSocket,
    RequestSocket,
    addressValues,
    questionValues,
)
from twisted_cluster.sockets.wire.strictamp import LOST, StrictAMP
from twisted_cluster.sockets.wire.transport import UNIXTransport

_REQUEST: Final[Any] = RequestSocket
_RELEASE: Final[Any] = ReleaseSocket

Answer = Union[Shared, Refused]


@attrs.define(eq=False)
class _Question:
    """
    One that was not answered yet.

    @ivar answer: fires with the answer, for as long as somebody waits for it.
    """

    wanted: BindRequest
    answer: Optional[Deferred[Answer]] = None
    timer: Optional[IDelayedCall] = None

    def settle(self) -> Optional[Deferred[Answer]]:
        """
        Nobody waits any more.

        @return: who did.
        """
        answer, self.answer = self.answer, None
        timer, self.timer = self.timer, None
        if timer is not None and timer.active():
            timer.cancel()
        return answer


class AskingProtocol(StrictAMP):
    """
    Asks a provider for listening sockets.
    """

    saying = "an answer"

    def __init__(self, clock: IReactorTime, timeout: float, name: str) -> None:
        """
        @param timeout: seconds that a question may wait for its answer.
        @param name: what the log and errors call the other side.
        """
        super().__init__(name)
        self._clock = clock
        self._timeout = timeout
        self._asked: Optional[_Question] = None
        self._waiting: deque[_Question] = deque()
        self._count = 0
        self._indices: dict[tuple[str, str], int] = {}
        self._gone: Optional[ChannelError] = None
        self._spare: Optional[socket.socket] = None

    def ask(self, wanted: BindRequest) -> Deferred[Answer]:
        """
        Ask for the socket of an address.

        @return: a Deferred of the answer; in L{Shared}, the socket is the
            caller's.  An answer that does not come in time is a refusal with
            C{ETIMEDOUT}.  It fails with L{ChannelClosed} when the other side is
            gone, or goes first, or when L{close} was called; and with
            L{ProtocolError} when the other side breaks the rules first.
        """
        if self._gone is not None:
            return fail(ChannelClosed(str(self._gone)))
        question = _Question(wanted)
        answer: Deferred[Answer] = Deferred(lambda _: self._giveUp(question))
        question.answer = answer
        question.timer = self._clock.callLater(self._timeout, self._late, question)
        self._waiting.append(question)
        self._askNext()
        return answer

    def release(self, address: Address) -> None:
        """
        Tell that a socket is not used any more; a provider that is gone needs
        not be told.
        """
        if self._gone is not None:
            return
        box = _RELEASE.makeArguments(addressValues(address), self)
        box[amp.COMMAND] = _RELEASE.commandName
        self._amp.sendBox(box)

    def close(self, why: str) -> None:
        """
        End the connection.

        @param why: what those who still wait are told.
        """
        if self._gone is None:
            self._gone = ChannelClosed(why)
            transport: Any = self.transport
            transport.abortConnection()

    def makeRoom(self) -> None:
        """
        Give up the descriptor in whose place that of an answer may come.
        """
        spare, self._spare = self._spare, None
        if spare is not None:
            spare.close()

    def boxReceived(self, box: amp.AmpBox) -> None:
        """
        Take an answer.
        """
        question = self._asked
        if question is None or box.get(amp.ANSWER) != b"%x" % self._count:
            raise ProtocolError("an answer to no question")
        values = _REQUEST.parseResponse(box, self)
        answer = self._answerOf(values, question.wanted)
        self._asked = None
        if isinstance(answer, Shared) and question.wanted.address.ephemeral:
            self._indices[_hostOf(question)] = self._indexOf(question) + 1
        waiting = question.settle()
        if waiting is not None:
            waiting.callback(answer)
        elif isinstance(answer, Shared):
            answer.socket.close()
            self.release(answer.address)
        self._askNext()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Fail whatever waits.
        """
        super().connectionLost(reason)
        self.makeRoom()
        if self._gone is None:
            if self.broken is None:
                self._gone = ChannelClosed(f"{self.name} is gone")
            else:
                self._gone = ProtocolError(f"{self.name}: {self.broken}")
        waiting = [*self._waiting]
        self._waiting.clear()
        if self._asked is not None:
            waiting.insert(0, self._asked)
            self._asked = None
        for question in waiting:
            answer = question.settle()
            if answer is not None:
                answer.errback(type(self._gone)(str(self._gone)))

    def _askNext(self) -> None:
        while self._asked is None and self._waiting and self._gone is None:
            question = self._waiting.popleft()
            try:
                self._send(question)
            except OSError as error:
                self._refuse(question, error.errno, error.strerror or str(error))

    def _send(self, question: _Question) -> None:
        wanted = question.wanted
        request = SocketRequest(
            wanted,
            self._indexOf(question) if wanted.address.ephemeral else 0,
            explicit=True,
        )
        skt = makeSocket(wanted.address)
        try:
            box = _REQUEST.makeArguments(questionValues(request, skt.fileno()), self)
        except BaseException:
            skt.close()
            raise
        self._count += 1
        box[amp.COMMAND] = _REQUEST.commandName
        box[amp.ASK] = b"%x" % self._count
        self._asked = question
        self._spare = skt
        self._amp.sendBox(box)

    def _indexOf(self, question: _Question) -> int:
        return self._indices.get(_hostOf(question), 0)

    def _answerOf(self, values: dict[str, Any], wanted: BindRequest) -> Answer:
        if values["verdict"] == b"refused":
            return Refused(values["errno"], values["message"])
        if values["verdict"] != b"shared" or values["socket"] is None:
            raise ProtocolError(f"no answer: {values['verdict']!r}")
        descriptor = self.claim(values["socket"])
        if descriptor == LOST:
            address = wanted.address
            if address.ephemeral:
                address = attrs.evolve(address, port=values["port"] or 0)
            if not address.ephemeral:
                self.release(address)
            return Refused(errno.EMFILE, os.strerror(errno.EMFILE))
        try:
            skt = socket.socket(fileno=descriptor)
        except OSError:
            os.close(descriptor)
            raise
        try:
            address = wanted.address
            if (skt.family, skt.type) != (address.family, address.type):
                raise ProtocolError(f"a socket of {skt.family!r} for {address}")
            if not skt.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                raise ProtocolError(f"a socket for {address} that does not listen")
            skt.setblocking(False)
            # A UNIX socket was perhaps not bound by its own path.
            if address.kind != "unix":
                address = Address.ofSocket(skt)
            return Shared(skt, address)
        except BaseException:
            skt.close()
            raise

    def _late(self, question: _Question) -> None:
        self._giveUp(
            question,
            f"{self.name} did not answer within {self._timeout:g} seconds",
        )

    def _giveUp(self, question: _Question, why: str = "") -> None:
        if question in self._waiting:
            self._waiting.remove(question)
        if why:
            self._refuse(question, errno.ETIMEDOUT, why)
        else:
            question.settle()

    def _refuse(self, question: _Question, number: Optional[int], why: str) -> None:
        answer = question.settle()
        if answer is not None:
            answer.callback(Refused(number or errno.EIO, why))


class AskingTransport(UNIXTransport):
    """
    The transport of L{AskingProtocol}.
    """

    _protocol: AskingProtocol

    def doRead(self) -> Any:
        """
        Read once, having made room for the descriptor that may come.
        """
        self._protocol.makeRoom()
        return super().doRead()


def _hostOf(question: _Question) -> tuple[str, str]:
    return question.wanted.address.kind, question.wanted.address.host
