"""
The promise of handing over, at most once and never forgotten, whatever happens:
under reactors that end connections by themselves, with processes that are
killed, and with anything done at any time.
"""

from __future__ import annotations

import os
import random
import select
import signal
import socket
import subprocess
import sys
import time
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as some
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.pollreactor import PollReactor
from twisted.internet.selectreactor import SelectReactor
from twisted.trial.unittest import SynchronousTestCase

from tests.sockethelpers import descriptors, room
from tests.sockets.wire.handovers import End, HandoverTestCase
from twisted_cluster.errors import ChannelClosed, ProtocolError
from twisted_cluster.testing import DescriptorReactor

DEADLINE = 60.0


class Reactors(SynchronousTestCase):
    """
    Twisted's own reactors, one turn at a time.  Those that poll end a connection
    without reading it when the other side is gone and it does not read.
    """

    def check(self, kind: Any) -> None:
        """
        A sender that is paused, with more to send, hears the words of a receiver
        that took some and went.
        """
        before = descriptors()
        reactor = kind()
        try:
            ours, theirs = socket.socketpair()
            one, other = End(reactor, ours), End(reactor, theirs)
            one.handover.start()
            other.handover.start()
            other.greedy = False
            for _ in range(3):
                one.send(0)
            one.handover.flush()
            self.turn(reactor, lambda: bool(other.heard))
            other.take(2)
            one.handover.pauseProducing()
            while not one.handover.pending:
                one.handover.note(b"x" * 60_000)
            other.handover.abort()
            self.turn(reactor, lambda: bool(one.lost))
            self.assertEqual((one.takenByOther, one.lost), ([0, 1], [2]))
            for arrival in other.taken:
                os.close(arrival.descriptor)
        finally:
            waker = reactor.waker
            reactor.removeAll()
            reactor.removeReader(waker)
            waker.connectionLost(None)
            if hasattr(reactor, "_poller") and hasattr(reactor._poller, "close"):
                reactor._poller.close()
        self.assertEqual(descriptors(), before)

    def turn(self, reactor: Any, done: Any) -> None:
        """
        Iterate until that is so.
        """
        end = time.monotonic() + DEADLINE
        while not done():
            self.assertTrue(time.monotonic() < end, "it takes too long")
            reactor.runUntilCurrent()
            reactor.doIteration(0.01)

    def test_epoll(self) -> None:
        """
        With epoll.
        """
        self.check(EPollReactor)

    def test_poll(self) -> None:
        """
        With poll.
        """
        self.check(PollReactor)

    def test_select(self) -> None:
        """
        With select.
        """
        self.check(SelectReactor)


CHILD = """
import os, socket, sys
from twisted_cluster.sockets.wire.handover import Handover
from twisted_cluster.testing import DescriptorReactor
import select
reactor = DescriptorReactor()
handover = Handover(reactor, socket.socket(fileno=int(sys.argv[1])))
def arrived():
    while taken := handover.take(int(sys.argv[2])):
        for each in taken:
            os.write(1, each.data + b"\\n")
            os.close(each.descriptor)
handover.arrived = arrived
handover.lost = lambda why, tokens: sys.exit(0)
handover.start()
os.write(1, b"ready\\n")
while True:
    select.select(reactor.getReaders(), reactor.getWriters(), [], 60)
    reactor.settle()
"""
"""
Takes what it is given and says so on its standard output, once it has it.
"""


class Killed(SynchronousTestCase):
    """
    A receiver is killed at any moment.
    """

    timeout = 120

    def kill(self, most: int, after: float) -> tuple[int, int]:
        """
        Start a receiver, keep it busy, and kill it.

        @return: how many it has taken, and how many it has not.
        """
        reactor = DescriptorReactor()
        ours, theirs = socket.socketpair()
        number = theirs.fileno()
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(number), str(most)],
            stdout=subprocess.PIPE,
            pass_fds=[number],
        )
        theirs.close()
        output = child.stdout
        assert output is not None
        one = End(reactor, ours)
        one.handover.start()
        served = b""
        try:
            self.assertTrue(select.select([output], [], [], DEADLINE)[0])
            self.assertEqual(output.readline(), b"ready\n")
            os.set_blocking(output.fileno(), False)
            end = time.monotonic() + after
            while time.monotonic() < end or not one.answers:
                self.assertTrue(time.monotonic() < end + DEADLINE)
                while one.handover.unanswered < 200:
                    one.send(0)
                reactor.settle()
                served += output.read() or b""
            for _ in range(300):
                one.send(0)
            one.handover.flush()
            child.send_signal(signal.SIGSTOP)
            for _ in range(100):
                one.send(0)
            one.handover.flush()
        finally:
            child.kill()
            child.wait(DEADLINE)
        os.set_blocking(output.fileno(), True)
        served += output.read()
        output.close()
        reactor.settle()
        self.assertEqual(child.returncode, -signal.SIGKILL)
        told = [token for token, _ in one.answers] + one.lost
        self.assertEqual(told, one.sent)
        lines = served.split(b"\n")
        whole = [int(line) for line in lines[:-1]]
        self.assertEqual(whole, [*range(len(whole))])
        self.assertEqual(one.takenByOther[: len(whole)], whole)
        self.assertTrue(len(one.takenByOther) - len(whole) <= most)
        return len(one.takenByOther), len(one.lost)

    def test_atMostOnce(self) -> None:
        """
        Whatever it has served counts as taken, although it was killed with its
        words under way; the rest is lost, in order.
        """
        before = descriptors()
        for most in (1, 7, 64):
            taken, lost = self.kill(most, random.uniform(0.1, 0.3))
            self.assertTrue(taken > 0)
            self.assertTrue(lost > 0)
        self.assertEqual(descriptors(), before)


