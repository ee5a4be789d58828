"""
What the two ends of a control channel have in common.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from operator import itemgetter
from typing import Any, Optional, cast

from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.protocols import amp
from twisted.python.failure import Failure

from twisted_cluster.errors import ProtocolError
from twisted_cluster.ipc import commands
from twisted_cluster.ipc.conversation import Conversation
from twisted_cluster.sockets.wire.quietamp import QuietAMP

_MOST_UNREAD = 16 * 1024 * 1024
"""Unsent bytes, far over what all windows hold, at which a peer is given up."""


class ControlProtocol(QuietAMP):
    """
    Speaks the commands of the control channel; subclasses hear those of their
    side.

    @ivar conversation: where messages come from and go to.
    @ivar nonsense: called when the other side broke the rules, with why.
    @ivar lost: called once, when the connection has ended.
    """

    conversation: Optional[Conversation[Any]] = None
    nonsense: Callable[[Failure], None]
    lost: Callable[[Failure], None]
    _broken = False

    def call(
        self, command: type[amp.Command], **arguments: object
    ) -> Deferred[dict[str, Any]]:
        """
        Send a command.

        @return: a Deferred of its answer, which fails when the connection ends
            first; for a command without an answer, one that means nothing.
        """
        answer = self.callRemote(command, **arguments)
        return cast("Deferred[dict[str, Any]]", answer) if answer else Deferred()

    def sendPiece(
        self, kind: bytes, data: bytes, more: bool, confirmed: bool
    ) -> Optional[Deferred[bytes]]:
        """
        Send a piece of a batch, as L{twisted_cluster.ipc.outbox.SendPiece}.
        """
        command = commands.Messages if confirmed else commands.UnconfirmedMessages
        answer = self.callRemote(command, kind=kind, data=data, more=more)
        if not confirmed:
            return None
        sent: Deferred[bytes] = answer.addCallback(itemgetter("refused"))
        return sent

    @commands.Messages.responder
    def messages(self, kind: bytes, data: bytes, more: bool) -> Any:
        """
        Take over a piece of a batch of messages.
        """
        assert self.conversation is not None
        try:
            if getattr(self.transport, "pending", 0) > _MOST_UNREAD:
                raise ProtocolError("the other side writes and does not read")
            taken = self.conversation.received(kind, data, more)
        except ProtocolError:
            self.unhandledError(Failure())
            return Deferred()
        if isinstance(taken, Deferred):
            return taken.addCallback(lambda refused: {"refused": refused})
        return {"refused": taken}

    def lengthLimitExceeded(self, length: int) -> None:
        """
        The other side sent what is no AMP: close the connection.
        """
        self.unhandledError(
            Failure(ProtocolError(f"a key of {length} bytes: this is no AMP"))
        )

    def fileDescriptorReceived(self, descriptor: int) -> None:
        """
        This channel carries none: close it, and the connection.
        """
        os.close(descriptor)
        self.unhandledError(
            Failure(ProtocolError("a descriptor, where none is carried"))
        )

    def dispatchCommand(self, box: amp.AmpBox) -> Deferred[Any]:
        """
        Carry a command out; what cannot be carried out ends the connection.
        """
        dispatched: Deferred[Any] = super().dispatchCommand(box)
        return dispatched.addErrback(self._undone)

    def _undone(self, failure: Failure) -> Deferred[Any]:
        self.unhandledError(failure)
        return Deferred()

    def dataReceived(self, data: bytes) -> None:
        """
        Parse what arrives; what cannot be parsed ends the connection.
        """
        if self._broken:
            return
        try:
            super().dataReceived(data)
        except Exception:
            self.unhandledError(Failure())

    def unhandledError(self, failure: Failure) -> None:
        """
        The other side broke the rules: close the connection.
        """
        if self._broken:
            return
        self._broken = True
        self.nonsense(failure)
        if self.transport is not None:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Nothing more will be heard.
        """
        super().connectionLost(reason)
        self.lost(reason)
