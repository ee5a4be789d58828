"""
Who gets the next connection.
"""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from twisted_cluster.interfaces import Candidate, Connection, IBalancer
from twisted_cluster.policy.balance import (
    BALANCERS,
    KERNEL,
    LeastConnections,
    RoundRobin,
    Sticky,
    rendezvous,
)

SOMEBODY = Connection("tcp:0.0.0.0:80", "192.0.2.1")


def workers(*ids: int) -> list[Candidate]:
    """
    Workers without connections, in slots of their own.
    """
    return [Candidate(each, each - 1) for each in sorted(ids)]


workerIDs = st.sets(st.integers(1, 40), min_size=1, max_size=12)
slots = st.lists(st.integers(0, 300), min_size=1, max_size=20, unique=True)
peers = st.one_of(
    st.ip_addresses().map(str), st.text(st.characters(codec="ascii"), min_size=1)
)


class Balancer(Protocol):
    """
    A balancer that always chooses.
    """

    def choose(
        self, connection: Connection, candidates: Sequence[Candidate]
    ) -> Candidate: ...


class BalancersTests(SynchronousTestCase):
    """
    What holds for all of them.
    """

    def test_provided(self) -> None:
        """
        Each name makes a new balancer, which looks at no bytes.
        """
        self.assertEqual(
            ["round-robin", "least-connections", "sticky"], list(BALANCERS)
        )
        for make in BALANCERS.values():
            self.assertTrue(verifyObject(IBalancer, make()))
            self.assertIsNot(make(), make())
            self.assertEqual((0, 0.0), (make().firstBytes, make().patience))

    def test_kernel(self) -> None:
        """
        What the kernel decides has a name, and no balancer.
        """
        self.assertEqual("kernel", KERNEL)
        self.assertNotIn(KERNEL, BALANCERS)

    @given(workerIDs, st.sampled_from(["", "192.0.2.1"]))
    def test_oneOfThem(self, ids: set[int], peer: str) -> None:
        """
        The choice is one of the candidates, itself, however few there are.
        """
        candidates = workers(*ids)
        for make in BALANCERS.values():
            chosen = make().choose(Connection("unix:/x", peer), candidates)
            self.assertTrue(any(chosen is each for each in candidates))


class RoundRobinTests(SynchronousTestCase):
    """
    L{RoundRobin}.
    """

    def choices(
        self, balancer: Balancer, candidates: Sequence[Candidate], count: int
    ) -> list[int]:
        """
        Have it choose so often among the same.
        """
        return [balancer.choose(SOMEBODY, candidates).worker for _ in range(count)]

    def test_inTurn(self) -> None:
        """
        Ids go up, and begin again after the highest.
        """
        self.assertEqual(
            [2, 3, 7, 2, 3], self.choices(RoundRobin(), workers(7, 2, 3), 5)
        )

    def test_lastOneGone(self) -> None:
        """
        When the last that was chosen has gone, its successor comes next, and a
        worker that has come meanwhile has its turn by its id.
        """
        balancer = RoundRobin()
        self.choices(balancer, workers(1, 2, 3), 2)
        self.assertEqual([3, 4, 1], self.choices(balancer, workers(1, 3, 4), 3))

    @given(workerIDs, st.integers(0, 100), st.integers(0, 200))
    def test_even(self, ids: set[int], before: int, count: int) -> None:
        """
        Among the same candidates no two ever differ by more than one connection,
        whatever was before.
        """
        balancer = RoundRobin()
        self.choices(balancer, workers(1, 5, 17), before)
        chosen = Counter(dict.fromkeys(ids, 0))
        for worker in self.choices(balancer, workers(*ids), count):
            chosen[worker] += 1
            self.assertLessEqual(max(chosen.values()) - min(chosen.values()), 1)

    @given(st.lists(st.tuples(workerIDs, st.integers(1, 30)), max_size=10))
    def test_fairToThosePresent(self, phases: list[tuple[set[int], int]]) -> None:
        """
        Between two choices of a worker that is there all the time, every other
        such worker is chosen exactly once, whoever else comes and goes.
        """
        balancer = RoundRobin()
        since: dict[int, tuple[set[int], Counter[int]]] = {}
        for ids, count in phases:
            candidates = workers(*ids)
            since = {each: known for each, known in since.items() if each in ids}
            for present, _ in since.values():
                present &= ids
            for _ in range(count):
                chosen = balancer.choose(SOMEBODY, candidates).worker
                if chosen in since:
                    present, others = since[chosen]
                    for other in present - {chosen}:
                        self.assertEqual(1, others[other], (chosen, other))
                for _, others in since.values():
                    others[chosen] += 1
                since[chosen] = (set(ids), Counter())


