"""
What becomes of channels on which somebody breaks the rules: the log says so,
the worker is replaced or goes without, and no descriptor is kept.
"""

from __future__ import annotations

from typing import Any

from twisted.protocols.amp import AmpBox

from tests.integration.faults import FaultTestCase, descriptorsOf, portOf, tell
from tests.integration.support import openDescriptors, until
from twisted_cluster.supervisor.handle import WorkerHandle
from twisted_cluster.watcher import ClusterWatcher

HTTP = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n" * 20
HALF = b"\x00\x04_ask\x00\x011\x00\x08_comm"
NONSENSE = "its control channel carried nonsense and is closed"
NO_MORE = "This worker can get no more sockets from the watcher"
BROKEN = "broke the rules of its server-socket channel"


def box(**values: bytes) -> bytes:
    """
    An AMP box.
    """
    made = AmpBox({key.encode(): value for key, value in values.items()})
    return bytes(made.serialize())


def transportOf(worker: WorkerHandle, channel: int) -> Any:
    """
    The watcher's end of a worker's control (0) or server-socket (1) channel.
    """
    return worker._process._transports[channel]


class ControlChannel(FaultTestCase):
    """
    The control channel.
    """

    async def _says(self, data: bytes, expected: str = NONSENSE) -> ClusterWatcher:
        """
        Have the first of two workers write something to its control channel,
        and check that it is replaced.
        """
        watcher = await self.puppets(2, shutdownTimeout=2.0)
        [victim, other] = await self.full(watcher)
        await watcher.workers[0].request(
            f"soon(os.write, settings().control, {data!r})"
        )
        self.assertIn(other, await self.replaced(watcher, victim))
        self.assertEqual(self.logged.count(expected), 1)
        self.flushLoggedErrors()
        self.assertIn(await tell(portOf(watcher), "cluster.slot()"), (0, 1))
        return watcher

    async def test_garbage(self) -> None:
        """
        A worker that writes something else than AMP is replaced.
        """
        await self._says(HTTP)

    async def test_unknownCommand(self) -> None:
        """
        A worker that sends an unknown command is replaced.
        """
        await self._says(box(_command=b"NoSuchCommand"))

    async def test_missingArguments(self) -> None:
        """
        A worker that sends a command without its arguments is replaced.
        """
        await self._says(box(_command=b"LogEvents", _ask=b"zz"))

    async def test_wrongArguments(self) -> None:
        """
        A worker that sends a command with an argument of another type is
        replaced.
        """
        data = box(_command=b"LogEvents", _ask=b"zz", data=b"", more=b"?", dropped=b"?")
        await self._says(data)

    async def test_wrongEvents(self) -> None:
        """
        A worker whose log events are none is replaced.
        """
        data = box(
            _command=b"LogEvents", _ask=b"zz", data=b"\xc1", more=b"False", dropped=b"0"
        )
        await self._says(data)

    async def test_wrongMessages(self) -> None:
        """
        A worker whose messages are no MessagePack is replaced.
        """
        data = box(
            _command=b"Messages", _ask=b"zz", kind=b"m", data=b"\xc1", more=b"False"
        )
        await self._says(data)

    async def test_unknownKind(self) -> None:
        """
        A worker that sends messages of an unknown kind is replaced.
        """
        data = box(
            _command=b"Messages", _ask=b"zz", kind=b"?", data=b"\x90", more=b"False"
        )
        await self._says(data)

    async def test_halfAFrame(self) -> None:
        """
        A worker that dies in the middle of a frame is replaced, and that is
        all.
        """
        watcher = await self.puppets(2)
        [victim, other] = await self.full(watcher)
        await watcher.workers[0].request(
            f"soon(lambda: (os.write(settings().control, {HALF!r}), os._exit(7)))"
        )
        self.assertIn(other, await self.replaced(watcher, victim))
        self.assertEqual(self.logged.count("worker 1 exited with status 7"), 1)

    async def test_halfAFrameForEver(self) -> None:
        """
        A worker that ceases in the middle of a frame is replaced after the
        heartbeat timeout: whatever it says after that is nonsense or late.
        """
        watcher = await self.puppets(2, heartbeatTimeout=1.5, shutdownTimeout=2.0)
        [victim, other] = await self.full(watcher)
        await watcher.workers[0].request(
            f"soon(lambda: os.write(settings().control, {HALF!r}))"
        )
        self.assertIn(other, await self.replaced(watcher, victim))
        self.flushLoggedErrors()

    async def test_closed(self) -> None:
        """
        A worker that shuts its channel is replaced.
        """
        watcher = await self.puppets(2, shutdownTimeout=2.0)
        [victim, other] = await self.full(watcher)
        await watcher.workers[0].request(
            "soon(lambda: socket.socket(fileno=os.dup(settings().control))"
            ".shutdown(socket.SHUT_RDWR))"
        )
        self.assertIn(other, await self.replaced(watcher, victim))

    async def test_descriptors(self) -> None:
        """
        Descriptors that a worker sends are closed, and it is replaced.
        """
        watcher = await self.puppets(1, shutdownTimeout=2.0)
        [pid] = await self.full(watcher)
        before = len(openDescriptors())
        await watcher.workers[0].request(
            "soon(lambda s: (socket.send_fds(s, [b'\\0'], [1] * 100), s.detach()), "
            "socket.socket(fileno=settings().control))"
        )
        await self.replaced(watcher, pid)
        self.assertEqual(len(openDescriptors()), before)
        self.assertEqual(self.logged.count(NONSENSE), 1)
        self.flushLoggedErrors()

    async def test_watcherGarbage(self) -> None:
        """
        A worker that hears something else than AMP says so and is replaced.
        """
        watcher = await self.puppets(2, shutdownTimeout=2.0)
        [victim, other] = await self.full(watcher)
        transportOf(watcher.workers[0], 0).write(HTTP)
        self.assertIn(other, await self.replaced(watcher, victim))
        self.assertEqual(self.logged.count("the control channel carried nonsense"), 1)

    async def test_watcherHalfAFrame(self) -> None:
        """
        A worker that hears half a frame and nothing more leaves.
        """
        watcher = await self.puppets(2, shutdownTimeout=2.0)
        [victim, other] = await self.full(watcher)
        transport = transportOf(watcher.workers[0], 0)
        transport.write(HALF)
        transport.loseConnection()
        self.assertIn(other, await self.replaced(watcher, victim))

    async def test_watcherDescriptors(self) -> None:
        """
        A worker that is sent descriptors says so and is replaced.
        """
        watcher = await self.puppets(1)
        [worker] = watcher.workers
        assert worker.pid is not None
        transport = transportOf(worker, 0)
        for _ in range(20):
            transport.sendFileDescriptor(1)
        transport.write(b"\0")
        await self.replaced(watcher, worker.pid)
        self.assertEqual(self.logged.count("the control channel carried nonsense"), 1)


