"""
Which addresses the watcher accepts for, and which workers.
"""

from __future__ import annotations

import gc
import os
import socket
import struct
import weakref
from functools import partial
from typing import Any, Optional

from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.sockethelpers import Events, descriptors, room, shortDirectory
from twisted_cluster.errors import InvalidBalance
from twisted_cluster.interfaces import IBalancer
from twisted_cluster.ipc.clients import LISTENER
from twisted_cluster.policy.balance import KERNEL, RoundRobin
from twisted_cluster.sockets.addresses import Address, BindRequest
from twisted_cluster.sockets.servers.binding import BoundSocket, bindSocket, makeSocket
from twisted_cluster.sockets.wire.handover import Handover
from twisted_cluster.supervisor import distributor as distributors
from twisted_cluster.supervisor.distributor import Distributor
from twisted_cluster.testing import DescriptorReactor

OWN = f"{__name__}:Own"
SEEING = f"{__name__}:Seeing"
BREAKING = f"{__name__}.breaking"


@implementer(IBalancer)
class Own(RoundRobin):
    """
    A balancer of one's own.
    """

    firstBytes = 0

    made = 0

    def __init__(self) -> None:
        super().__init__()
        Own.made += 1


@implementer(IBalancer)
class Seeing(RoundRobin):
    """
    A balancer that has to see what clients say first.
    """

    firstBytes = 10


class Maker:
    """
    What makes balancers, as long as that works.
    """

    broken: Optional[object] = None


def breaking() -> Any:
    """
    Make a balancer, or whatever the test says.
    """
    if isinstance(Maker.broken, Exception):
        raise Maker.broken
    return Maker.broken or RoundRobin()


class DistributorTestCase(SynchronousTestCase):
    """
    A distributor, with sockets, and workers that take what they are given.
    """

    def setUp(self) -> None:
        before = descriptors()
        self.events = Events()
        self.patch(distributors, "_log", Logger(observer=self.events))
        self.reactor = DescriptorReactor()
        self.distributor = self.make("round-robin")
        self.bound: list[BoundSocket] = []
        self.workers: dict[int, Handover] = {}
        self.taken: dict[int, list[int]] = {}

        def end() -> None:
            for bound in self.bound:
                self.distributor.closes(bound.address)
                bound.close()
            for worker, handover in self.workers.items():
                self.distributor.workerGone(worker)
                handover.abort()
            self.assertEqual(before, descriptors())
            self.assertEqual([], self.reactor.getReaders())
            self.assertEqual([], self.reactor.getDelayedCalls())

        self.addCleanup(end)

    def make(self, balance: str = KERNEL) -> Distributor:
        return Distributor(self.reactor, balance)

    def bind(self, address: Optional[Address] = None) -> BoundSocket:
        """
        Bind an address.
        """
        wanted = BindRequest(address or Address("tcp", "127.0.0.1"))
        bound = bindSocket(wanted, makeSocket(wanted.address), 64)
        self.bound.append(bound)
        return bound

    def start(self, *ids: int) -> None:
        """
        Start workers, which serve.
        """
        for each in ids:
            ours, theirs = socket.socketpair()
            channel = self.distributor.intake(each, each - 1).connect(ours)
            handover = self.workers[each] = Handover(self.reactor, theirs)
            self.taken[each] = []
            handover.arrived = partial(self.take, each)
            channel.start()
            handover.start()
            self.distributor.workerReady(each)

    def take(self, worker: int) -> None:
        while arrivals := self.workers[worker].take():
            for each in arrivals:
                os.close(each.descriptor)
                self.taken[worker] += LISTENER.unpack(each.data)

    def join(self, worker: int, bound: BoundSocket, balance: str) -> int:
        """
        Have a worker listen.

        @return: the number of the address, or 0 when the worker accepts by itself.
        """
        number, accepts = self.distributor.joins(worker, bound, balance)
        return 0 if accepts else number

    def connect(self, bound: BoundSocket, count: int = 1) -> None:
        """
        Connect, and see what becomes of it.
        """
        for _ in range(count):
            with socket.socket(bound.socket.family) as client:
                client.connect(bound.socket.getsockname())
                self.reactor.settle()

    @property
    def shares(self) -> dict[int, int]:
        return {worker: len(taken) for worker, taken in self.taken.items()}


