"""
Takes the sockets that come through a pipe on descriptor 3, each with an integer.
"""

from __future__ import annotations

import socket

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from twisted_cluster.sockets import ClientSocketReceivePipe


async def receive(reactor: object) -> None:
    expected = 0
    async for taken in ClientSocketReceivePipe(reactor, socket.socket(fileno=3)):
        assert taken.data in (expected, 0)
        expected = taken.data + 1
        taken.close()


react(lambda reactor: Deferred.fromCoroutine(receive(reactor)))