class ServerSocketChannel(FaultTestCase):
    """
    The server-socket channel.
    """

    async def _says(self, data: bytes) -> None:
        """
        Have a worker write something to its server-socket channel, and check
        that it serves on and can no longer ask.
        """
        watcher = await self.puppets(1)
        [pid] = await self.full(watcher)
        [worker] = watcher.workers
        await worker.request(f"os.write(settings().sockets, {data!r})")
        await self.logged.waitFor(BROKEN)
        self.assertEqual(await tell(portOf(watcher), "os.getpid()"), pid)
        await self._cannotListen(worker)
        self.assertEqual(self.logged.count(BROKEN), 1)

    async def _cannotListen(self, worker: WorkerHandle) -> None:
        """
        Check that a worker cannot have what is the cluster's, that it still can
        have what is its own, and that it says so once.
        """
        answer = str(await worker.request("attempt('cluster')"))
        self.assertIn("Errno 104", answer)
        answer = str(await worker.request("attempt()"))
        self.assertTrue(answer.strip("'").isdigit(), answer)
        await self.logged.waitFor(NO_MORE)
        self.assertEqual(self.logged.count(NO_MORE), 1)

    async def test_garbage(self) -> None:
        """
        A worker that writes something else than AMP loses the channel, and no
        more.
        """
        await self._says(HTTP)

    async def test_unknownCommand(self) -> None:
        """
        A worker that sends an unknown command loses the channel.
        """
        await self._says(box(_command=b"NoSuchCommand", _ask=b"1"))

    async def test_noDescriptor(self) -> None:
        """
        A worker that asks without the descriptor that belongs to the question
        loses the channel.
        """
        values = dict.fromkeys(("port", "index", "backlog", "mode"), b"0")
        values.update(dict.fromkeys(("lock", "explicit", "starting"), b"False"))
        data = box(
            _command=b"RequestSocket",
            _ask=b"1",
            kind=b"tcp",
            host=b"127.0.0.1",
            path=b"",
            **values,
        )
        await self._says(data)

    async def test_halfAQuestion(self) -> None:
        """
        A worker that dies in the middle of a question is replaced, and the log
        mentions the question.
        """
        watcher = await self.puppets(2)
        [victim, other] = await self.full(watcher)
        await watcher.workers[0].request(
            f"soon(lambda: (os.write(settings().sockets, {HALF!r}), os._exit(7)))"
        )
        self.assertIn(other, await self.replaced(watcher, victim))
        await self.logged.waitFor("in the middle of a question")

    async def test_descriptors(self) -> None:
        """
        Descriptors without questions are closed, and so is the channel.
        """
        watcher = await self.puppets(1)
        [worker] = watcher.workers
        before = len(openDescriptors())
        await worker.request(
            "(lambda s: (socket.send_fds(s, [b'\\0'], [1] * 200), s.detach()))"
            "(socket.socket(fileno=settings().sockets))"
        )
        await self.logged.waitFor(BROKEN)
        await until(lambda: len(openDescriptors()) <= before, 5, "they are closed")
        await self._cannotListen(worker)

    async def test_fewDescriptors(self) -> None:
        """
        Descriptors that wait for their question are closed when the worker is
        gone.
        """
        watcher = await self.puppets(1)
        [pid] = await self.full(watcher)
        before = len(openDescriptors())
        await watcher.workers[0].request(
            "(lambda s: (socket.send_fds(s, [b'\\0'], [1] * 5), s.detach(), "
            "soon(os._exit, 7)))(socket.socket(fileno=settings().sockets))"
        )
        await self.replaced(watcher, pid)
        self.assertEqual(len(openDescriptors()), before)

    async def test_watcherGarbage(self) -> None:
        """
        A worker that was answered unasked, or with garbage, cannot have what is
        the cluster's any more and serves on.
        """
        watcher = await self.puppets(1)
        [pid] = await self.full(watcher)
        [worker] = watcher.workers
        port = portOf(watcher)
        transportOf(worker, 1).write(HTTP)
        await self._cannotListen(worker)
        self.assertEqual(await tell(port, "os.getpid()"), pid)

    async def test_watcherDescriptors(self) -> None:
        """
        Descriptors that a worker is sent unasked are closed when it asks next.
        """
        watcher = await self.puppets(1)
        [worker] = watcher.workers
        assert worker.pid is not None
        await worker.request("1")
        before = len(descriptorsOf(worker.pid))
        transport = transportOf(worker, 1)
        for _ in range(20):
            transport.sendFileDescriptor(1)
        transport.write(HTTP)
        await self._cannotListen(worker)
        self.assertLessEqual(len(descriptorsOf(worker.pid)), before)

    async def test_watcherHalfAnAnswer(self) -> None:
        """
        A worker that waits for the rest of an answer is replaced after the
        heartbeat timeout.
        """
        watcher = await self.puppets(2, heartbeatTimeout=1.5)
        [victim, other] = await self.full(watcher)
        [worker, _] = watcher.workers
        transportOf(worker, 1).write(HALF)
        await worker.request("soon(attempt)")
        self.assertIn(other, await self.replaced(watcher, victim))
        self.assertEqual(self.logged.count("(--heartbeat-timeout)"), 1)

    async def test_watcherCloses(self) -> None:
        """
        A worker whose channel the watcher has closed meets C{ECONNRESET} and
        serves on.
        """
        watcher = await self.puppets(1)
        [pid] = await self.full(watcher)
        [worker] = watcher.workers
        transportOf(worker, 1).loseConnection()
        await self._cannotListen(worker)
        self.assertEqual(await tell(portOf(watcher), "os.getpid()"), pid)
