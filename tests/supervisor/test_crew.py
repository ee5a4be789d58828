"""
Tests for L{twisted_cluster.supervisor.crew}.
"""

from __future__ import annotations

import signal
import socket
import threading
from contextlib import closing

from tests.test_watcher import PlayedWorker, WatcherTestCase
from twisted_cluster.errors import Stopped
from twisted_cluster.policy.readiness import PORTLESS
from twisted_cluster.sockets.addresses import (
    Address,
    BindRequest,
    Shared,
    SocketRequest,
    Verdict,
)
from twisted_cluster.sockets.servers.binding import makeSocket
from twisted_cluster.watcher import ClusterWatcher
from twisted_cluster.worker.socketclient import SocketClient

DEADLINE = 20.0
LATE = 30.0


class PortlessTests(WatcherTestCase):
    """
    How long a worker that opens no port is waited for.
    """

    def listen(self, worker: PlayedWorker, kind: str = "tcp") -> None:
        """
        Have a worker listen, while it starts.
        """
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = Address.ofSocket(probe).port
        address = Address("udp" if kind == "udp" else "tcp", "127.0.0.1", port)
        channel = worker.process.take(worker.process.settings.sockets)
        client = SocketClient(channel.detach(), DEADLINE)
        self.addCleanup(client.close)
        verdicts: list[Verdict] = []

        def ask() -> None:
            request = SocketRequest(BindRequest(address), starting=True)
            with closing(makeSocket(address)) as skt:
                verdicts.append(client.request(request, skt))

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        for _ in range(int(DEADLINE / 0.01)):
            self.reactor.settle()
            thread.join(0.01)
            if not thread.is_alive():
                break
        [verdict] = verdicts
        assert isinstance(verdict, Shared), verdict
        verdict.socket.close()

    def restart(self, watcher: ClusterWatcher) -> None:
        """
        Begin a restart, whatever becomes of it.
        """
        watcher.restart().addErrback(lambda failure: failure.trap(Stopped) and None)

    def portless(self) -> list[float]:
        """
        How long each worker so far was given.
        """
        return [process.settings.portless for process in self.reactor.processes]

    def test_firstOfASlot(self) -> None:
        """
        The first worker of a slot is not waited for, whatever the cluster
        listens on: by C{--bind}, or because of other workers.
        """
        watcher = self.watcher(2, binds=["tcp:0:interface=127.0.0.1"])
        [first] = self.becomeReady(1)
        self.listen(first)
        self.becomeReady(2)
        watcher.scale(3)
        self.becomeReady(3)
        self.assertEqual(self.portless(), [PORTLESS] * 3)

    def test_restart(self) -> None:
        """
        In a restart, those are waited for whose predecessors had opened a port,
        and no others: some programs listen in one slot only.
        """
        watcher = self.watcher(2, binds=["tcp:0:interface=127.0.0.1"])
        [first, second] = self.becomeReady(1, 2)
        self.listen(first)
        self.restart(watcher)
        self.becomeReady(3)
        first.end()
        self.becomeReady(4)
        self.assertEqual(self.portless()[2:], [LATE, PORTLESS])
        second.end()
        self.restart(watcher)
        self.assertEqual(self.portless()[4:], [PORTLESS])

    def test_udp(self) -> None:
        """
        A UDP port says nothing of the ports that are opened late.
        """
        watcher = self.watcher(1)
        [first] = self.becomeReady(1)
        self.listen(first, "udp")
        self.restart(watcher)
        self.assertEqual(self.portless(), [PORTLESS, PORTLESS])

    def test_death(self) -> None:
        """
        What replaces a dead worker is waited for if that had opened a port.  A
        worker that dies before it is ready changes nothing.
        """
        self.watcher(2)
        [first, second] = self.becomeReady(1, 2)
        self.listen(first)
        self.reactor.elapse(10)
        second.end(signalled=signal.SIGKILL)
        first.end(signalled=signal.SIGKILL)
        self.play(4).end(1)
        self.reactor.elapse(1)
        self.assertEqual(self.portless()[2:], [PORTLESS, LATE, LATE])

    def test_startTimeout(self) -> None:
        """
        The wait leaves half of the time in which a worker must be ready.
        """
        watcher = self.watcher(1, startTimeout=10.0)
        [first] = self.becomeReady(1)
        self.listen(first)
        self.restart(watcher)
        self.assertEqual(self.portless(), [PORTLESS, 5.0])

    def test_restartInTheGrace(self) -> None:
        """
        A socket that waits for workers which open it late is kept when these
        are replaced before they do.
        """
        watcher = self.watcher(1)
        [first] = self.becomeReady(1)
        self.listen(first)
        self.restart(watcher)
        self.becomeReady(2)
        first.end()
        self.reactor.elapse(50, 1.0)
        [address] = watcher.addresses
        self.restart(watcher)
        self.reactor.elapse(20, 1.0)
        self.assertEqual(watcher.addresses, [address])