class LeastConnectionsTests(SynchronousTestCase):
    """
    L{LeastConnections}.
    """

    def test_fewest(self) -> None:
        """
        The one with the fewest is chosen, wherever it stands.
        """
        balancer = LeastConnections()
        for fewest in (3, 1, 2, 2):
            candidates = [
                Candidate(each, each - 1, 0 if each == fewest else 1)
                for each in (1, 2, 3)
            ]
            self.assertEqual(fewest, balancer.choose(SOMEBODY, candidates).worker)

    def test_tiesRotate(self) -> None:
        """
        Those with equally few take turns, also when each connection has ended
        before the next one comes.
        """
        balancer = LeastConnections()
        candidates = [Candidate(each, each - 1, each == 3) for each in (1, 2, 3, 4)]
        chosen = [balancer.choose(SOMEBODY, candidates).worker for _ in range(6)]
        self.assertEqual([1, 2, 4, 1, 2, 4], chosen)

    @given(
        st.lists(
            st.lists(
                st.tuples(st.integers(1, 20), st.integers(0, 3)),
                min_size=1,
                max_size=8,
                unique_by=lambda pair: pair[0],
            ),
            max_size=40,
        )
    )
    def test_neverAboveTheFewest(self, questions: list[list[tuple[int, int]]]) -> None:
        """
        Nobody is chosen who has more than another; and of those with the fewest
        it is the next in turn.
        """
        balancer, last = LeastConnections(), 0
        for pairs in questions:
            candidates = [Candidate(a, a - 1, count) for a, count in sorted(pairs)]
            chosen = balancer.choose(SOMEBODY, candidates)
            fewest = min(count for _, count in pairs)
            self.assertEqual(fewest, chosen.connections)
            tied = [each.worker for each in candidates if each.connections == fewest]
            above = [worker for worker in tied if worker > last]
            self.assertEqual(above[0] if above else tied[0], chosen.worker)
            last = chosen.worker

    @given(workerIDs, st.integers(0, 60), st.randoms(use_true_random=False))
    def test_level(self, ids: set[int], count: int, rng: random.Random) -> None:
        """
        When no connection ends, no two differ by more than one; and whatever
        ends, a worker is only filled up to what the others have.
        """
        balancer, candidates = LeastConnections(), workers(*ids)
        for _ in range(count):
            balancer.choose(SOMEBODY, candidates).connections += 1
            counts = [each.connections for each in candidates]
            self.assertLessEqual(max(counts) - min(counts), 1)
        for each in candidates:
            each.connections = rng.randint(0, each.connections)
        highest = max(each.connections for each in candidates)
        for _ in range(count):
            balancer.choose(SOMEBODY, candidates).connections += 1
        counts = [each.connections for each in candidates]
        if max(counts) > highest:
            self.assertLessEqual(max(counts) - min(counts), 1)


