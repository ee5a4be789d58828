"""
The worker's end of its server-socket channel.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
import threading
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger, LogLevel
from twisted.protocols import amp

from tests.worker.watching import PATIENCE, WatchedTestCase
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
from twisted_cluster.worker import socketclient
from twisted_cluster.worker.socketclient import SocketClient

LOCAL = Address("tcp", "127.0.0.1")


def ask(
    client: SocketClient, address: Address = LOCAL, starting: bool = True, **kw: Any
) -> Verdict:
    """
    Ask for a socket.
    """
    with makeSocket(address) as skt:
        return client.request(
            SocketRequest(BindRequest(address), starting=starting, **kw), skt
        )


class SocketClientTests(WatchedTestCase):
    """
    C{SocketClient} against the watcher's side.
    """

    def share(self, client: SocketClient, address: Address = LOCAL) -> Shared:
        verdict = ask(client, address)
        assert isinstance(verdict, Shared), verdict
        self.addCleanup(verdict.socket.close)
        return verdict

    def test_shared(self) -> None:
        """
        The answer is a copy of the watcher's socket: it listens, is
        non-blocking, is not inherited, and knows its address.
        """
        shared = self.share(self.client())
        self.assertEqual([str(shared.address)], self.addresses())
        self.assertFalse(shared.socket.get_inheritable())
        self.assertEqual(0.0, shared.socket.gettimeout())
        with socket.create_connection(
            ("127.0.0.1", shared.address.port), timeout=PATIENCE
        ):
            pass

    def test_everyKind(self) -> None:
        """
        What is asked arrives as it was asked: IPv6, UDP, UNIX, abstract.
        """
        client = self.client()
        for address in [
            Address("tcp", "::1"),
            Address("udp", "127.0.0.1", self.share(client).address.port),
            Address.unix(b"\0twisted-cluster-client-%d" % os.getpid()),
        ]:
            found = self.share(client, address).address
            self.assertEqual(
                (address.kind, address.host, address.path),
                (found.kind, found.host, found.path),
            )

    def test_own(self) -> None:
        """
        What is none of the cluster's is one's own.
        """
        self.assertEqual(Own(), ask(self.client(), starting=False))

    def test_refused(self) -> None:
        """
        What cannot be bound is refused with C{bind}'s errno and message, and
        the channel lives on.
        """
        client = self.client()
        with socket.create_server(("127.0.0.1", 0)) as other:
            self.assertEqual(
                Refused(errno.EADDRINUSE, "Address already in use"),
                ask(client, Address.ofSocket(other)),
            )
        self.share(client)

    def test_release(self) -> None:
        """
        What was released is closed by the watcher, in the order of the calls.
        """
        client = self.client()
        address = self.share(client).address
        client.release(address)
        ask(client, starting=False, explicit=False)
        self.assertEqual([], self.addresses())

    def test_quiet(self) -> None:
        """
        A worker that ends as a whole releases nothing.
        """
        client = self.client()
        address = self.share(client).address
        client.quiet()
        client.release(address)
        ask(client, starting=False)
        self.assertEqual([str(address)], self.addresses())

    def test_threads(self) -> None:
        """
        Several threads may ask at once; each gets its own answer.
        """
        client = self.client()
        found: list[Verdict] = []
        threads = [
            threading.Thread(
                target=lambda index: found.append(ask(client, index=index)),
                args=(index,),
            )
            for index in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        ports = set()
        for verdict in found:
            assert isinstance(verdict, Shared)
            ports.add(verdict.address.port)
            verdict.socket.close()
        self.assertEqual(8, len(ports))

    def test_forked(self) -> None:
        """
        A process that a worker forked keeps off its parent's channel: what it
        opens is its own.
        """
        client = self.client()
        address = self.share(client).address
        self.patch(client, "_pid", -1)
        self.assertEqual(Own(), ask(client, address))
        client.release(address)
        self.patch(client, "_pid", os.getpid())
        ask(client, starting=False)
        self.assertEqual([str(address)], self.addresses())

    def test_tooManyFiles(self) -> None:
        """
        A question that cannot be asked for want of a descriptor is EMFILE, and
        leaves no trace: the next one is answered.
        """
        client = self.client()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with makeSocket(LOCAL) as skt:
            request = SocketRequest(BindRequest(LOCAL), starting=True)
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
            try:
                for _ in range(10):
                    error = self.assertRaises(OSError, client.request, request, skt)
                    self.assertEqual(errno.EMFILE, error.errno)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        self.assertFalse(client.broken)
        self.share(client)


class FaultTests(WatchedTestCase):
    """
    C{SocketClient} against a watcher that misbehaves.
    """

    def setUp(self) -> None:
        super().setUp()
        self.patch(socketclient, "_log", Logger(observer=self.events))

    def makeClient(self, skt: socket.socket, timeout: float = PATIENCE) -> SocketClient:
        """
        Make a worker's end.
        """
        client = SocketClient(skt.detach(), timeout)
        self.addCleanup(client.close)
        return client

    def against(
        self,
        answer: Callable[[socket.socket], object],
        timeout: float = PATIENCE,
        again: bool = True,
    ) -> OSError:
        """
        Ask a watcher that does something once it was asked.

        @return: what the question failed with; C{ECONNRESET} is what the next one
            fails with.
        """
        ours, theirs = self.channel()
        client = self.makeClient(theirs, timeout)
        del self.events[:]

        def serve() -> None:
            _, received, _, _ = socket.recv_fds(ours, 65536, 4)
            for descriptor in received:
                os.close(descriptor)
            answer(ours)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        error: OSError = self.assertRaises(OSError, ask, client)
        thread.join(PATIENCE)
        if again:
            second = self.assertRaises(OSError, ask, client)
            self.assertEqual(errno.ECONNRESET, second.errno)
        client.release(LOCAL)
        self.assertTrue(client.broken)
        (event,) = self.events
        self.assertEqual(LogLevel.error, event["log_level"])
        self.assertIn(event["why"], str(error))
        return error

    def test_closed(self) -> None:
        """
        A client that was closed on purpose, or whose worker ends, tells nobody
        that it is broken.
        """
        for end in (SocketClient.close, SocketClient.quiet):
            ours, theirs = self.channel()
            client = self.makeClient(theirs)
            end(client)
            ours.close()
            self.assertRaises(OSError, ask, client)
        self.assertEqual([], self.events)

    def foreign(self, replace: bool) -> tuple[SocketClient, socket.socket]:
        """
        Make a client whose descriptor the program closes, and perhaps gets
        itself.
        """
        _, theirs = self.channel()
        descriptor = theirs.fileno()
        client = self.makeClient(theirs)
        mine, others = self.channel()
        os.close(descriptor)
        if replace:
            os.dup2(others.fileno(), descriptor)
            self.addCleanup(os.close, descriptor)
        return client, mine

    def test_descriptorClosed(self) -> None:
        """
        A program that closed the channel's descriptor is told so, at the next
        question or release.
        """
        client, _ = self.foreign(replace=False)
        error = self.assertRaises(OSError, ask, client)
        self.assertEqual(errno.ECONNRESET, error.errno)
        self.assertIn("the program closed its descriptor", str(error))
        client, _ = self.foreign(replace=False)
        del self.events[:]
        client.release(LOCAL)
        self.assertEqual(1, len(self.events))

    def test_descriptorTaken(self) -> None:
        """
        What the program has put in the place of the channel's descriptor is
        neither written to nor closed.
        """
        client, mine = self.foreign(replace=True)
        error = self.assertRaises(OSError, ask, client)
        self.assertEqual(errno.ECONNRESET, error.errno)
        client.release(LOCAL)
        client.close()
        mine.setblocking(False)
        self.assertRaises(BlockingIOError, mine.recv, 1)

    def test_takenThenClosed(self) -> None:
        """
        Closing a client whose descriptor is the program's closes nothing.
        """
        client, mine = self.foreign(replace=True)
        client.close()
        mine.setblocking(False)
        self.assertRaises(BlockingIOError, mine.recv, 1)

    def test_silence(self) -> None:
        """
        A watcher that does not answer in time is ETIMEDOUT, and the channel is
        not used again: the answer could still come.
        """
        error = self.against(lambda skt: None, timeout=0.05)
        self.assertEqual(errno.ETIMEDOUT, error.errno)
        self.assertIn("did not answer within 0.05 seconds", str(error))

    def test_gone(self) -> None:
        """
        A watcher that is gone is ECONNRESET, at once.
        """
        error = self.against(socket.socket.close)
        self.assertEqual(errno.ECONNRESET, error.errno)

    def test_garbage(self) -> None:
        """
        Answers that are no answers are ECONNRESET: no AMP, half a box and the
        end, another's answer, an unknown verdict, a missing socket.
        """
        shared = {"_answer": b"1", "errno": b"0", "message": b""}
        for data in [
            b"HTTP/1.1 200 OK\r\n\r\n",
            amp.AmpBox(shared, verdict=b"own").serialize()[:-2],
            amp.AmpBox(shared, verdict=b"own", _answer=b"2").serialize(),
            amp.AmpBox(shared, verdict=b"perhaps").serialize(),
            amp.AmpBox(shared, verdict=b"shared").serialize(),
            amp.AmpBox(shared, verdict=b"shared", socket=b"0").serialize(),
            amp.AmpBox(_answer=b"1").serialize(),
        ]:

            def answer(skt: socket.socket, data: bytes = data) -> None:
                skt.sendall(data)
                skt.close()

            self.assertEqual(errno.ECONNRESET, self.against(answer).errno)

    def test_strayDescriptors(self) -> None:
        """
        Descriptors that belong to no answer are closed.
        """

        def answer(skt: socket.socket) -> None:
            box = amp.AmpBox(_answer=b"1", verdict=b"x", errno=b"0", message=b"")
            socket.send_fds(skt, [box.serialize()], [0, 1, 2])

        self.assertEqual(errno.ECONNRESET, self.against(answer).errno)

    def test_noDescriptorLeft(self) -> None:
        """
        A worker with too many open files to take the socket gets EMFILE.
        """
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

        def answer(skt: socket.socket) -> None:
            box = amp.AmpBox(_answer=b"1", verdict=b"shared", errno=b"0", message=b"")
            box[b"socket"] = b"0"
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
            socket.send_fds(skt, [box.serialize()], [0])

        try:
            error = self.against(answer, again=False)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        self.assertEqual(errno.EMFILE, error.errno)
