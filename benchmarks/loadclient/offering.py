"""
What all kinds of load have in common: requests that are under way, each with the
time by which it must be answered.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Final, Optional, Protocol

from benchmarks.loadclient.answers import fault
from benchmarks.loadclient.clock import NetClock
from benchmarks.loadclient.dialing import Dialer
from benchmarks.loadclient.outcomes import Outcome, Verdict
from benchmarks.loadclient.specs import Offer
from benchmarks.loadclient.tally import Tally

now = time.monotonic
LINGER: Final = 2.0
"""
Seconds that a server has to close what it said it would close.
"""


class Owner(Protocol):
    """
    The connection that a request is on.
    """

    def abandon(self, request: Request) -> None:
        """
        The request's time is over.
        """


class Request:
    """
    A request that is under way.

    @ivar begun: when it was sent, on the wall.
    @ivar deadline: when it must have been answered, in net seconds.
    """

    __slots__ = ("begun", "deadline", "number", "owner")

    def __init__(self, number: int, begun: float, deadline: float) -> None:
        self.number = number
        self.begun = begun
        self.deadline = deadline
        self.owner: Optional[Owner] = None


class Offering(ABC):
    """
    Offers one kind of load.
    """

    def __init__(
        self, offer: Offer, dialer: Dialer, clock: NetClock, begun: float
    ) -> None:
        self.offer = offer
        self.tally = Tally(clock, begun)
        self._dialer = dialer
        self._clock = clock
        self._underWay: dict[int, Request] = {}
        self._expect = offer.expect.encode()

    @property
    def underWay(self) -> int:
        """
        How many requests are unanswered.
        """
        return len(self._underWay)

    def send(self) -> None:
        """
        Send one more request, unless too many are unanswered.
        """
        if len(self._underWay) >= self.offer.most:
            self.tally.withheld += 1
            return
        begun = now()
        number = self.tally.offered
        self.tally.offered += 1
        deadline = self._clock.net(begun) + self.offer.timeout
        request = Request(number, begun, deadline)
        self._underWay[number] = request
        self.place(request)

    def sweep(self) -> None:
        """
        End the requests whose time is over.
        """
        net = self._clock.net(now())
        while self._underWay:
            request = next(iter(self._underWay.values()))
            if request.deadline > net:
                return
            self.fail(request, Outcome(Verdict.TIMED_OUT, "no complete answer"))
            if request.owner is not None:
                request.owner.abandon(request)

    def wordOf(self, request: Request) -> bytes:
        """
        What the answer's first word must be; empty if anything.
        """
        return b"%d" % request.number if self.offer.echo else b""

    def pathOf(self, request: Request) -> bytes:
        """
        What is asked for.
        """
        path = self.offer.path
        if self.offer.echo:
            path += f"{'&' if '?' in path else '?'}n={request.number}"
        return path.encode()

    def answered(self, request: Request, status: int, body: bytes) -> bool:
        """
        A complete answer has come.

        @return: whether it is right.
        """
        wrong = fault(status, body, self.wordOf(request), self._expect)
        if wrong:
            self.fail(request, Outcome(Verdict.WRONG, wrong))
            return False
        if self._underWay.pop(request.number, None) is not None:
            words = body.split(None, 2) if self.offer.echo else []
            tag = words[1].decode("ascii", "replace") if len(words) > 1 else ""
            self.tally.success(request.begun, now(), tag)
        return True

    def fail(self, request: Request, outcome: Outcome) -> None:
        """
        A request has ended without the right answer.
        """
        if self._underWay.pop(request.number, None) is not None:
            self.tally.failure(outcome, request.begun, now())

    @abstractmethod
    def place(self, request: Request) -> None:
        """
        Put a request on a connection.
        """

    @abstractmethod
    def close(self) -> None:
        """
        Close every connection.
        """