class StickyTests(SynchronousTestCase):
    """
    L{Sticky}, and L{rendezvous}, which it is made of.
    """

    def test_sameWorker(self) -> None:
        """
        A client comes back to its worker, whatever that has to do and whoever
        else came meanwhile.
        """
        balancer, candidates = Sticky(), workers(*range(1, 9))
        first = balancer.choose(SOMEBODY, candidates)
        first.connections = 1000
        for number in range(20):
            balancer.choose(Connection("tcp:x:1", f"198.51.100.{number}"), candidates)
            self.assertIs(first, balancer.choose(SOMEBODY, candidates))

    def test_addressAlone(self) -> None:
        """
        Nothing counts but the client's address: all ports that are balanced
        agree.
        """
        candidates = workers(*range(1, 9))
        other = Connection("tcp:[::]:443", SOMEBODY.peer, b"GET / HTTP/1.1\r\n", False)
        self.assertIs(
            Sticky().choose(SOMEBODY, candidates), Sticky().choose(other, candidates)
        )

    def test_pinned(self) -> None:
        """
        The choice is the same on every machine and in every version, or else an
        upgrade would scatter the clients.
        """
        candidates = [Candidate(100 + slot, slot) for slot in range(8)]
        known = {
            "192.0.2.1": 5,
            "192.0.2.2": 1,
            "2001:db8::1": 0,
            "fe80::1%eth0": 0,
        }
        self.assertEqual(
            known, {key: rendezvous(key, candidates).slot for key in known}
        )

    def test_otherProcess(self) -> None:
        """
        Another process, with another seed of C{hash()}, chooses likewise.
        """
        program = (
            "from twisted_cluster.interfaces import Candidate; "
            "from twisted_cluster.policy.balance import rendezvous; "
            "c = [Candidate(s, s) for s in range(1000)]; "
            "print([rendezvous(f'192.0.2.{n}', c).slot for n in range(50)])"
        )
        candidates = [Candidate(slot, slot) for slot in range(1000)]
        mine = [rendezvous(f"192.0.2.{n}", candidates).slot for n in range(50)]
        done = subprocess.run(
            [sys.executable, "-R", "-c", program],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        self.assertEqual(f"{mine}\n", done.stdout)

    @given(peers, slots, st.data())
    def test_removal(self, peer: str, present: list[int], data: st.DataObject) -> None:
        """
        A slot that goes away moves its own keys and no others.
        """
        candidates = [Candidate(place, slot) for place, slot in enumerate(present)]
        before = rendezvous(peer, candidates)
        gone = data.draw(st.sampled_from(candidates))
        rest = [each for each in candidates if each is not gone]
        if rest and gone is not before:
            self.assertIs(before, rendezvous(peer, rest))

    @given(peers, slots, st.integers(0, 2000))
    def test_addition(self, peer: str, present: list[int], added: int) -> None:
        """
        A slot that is added takes keys for itself, and moves none between the
        others.
        """
        candidates = [Candidate(place, slot) for place, slot in enumerate(present)]
        before = rendezvous(peer, candidates)
        new = Candidate(1000, added)
        after = rendezvous(peer, [*candidates, new])
        self.assertTrue(after is before or after is new)

    @given(peers, slots, st.data())
    def test_anyOrder(self, peer: str, present: list[int], data: st.DataObject) -> None:
        """
        The order of the candidates, and so their ids, are all the same to it.
        """
        candidates = [Candidate(place, slot) for place, slot in enumerate(present)]
        shuffled = data.draw(st.permutations(candidates))
        self.assertIs(rendezvous(peer, candidates), rendezvous(peer, shuffled))

    @given(peers, slots, st.data())
    def test_replacement(
        self, peer: str, present: list[int], data: st.DataObject
    ) -> None:
        """
        A worker in the same slot gets the keys of the one that it replaces, from
        when it is there, and moves no other key.
        """
        candidates = [Candidate(place, slot) for place, slot in enumerate(present)]
        before = rendezvous(peer, candidates)
        slot = data.draw(st.sampled_from(present))
        new = Candidate(1000, slot)
        expected = new if before.slot == slot else before
        both = data.draw(st.permutations([*candidates, new]))
        self.assertIs(expected, rendezvous(peer, both))
        only = [each for each in both if each is new or each.slot != slot]
        self.assertIs(expected, rendezvous(peer, only))

    def test_evenShares(self) -> None:
        """
        Addresses that resemble each other are spread as evenly as chance would,
        and a removed slot's keys over all that are left.
        """
        keys = [f"10.0.{high}.{low}" for high in range(32) for low in range(256)]
        candidates = [Candidate(slot, slot) for slot in range(64)]
        of = {key: rendezvous(key, candidates).slot for key in keys}
        shares = Counter(of.values())
        even = len(keys) / 64
        # The square of the deviation is chi-squared with 63 degrees of freedom.
        deviation = sum((shares[slot] - even) ** 2 / even for slot in range(64))
        self.assertTrue(30 < deviation < 110, deviation)
        heirs = Counter(
            rendezvous(key, candidates[1:]).slot for key in keys if of[key] == 0
        )
        self.assertGreater(len(heirs), 50)
        self.assertLess(statistics.variance(heirs.values()), 8)

    def test_rotateWithoutAddress(self) -> None:
        """
        Clients of a UNIX socket have no address, and get each worker in turn.
        """
        balancer, nobody = Sticky(), Connection("unix:/x", "")
        chosen = [balancer.choose(nobody, workers(1, 2, 3)).worker for _ in range(4)]
        self.assertEqual([1, 2, 3, 1], chosen)
