"""
How the watcher accepts, and whom it gives what it accepted.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Optional

from twisted.internet.error import ConnectionDone
from twisted.internet.main import CONNECTION_LOST
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.sockethelpers import Events, descriptors, room, shortDirectory
from twisted_cluster.interfaces import Candidate, Connection, IBalancer
from twisted_cluster.ipc.clients import ENDED, LISTENER
from twisted_cluster.policy.balance import RoundRobin, Sticky
from twisted_cluster.sockets.wire.blocking import identify
from twisted_cluster.sockets.wire.handover import Handover
from twisted_cluster.supervisor import acceptor as acceptors
from twisted_cluster.supervisor import openfiles, peeking
from twisted_cluster.supervisor.acceptor import BURST, Acceptor
from twisted_cluster.supervisor.intake import WINDOW, Intake
from twisted_cluster.supervisor.peeking import Peeks
from twisted_cluster.testing import DescriptorReactor

NUMBER = 5
FAILS = "The balancer test of tcp:test fails; workers take turns"


class Worker:
    """
    The other end of an intake: it takes whatever comes, unless told otherwise.

    @ivar taken: the connections that it took, to be closed by the test case.
    @ivar unread: what came along with each.
    @ivar takes: whether it takes them.
    @ivar refuses: whether it gives them back.
    """

    def __init__(self, reactor: Any, id: int, changed: Callable[[], None]) -> None:
        self.intake = Intake(reactor, id, id - 1, changed)
        ours, theirs = socket.socketpair()
        channel = self.intake.connect(ours)
        self.handover = Handover(reactor, theirs)
        self.handover.arrived = self.arrived
        self.taken: list[socket.socket] = []
        self.unread: list[bytes] = []
        self.takes = True
        self.refuses = False
        channel.start()
        self.handover.start()
        self.intake.begin()

    def arrived(self) -> None:
        while self.takes and (arrivals := self.handover.take()):
            for each in arrivals:
                assert each.data.startswith(LISTENER.pack(NUMBER))
                self.unread.append(each.data[LISTENER.size :])
                self.taken.append(socket.socket(fileno=each.descriptor))
        while self.refuses and self.handover.peek() is not None:
            self.handover.giveBack(1, "no")

    def end(self) -> None:
        """
        Say that a connection has ended.
        """
        self.taken.pop().close()
        self.handover.note(ENDED.pack(1))

    def close(self) -> None:
        self.intake.close()
        self.handover.abort()
        for each in self.taken:
            each.close()


@implementer(IBalancer)
class Told:
    """
    A balancer that does what it is told, and keeps what it was asked.
    """

    def __init__(self, firstBytes: int = 0, patience: float = 1.0) -> None:
        self.firstBytes = firstBytes
        self.patience = patience
        self.asked: list[Connection] = []
        self.answer: Callable[[Connection, Sequence[Candidate]], Any]
        self.answer = lambda connection, candidates: candidates[0]

    def choose(
        self, connection: Connection, candidates: Sequence[Candidate]
    ) -> Optional[Candidate]:
        self.asked.append(connection)
        result: Optional[Candidate] = self.answer(connection, candidates)
        return result


def _always(answer: object, *arguments: object) -> Any:
    return answer


class AcceptorTestCase(SynchronousTestCase):
    """
    One address, with clients and workers.  Afterwards, no descriptor and nothing
    that waits is left.
    """

    def setUp(self) -> None:
        before = descriptors()
        self.events = Events()
        self.patch(acceptors, "_log", Logger(observer=self.events))
        self.reactor = DescriptorReactor()
        self.server = self.listen()
        self.workers: dict[int, Worker] = {}
        self.clients: list[socket.socket] = []
        self.peeks = Peeks()
        self.acceptor = self.make(RoundRobin())

        def end() -> None:
            self.acceptor.close()
            for worker in self.workers.values():
                worker.close()
            for skt in (*self.clients, self.server):
                skt.close()
            self.assertEqual(before, descriptors())
            self.assertEqual([], self.reactor.getReaders())
            self.assertEqual([], self.reactor.getDelayedCalls())

        self.addCleanup(end)

    def listen(self) -> socket.socket:
        server = socket.create_server(("127.0.0.1", 0), backlog=200)
        server.setblocking(False)
        return server

    def make(self, balancer: IBalancer) -> Acceptor:
        """
        Make the acceptor.
        """
        acceptor = Acceptor(self.reactor, self.server, "tcp:test", NUMBER, self.peeks)
        acceptor.change("test", balancer)
        return acceptor

    def told(self, firstBytes: int = 0, patience: float = 1.0) -> Told:
        """
        Have the acceptor use a balancer that does what it is told.
        """
        balancer = Told(firstBytes, patience)
        self.acceptor.change("test", balancer)
        return balancer

    def join(self, *ids: int, accepts: bool = False) -> list[Worker]:
        """
        Have workers listen.

        @param accepts: whether they accept by themselves.
        """
        for each in ids:
            worker = Worker(self.reactor, each, lambda: self.acceptor.changed())
            self.workers[each] = worker
            self.acceptor.join(worker.intake, accepts)
        self.reactor.settle()
        return [self.workers[each] for each in ids]

    def connect(self, count: int = 1) -> list[socket.socket]:
        """
        Have clients connect.
        """
        clients = []
        for _ in range(count):
            client = socket.socket(self.server.family)
            client.connect(self.server.getsockname())
            client.settimeout(10)
            clients.append(client)
        self.clients.extend(clients)
        self.reactor.settle()
        return clients

    @property
    def shares(self) -> dict[int, int]:
        """
        How many connections each worker took.
        """
        return {id: len(worker.taken) for id, worker in self.workers.items()}

    def isAnswered(self, client: socket.socket) -> bool:
        """
        Whether some worker has the client's connection.
        """
        for worker in self.workers.values():
            for each in worker.taken:
                if each.getpeername() == client.getsockname():
                    each.send(b"hello")
                    return client.recv(100) == b"hello"
        return False

    def leaveFew(self, count: int) -> None:
        """
        Have all but so many descriptors from now on be those that are kept free.
        """
        lowest = os.dup(self.server.fileno())
        os.close(lowest)
        self.patch(openfiles, "scarce", lambda: lowest + count)

    def queued(self) -> int:
        """
        How many connections wait in the backlog.  They are accepted.
        """
        count = 0
        while True:
            try:
                self.server.accept()[0].close()
            except BlockingIOError:
                return count
            count += 1


class AcceptingTests(AcceptorTestCase):
    """
    Nothing is accepted unless a worker can have it at once.
    """

    def test_nobody(self) -> None:
        """
        Without workers, connections wait in the backlog.
        """
        self.connect(3)
        self.assertEqual(self.queued(), 3)

    def test_nobodyServes(self) -> None:
        """
        Likewise while no worker serves, and they are accepted when one does.
        """
        [worker] = self.join(1)
        worker.intake.end()
        self.reactor.settle()
        [client] = self.connect()
        self.assertEqual(self.shares, {1: 0})
        worker.intake.begin()
        self.reactor.settle()
        self.assertTrue(self.isAnswered(client))

    def test_turns(self) -> None:
        """
        Workers get what the balancer gives them, each the very connection.
        """
        self.join(1, 2, 3)
        clients = self.connect(9)
        self.assertEqual(self.shares, {1: 3, 2: 3, 3: 3})
        for client in clients:
            self.assertTrue(self.isAnswered(client))

    def test_burst(self) -> None:
        """
        However many connect at once, each turn of the reactor accepts so many
        and no more.
        """
        self.join(1, 2, 3, 4)
        for _ in range(BURST + 5):
            client = socket.create_connection(self.server.getsockname())
            self.clients.append(client)
        self.acceptor.doRead()
        self.assertEqual(self.queued(), 5)

    def test_full(self) -> None:
        """
        When no worker keeps up, nothing more is accepted; when one does again,
        it goes on.
        """
        one, two = self.join(1, 2)
        one.takes = two.takes = False
        self.connect(2 * WINDOW + 3)
        self.assertEqual(
            [each.intake.candidate.connections for each in (one, two)],
            [WINDOW, WINDOW],
        )
        self.assertNotIn(self.acceptor, self.reactor.getReaders())
        one.takes = True
        one.arrived()
        self.reactor.settle()
        self.assertEqual(self.shares, {1: WINDOW + 3, 2: 0})
        self.assertEqual(self.queued(), 0)

    def test_passedOver(self) -> None:
        """
        A worker that does not keep up is passed over.
        """
        one, _ = self.join(1, 2)
        one.takes = False
        self.connect(2 * WINDOW + 10)
        self.assertEqual(self.shares, {1: 0, 2: WINDOW + 10})

    def test_leaves(self) -> None:
        """
        A worker that listens no more gets no more.
        """
        self.join(1, 2)
        self.acceptor.leave(1)
        self.acceptor.leave(7)
        self.connect(3)
        self.assertEqual(self.shares, {1: 0, 2: 3})
        self.acceptor.leave(2)
        self.reactor.settle()
        self.connect(2)
        self.assertEqual(self.queued(), 2)

    def test_reset(self) -> None:
        """
        A client that has reset its connection before it was accepted keeps
        nobody else from being accepted.
        """
        self.join(1)
        client = socket.create_connection(self.server.getsockname())
        linger = struct.pack("ii", 1, 0)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        client.close()
        [other] = self.connect()
        self.assertEqual(self.shares, {1: 2})
        self.workers[1].taken.pop(0).close()
        self.assertTrue(self.isAnswered(other))

    def test_replaced(self) -> None:
        """
        When the address is bound anew, it is accepted there and not at the old
        socket.
        """
        self.join(1)
        old, self.server = self.server, self.listen()
        self.clients.append(old)
        identity = identify(self.server)
        self.acceptor.replace(self.server)
        # Reactors know what they watch by its number.
        self.assertNotIn(self.acceptor, self.reactor.getReaders())
        self.assertEqual(os.fstat(self.acceptor.fileno()).st_ino, identity[1])
        self.reactor.settle()
        [client] = self.connect()
        self.assertTrue(self.isAnswered(client))
        with socket.create_connection(old.getsockname()):
            self.reactor.settle()
            self.assertEqual(self.shares, {1: 1})

    def test_replacedWithoutRoom(self) -> None:
        """
        When there are too many open files for that, it is accepted at the old
        one.
        """
        self.join(1)
        with self.listen() as new, room(0):
            self.assertRaises(OSError, self.acceptor.replace, new)
        [client] = self.connect()
        self.assertTrue(self.isAnswered(client))

    def test_logPrefix(self) -> None:
        """
        The reactor's log tells what it is.
        """
        self.assertEqual(self.acceptor.logPrefix(), "acceptor of tcp:test")


class ReturnedTests(AcceptorTestCase):
    """
    A connection is held until it is taken, and what comes back goes first.
    """

    def test_held(self) -> None:
        """
        It is held while nobody has taken it, and closed when somebody has.
        """
        [worker] = self.join(1)
        worker.takes = False
        before = descriptors()
        self.connect()
        # The client's end, ours, and the worker's, which is not taken yet.
        self.assertEqual(descriptors(), before + 3)
        worker.takes = True
        worker.arrived()
        self.reactor.settle()
        self.assertEqual(descriptors(), before + 2)

    def test_refused(self) -> None:
        """
        What a worker refuses goes to another, and the worker is passed over for
        a second.
        """
        one, _ = self.join(1, 2)
        one.takes, one.refuses = False, True
        clients = self.connect(4)
        self.assertEqual(self.shares, {1: 0, 2: 4})
        for client in clients:
            self.assertTrue(self.isAnswered(client))
        one.takes, one.refuses = True, False
        self.reactor.elapse(1.1)
        self.connect(2)
        self.assertEqual(self.shares, {1: 1, 2: 5})

    def test_dies(self) -> None:
        """
        What a worker has not taken when it dies goes to others, in order, and
        before what comes later.
        """
        one, two = self.join(1, 2)
        one.takes = two.takes = False
        early = self.connect(2 * WINDOW)
        late = self.connect(2)
        two.takes = True
        self.acceptor.leave(1)
        one.intake.close()
        two.arrived()
        self.reactor.settle()
        peers = [each.getpeername() for each in two.taken]
        names = [each.getsockname() for each in (*early, *late)]
        first = names[1 : 2 * WINDOW : 2]
        returned = names[0 : 2 * WINDOW : 2]
        self.assertEqual(peers, first + returned + names[2 * WINDOW :])

    def test_nobodyLeft(self) -> None:
        """
        When there is nobody, it waits, nothing else is accepted, and the next
        worker gets it first.
        """
        [one] = self.join(1)
        one.takes = False
        [first] = self.connect()
        self.acceptor.leave(1)
        one.intake.close()
        self.reactor.settle()
        [second] = self.connect()
        [two] = self.join(2)
        peers = [each.getpeername() for each in two.taken]
        self.assertEqual(peers, [first.getsockname(), second.getsockname()])

    def test_acceptByThemselves(self) -> None:
        """
        For workers that accept by themselves nothing is accepted.  They get what
        came back, but only when there is no other.
        """
        one, two = self.join(1, 2)
        three, four = self.join(3, 4, accepts=True)
        one.takes = False
        clients = self.connect(4)
        self.acceptor.leave(1)
        one.intake.close()
        self.reactor.settle()
        self.assertEqual(self.shares, {1: 0, 2: 4, 3: 0, 4: 0})
        two.takes = False
        clients = self.connect(4)
        self.acceptor.leave(2)
        two.intake.close()
        self.reactor.settle()
        self.assertEqual(self.shares, {1: 0, 2: 4, 3: 2, 4: 2})
        peers = {each.getpeername() for each in (*three.taken, *four.taken)}
        self.assertEqual(peers, {each.getsockname() for each in clients})
        self.connect(1)
        self.assertEqual(self.shares, {1: 0, 2: 4, 3: 2, 4: 2})

    def test_acceptsNoMoreByItself(self) -> None:
        """
        A worker that listens anew, and does not accept by itself any more, gets
        what is accepted from now on.
        """
        [one] = self.join(1, accepts=True)
        self.acceptor.leave(1)
        self.connect(2)
        self.assertEqual(self.shares, {1: 0})
        self.acceptor.join(one.intake)
        self.reactor.settle()
        self.assertEqual(self.shares, {1: 2})

    def test_returnedFirst(self) -> None:
        """
        Nothing is accepted before what came back in the same turn of the reactor
        has a worker.
        """
        one, two = self.join(1, 2)
        one.takes = False
        [first] = self.connect()
        second = socket.create_connection(self.server.getsockname())
        self.clients.append(second)
        self.acceptor.leave(1)
        one.intake.close()
        self.acceptor.doRead()
        self.reactor.settle()
        peers = [each.getpeername() for each in two.taken]
        self.assertEqual(peers, [first.getsockname(), second.getsockname()])

    def test_askedAgain(self) -> None:
        """
        The balancer is asked again for one that comes back, and told that no
        more will be shown of it; so it cannot want to see more.
        """
        balancer = self.told(firstBytes=100)
        one, two = self.join(1, 2)
        one.takes, one.refuses = False, True
        [client] = self.connect()
        client.send(b"some")
        self.reactor.settle()
        first, second = balancer.asked
        self.assertEqual((first.firstBytes, first.final), (b"some", False))
        self.assertEqual((second.firstBytes, second.final), (b"some", True))
        balancer.answer = lambda connection, candidates: None
        two.takes, two.refuses = False, True
        [other] = self.connect()
        other.send(b"else")
        self.reactor.elapse(2.5)
        two.takes, two.refuses = True, False
        one.takes, one.refuses = True, False
        self.reactor.elapse(2.5)
        self.assertTrue(self.isAnswered(other))

    def test_onlyOneRefuses(self) -> None:
        """
        A single worker that refuses is asked again, every second.
        """
        [worker] = self.join(1)
        worker.takes, worker.refuses = False, True
        balancer = self.told()
        [client] = self.connect()
        self.reactor.elapse(10.0)
        self.assertLess(len(balancer.asked), 12)
        self.assertGreater(len(balancer.asked), 8)
        worker.takes = True
        self.reactor.elapse(1.1)
        self.assertTrue(self.isAnswered(client))


class ClosingTests(AcceptorTestCase):
    """
    Closing it closes all that it holds.
    """

    def test_waiting(self) -> None:
        """
        What waits for a worker is closed.
        """
        [one] = self.join(1)
        one.takes = False
        [client] = self.connect()
        one.intake.close()
        self.reactor.settle()
        before = descriptors()
        self.acceptor.close()
        self.assertEqual(descriptors(), before - 2)
        self.acceptor.close()
        one.handover.abort()
        self.assertEqual(client.recv(1), b"")

    def test_given(self) -> None:
        """
        What a worker was given, it may take; what it gives back is closed.
        """
        [one] = self.join(1)
        one.takes = False
        first, second = self.connect(2)
        self.acceptor.close()
        [arrival] = one.handover.take(1)
        one.taken.append(socket.socket(fileno=arrival.descriptor))
        one.handover.giveBack(1, "no")
        self.reactor.settle()
        self.assertTrue(self.isAnswered(first))
        self.assertEqual(second.recv(1), b"")

    def test_peeking(self) -> None:
        """
        What is being looked at is closed.
        """
        self.told(firstBytes=10)
        self.join(1)
        [client] = self.connect()
        self.acceptor.close()
        self.assertEqual(client.recv(1), b"")

    def test_pausing(self) -> None:
        """
        It may rest meanwhile.
        """
        self.join(1)
        self.reactor.removeReader(self.acceptor)
        self.acceptor.connectionLost(Failure(ConnectionDone()))
        self.acceptor.close()
        self.acceptor.changed()
        self.acceptor.connectionLost(Failure(ConnectionDone()))

    def test_byBalancer(self) -> None:
        """
        Closed while the balancer chooses, it gives nothing to anybody.
        """
        balancer = self.told()

        def close(connection: Connection, candidates: Sequence[Candidate]) -> Candidate:
            self.acceptor.close()
            return candidates[0]

        balancer.answer = close
        self.join(1)
        one, _ = self.connect(2)
        self.assertEqual(self.shares, {1: 0})
        self.assertEqual(len(balancer.asked), 1)
        self.assertEqual(one.recv(1), b"")
        self.assertEqual(self.queued(), 1)

    def test_byBalancerThatPeeks(self) -> None:
        """
        Likewise while it looks at first bytes, and when it goes on with what
        came back.
        """
        balancer = self.told(firstBytes=10)
        one, _ = self.join(1, 2)
        one.takes = False
        clients = self.connect(2)
        for client in clients:
            client.send(b"x")
        self.reactor.settle()

        def close(connection: Connection, candidates: Sequence[Candidate]) -> Candidate:
            self.acceptor.close()
            return candidates[0]

        balancer.answer = close
        [third] = self.connect()
        third.send(b"x")
        one.intake.close()
        self.reactor.settle()
        self.assertEqual(self.shares, {1: 0, 2: 0})
        one.handover.abort()
        for client in (*clients, third):
            # What it sent was never read.
            self.assertRaises(ConnectionResetError, client.recv, 1)


class BalancerTests(AcceptorTestCase):
    """
    The balancer chooses; where it fails or cannot tell, workers take turns.
    """

    def test_double(self) -> None:
        """
        The double of these tests is a balancer.
        """
        verifyObject(IBalancer, Told())

    def test_asked(self) -> None:
        """
        It is asked once for each connection that the chosen worker takes: which
        address, which client, and those who can have it, by id.
        """
        balancer = self.told()
        seen: list[list[int]] = []

        def second(connection: Connection, candidates: Any) -> Candidate:
            seen.append([each.worker for each in candidates])
            chosen: Candidate = candidates[1]
            return chosen

        balancer.answer = second
        self.join(30, 4, 100)
        self.workers[4].intake.end()
        self.reactor.settle()
        self.connect(2)
        expected = Connection("tcp:test", "127.0.0.1", b"", True)
        self.assertEqual(balancer.asked, [expected, expected])
        self.assertEqual(seen, [[30, 100], [30, 100]])
        self.assertEqual(self.shares, {30: 0, 4: 0, 100: 2})

    def test_connections(self) -> None:
        """
        It sees how many connections each has.
        """
        balancer = self.told()
        counts: list[list[int]] = []

        def least(connection: Connection, candidates: Any) -> Candidate:
            counts.append([each.connections for each in candidates])
            chosen: Candidate = min(candidates, key=lambda each: each.connections)
            return chosen

        balancer.answer = least
        self.join(1, 2)
        self.connect(3)
        self.workers[1].end()
        self.reactor.settle()
        self.connect(1)
        self.assertEqual(counts, [[0, 0], [1, 0], [1, 1], [1, 1]])

    def test_cannotChange(self) -> None:
        """
        It cannot take anybody out of what it is shown.
        """
        balancer = self.told()
        balancer.answer = lambda connection, candidates: candidates.pop()  # type: ignore[attr-defined]
        self.join(1, 2)
        self.connect(4)
        self.assertEqual(self.shares, {1: 2, 2: 2})

    def test_fails(self) -> None:
        """
        While it raises, workers take turns, and the log says so with the
        traceback, once a minute.
        """
        balancer = self.told()

        def fail(connection: Connection, candidates: Sequence[Candidate]) -> Candidate:
            raise LookupError("no")

        balancer.answer = fail
        self.join(1, 2, 3)
        self.connect(6)
        self.assertEqual(self.shares, {1: 2, 2: 2, 3: 2})
        self.assertEqual(self.events.texts, [FAILS])
        self.assertIsInstance(self.events[0]["log_failure"].value, LookupError)
        self.reactor.elapse(59)
        self.connect(1)
        self.assertEqual(len(self.events), 1)
        self.reactor.elapse(2)
        self.connect(1)
        self.assertEqual(self.events.texts, [FAILS, FAILS])

    def test_nonsense(self) -> None:
        """
        Likewise when it returns what is none of the candidates.
        """
        self.join(1, 2, 3)
        self.workers[3].intake.end()
        answers: list[object] = [7, "worker 1", [], Candidate(7, 6), Candidate(1, 0)]
        for answer in [*answers, self.workers[3].intake.candidate]:
            balancer = self.told()
            balancer.answer = partial(_always, answer)
            self.connect(2)
            self.reactor.elapse(61, 1.0)
        self.assertEqual(self.shares, {1: 6, 2: 6, 3: 0})
        self.assertEqual(self.events.texts, [FAILS] * 6)

    def test_cannotTell(self) -> None:
        """
        Workers take turns when it returns L{None}, and that is no failure.
        """
        balancer = self.told()
        balancer.answer = lambda connection, candidates: None
        self.join(1, 2)
        self.connect(4)
        self.assertEqual(self.shares, {1: 2, 2: 2})
        self.assertEqual(len(balancer.asked), 4)
        self.assertEqual(self.events, [])

    def test_exits(self) -> None:
        """
        When it raises what should end the process, that connection ends, and
        others are accepted soon after.
        """
        balancer = self.told()

        def leave(connection: Connection, candidates: Sequence[Candidate]) -> Candidate:
            raise SystemExit(1)

        balancer.answer = leave
        self.join(1)
        with self.assertRaises(SystemExit):
            self.connect()
        # What the reactor does then.
        self.reactor.removeReader(self.acceptor)
        self.acceptor.connectionLost(Failure(SystemExit(1)))
        balancer.answer = lambda connection, candidates: candidates[0]
        self.reactor.elapse(0.2)
        [client] = self.connect()
        self.assertTrue(self.isAnswered(client))
        [text] = self.events.texts
        self.assertIn("No connection can be accepted on tcp:test", text)

    def test_changed(self) -> None:
        """
        From one connection to the next, another may balance.
        """
        first, second = self.told(), Told()
        second.answer = lambda connection, candidates: candidates[1]
        self.join(1, 2)
        self.connect(2)
        self.acceptor.change("other", second)
        self.assertEqual(self.acceptor.balance, "other")
        self.connect(2)
        self.assertEqual((len(first.asked), len(second.asked)), (2, 2))
        self.assertEqual(self.shares, {1: 2, 2: 2})

    def test_changedWhilePeeking(self) -> None:
        """
        The new one gets what the old one wanted to see.
        """
        first = self.told(firstBytes=10)
        first.answer = lambda connection, candidates: None
        self.join(1)
        [client] = self.connect()
        client.send(b"x")
        self.reactor.settle()
        second = self.told()
        self.reactor.elapse(0.1)
        [asked] = second.asked
        self.assertEqual(asked.firstBytes, b"x")
        self.assertTrue(self.isAnswered(client))

    def test_fullWithin(self) -> None:
        """
        A worker that becomes full is no candidate for the very next connection.
        """
        self.told()
        one, two = self.join(1, 2)
        one.takes = two.takes = False
        self.connect(WINDOW + 1)
        self.assertEqual(one.intake.candidate.connections, WINDOW)
        self.assertEqual(two.intake.candidate.connections, 1)
        self.assertEqual(self.events, [])

    def test_leavesWithin(self) -> None:
        """
        The one that is chosen may be gone by then; another gets the connection.
        """
        balancer = self.told()
        one, _ = self.join(1, 2)

        def lose(connection: Connection, candidates: Sequence[Candidate]) -> Candidate:
            self.acceptor.leave(1)
            one.intake.close()
            return candidates[0]

        balancer.answer = lose
        [client] = self.connect()
        self.assertTrue(self.isAnswered(client))
        self.assertEqual(self.events.texts, [FAILS])

    def test_allLeaveWithin(self) -> None:
        """
        Or nobody is left: it waits.
        """
        balancer = self.told()
        self.join(1)

        def lose(connection: Connection, candidates: Sequence[Candidate]) -> Candidate:
            self.acceptor.leave(1)
            return candidates[0]

        balancer.answer = lose
        [client] = self.connect()
        self.told()
        self.join(2)
        self.assertTrue(self.isAnswered(client))


class PeekingTests(AcceptorTestCase):
    """
    A balancer that asks for first bytes.
    """

    def setUp(self) -> None:
        super().setUp()
        self.balancer = self.told(firstBytes=8, patience=2.0)
        self.balancer.answer = self.byLine

    def byLine(
        self, connection: Connection, candidates: Sequence[Candidate]
    ) -> Optional[Candidate]:
        """
        Choose by the first line, a number, or say that it is not there yet.
        """
        number, end, _ = connection.firstBytes.partition(b"\n")
        return candidates[int(number)] if end else None

    def test_routes(self) -> None:
        """
        The bytes decide, and the worker reads them all.
        """
        self.join(1, 2)
        [client] = self.connect()
        client.send(b"1\nhello, world")
        self.reactor.settle()
        [skt] = self.workers[2].taken
        self.assertEqual(skt.recv(100), b"1\nhello, world")
        [asked] = self.balancer.asked
        self.assertEqual((asked.firstBytes, asked.final), (b"1\nhello,", True))

    def test_more(self) -> None:
        """
        It is asked again when more has come.
        """
        self.join(1, 2)
        [client] = self.connect()
        client.send(b"1")
        self.reactor.settle()
        self.assertEqual(self.shares, {1: 0, 2: 0})
        client.send(b"\n")
        self.reactor.elapse(0.1)
        self.assertEqual(self.shares, {1: 0, 2: 1})
        self.assertNotIn(True, [each.final for each in self.balancer.asked])

    def test_timeOver(self) -> None:
        """
        When the time is over, it is asked a last time, and workers take turns if
        it still cannot tell.  Each connection is given once, although nobody
        takes it for a while.
        """
        one, two = self.join(1, 2)
        one.takes = two.takes = False
        silent, slow = self.connect(2)
        slow.send(b"1")
        self.reactor.elapse(3.0)
        self.assertEqual([each.final for each in self.balancer.asked].count(True), 2)
        for worker in (one, two):
            self.assertEqual(worker.intake.candidate.connections, 1)
            worker.takes = True
            worker.arrived()
        self.reactor.elapse(3.0)
        self.assertEqual(self.shares, {1: 1, 2: 1})
        self.assertTrue(self.isAnswered(silent))
        self.assertTrue(self.isAnswered(slow))

    def test_resets(self) -> None:
        """
        A client that resets meanwhile is forgotten.
        """
        self.join(1)
        before = descriptors()
        [client] = self.connect()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        self.reactor.settle()
        self.assertEqual(descriptors(), before)
        self.assertEqual(self.balancer.asked, [])

    def test_most(self) -> None:
        """
        Only so many are looked at.  When one more comes, the oldest gets a worker
        by what it has sent so far, and nobody else waits for that.
        """
        self.patch(peeking, "MOST", 3)
        self.join(1, 2)
        silent = self.connect(3)
        self.assertEqual(self.balancer.asked, [])
        [client] = self.connect()
        [asked] = self.balancer.asked
        self.assertEqual((asked.firstBytes, asked.final), (b"", True))
        self.assertTrue(self.isAnswered(silent[0]))
        client.send(b"1\n")
        self.reactor.settle()
        self.assertTrue(self.isAnswered(client))
        self.assertFalse(any(map(self.isAnswered, silent[1:])))

    def test_mostOfFiles(self) -> None:
        """
        A quarter of the files that may be open, if that is less.
        """
        self.patch(openfiles, "limit", lambda: 4000)
        self.patch(peeking, "MOST", 3)
        self.join(1)
        self.connect(3)
        self.assertEqual(self.balancer.asked, [])
        self.patch(openfiles, "limit", lambda: 8)
        self.patch(openfiles, "scarce", lambda: 4000)
        self.connect()
        self.assertEqual(len(self.balancer.asked), 2)

    def test_mostOfAll(self) -> None:
        """
        That many of all addresses together, and those of an address that is closed
        count no more.
        """
        self.patch(peeking, "MOST", 3)
        self.join(1)
        other = Acceptor(self.reactor, self.server, "tcp:other", NUMBER, self.peeks)
        other.change("test", self.told(firstBytes=8, patience=2.0))
        self.connect(3)
        self.acceptor.leave(1)
        other.join(self.workers[1].intake)
        self.reactor.settle()
        silent = self.connect(2)
        # Those that give way have no worker yet.
        self.assertEqual(self.shares, {1: 0})
        self.acceptor.close()
        self.connect(1)
        self.assertEqual(self.shares, {1: 0})
        self.connect(1)
        self.assertEqual(self.shares, {1: 1})
        self.assertTrue(self.isAnswered(silent[0]))
        other.close()

    def test_mostByExit(self) -> None:
        """
        When the balancer raises what should end the process, the connection that it
        was asked about is closed, and looked at no more.
        """
        self.patch(peeking, "MOST", 1)

        def leave(connection: Connection, candidates: Sequence[Candidate]) -> Candidate:
            raise SystemExit(1)

        self.balancer.answer = leave
        self.join(1)
        [oldest] = self.connect()
        with self.assertRaises(SystemExit):
            self.connect()
        self.assertEqual(oldest.recv(1), b"")
        self.balancer.answer = self.byLine
        [other] = self.connect()
        other.send(b"0\n")
        self.reactor.settle()
        self.assertTrue(self.isAnswered(other))

    def test_workersGone(self) -> None:
        """
        While there is no worker, more is waited for as before; who comes then
        gets it by what has come, and the balancer is not asked without them.
        """
        self.join(1)
        [client] = self.connect()
        self.acceptor.leave(1)
        client.send(b"1")
        self.reactor.elapse(0.1)
        client.send(b"\n")
        self.reactor.elapse(0.1)
        self.assertEqual(self.balancer.asked, [])
        self.join(2, 3)
        self.reactor.elapse(0.5)
        self.assertEqual(self.shares, {1: 0, 2: 0, 3: 1})

    def test_workersGoneTooLong(self) -> None:
        """
        When the time is over, it waits with what has come by then.
        """
        self.join(1)
        [client] = self.connect()
        client.send(b"1\n")
        self.acceptor.leave(1)
        self.reactor.elapse(2.5)
        self.join(2, 3)
        self.assertEqual(self.shares, {1: 0, 2: 0, 3: 1})
        [asked] = self.balancer.asked
        self.assertEqual((asked.firstBytes, asked.final), (b"1\n", True))

    def test_fails(self) -> None:
        """
        A balancer that fails is not asked again for the connection.
        """
        self.join(1)
        [client] = self.connect()
        client.send(b"x\n")
        self.reactor.settle()
        self.assertTrue(self.isAnswered(client))
        self.assertEqual(len(self.balancer.asked), 1)
        self.assertEqual(self.events.texts, [FAILS])


class MovingTests(AcceptorTestCase):
    """
    Connections that a worker had, and that others are to have.
    """

    def moving(self) -> tuple[socket.socket, socket.socket]:
        """
        A client whose connection is to move.

        @return: the client and the worker's end.
        """
        client = socket.socket(self.server.family)
        client.settimeout(10)
        client.connect(self.server.getsockname())
        self.clients.append(client)
        self.server.setblocking(True)
        skt, _ = self.server.accept()
        self.server.setblocking(False)
        return client, skt

    def move(self, unread: bytes = b"") -> socket.socket:
        """
        Move a connection.

        @return: its client.
        """
        client, skt = self.moving()
        self.assertIsNone(self.acceptor.refuses())
        self.acceptor.move(skt, unread)
        self.reactor.settle()
        return client

    def test_moves(self) -> None:
        """
        Another worker gets it, with what was read and not used.
        """
        [worker] = self.join(1)
        client = self.move(b"GET /")
        self.assertEqual(worker.unread, [b"GET /"])
        self.assertTrue(self.isAnswered(client))

    def test_leaving(self) -> None:
        """
        The one that leaves does not get it back.
        """
        one, _ = self.join(1, 2)
        one.intake.end()
        for _ in range(3):
            self.move()
        self.assertEqual(self.shares, {1: 0, 2: 3})

    def test_kernel(self) -> None:
        """
        Workers that accept by themselves take turns.
        """
        self.acceptor = self.remake()
        self.join(1, 2, accepts=True)
        for _ in range(4):
            self.move()
        self.assertEqual(self.shares, {1: 2, 2: 2})
        self.assertNotIn(self.acceptor, self.reactor.getReaders())

    def remake(self) -> Acceptor:
        """
        An acceptor whose workers all accept by themselves so far.
        """
        self.acceptor.close()
        return Acceptor(self.reactor, self.server, "tcp:test", NUMBER, Peeks())

    def test_mixed(self) -> None:
        """
        Those that wait for the watcher come first.
        """
        self.join(1, accepts=True)
        self.join(2)
        for _ in range(3):
            self.move()
        self.assertEqual(self.shares, {1: 0, 2: 3})

    def test_balanced(self) -> None:
        """
        The balancer chooses, knowing the client.
        """
        balancer = self.told()
        balancer.answer = lambda connection, candidates: candidates[-1]
        self.join(1, 2, 3)
        self.move()
        self.assertEqual(self.shares, {1: 0, 2: 0, 3: 1})
        [asked] = balancer.asked
        self.assertEqual((asked.peer, asked.final), ("127.0.0.1", True))
        self.assertEqual((asked.address, asked.firstBytes), ("tcp:test", b""))

    def test_sticky(self) -> None:
        """
        By C{sticky} it goes where a new one of the client would.
        """
        self.acceptor.change("sticky", Sticky())
        self.join(1, 2, 3)
        self.connect()
        [chosen] = [id for id, share in self.shares.items() if share]
        for _ in range(3):
            self.move()
        self.assertEqual(self.shares[chosen], 4)

    def test_firstBytes(self) -> None:
        """
        A balancer that has to see first bytes cannot have them again: nothing
        moves then, and the reason names it.
        """
        self.told(firstBytes=10)
        why = self.acceptor.refuses()
        self.assertEqual(why, "test has to see the first bytes of connections")
        self.told()
        self.assertIsNone(self.acceptor.refuses())

    def test_firstBytesMeanwhile(self) -> None:
        """
        One that waits for a worker when such a balancer comes is placed by it with
        nothing seen.
        """
        client = self.move()
        balancer = self.told(firstBytes=10)
        self.join(1)
        self.assertTrue(self.isAnswered(client))
        [asked] = balancer.asked
        self.assertEqual((asked.final, asked.firstBytes), (True, b""))

    def test_waits(self) -> None:
        """
        When no worker serves at the moment it waits, and the next one gets it,
        before whoever waits to be accepted.
        """
        moved = [self.move(b"first"), self.move(b"second")]
        [late] = self.connect()
        self.assertEqual(self.shares, {})
        [worker] = self.join(1)
        self.assertEqual(worker.unread, [b"first", b"second", b""])
        for client in (*moved, late):
            self.assertTrue(self.isAnswered(client))

    def test_workersFull(self) -> None:
        """
        Likewise when none keeps up.
        """
        [worker] = self.join(1)
        worker.takes = False
        self.connect(WINDOW)
        client = self.move()
        worker.takes = True
        worker.arrived()
        self.reactor.settle()
        self.assertTrue(self.isAnswered(client))

    def test_dies(self) -> None:
        """
        What a worker was given that dies before it takes it, another gets, with
        what comes along.
        """
        one, two = self.join(1, 2)
        one.takes = False
        two.intake.end()
        client = self.move(b"GET /")
        two.intake.begin()
        one.close()
        self.reactor.settle()
        self.assertEqual(two.unread, [b"GET /"])
        self.assertTrue(self.isAnswered(client))

    def test_givenBack(self) -> None:
        """
        So it does with what a worker gives back: one that has just begun to leave
        itself.
        """
        one, two = self.join(1, 2)
        one.takes, one.refuses = False, True
        balancer = self.told()
        client = self.move(b"GET /")
        self.assertEqual(two.unread, [b"GET /"])
        self.assertTrue(self.isAnswered(client))
        self.assertEqual(len(balancer.asked), 2)

    def test_clientHasClosed(self) -> None:
        """
        A client that has closed its side still has what it sent served.
        """
        [worker] = self.join(1)
        client, skt = self.moving()
        client.send(b"last words")
        client.shutdown(socket.SHUT_WR)
        self.acceptor.move(skt, b"")
        self.reactor.settle()
        [taken] = worker.taken
        self.assertEqual(taken.recv(100), b"last words")

    def test_clientGone(self) -> None:
        """
        A client that is gone needs no worker.
        """
        [worker] = self.join(1)
        client, skt = self.moving()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        self.acceptor.move(skt, b"")
        self.reactor.settle()
        self.assertEqual((worker.taken, skt.fileno()), ([], -1))

    def test_closed(self) -> None:
        """
        When the address is closed, what waits is, and what comes then.
        """
        waiting = self.move()
        self.acceptor.close()
        self.assertEqual(waiting.recv(1), b"")
        client, skt = self.moving()
        self.acceptor.move(skt, b"")
        self.assertEqual(client.recv(1), b"")
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class ExhaustionTests(AcceptorTestCase):
    """
    What keeps the watcher from accepting.
    """

    def test_tooManyFiles(self) -> None:
        """
        At the limit of open files, it pauses, says so once, and goes on:
        nothing is lost.
        """
        self.join(1, 2)
        clients = [socket.create_connection(self.server.getsockname())]
        self.clients.extend(clients)
        with room(0):
            self.reactor.settle()
            self.acceptor.changed()
            self.reactor.advance(0)
            self.assertNotIn(self.acceptor, self.reactor.getReaders())
            self.reactor.elapse(1.0)
            self.assertEqual(self.shares, {1: 0, 2: 0})
        self.reactor.elapse(0.2)
        self.assertTrue(self.isAnswered(clients[0]))
        why = os.strerror(errno.EMFILE)
        [text] = self.events.texts
        self.assertIn("No connection can be accepted on tcp:test at the moment", text)
        self.assertIn(why, text)

    def test_keptFree(self) -> None:
        """
        Long before, it leaves files for others: it accepts no more until workers
        have taken what it holds, and says so.
        """
        [worker] = self.join(1)
        worker.takes = False
        address = self.server.getsockname()
        clients = [socket.create_connection(address, 10) for _ in range(8)]
        self.clients += clients
        self.leaveFew(1)
        self.reactor.elapse(1.0)
        self.assertEqual(worker.intake.unanswered, 2)
        [text] = self.events.texts
        self.assertIn("only the files that are kept free are left", text)
        worker.takes = True
        worker.arrived()
        # The worker is in this process here, so that there are still few.
        self.reactor.elapse(2.0)
        self.assertTrue(all(map(self.isAnswered, clients)))

    def test_keptFreeWhilePeeking(self) -> None:
        """
        Then it does not wait for those that say nothing either.
        """
        self.told(firstBytes=8, patience=60.0)
        self.join(1)
        address = self.server.getsockname()
        self.clients += [socket.create_connection(address, 10) for _ in range(8)]
        self.leaveFew(0)
        self.reactor.elapse(10.0)
        self.assertEqual(self.shares, {1: 8})

    def test_closedWhileFew(self) -> None:
        """
        Nothing is left of it when the balancer closes it at that moment.
        """
        balancer = self.told()

        def close(connection: Connection, candidates: Sequence[Candidate]) -> Candidate:
            self.acceptor.close()
            return candidates[0]

        balancer.answer = close
        self.join(1)
        self.leaveFew(0)
        self.connect()
        self.assertEqual(self.shares, {1: 0})

    def test_saidAgain(self) -> None:
        """
        When it lasts, it is said once a minute.
        """
        self.join(1)
        self.clients.append(socket.create_connection(self.server.getsockname()))
        with room(0):
            self.reactor.elapse(130, 1.0)
        self.assertEqual(len(self.events), 3)
        self.reactor.elapse(0.2)

    def test_noRoomForAnother(self) -> None:
        """
        Nothing is left of an acceptor for which there are too many open files.
        """
        with room(0):
            self.assertRaises(OSError, self.make, RoundRobin())

    def test_shutDown(self) -> None:
        """
        A socket that a worker has shut down for everybody does not keep the
        watcher busy; the log says what happened.
        """
        self.join(1)
        self.server.shutdown(socket.SHUT_RDWR)
        self.acceptor.doRead()
        self.assertNotIn(self.acceptor, self.reactor.getReaders())
        [text] = self.events.texts
        self.assertIn(os.strerror(errno.EINVAL), text)

    def test_hangsUp(self) -> None:
        """
        Likewise when the reactor sees it first.
        """
        self.join(1)
        self.reactor.removeReader(self.acceptor)
        self.acceptor.connectionLost(Failure(ConnectionDone()))
        [text] = self.events.texts
        self.assertTrue(text.endswith("it was shut down"), text)
        self.reactor.elapse(0.2)
        [client] = self.connect()
        self.assertTrue(self.isAnswered(client))

    def test_reactorEnds(self) -> None:
        """
        When the reactor ends, nothing is said and nothing tried again.
        """
        self.join(1)
        self.reactor.removeAll()
        self.acceptor.connectionLost(Failure(CONNECTION_LOST))
        self.assertEqual(self.events, [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class UNIXTests(AcceptorTestCase):
    """
    UNIX sockets.
    """

    def listen(self) -> socket.socket:
        server = socket.socket(socket.AF_UNIX)
        server.bind(f"{shortDirectory(self)}/s")
        server.listen(10)
        server.setblocking(False)
        return server

    def test_asked(self) -> None:
        """
        Their clients have no address.
        """
        balancer = self.told()
        self.join(1)
        self.connect()
        [asked] = balancer.asked
        self.assertEqual(asked.peer, "")
        self.assertEqual(self.shares, {1: 1})

    def test_named(self) -> None:
        """
        Not even those that have bound a name.
        """
        balancer = self.told()
        self.join(1)
        client = socket.socket(socket.AF_UNIX)
        self.clients.append(client)
        client.bind(f"{shortDirectory(self)}/c")
        client.connect(self.server.getsockname())
        self.reactor.settle()
        [asked] = balancer.asked
        self.assertEqual(asked.peer, "")


class IPv6Tests(AcceptorTestCase):
    """
    IPv6.
    """

    def listen(self) -> socket.socket:
        server = socket.create_server(("::1", 0), family=socket.AF_INET6)
        server.setblocking(False)
        return server

    def test_asked(self) -> None:
        """
        Clients are known by their address.
        """
        balancer = self.told()
        self.join(1)
        self.connect()
        [asked] = balancer.asked
        self.assertEqual(asked.peer, "::1")
