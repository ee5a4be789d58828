"""
Server sockets between peers that break the rules, die, run out of descriptors or
of patience.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, Optional

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import ProcessProtocol
from twisted.protocols import amp
from twisted.python.failure import Failure

from tests.sockethelpers import shortDirectory
from tests.sockets.servers.providing import (
    LOCAL,
    Greeting,
    Listener,
    ServersTestCase,
    ask,
    errorOf,
    reactor,
    until,
)
from twisted_cluster.errors import ChannelClosed, ProtocolError

CHILD = """
import socket, sys
from twisted.internet import reactor
from twisted.internet.protocol import Factory
from tests.sockets.servers.providing import Greeting
from twisted_cluster.sockets.servers.pipes import ServerSocketPipeFactory

factory = ServerSocketPipeFactory(reactor, socket.socket(fileno=3))
port = factory.endpoint(sys.argv[1]).listen(Greeting(b"child"))
port.addCallback(lambda port: print(port.getHost().port, flush=True))
reactor.run()
"""


class Child(ProcessProtocol):
    """
    A process that listens on what a provider bound.

    @ivar port: fires with the port.
    @ivar ended: fires when it has ended.
    """

    def __init__(self) -> None:
        self.port: Deferred[int] = Deferred()
        self.ended: Deferred[None] = Deferred()
        self._said = b""

    def outReceived(self, data: bytes) -> None:
        self._said += data
        if self._said.endswith(b"\n") and not self.port.called:
            self.port.callback(int(self._said))

    def errReceived(self, data: bytes) -> None:
        self._said += data

    def processEnded(self, reason: Failure) -> None:
        if not self.port.called:
            self.port.errback(RuntimeError(self._said.decode()))
        self.ended.callback(None)


class LowLimit:
    """
    Lets this process open no more descriptors, or only a few; or not even as
    many as it has.
    """

    def __init__(self, spare: int = 0, most: Optional[int] = None) -> None:
        self._spare = spare
        self._most = most
        self._before = resource.getrlimit(resource.RLIMIT_NOFILE)

    def __enter__(self) -> None:
        most = self._most
        if most is None:
            most = os.open(os.devnull, os.O_RDONLY) + self._spare
            os.close(most - self._spare)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, self._before[1]))

    def __exit__(self, *exception: object) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, self._before)


class LateTests(ServersTestCase):
    """
    Answers that nobody waits for any more.
    """

    async def lateAnswer(
        self, timeout: float, giveUp: Callable[[Deferred[Any]], object]
    ) -> Exception:
        ours, theirs = socket.socketpair()
        factory = self.factory(theirs, timeout)
        port = factory.endpoint(LOCAL).listen(Greeting(b""))
        failed = errorOf(port)
        giveUp(port)
        error: Exception = await failed
        self.gone.append(self.provider.provideFor(ours))
        # Whoever asks afterwards is answered, and gets the next socket.
        other = await self.listen(factory)
        await until(lambda: len(self.provider.addresses) == 1)
        self.assertEqual(b"hello", await ask(other))
        return error

    async def test_timeout(self) -> None:
        """
        A provider that does not answer in time is C{ETIMEDOUT}, and the socket
        that it gives later goes back.
        """
        error: Any = await self.lateAnswer(0.05, lambda port: None)
        self.assertIsInstance(error, CannotListenError)
        self.assertEqual(errno.ETIMEDOUT, error.socketError.errno)

    async def test_cancelled(self) -> None:
        """
        A listen that was cancelled gives its socket back.
        """
        error = await self.lateAnswer(30.0, lambda port: port.cancel())
        self.assertIsInstance(error, CancelledError)

    async def test_cancelledBeforeItsTurn(self) -> None:
        """
        A listen that was cancelled before it was asked is never asked.
        """
        ours, theirs = socket.socketpair()
        factory = self.factory(theirs)
        first = factory.endpoint(LOCAL).listen(Greeting(b"hello"))
        second = factory.endpoint(LOCAL).listen(Greeting(b""))
        failed = errorOf(second)
        second.cancel()
        self.assertIsInstance(await failed, CancelledError)
        self.gone.append(self.provider.provideFor(ours))
        port: Any = await first
        self.ports.append(port)
        self.assertEqual(b"hello", await ask(port))
        self.assertEqual(1, len(self.provider.addresses))


class FaultTests(ServersTestCase):
    """
    Nonsense, and a lack of descriptors.
    """

    async def test_garbageToProvider(self) -> None:
        """
        A peer that breaks the rules is cut off, what it used is closed, and the
        Deferred fails; others are served on.
        """
        ours, theirs = socket.socketpair()
        gone = self.provider.provideFor(ours)
        with theirs:
            theirs.sendall(b"GET / HTTP/1.1\r\n\r\n")
            error = await errorOf(gone)
            self.assertIsInstance(error, ProtocolError)
            self.assertEqual(b"", theirs.recv(1))
        self.assertIn("Peer 1 broke the rules", "\n".join(self.events.texts))
        port = await self.listen(self.peer())
        self.assertEqual(b"hello", await ask(port))

    async def test_descriptorsToProvider(self) -> None:
        """
        Descriptors that belong to nothing cut a peer off, and are closed.
        """
        ours, theirs = socket.socketpair()
        gone = self.provider.provideFor(ours)
        with theirs, open(os.devnull) as file:
            socket.send_fds(theirs, [b"\0"], [file.fileno()] * 20)
            self.assertIsInstance(await errorOf(gone), ProtocolError)

    async def test_halfAQuestion(self) -> None:
        """
        A peer that goes in the middle of a question leaves nothing behind.
        """
        ours, theirs = socket.socketpair()
        gone = self.provider.provideFor(ours)
        with theirs, open(os.devnull) as file:
            socket.send_fds(theirs, [b"\0\x04kind"], [file.fileno()])
        await gone
        self.assertIn("in the middle of a question", "\n".join(self.events.texts))

    async def brokenProvider(self, data: bytes, *sent: socket.socket) -> Exception:
        ours, theirs = socket.socketpair()
        factory = self.factory(theirs)
        failed = errorOf(factory.endpoint(LOCAL).listen(Greeting(b"")))
        with ours:
            if sent:
                socket.send_fds(ours, [data], [skt.fileno() for skt in sent])
            else:
                ours.sendall(data)
            error: Exception = await failed
            self.assertIsInstance(await self.fails(factory), ChannelClosed)
        return error

    def answer(self, **changes: bytes) -> bytes:
        values = {
            "_answer": b"1",
            "verdict": b"shared",
            "errno": b"0",
            "message": b"",
            "listener": b"0",
            "accepts": b"True",
            **changes,
        }
        return bytes(amp.AmpBox(**values).serialize())

    async def test_garbageFromProvider(self) -> None:
        """
        A provider that breaks the rules is given up, and whoever waits for it
        hears so.
        """
        with socket.socket() as unbound, socket.socket(socket.AF_UNIX) as unix:
            for data, sent, why in [
                (b"HTTP/1.1 400 Bad Request\r\n\r\n", [], "a key of"),
                (self.answer(_answer=b"7"), [], "an answer to no question"),
                (amp.AmpBox(_command=b"x").serialize(), [], "an answer to no"),
                (self.answer(verdict=b"perhaps"), [], "b'perhaps'"),
                (self.answer(), [], "no answer"),
                (self.answer(socket=b"0"), [], "KeyError"),
                (self.answer(socket=b"0"), [unbound], "does not listen"),
                (self.answer(socket=b"0"), [unix], "AF_UNIX"),
                (amp.AmpBox(_answer=b"1").serialize(), [], "KeyError"),
            ]:
                error = await self.brokenProvider(data, *sent)
                self.assertIsInstance(error, ProtocolError, data)
                self.assertIn(why, str(error))

    async def test_providerAtItsLimit(self) -> None:
        """
        A provider that can hold no more descriptors refuses with C{EMFILE}, and
        serves the same peer on when it can.
        """
        factory = self.peer()
        failed = self.fails(factory)
        with LowLimit():
            error = await Deferred.fromCoroutine(failed)
        self.assertEqual(errno.EMFILE, error.socketError.errno)
        port = await self.listen(factory)
        self.assertEqual(b"hello", await ask(port))

    async def test_peerAtItsLimit(self) -> None:
        """
        A peer that can open no descriptor asks nothing; one that can hold the
        socket but not adopt it gives it back; both are C{EMFILE}.
        """
        factory = self.peer()
        await self.stop(await self.listen(factory))
        await self.released()
        refused = 0
        for spare in range(6):
            with LowLimit(spare):
                listening = Deferred.fromCoroutine(self.listen(factory))
                result: Optional[Any] = await listening.addErrback(
                    lambda failure: failure.value
                )
            if isinstance(result, Exception):
                assert isinstance(result, CannotListenError), result
                self.assertEqual(errno.EMFILE, result.socketError.errno)
                refused += 1
            else:
                await self.stop(result)
            await self.released()
        self.assertIn(refused, range(2, 6))

    async def test_roomForTheAnswer(self) -> None:
        """
        A peer that may open nothing more since it asked still takes the socket
        that it is given; one that cannot even do that is refused with
        C{EMFILE}, gives the socket back and asks on.
        """
        path = os.path.join(shortDirectory(self), "s")
        ours, theirs = socket.socketpair()
        factory = self.factory(theirs)
        with ours, socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path)
            bound.listen()
            for number, limit in enumerate([LowLimit(), LowLimit(most=3)]):
                listening = Deferred.fromCoroutine(self.listen(factory, f"unix:{path}"))
                _, received, _, _ = socket.recv_fds(ours, 65536, 8)
                os.close(received[0])
                answer = self.answer(
                    _answer=b"%d" % (number + 1), socket=b"%d" % number
                )
                socket.send_fds(ours, [answer], [bound.fileno()])
                with limit:
                    if number == 0:
                        port = await listening
                    else:
                        error = await errorOf(listening)
                if number == 0:
                    self.assertEqual(b"hello", await ask(port))
                    await self.stop(port)
                else:
                    self.assertEqual(errno.EMFILE, error.socketError.errno)
                await until(lambda: b"ReleaseSocket" in ours.recv(65536))

    async def test_noRoomForAnyPort(self) -> None:
        """
        A socket for port 0 that a peer could not take is given back by the port
        that the answer names, and the next request is for the same one.
        """
        ours, theirs = socket.socketpair()
        factory = self.factory(theirs)
        answer = self.answer(socket=b"0", port=b"1234")
        with ours, socket.create_server(("127.0.0.1", 0)) as bound:
            failed = errorOf(factory.endpoint(LOCAL).listen(Greeting(b"")))
            question, received, _, _ = socket.recv_fds(ours, 65536, 8)
            self.assertIn(b"index\0\x010", question)
            os.close(received[0])
            socket.send_fds(ours, [answer], [bound.fileno()])
            with LowLimit(most=3):
                error: Any = await failed
            self.assertEqual(errno.EMFILE, error.socketError.errno)
            failed = errorOf(factory.endpoint(LOCAL).listen(Greeting(b"")))
            said, received, _, _ = socket.recv_fds(ours, 65536, 8)
            os.close(received[0])
            release, again = amp.parseString(said)
            self.assertEqual(release[amp.COMMAND], b"ReleaseSocket")
            self.assertEqual((release[b"port"], again[b"index"]), (b"1234", b"0"))
        await failed

    async def test_anyPortIsGivenBack(self) -> None:
        """
        So the provider does not keep it bound, and the peer gets another.
        """
        ours, theirs = socket.socketpair()
        factory = self.factory(theirs)
        failed = errorOf(factory.endpoint(LOCAL).listen(Greeting(b"")))
        self.gone.append(self.provider.provideFor(ours))
        [peer] = self.provider._peers.values()
        peer.transport.doRead()
        self.assertEqual(len(self.provider.addresses), 1)
        with LowLimit(most=3):
            error = await failed
        self.assertEqual(errno.EMFILE, error.socketError.errno)
        await self.released()
        port, other = await self.listen(factory), await self.listen(self.peer())
        self.assertEqual(port.getHost(), other.getHost())
        self.assertEqual(b"hello", await ask(port))


class ProcessTests(ServersTestCase):
    """
    Peers in processes of their own.
    """

    def child(self, description: str) -> tuple[Child, Any]:
        """
        Start a process whose descriptor 3 is connected with the provider.
        """
        ours, theirs = socket.socketpair()
        self.gone.append(self.provider.provideFor(ours))
        with theirs:
            child = Child()
            process = reactor.spawnProcess(
                child,
                sys.executable,
                [sys.executable, "-c", CHILD, description],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                childFDs={0: "w", 1: "r", 2: "r", 3: theirs.fileno()},
            )

        def killed() -> Deferred[None]:
            if process.pid:
                process.signalProcess("KILL")
            return child.ended

        self.addCleanup(killed)
        return child, process

    async def test_killed(self) -> None:
        """
        What a peer listened on that is killed is closed, unless others use it:
        these go on, and no connection to them fails.
        """
        child, process = self.child(LOCAL)
        number = await child.port
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", number)
        listener = await connectProtocol(endpoint, Listener())
        self.assertEqual(b"child", await listener.heard)
        other = self.peer()
        shared = await self.listen(other, f"tcp:{number}:interface=127.0.0.1")
        alone, second = self.child("tcp:0:interface=127.0.0.2")
        await alone.port
        self.assertEqual(2, len(self.provider.addresses))
        for each in (process, second):
            os.kill(each.pid, signal.SIGKILL)
        await self.gone[0]
        await self.gone[2]
        self.assertEqual([f"tcp:127.0.0.1:{number}"], self.provider.addresses)
        for _ in range(20):
            self.assertEqual(b"hello", await ask(shared))
        await child.ended
        await alone.ended
