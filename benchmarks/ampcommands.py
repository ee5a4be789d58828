"""
What plain AMP does, for comparison: one command a message.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.protocols import amp

WINDOW = 1000


class Message(amp.Command):
    """
    A message, without an answer.
    """

    arguments = [(b"data", amp.String())]
    requiresAnswer = False


class Echo(amp.Command):
    """
    A question and its answer.
    """

    arguments = [(b"data", amp.String())]
    response = [(b"data", amp.String())]


class Send(amp.Command):
    """
    Send so many messages; answered after the last.
    """

    arguments = [(b"count", amp.Integer()), (b"value", amp.String())]


class Receive(amp.Command):
    """
    Expect so many messages; answered when they have arrived.
    """

    arguments = [(b"count", amp.Integer())]


class Talker(amp.AMP):
    """
    Either side.
    """

    received = 0
    enough = -1

    @Message.responder
    def message(self, data: bytes) -> dict[str, object]:
        self.received += 1
        if self.received == self.enough:
            self.waiter.callback({})
        return {}

    @Echo.responder
    def echo(self, data: bytes) -> dict[str, object]:
        return {"data": data}

    @Send.responder
    def send(self, count: int, value: bytes) -> Deferred[dict[str, object]]:
        return Deferred.fromCoroutine(self.sendAll(count, value))

    @Receive.responder
    def receive(self, count: int) -> Deferred[dict[str, object]]:
        return self.expect(count)

    async def sendAll(self, count: int, value: bytes) -> dict[str, object]:
        """
        Send so many messages, some in each turn of the reactor.
        """
        from twisted.internet import reactor

        for start in range(0, count, WINDOW):
            for _ in range(min(WINDOW, count - start)):
                self.callRemote(Message, data=value)
            await deferLater(reactor, 0, lambda: None)
        return {}

    def expect(self, count: int) -> Deferred[dict[str, object]]:
        """
        A Deferred that fires when so many more messages have arrived.
        """
        self.enough = self.received + count
        self.waiter: Deferred[dict[str, object]] = Deferred()
        return self.waiter
