"""
Which listening sockets exist, and who gets which.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Optional
from unittest import skipIf

from twisted.internet.error import CannotListenError
from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase

from tests.sockethelpers import Events, descriptors, room, shortDirectory
from twisted_cluster.errors import InvalidEndpoint
from twisted_cluster.sockets.addresses import (
    Address,
    BindRequest,
    Own,
    Refused,
    Shared,
    SocketRequest,
    Verdict,
)
from twisted_cluster.sockets.servers.binding import makeSocket
from twisted_cluster.supervisor.distributor import Distributor
from twisted_cluster.supervisor.listeners import Listeners
from twisted_cluster.supervisor.procfs import Credentials
from twisted_cluster.testing import DescriptorReactor

LOCAL = Address("tcp", "127.0.0.1")


class ListenersTests(SynchronousTestCase):
    """
    The rules at the head of C{supervisor.listeners}.
    """

    credentials: Optional[Credentials] = None

    def setUp(self) -> None:
        before = descriptors()
        self.clock = Clock()
        self.events = Events()
        self.listeners = Listeners(
            64,
            self.clock,
            lambda worker: self.credentials,
            Logger(observer=self.events),
            grace=60.0,
        )

        def closed() -> None:
            self.listeners.closeAll()
            self.assertEqual([], self.listeners.addresses)
            self.assertEqual(before, descriptors())
            self.assertEqual([], self.clock.getDelayedCalls())

        self.addCleanup(closed)

    def ask(
        self,
        worker: int,
        address: Address,
        index: int = 0,
        starting: bool = True,
        explicit: bool = False,
        backlog: int = 50,
        mode: int = 0o666,
    ) -> Verdict:
        return self.listeners.request(
            worker,
            SocketRequest(
                BindRequest(address, backlog, mode), index, explicit, starting
            ),
            makeSocket(address),
        )

    def share(
        self,
        worker: int,
        address: Address,
        index: int = 0,
        starting: bool = True,
        explicit: bool = False,
    ) -> Shared:
        verdict = self.ask(worker, address, index, starting, explicit)
        assert isinstance(verdict, Shared), verdict
        return verdict

    def freePort(self) -> Address:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            return Address.ofSocket(probe)

    def isOpen(self, address: Address) -> bool:
        return str(address) in self.listeners.addresses

    def test_sameAddressSameSocket(self) -> None:
        """
        Whoever asks for an address gets the one socket that is bound to it.
        """
        address = self.freePort()
        first, second = self.share(1, address), self.share(2, address)
        self.assertIs(first.socket, second.socket)
        self.assertEqual([str(address)], self.listeners.addresses)

    def test_twiceInOneWorker(self) -> None:
        """
        A second listen of one worker on one address is EADDRINUSE, as alone,
        until the first has ended.
        """
        address = self.freePort()
        self.share(1, address)
        self.share(2, address)
        self.assertEqual(
            Refused(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE)),
            self.ask(1, address),
        )
        self.listeners.release(1, address)
        self.share(1, address, starting=False)

    def test_portZero(self) -> None:
        """
        The n-th request for port 0 of every worker gets the same port, and
        that port can be asked for by its number.
        """
        first = [self.share(1, LOCAL, index) for index in range(3)]
        second = [self.share(2, LOCAL, index) for index in range(3)]
        self.assertEqual(
            [each.address for each in first], [each.address for each in second]
        )
        self.assertEqual(3, len({each.address for each in first}))
        self.assertIs(
            first[1].socket, self.share(3, first[1].address, starting=False).socket
        )

    def test_portZeroOverGenerations(self) -> None:
        """
        The next generation gets the same ports, as long as the sockets live.
        """
        old = self.share(1, LOCAL)
        self.listeners.workerStopping(1)
        self.listeners.release(1, old.address)
        self.assertEqual(old.address, self.share(2, LOCAL).address)

    def test_portZeroAnew(self) -> None:
        """
        Once its socket was closed, port 0 is another port, and nothing of the
        old one is left.
        """
        old = self.share(1, LOCAL)
        self.listeners.release(1, old.address)
        self.assertEqual([], self.listeners.addresses)
        self.share(1, LOCAL)
        self.assertEqual(1, len(self.listeners.addresses))

    def test_late(self) -> None:
        """
        What is opened late, and is unknown, is the worker's own; port 0 always
        is, even if the cluster has one.
        """
        self.share(1, LOCAL)
        self.assertEqual(Own(), self.ask(1, self.freePort(), starting=False))
        self.assertEqual(Own(), self.ask(2, LOCAL, starting=False))

    def test_lateAndKnown(self) -> None:
        """
        What the cluster knows is shared at any time: opened by another worker,
        bound by C{--bind}, or named as the cluster's.
        """
        opened, bound, named = (self.freePort() for _ in range(3))
        self.share(1, opened)
        self.share(2, opened, starting=False)
        self.listeners.bind(f"tcp:{bound.port}:interface=127.0.0.1")
        self.share(2, bound, starting=False)
        self.share(2, named, starting=False, explicit=True)
        self.share(1, named, starting=False)

    def test_listenAgain(self) -> None:
        """
        An address that a living worker has shared stays the cluster's when
        everybody has stopped listening, and is forgotten with that worker.
        """
        address = self.freePort()
        self.share(1, address)
        self.listeners.release(1, address)
        self.assertFalse(self.isOpen(address))
        self.share(1, address, starting=False)
        self.share(2, address, starting=False)
        for worker in (1, 2):
            self.listeners.workerGone(worker)
        self.listeners.settle()
        self.clock.advance(60)
        self.assertEqual(Own(), self.ask(3, address, starting=False))

    def test_lastReleaseCloses(self) -> None:
        """
        The socket closes when the last worker has deliberately stopped
        listening; releasing what one does not use changes nothing.
        """
        address = self.freePort()
        self.share(1, address)
        self.share(2, address)
        self.listeners.release(1, address)
        self.listeners.release(1, address)
        self.listeners.release(3, address)
        self.assertTrue(self.isOpen(address))
        self.listeners.release(2, address)
        self.assertFalse(self.isOpen(address))
        with socket.create_server(("127.0.0.1", address.port)):
            pass

    def test_pinned(self) -> None:
        """
        What was bound by C{--bind} stays open without users.
        """
        address = self.freePort()
        self.listeners.bind(f"tcp:{address.port}:interface=127.0.0.1")
        self.share(1, address)
        self.listeners.release(1, address)
        self.listeners.settle()
        self.assertTrue(self.isOpen(address))

    def test_stoppingCountsWhenSettled(self) -> None:
        """
        What a stopping worker gives back is closed when the fleet has settled,
        not before, and only if nobody uses it by then.
        """
        kept, moved = self.freePort(), self.freePort()
        self.share(1, kept)
        self.share(1, moved)
        self.listeners.workerStopping(1)
        self.listeners.release(1, kept)
        self.listeners.release(1, moved)
        self.listeners.workerGone(1)
        self.assertTrue(self.isOpen(kept) and self.isOpen(moved))
        self.share(2, kept)
        self.listeners.settle()
        self.assertEqual([str(kept)], self.listeners.addresses)
        self.assertIn(
            f"Closed {moved}: no worker listens on it any more", self.events.texts
        )

    def leave(self, worker: int, *addresses: Address) -> None:
        """
        A worker leaves that listens on these.
        """
        self.listeners.workerStopping(worker)
        for address in addresses:
            self.listeners.release(worker, address)
        self.listeners.workerGone(worker)

    def test_waitsForLateOnes(self) -> None:
        """
        While there is a worker that has opened nothing yet, an unused socket
        stays open for a grace period, together with the connections that wait
        in it, and is there for a worker that wants it in that time.
        """
        address = self.freePort()
        self.share(1, address)
        self.leave(1, address)
        self.listeners.settle([2])
        with socket.create_connection((address.host, address.port), timeout=5):
            self.clock.advance(59)
            shared = self.share(2, address)
            self.clock.advance(60)
            shared.socket.accept()[0].close()
        self.assertTrue(self.isOpen(address))
        self.leave(2, address)
        self.listeners.settle([3])
        self.clock.advance(59)
        self.assertTrue(self.isOpen(address))

    def test_waitsNotForEver(self) -> None:
        """
        The grace begins when the fleet has settled with the socket unused, and
        is not renewed when it settles again; then the socket is closed.
        """
        address = self.freePort()
        self.share(1, address)
        self.leave(1, address)
        self.clock.advance(600)
        self.listeners.settle([2])
        self.clock.advance(30)
        self.listeners.settle([2, 3])
        self.assertTrue(self.isOpen(address))
        self.clock.advance(30)
        self.assertFalse(self.isOpen(address))
        self.assertIn(
            f"Closed {address}: no worker has listened on it for 60 seconds",
            self.events.texts,
        )
        self.share(3, address)

    def test_owedAnew(self) -> None:
        """
        The grace ends when the fleet is no longer settled, since a worker stops,
        dies or is to be started: the socket is kept for the replacement.  The
        grace begins anew when the fleet has settled again.
        """
        address = self.freePort()
        for unsettle in (
            lambda: self.listeners.workerStopping(2),
            lambda: self.listeners.workerGone(2),
            self.listeners.unsettle,
        ):
            self.share(1, address)
            self.leave(1, address)
            self.listeners.settle([2])
            self.clock.advance(59)
            unsettle()
            self.clock.advance(600)
            self.assertTrue(self.isOpen(address))
            self.listeners.settle([2])
            self.clock.advance(59)
            self.assertTrue(self.isOpen(address))
            self.clock.advance(1)
            self.assertFalse(self.isOpen(address))

    def test_movedAtOnce(self) -> None:
        """
        A socket that was moved away from is not waited for: every worker has
        opened another one, or it is so when the fleet settles again.
        """
        old, new = self.freePort(), self.freePort()
        self.share(1, old)
        self.leave(1, old)
        self.share(2, new)
        self.listeners.settle([2, 3])
        self.assertTrue(self.isOpen(old))
        self.share(3, new)
        self.listeners.settle([2, 3])
        self.assertEqual([str(new)], self.listeners.addresses)

    def test_udpIsNoServerYet(self) -> None:
        """
        A worker that has opened UDP ports only may still be about to listen.
        """
        tcp = self.freePort()
        self.share(1, tcp)
        self.leave(1, tcp)
        self.share(2, Address("udp", "127.0.0.1", tcp.port))
        self.listeners.settle([2])
        self.assertTrue(self.isOpen(tcp))

    def test_openedLateBefore(self) -> None:
        """
        What the former workers opened late is given the grace, too: the new
        ones, which have opened their other ports, will want it as late.
        """
        early, late = self.freePort(), self.freePort()
        self.share(1, early)
        self.share(1, late, starting=False, explicit=True)
        self.leave(1, early, late)
        self.share(2, early)
        self.listeners.settle([2])
        self.assertTrue(self.isOpen(late))
        self.clock.advance(60)
        self.assertEqual([str(early)], self.listeners.addresses)

    def test_closedInTheGrace(self) -> None:
        """
        A worker that takes the socket and deliberately stops listening closes
        it there and then.
        """
        address = self.freePort()
        self.share(1, address)
        self.leave(1, address)
        self.listeners.settle([2])
        self.share(2, address)
        self.listeners.release(2, address)
        self.assertFalse(self.isOpen(address))
        self.clock.advance(60)

    def test_deathLeavesTheSocket(self) -> None:
        """
        A worker that dies leaves its sockets to its replacement.
        """
        address = self.freePort()
        before = self.share(1, address)
        self.listeners.workerGone(1)
        self.assertIs(before.socket, self.share(2, address).socket)

    def test_backlog(self) -> None:
        """
        The backlog is at least the configured one, and grows with what is
        asked.
        """
        address = self.freePort()
        self.ask(1, address, backlog=5)
        self.ask(2, address, backlog=100)
        shared = self.share(3, address)
        info = shared.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        self.assertEqual(100, info[28])

    def test_udp(self) -> None:
        """
        UDP sockets are shared likewise; they have no backlog, and may have the
        number of a TCP port.
        """
        tcp = self.freePort()
        udp = Address("udp", tcp.host, tcp.port)
        self.share(1, tcp)
        self.assertIs(self.share(1, udp).socket, self.share(2, udp).socket)

    def test_reusePort(self) -> None:
        """
        A worker may listen twice where both sockets have SO_REUSEPORT, as
        alone: the second is its own.
        """
        address = self.freePort()
        verdicts = []
        for _ in range(2):
            skt = makeSocket(address)
            skt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            request = SocketRequest(BindRequest(address), starting=True)
            verdicts.append(self.listeners.request(1, request, skt))
        self.assertIsInstance(verdicts[0], Shared)
        self.assertEqual(Own(), verdicts[1])

    def test_programsOptions(self) -> None:
        """
        The socket that is bound is the one that the program made.
        """
        address = self.freePort()
        skt = makeSocket(address)
        skt.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        request = SocketRequest(BindRequest(address), starting=True)
        verdict = self.listeners.request(1, request, skt)
        assert isinstance(verdict, Shared)
        self.assertIs(skt, verdict.socket)

    def test_failure(self) -> None:
        """
        A failing bind is refused with C{bind}'s own errno and message each
        time, and logged once: until a minute has passed, or it has worked.
        """
        with socket.create_server(("127.0.0.1", 0)) as other:
            address = Address.ofSocket(other)
            for worker in range(1, 5):
                self.assertEqual(
                    Refused(errno.EADDRINUSE, "Address already in use"),
                    self.ask(worker, address),
                )
                self.clock.advance(1)
            self.assertEqual(
                [
                    f"Cannot listen on {address}, which worker 1 asks for: "
                    "Address already in use"
                ],
                self.events.texts,
            )
            self.clock.advance(60)
            self.ask(5, address)
            self.assertEqual(2, len(self.events))
        self.share(6, address)
        self.listeners.workerGone(6)
        self.listeners.settle()
        with socket.create_server(("127.0.0.1", address.port)):
            del self.events[:]
            self.ask(7, address)
            self.assertEqual(1, len(self.events))

    def test_ownWildcard(self) -> None:
        """
        When it is the cluster itself that has the port, the log says so.
        """
        address = self.freePort()
        self.share(1, Address("tcp", "0.0.0.0", address.port))
        self.ask(1, address)
        self.assertIn(
            f"(the cluster itself listens on tcp:0.0.0.0:{address.port})",
            self.events.texts[-1],
        )

    def test_bindErrors(self) -> None:
        """
        C{--bind} fails with what Twisted's own listen raises, or with what is
        wrong with its description.
        """
        self.assertRaises(InvalidEndpoint, self.listeners.bind, "nonsense")
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = Address.ofSocket(other).port
            error = self.assertRaises(
                CannotListenError,
                self.listeners.bind,
                f"tcp:{port}:interface=127.0.0.1",
            )
        self.assertEqual(
            f"Couldn't listen on 127.0.0.1:{port}: [Errno 98] Address already in use.",
            str(error),
        )
        path = os.path.join(shortDirectory(self), "s")
        os.symlink(str(os.getpid()), path + ".lock")
        error = self.assertRaises(
            CannotListenError, self.listeners.bind, f"unix:{path}"
        )
        self.assertEqual("Cannot acquire lock", error.socketError)

    def test_bindPortZero(self) -> None:
        """
        C{--bind tcp:0} is the program's first request for port 0.
        """
        self.listeners.bind("tcp:0:interface=127.0.0.1")
        (address,) = self.listeners.addresses
        self.assertEqual(address, str(self.share(1, LOCAL, 0).address))

    def test_unixPathVanished(self) -> None:
        """
        A UNIX socket whose file somebody removed is bound anew for the next
        worker that asks, and is then the one that is removed at the end.
        """
        path = os.path.join(shortDirectory(self), "s").encode()
        address = Address.unix(path)
        self.share(1, address)
        os.unlink(path)
        shared = self.share(2, address)
        self.assertIn("send the watcher HUP", self.events.texts[-1])
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            client.connect(path)
            shared.socket.accept()[0].close()
        self.listeners.closeAll()
        self.assertFalse(os.path.exists(path))

    def test_unixMode(self) -> None:
        """
        The latest worker's mode is the one that holds.
        """
        path = os.path.join(shortDirectory(self), "s").encode()
        self.ask(1, Address.unix(path), mode=0o666)
        self.ask(2, Address.unix(path), mode=0o600)
        self.assertEqual(0o600, os.stat(path).st_mode & 0o777)

    @skipIf(os.geteuid() != 0, "only root can act for others")
    def test_shedPrivileges(self) -> None:
        """
        A worker that has shed privileges is refused what it could not bind by
        itself, and gets what is open already.
        """
        directory = shortDirectory(self)
        private = Address.unix(os.path.join(directory, "s").encode())
        opened = Address.unix(os.path.join(directory, "t").encode())
        self.share(1, opened)
        self.credentials = Credentials(65534, 65534)
        verdict = self.ask(2, private)
        assert isinstance(verdict, Refused)
        self.assertEqual(errno.EACCES, verdict.errno)
        self.share(2, opened)

    def test_unprivilegedWatcher(self) -> None:
        """
        A watcher that could not act for others does not look for their rights.
        """
        asked: list[int] = []
        self.patch(os, "geteuid", lambda: 1000)
        self.patch(self.listeners, "_credentials", asked.append)
        self.share(1, self.freePort())
        self.assertEqual([], asked)


class BalancedTests(SynchronousTestCase):
    """
    Sockets on which the watcher accepts.
    """

    def setUp(self) -> None:
        before = descriptors()
        self.reactor = DescriptorReactor()
        self.events = Events()
        self.distributor = Distributor(self.reactor, "round-robin")
        self.listeners = Listeners(
            64,
            self.reactor,
            log=Logger(observer=self.events),
            distributor=self.distributor,
        )
        for worker in (1, 2):
            self.listeners.intake(worker, worker - 1)

        def closed() -> None:
            self.listeners.closeAll()
            for worker in (1, 2):
                self.listeners.workerGone(worker)
            self.assertEqual(before, descriptors())
            self.assertEqual([], self.reactor.getDelayedCalls())

        self.addCleanup(closed)
        self.address = Address("tcp", "127.0.0.1", self.freePort())

    def freePort(self) -> int:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            return int(probe.getsockname()[1])

    def ask(
        self, worker: int, balance: str = "", address: Optional[Address] = None
    ) -> Verdict:
        wanted = BindRequest(address or self.address)
        skt = makeSocket(wanted.address)
        return self.listeners.request(
            worker, SocketRequest(wanted, starting=True, balance=balance), skt
        )

    def told(self, worker: int, balance: str = "") -> tuple[int, bool]:
        """
        The number under which a worker's connections come, and whether it
        accepts by itself.
        """
        verdict = self.ask(worker, balance)
        assert isinstance(verdict, Shared), verdict
        return verdict.listener, verdict.accepts

    def test_number(self) -> None:
        """
        Workers are told the number of the address, the same for all, and whether
        they accept by themselves.
        """
        self.assertEqual([self.told(1), self.told(2)], [(1, False), (1, False)])
        self.listeners.release(1, self.address)
        self.assertEqual(self.told(1, "kernel"), (1, True))
        self.listeners.release(1, self.address)
        self.assertEqual(self.told(1, "sticky"), (1, False))

    def test_kernel(self) -> None:
        """
        Without a distributor, they accept by themselves.
        """
        self.listeners = Listeners(64, self.reactor, log=Logger(observer=self.events))
        self.listeners.intake(1, 0)
        self.assertEqual(self.told(1), (1, True))

    def test_refuse(self) -> None:
        """
        When no worker accepts any more, the kernel refuses connections.
        """
        self.told(1, "kernel")
        where = (self.address.host, self.address.port)
        socket.create_connection(where).close()
        self.listeners.refuse()
        self.assertRaises(ConnectionRefusedError, socket.create_connection, where)
        self.listeners.refuse()

    def test_unknown(self) -> None:
        """
        Who asks for a way of balancing that there is not is refused as invalid,
        and nothing is opened.
        """
        before = descriptors()
        verdict = self.ask(1, "round-about")
        assert isinstance(verdict, Refused)
        self.assertEqual(verdict.errno, errno.EINVAL)
        self.assertIn("balance=round-about is none of kernel", verdict.message)
        self.assertEqual(self.listeners.addresses, [])
        self.assertEqual(descriptors(), before)

    def test_tooManyFiles(self) -> None:
        """
        When the watcher is at its limit of open files, the worker is refused,
        the log says so, and the address is as free as before.
        """
        wanted = BindRequest(self.address)
        skt = makeSocket(self.address)
        with room(0):
            verdict = self.listeners.request(
                1, SocketRequest(wanted, starting=True), skt
            )
        assert isinstance(verdict, Refused), verdict
        self.assertEqual(verdict.errno, errno.EMFILE)
        self.assertEqual(self.listeners.addresses, [])
        [warning] = [text for text in self.events.texts if "Cannot listen" in text]
        self.assertIn(os.strerror(errno.EMFILE), warning)
        self.assertEqual(self.told(1), (1, False))

    def test_released(self) -> None:
        """
        Who stops listening gets nothing more, and when the last one does, the
        number is not used again.
        """
        self.told(1)
        self.listeners.release(1, self.address)
        self.assertEqual(self.told(1), (2, False))

    def test_releasedByOne(self) -> None:
        """
        While others listen, one that has stopped gets nothing more.
        """
        self.told(1)
        self.told(2)
        left: list[tuple[int, Address]] = []
        self.patch(self.distributor, "leaves", lambda *args: left.append(args))
        self.listeners.release(1, self.address)
        self.assertEqual(left, [(1, self.address)])

    def test_leaves(self) -> None:
        """
        A worker that leaves or dies gets nothing more; whoever comes after it
        gets the same number.
        """
        self.told(1)
        self.listeners.workerReady(1)
        self.listeners.workerStopping(1)
        self.listeners.release(1, self.address)
        self.listeners.workerGone(1)
        self.assertEqual(self.told(2), (1, False))
