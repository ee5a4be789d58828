"""
Decides which worker gets the next connection.

The rules:

  1. A balancer sees one address's connections and nothing else; it remembers at
     most whom it chose last.  About a connection that its worker did not take, or
     that moves since its worker leaves, it is asked as about any other.
  2. Candidates come and go between any two questions: workers die, are replaced,
     or do not keep up for a while.  Whoever is there is treated alike.
  3. What tells clients apart is the same in every process and after every
     restart: no salt, and not Python's C{hash()}.
"""

from __future__ import annotations

import hashlib
import struct
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from zope.interface import implementer

from twisted_cluster.interfaces import Candidate, Connection, IBalancer

KERNEL: Final = "kernel"
"""
The name of what needs no balancer: the workers accept by themselves.
"""


def _worker(candidate: Candidate) -> int:
    return candidate.worker


@implementer(IBalancer)
class RoundRobin:
    """
    Each worker in turn: the one with the smallest id above the last that was
    chosen, and after the highest the first again.

    While the candidates stay the same, no two of them differ by more than one
    connection.
    """

    firstBytes = 0
    patience = 0.0

    def __init__(self) -> None:
        self._last = 0

    def choose(
        self, connection: Connection, candidates: Sequence[Candidate]
    ) -> Candidate:
        """
        Choose the next one.
        """
        place = bisect_right(candidates, self._last, key=_worker)
        chosen = candidates[place % len(candidates)]
        self._last = chosen.worker
        return chosen


@implementer(IBalancer)
class LeastConnections:
    """
    A worker that has no more connections than any other; when there are several,
    each in turn.
    """

    firstBytes = 0
    patience = 0.0

    def __init__(self) -> None:
        self._last = 0

    def choose(
        self, connection: Connection, candidates: Sequence[Candidate]
    ) -> Candidate:
        """
        Choose the next one of those with the fewest.
        """
        counts = [candidate.connections for candidate in candidates]
        fewest = min(counts)
        place = bisect_right(candidates, self._last, key=_worker)
        try:
            place = counts.index(fewest, place)
        except ValueError:
            place = counts.index(fewest)
        chosen = candidates[place]
        self._last = chosen.worker
        return chosen


def rendezvous(key: str, candidates: Sequence[Candidate]) -> Candidate:
    """
    Choose by highest random weight (Thaler and Ravishankar, 1998): every slot
    draws a number for the key, and the highest wins.

    Equal keys therefore meet in one slot; a slot that goes away gives up its own
    keys, evenly to all others, and moves no other key; a slot that is added takes
    an even share from each.  With N slots, either is one key of N.

    The numbers are successive words of 64 bits of SHAKE128 of the key, slot s
    having word s, and so as good as independent: shares differ by no more than
    chance.  All of them come from one call, in about 2 µs for 8 slots and 90 µs
    for 1,000; a mixing of integers in Python takes 3 and 300 µs.  (A CRC of key
    and slot will not do: it is linear, and gives slots very unequal shares.)

    Anybody can compute this: a client that may choose its key may choose its
    slot.

    @param key: what is to stay together.
    @param candidates: one or more, in any order.
    @return: the candidate in the winning slot.  When a slot has several, as
        while a worker is being replaced, the one with the highest id.
    """
    slots = [candidate.slot for candidate in candidates]
    count = max(slots) + 1
    digest = hashlib.shake_128(key.encode("utf-8", "surrogatepass")).digest(8 * count)
    numbers = struct.unpack(f"<{count}Q", digest)
    drawn = [numbers[slot] for slot in slots]
    highest = max(drawn)
    if drawn.count(highest) == 1:
        return candidates[drawn.index(highest)]
    return max(
        (
            candidate
            for candidate, number in zip(candidates, drawn, strict=True)
            if number == highest
        ),
        key=_worker,
    )


@implementer(IBalancer)
class Sticky:
    """
    The same worker for all connections from one address, by L{rendezvous}; and
    the one that replaces it, which has its slot.

    Clients without an address, those of UNIX sockets, get each worker in turn.
    """

    firstBytes = 0
    patience = 0.0

    def __init__(self) -> None:
        self._unknown = RoundRobin()

    def choose(
        self, connection: Connection, candidates: Sequence[Candidate]
    ) -> Candidate:
        """
        Choose the client's own.
        """
        if not connection.peer:
            return self._unknown.choose(connection, candidates)
        return rendezvous(connection.peer, candidates)


BALANCERS: Final[Mapping[str, Callable[[], IBalancer]]] = {
    "round-robin": RoundRobin,
    "least-connections": LeastConnections,
    "sticky": Sticky,
}
"""
What makes a balancer, by the name that users give it.
"""
