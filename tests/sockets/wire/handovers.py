"""
What the tests of handing over share: two ends that record what they are told,
and the promise that is checked after each test.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable
from typing import Any, Optional

from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.sockethelpers import descriptors
from twisted_cluster.sockets.wire.frames import Arrival
from twisted_cluster.sockets.wire.handover import Handover
from twisted_cluster.testing import DescriptorReactor


class End:
    """
    One end, which records what it is told.

    @ivar greedy: whether it takes whatever arrives.
    @ivar react: called with the name of whatever the end is told, before it is
        recorded; tests replace it.
    """

    def __init__(self, reactor: Any, skt: socket.socket, **options: Any) -> None:
        self.handover = Handover(reactor, skt, **options)
        self.greedy = True
        self.react: Callable[[str], object] = lambda what: None
        self.sent: list[int] = []
        self.heard: list[str] = []
        self.taken: list[Arrival] = []
        self.answers: list[tuple[int, Optional[str]]] = []
        self.notes: list[bytes] = []
        self.lost: list[Any] = []
        self.reason: Any = None
        self.handover.arrived = self._arrived
        self.handover.answered = self._answered
        self.handover.noted = self._noted
        self.handover.lost = self._lost

    @property
    def transport(self) -> Any:
        return self.handover._transport

    @property
    def numbers(self) -> list[int]:
        """
        The tokens of what this end took.
        """
        return [int(each.data[:8]) for each in self.taken]

    @property
    def takenByOther(self) -> list[int]:
        return [token for token, why in self.answers if why is None]

    @property
    def givenBack(self) -> list[int]:
        return [token for token, why in self.answers if why is not None]

    def send(self, descriptor: int, size: int = 0) -> int:
        """
        Hand over, with data that starts with the token, which is a number.
        """
        token = len(self.sent)
        self.handover.send(descriptor, b"%08d" % token + b"x" * size, token)
        self.sent.append(token)
        return token

    def take(self, most: int = 64) -> int:
        """
        Take, and check what that promises.
        """
        arrivals = self.handover.take(most)
        assert len(arrivals) <= max(most, 0)
        for arrival in arrivals:
            assert not os.get_inheritable(arrival.descriptor)
        self.taken.extend(arrivals)
        return len(arrivals)

    def _arrived(self) -> None:
        self.heard.append("arrived")
        self.react("arrived")
        while self.greedy and self.take():
            pass

    def _answered(self, token: int, why: Optional[str]) -> None:
        self.heard.append("answered")
        self.answers.append((token, why))
        self.react("answered")

    def _noted(self, data: bytes) -> None:
        self.heard.append("noted")
        self.notes.append(data)
        self.react("noted")

    def _lost(self, reason: Failure, tokens: list[int]) -> None:
        self.heard.append("lost")
        self.reason = reason.value
        self.lost.extend(tokens)
        self.react("lost")


class HandoverTestCase(SynchronousTestCase):
    """
    Two ends, joined.  After each test: whatever was handed over was answered or
    lost, once, in order; what one end believes to be taken is what the other end
    took; and no descriptor is left.
    """

    def setUp(self) -> None:
        self.before = self.count()
        self.reactor = DescriptorReactor()
        self.open: list[int] = []
        ours, theirs = socket.socketpair()
        self.one = End(self.reactor, ours)
        self.other = End(self.reactor, theirs)
        self.start()

    def start(self) -> None:
        """
        Begin to read at both ends.
        """
        self.one.handover.start()
        self.other.handover.start()

    def tearDown(self) -> None:
        ends = (self.one, self.other)
        for end in ends:
            end.handover.abort()
        for end in ends:
            self.assertEqual(end.heard.count("lost"), 1)
            self.assertEqual(end.heard[-1], "lost")
            told = [token for token, _ in end.answers] + end.lost
            self.assertEqual(told, end.sent)
            self.assertEqual(end.handover.unanswered, 0)
        self.checkTaken()
        for end in ends:
            for arrival in end.taken:
                os.close(arrival.descriptor)
        for descriptor in self.open:
            os.close(descriptor)
        self.assertEqual(self.count(), self.before)
        self.assertEqual(self.reactor.removeAll(), [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def count(self) -> int:
        """
        How many descriptors are open.
        """
        return descriptors()

    def checkTaken(self) -> None:
        """
        What was answered as taken is what was taken.
        """
        self.assertEqual(self.one.takenByOther, self.other.numbers)
        self.assertEqual(self.other.takenByOther, self.one.numbers)

    def file(self) -> int:
        """
        A descriptor of something that has an inode of its own.
        """
        reading, writing = os.pipe()
        os.close(writing)
        self.open.append(reading)
        return reading

    def serve(self, end: End, reading: bool = True) -> None:
        """
        Let one end read or write once, if it wants to and can.
        """
        transport = end.transport
        wants = self.reactor.getReaders() if reading else self.reactor.getWriters()
        if transport not in wants:
            return
        sets = ([transport], []) if reading else ([], [transport])
        if any(select.select(*sets, [], 0)):
            why = transport.doRead() if reading else transport.doWrite()
            if why is not None:
                transport.connectionLost(Failure(why))

    def stuff(self, end: End) -> int:
        """
        Fill an end's way to the other with notes.

        @return: how many there are.
        """
        count = 0
        while not end.transport.pending:
            end.handover.note(b"n" * 5000)
            count += 1
        return count