class DistributorTests(DistributorTestCase):
    """
    Who accepts, and for whom.
    """

    def test_default(self) -> None:
        """
        A worker that does not say how gets the default: its connections come
        from the watcher, with the address's number.
        """
        self.start(1, 2)
        bound = self.bind()
        numbers = {self.join(each, bound, "") for each in (1, 2)}
        self.assertEqual(numbers, {1})
        self.connect(bound, 4)
        self.assertEqual(self.taken, {1: [1, 1], 2: [1, 1]})
        self.assertEqual(
            self.events.texts,
            [
                f"The watcher accepts on {bound.address} and balances by round-robin",
            ],
        )

    def test_kernel(self) -> None:
        """
        Where the workers accept by themselves, nothing is accepted here.
        """
        self.distributor = self.make()
        self.start(1)
        bound = self.bind()
        self.assertEqual(self.join(1, bound, ""), 0)
        self.connect(bound)
        self.assertEqual(self.shares, {1: 0})
        self.distributor.leaves(1, bound.address)
        self.distributor.closes(bound.address)
        self.assertEqual(self.events, [])

    def test_acceptWaiting(self) -> None:
        """
        When all workers are about to leave, what waits is accepted for them first.
        """
        self.start(1)
        bound = self.bind()
        self.join(1, bound, "")
        self.reactor.settle()
        for _ in range(3):
            client = socket.create_connection(bound.socket.getsockname())
            self.addCleanup(client.close)
        self.distributor.acceptWaiting()
        self.distributor.workerStopping(1)
        self.reactor.settle()
        self.assertEqual(self.shares, {1: 3})

    def test_explicit(self) -> None:
        """
        What a worker asks for goes before the default, both ways.
        """
        self.start(1)
        self.assertEqual(self.join(1, self.bind(), KERNEL), 0)
        self.assertEqual(self.join(1, self.bind(), "sticky"), 2)
        self.distributor.workerGone(1)
        self.distributor = self.make()
        self.start(1)
        self.assertEqual(self.join(1, self.bind(), ""), 0)
        bound = self.bind()
        self.assertEqual(self.join(1, bound, "least-connections"), 2)
        self.connect(bound, 2)
        self.assertEqual(self.shares, {1: 2})

    def test_check(self) -> None:
        """
        What there is by name, and the default, may be asked for.
        """
        for name in ("", KERNEL, "round-robin", "least-connections", "sticky"):
            self.distributor.check(name)
        for name in ("roundrobin", OWN, "os.getpid"):
            error = self.assertRaises(InvalidBalance, self.distributor.check, name)
            self.assertIn(f"balance={name} is none of kernel, round-robin", str(error))
            self.assertIn("--balance", str(error))

    def test_ownCode(self) -> None:
        """
        Code of one's own may be asked for when it is the default, and each
        address has a balancer of its own.
        """
        self.distributor = self.make(OWN)
        self.distributor.check(OWN)
        self.start(1)
        made = Own.made
        self.join(1, self.bind(), "")
        self.join(1, self.bind(), OWN)
        self.join(1, self.bind(), "sticky")
        self.assertEqual(Own.made, made + 2)

    def test_unknownDefault(self) -> None:
        """
        A default that there is not is refused at once.
        """
        self.assertRaises(InvalidBalance, self.make, "round-about")

    def test_brokenMaker(self) -> None:
        """
        When code of one's own makes no balancer any more, workers take turns,
        and the log says why.
        """
        Maker.broken = None
        self.distributor = self.make(BREAKING)
        self.start(1, 2)
        for broken in (LookupError("no"), object()):
            Maker.broken = broken
            bound = self.bind()
            for worker in (1, 2):
                self.assertGreater(self.join(worker, bound, ""), 0)
            self.connect(bound, 4)
            failures = [event for event in self.events if "log_failure" in event]
            self.assertEqual(len(failures), 1)
            self.events.clear()
        self.assertEqual(self.shares, {1: 4, 2: 4})

    def test_udp(self) -> None:
        """
        There are no connections to UDP.
        """
        self.start(1)
        bound = self.bind(Address("udp", "127.0.0.1"))
        self.assertEqual(self.join(1, bound, "sticky"), 0)

    def test_stranger(self) -> None:
        """
        One without a channel accepts by itself.
        """
        self.assertEqual(self.join(9, self.bind(), ""), 0)
        self.distributor.workerStopping(9)
        self.distributor.workerGone(9)

    def test_numbers(self) -> None:
        """
        A number stays for an address as long as that is open, whoever comes and
        goes; it is never used again.
        """
        self.start(1, 2)
        one, two = self.bind(), self.bind()
        self.assertEqual(self.join(1, one, ""), 1)
        self.assertEqual(self.join(1, two, ""), 2)
        self.distributor.leaves(1, one.address)
        self.assertEqual(self.join(2, one, ""), 1)
        self.distributor.closes(one.address)
        self.assertEqual(self.join(2, one, ""), 3)
        self.connect(one)
        self.connect(two)
        self.assertEqual(self.taken, {1: [2], 2: [3]})

    def test_changed(self) -> None:
        """
        A newer worker that asks otherwise decides for all, and the log says so.
        """
        self.start(1, 2)
        bound = self.bind()
        self.join(1, bound, "")
        self.join(2, bound, "sticky")
        self.connect(bound, 4)
        self.assertEqual(sorted(self.shares.values()), [0, 4])
        self.assertEqual(
            self.events.texts[1:],
            [f"The watcher accepts on {bound.address} and balances by sticky"],
        )
        self.join(1, bound, "sticky")
        self.assertEqual(len(self.events), 2)

    def test_changedByOld(self) -> None:
        """
        An older one that asks late, or anew, changes nothing; not even whose turn
        it is.
        """
        self.distributor = self.make(OWN)
        self.start(1, 2)
        bound = self.bind()
        self.join(2, bound, "")
        made = Own.made
        for _ in range(3):
            self.join(1, bound, "sticky")
            self.connect(bound)
            self.join(2, bound, "")
        self.connect(bound)
        self.assertEqual((Own.made, len(self.events)), (made, 1))
        self.assertEqual(self.shares, {1: 2, 2: 2})
        self.distributor.closes(bound.address)

    def test_changedBack(self) -> None:
        """
        When the newer one is gone or listens no more, as one of new code that does
        not work, the others have their way again.
        """
        self.start(1, 2, 3, 4)
        bound = self.bind()
        for worker, balance in ((1, ""), (2, "sticky"), (3, "least-connections")):
            self.join(worker, bound, balance)
        self.join(4, bound, KERNEL)
        self.distributor.workerGone(3)
        self.distributor.leaves(2, bound.address)
        self.distributor.leaves(2, bound.address)
        # When nobody is left, it stays.
        self.distributor.leaves(1, bound.address)
        self.join(1, bound, "round-robin")
        ways = [text.split()[-1] for text in self.events.texts]
        order = ["round-robin", "sticky", "least-connections", "sticky", "round-robin"]
        self.assertEqual(ways, order)

    def test_leaves(self) -> None:
        """
        Who listens no more gets no more.
        """
        self.start(1, 2)
        bound = self.bind()
        self.join(1, bound, "")
        self.join(2, bound, "")
        self.distributor.leaves(1, bound.address)
        self.distributor.leaves(1, Address("tcp", "127.0.0.1", 1))
        self.connect(bound, 3)
        self.assertEqual(self.shares, {1: 0, 2: 3})

    def test_closes(self) -> None:
        """
        What is closed is accepted no more, and its duplicate is closed.
        """
        self.start(1)
        bound = self.bind()
        before = descriptors()
        self.join(1, bound, "")
        self.assertEqual(descriptors(), before + 1)
        self.distributor.closes(bound.address)
        self.distributor.closes(bound.address)
        self.assertEqual(descriptors(), before)
        self.connect(bound)
        self.assertEqual(self.shares, {1: 0})

    def test_serves(self) -> None:
        """
        A worker gets something from when it serves until it leaves.
        """
        self.start(1, 2)
        bound = self.bind()
        self.join(1, bound, "")
        self.join(2, bound, "")
        self.distributor.workerStopping(1)
        self.connect(bound, 2)
        self.assertEqual(self.shares, {1: 0, 2: 2})
        self.distributor.workerStopping(2)
        with socket.create_connection(bound.socket.getsockname()):
            self.reactor.settle()
            self.assertEqual(self.shares, {1: 0, 2: 2})
            self.start(3)
            self.join(3, bound, "")
            self.reactor.settle()
        self.assertEqual(self.shares, {1: 0, 2: 2, 3: 1})

    def test_gone(self) -> None:
        """
        What a dead worker had not taken goes to others.
        """
        self.start(1, 2)
        bound = self.bind()
        self.join(1, bound, "")
        self.join(2, bound, "")
        self.workers[1].arrived = lambda: None
        self.connect(bound, 4)
        self.assertEqual(self.shares, {1: 0, 2: 2})
        self.distributor.workerGone(1)
        self.distributor.workerGone(1)
        self.reactor.settle()
        self.assertEqual(self.shares, {1: 0, 2: 4})

    def test_forgotten(self) -> None:
        """
        Nothing is kept of a dead worker.
        """
        bound = self.bind()
        self.join(1, bound, "")
        kept = weakref.ref(self.distributor.intake(1, 0))
        self.join(1, bound, "")
        self.reactor.settle()
        self.distributor.workerGone(1)
        self.reactor.settle()
        gc.collect()
        self.assertIsNone(kept())

    def test_boundAnew(self) -> None:
        """
        When an address is bound anew, connections to the new socket go to all
        workers that listen there, under the same number.
        """
        self.start(1, 2)
        address = Address.unix(os.fsencode(f"{shortDirectory(self)}/s"))
        old = self.bind(address)
        self.join(1, old, "")
        os.unlink(address.path)
        new = self.bind(address)
        self.assertEqual(self.join(2, new, ""), 1)
        self.bound.remove(old)
        old.socket.close()
        self.connect(new, 4)
        self.assertEqual(self.shares, {1: 2, 2: 2})

    def test_tooManyFiles(self) -> None:
        """
        At the limit of open files, the worker is not taken in, and nothing is
        left of it; it may ask again.
        """
        self.start(1)
        address = Address.unix(os.fsencode(f"{shortDirectory(self)}/s"))
        old = self.bind(address)
        with room(0):
            self.assertRaises(OSError, self.distributor.joins, 1, old, "")
        self.assertEqual(self.join(1, old, ""), 1)
        os.unlink(address.path)
        new = self.bind(address)
        with room(0):
            self.assertRaises(OSError, self.distributor.joins, 1, new, "")
        self.join(1, new, "")
        self.bound.remove(old)
        old.socket.close()
        self.connect(new)
        self.assertEqual(self.shares, {1: 1})