ACTIONS = (
    ["read"] * 4
    + ["write"] * 2
    + ["send"] * 3
    + ["large", "flush", "take", "takeOne", "giveBack", "note", "stuff", "turn"]
    + ["pause", "resume", "limit", "drain", "peek"]
)
LAST = ["close", "abort", "garbage", "raise", "refuse"]


class Anything(HandoverTestCase):
    """
    Anything may happen at any time, also from within whatever is told: the
    promise that L{HandoverTestCase} checks holds.
    """

    def setUp(self) -> None:
        """
        Each example has a fixture of its own.
        """
        self.liars: set[End] = set()
        self.limited = False

    tearDown = setUp

    def count(self) -> int:
        """
        How many descriptors are open; collecting garbage takes too long here.
        """
        return len(os.listdir("/proc/self/fd"))

    def checkTaken(self) -> None:
        """
        Of an end that said nonsense, nothing after that is believed.
        """
        for end, other in ((self.one, self.other), (self.other, self.one)):
            taken = end.takenByOther
            self.assertEqual(taken, other.numbers[: len(taken)])
            self.assertTrue(other in self.liars or len(taken) == len(other.numbers))

    def serveLimited(self, end: End) -> None:
        """
        Read with little room for descriptors, unless that is so already.
        """
        if not self.limited:
            self.limited = True
            with room(2):
                self.serve(end)
            self.limited = False

    def do(self, end: End, action: str) -> None:
        """
        Do something.
        """
        handover = end.handover
        try:
            if action == "read":
                self.serve(end)
            elif action == "write":
                self.serve(end, reading=False)
            elif action == "send":
                end.send(self.open[len(end.sent) % len(self.open)])
            elif action == "large":
                end.send(self.open[0], 300_000)
            elif action == "flush":
                handover.flush()
            elif action == "take":
                end.take()
            elif action == "takeOne":
                end.take(1)
            elif action == "giveBack":
                handover.giveBack(2, "no")
            elif action == "note":
                handover.note(b"note")
            elif action == "stuff":
                for _ in range(300):
                    handover.note(b"")
            elif action == "turn":
                self.reactor.advance(0)
            elif action == "pause":
                handover.pauseProducing()
            elif action == "resume":
                handover.resumeProducing()
            elif action == "limit":
                self.serveLimited(end)
            elif action == "drain":
                handover.drain()
            elif action == "peek":
                handover.peek()
            elif action == "close":
                handover.close()
            elif action == "abort":
                handover.abort()
            elif action == "garbage" and end.transport.fileno() >= 0:
                self.liars.add(end)
                end.transport.write(b"?")
        except ChannelClosed:
            self.assertIn(action, ("send", "large"))
        if action == "raise":
            raise ValueError("raise")
        if action == "refuse":
            raise ProtocolError("refuse")

    steps = some.lists(
        some.tuples(some.booleans(), some.sampled_from(ACTIONS)), max_size=40
    )
    reactions = some.lists(
        some.tuples(some.booleans(), some.sampled_from([*ACTIONS, *LAST, ""])),
        max_size=8,
    )

    @settings(max_examples=500, deadline=None)
    @given(steps, reactions, some.sampled_from(LAST[:3]), some.booleans())
    def test_anything(
        self, steps: Any, reactions: Any, last: str, greedy: bool
    ) -> None:
        """
        Try it.
        """
        super().setUp()
        self.liars.clear()
        for _ in range(3):
            self.file()
        self.one.greedy = self.other.greedy = greedy
        queue = [*reactions]

        def react(what: str) -> None:
            if queue:
                first, action = queue.pop(0)
                self.do(self.one if first else self.other, action)

        self.one.react = self.other.react = react
        for first, action in [*steps, (True, last)]:
            try:
                self.do(self.one if first else self.other, action)
            except (ValueError, ProtocolError):
                raise AssertionError("it is told nothing") from None
        for end in (self.one, self.other):
            self.do(end, "resume")
        for _ in range(3):
            self.reactor.settle()
        super().tearDown()
        self.flushLoggedErrors(ValueError, ProtocolError)