class MovingTests(DistributorTestCase):
    """
    Connections that workers send back, for others.
    """

    def setUp(self) -> None:
        super().setUp()
        self.outcomes: list[Optional[str]] = []
        self.clients: list[socket.socket] = []

        def close() -> None:
            for client in self.clients:
                client.close()

        self.addCleanup(close)

    def client(self, bound: BoundSocket) -> tuple[socket.socket, socket.socket]:
        """
        A client that a worker accepted by itself.

        @return: it and the worker's end.
        """
        client = socket.create_connection(bound.socket.getsockname(), 10)
        bound.socket.setblocking(True)
        skt, _ = bound.socket.accept()
        bound.socket.setblocking(False)
        self.clients += [client, skt]
        return client, skt

    def send(self, worker: int, skt: socket.socket, data: bytes) -> Optional[str]:
        """
        Have a worker send a connection back.

        @return: why it was not taken, or L{None}.
        """
        handover = self.workers[worker]
        outcomes: list[Optional[str]] = []
        handover.answered = lambda token, why: outcomes.append(why)
        handover.send(skt.fileno(), data, None)
        self.reactor.settle()
        [outcome] = outcomes
        return outcome

    def test_kernel(self) -> None:
        """
        Workers that accept by themselves have numbers, too, and get what moves.
        """
        self.distributor = self.make()
        self.start(1, 2)
        bound = self.bind()
        self.assertEqual(self.distributor.joins(1, bound, ""), (1, True))
        self.assertEqual(self.distributor.joins(2, bound, ""), (1, True))
        _, skt = self.client(bound)
        self.distributor.workerStopping(1)
        self.assertIsNone(self.send(1, skt, LISTENER.pack(1)))
        self.assertEqual(self.taken, {1: [], 2: [1]})
        self.distributor.closes(bound.address)

    def test_byNumber(self) -> None:
        """
        It goes to those that listen on its address.
        """
        self.start(1, 2, 3)
        one, two = self.bind(), self.bind()
        for worker in (1, 2):
            self.join(worker, one, "")
        for worker in (1, 3):
            self.join(worker, two, "")
        self.distributor.workerStopping(1)
        _, skt = self.client(two)
        self.assertIsNone(self.send(1, skt, LISTENER.pack(2)))
        self.assertEqual(self.taken, {1: [], 2: [], 3: [2]})

    def test_unknown(self) -> None:
        """
        A number that is not, or not any more, that of an address is refused.
        """
        self.start(1, 2)
        bound = self.bind()
        self.join(1, bound, "")
        self.join(2, bound, "")
        client, skt = self.client(bound)
        for number in (0, 2, 99):
            why = self.send(1, skt, LISTENER.pack(number))
            self.assertEqual(why, "nobody listens there")
        self.distributor.closes(bound.address)
        why = self.send(1, skt, LISTENER.pack(1))
        self.assertEqual(why, "nobody listens there")
        skt.send(b"still here")
        self.assertEqual(client.recv(100), b"still here")

    def test_firstBytes(self) -> None:
        """
        What the balancer could not see the beginning of is refused.
        """
        self.distributor = self.make(SEEING)
        self.start(1, 2)
        bound = self.bind()
        self.join(1, bound, "")
        self.join(2, bound, "")
        client, skt = self.client(bound)
        why = self.send(1, skt, LISTENER.pack(1))
        self.assertEqual(why, f"{SEEING} has to see the first bytes of connections")
        self.assertEqual(self.shares, {1: 0, 2: 0})
        skt.send(b"still here")
        self.assertEqual(client.recv(100), b"still here")
        self.distributor.closes(bound.address)

    def test_garbage(self) -> None:
        """
        A worker that sends one without a number loses its channel.
        """
        self.start(1)
        bound = self.bind()
        self.join(1, bound, "")
        _, skt = self.client(bound)
        lost: list[Any] = []
        self.workers[1].lost = lambda why, tokens: lost.append(tokens)
        self.workers[1].send(skt.fileno(), b"huh", "token")
        self.reactor.settle()
        self.assertEqual(lost, [["token"]])
        self.distributor.workerStopping(1)

    def test_waits(self) -> None:
        """
        With no other worker, it waits for the next, though the one that had it is
        gone.
        """
        self.start(1)
        bound = self.bind()
        self.join(1, bound, "")
        client, skt = self.client(bound)
        self.distributor.workerStopping(1)
        self.assertIsNone(self.send(1, skt, LISTENER.pack(1)))
        skt.close()
        self.distributor.workerGone(1)
        self.reactor.settle()
        client.setblocking(False)
        self.assertRaises(BlockingIOError, client.recv, 1)
        self.start(2)
        self.join(2, bound, "")
        self.reactor.settle()
        self.assertEqual(self.taken, {1: [], 2: [1]})

    def test_closes(self) -> None:
        """
        Or it is closed with its address.
        """
        self.start(1)
        bound = self.bind()
        self.join(1, bound, "")
        client, skt = self.client(bound)
        self.distributor.workerStopping(1)
        self.assertIsNone(self.send(1, skt, LISTENER.pack(1)))
        skt.close()
        self.distributor.closes(bound.address)
        self.assertEqual(client.recv(1), b"")

    def test_clientGone(self) -> None:
        """
        One whose client has gone meanwhile is taken, and closed.
        """
        self.start(1, 2)
        bound = self.bind()
        self.join(1, bound, "")
        self.join(2, bound, "")
        client, skt = self.client(bound)
        linger = struct.pack("ii", 1, 0)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        client.close()
        before = descriptors()
        self.assertIsNone(self.send(1, skt, LISTENER.pack(1)))
        self.assertEqual(self.shares, {1: 0, 2: 0})
        self.assertEqual(descriptors(), before)

    def test_tooManyFiles(self) -> None:
        """
        At the limit of open files it stays where it is.
        """
        self.start(1, 2)
        bound = self.bind()
        self.join(1, bound, "")
        self.join(2, bound, "")
        _, skt = self.client(bound)
        with room(0):
            why = self.send(1, skt, LISTENER.pack(1))
        assert why is not None
        self.assertIn("Too many open files", why)
