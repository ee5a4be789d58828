"""
What the tests of balancing share: programs that say who serves, clients that hold
on, and a storm of clients of which each one is accounted for.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any, Optional
from unittest import TestCase

import attrs
from twisted.internet.interfaces import IAddress, IConnector
from twisted.internet.protocol import ClientCreator, ClientFactory, Protocol
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from tests.integration.faults import FaultTestCase
from tests.integration.support import DEADLINE, reactor, until
from twisted_cluster.supervisor.accepted import Accepted
from twisted_cluster.supervisor.intake import Intake
from twisted_cluster.watcher import ClusterWatcher

TCP = "tcp:0:interface=127.0.0.1"

GREETER = """
import json, os, sys, time
from twisted.internet import endpoints, reactor
from twisted.internet.protocol import Factory, Protocol
from twisted_cluster import cluster

class Greeter(Protocol):
    def connectionMade(self):
        transport = self.transport
        greeting = dict(
            pid=os.getpid(),
            slot=cluster.slot(),
            peer=str(transport.getPeer()),
            host=str(transport.getHost()),
        )
        transport.write(json.dumps(greeting).encode() + b"\\n")
    def dataReceived(self, data):
        self.transport.write(data)

ports = []
def listen(description):
    endpoint = endpoints.serverFromString(reactor, description)
    listening = endpoint.listen(Factory.forProtocol(Greeter))
    listening.addCallbacks(ports.append, lambda failure: print(repr(failure.value)))

cluster.channel().responder(lambda code: repr(eval(code)))
for description in sys.argv[1:]:
    listen(description)
reactor.run()
"""
"""
Listens on the endpoints that it is given, and tells each client at once who
serves it and how it sees it; then it echoes.  It evaluates what its watcher asks.
"""

TOKENS = """
import os, resource, sys, time
from twisted.internet import endpoints, reactor
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineOnlyReceiver
from twisted_cluster import cluster
from twisted_cluster.sockets.wire import frames
from twisted_cluster.worker import context

def channel():
    return context.current().settings.clients

def soon(function, *args):
    reactor.callLater(0.05, function, *args)

def standStill(seconds):
    print("it stands still")
    time.sleep(seconds)

files = []
def fill():
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 4096))
    try:
        while True:
            files.append(open(os.devnull))
    except OSError as error:
        print("full:", error)

def openLog(name):
    return os.open(name, os.O_WRONLY | os.O_APPEND)

made, served, description, pause = sys.argv[1:]
made, served, pause = openLog(made), openLog(served), float(pause)

class Tokens(LineOnlyReceiver):
    delimiter = b"\\n"
    def connectionMade(self):
        peer = self.transport.getPeer().host
        os.write(made, f"{peer} {os.getpid()}\\n".encode())
    def lineReceived(self, token):
        os.write(served, b"%s %d\\n" % (token, os.getpid()))
        reactor.callLater(pause, self.answer, token)
    def answer(self, token):
        self.transport.write(b"%s %d\\n" % (token, os.getpid()))
        self.transport.loseConnection()

if os.path.exists(description):
    with open(description) as file:
        description = file.read().strip()
port = None
def listening(opened):
    global port
    port = opened
endpoint = endpoints.serverFromString(reactor, description)
endpoint.listen(Factory.forProtocol(Tokens)).addCallback(listening)
cluster.channel().responder(lambda code: repr(eval(code)))
reactor.run()
"""
"""
Notes each connection that it has, and each token that it is about to answer, and
answers after a pause.  Its arguments are two files, an endpoint or a file that
holds one, and the pause.
"""


class Call(Protocol):
    """
    A connection to a greeter, which stays until it is hung up.
    """

    def __init__(self) -> None:
        self.data = b""
        self.over = False

    def dataReceived(self, data: bytes) -> None:
        """
        Collect it.
        """
        self.data += data

    def connectionLost(self, reason: Failure = Failure(ConnectionError())) -> None:  # noqa: B008 - as Twisted has it
        """
        The end.
        """
        self.over = True

    def say(self, data: bytes) -> None:
        """
        Send something.
        """
        assert self.transport is not None
        self.transport.write(data)

    @property
    def greeting(self) -> dict[str, Any]:
        """
        What the greeter said, or nothing yet.
        """
        if b"\n" not in self.data:
            return {}
        found: dict[str, Any] = json.loads(self.data.split(b"\n")[0])
        return found

    async def greeted(self, seconds: float = DEADLINE) -> dict[str, Any]:
        """
        Wait for the greeting.
        """
        await until(lambda: self.greeting or self.over, seconds, "a greeting")
        assert self.greeting, f"closed after {self.data!r}"
        return self.greeting

    async def hangUp(self) -> None:
        """
        End it.
        """
        assert self.transport is not None
        self.transport.abortConnection()  # type: ignore[attr-defined]  # TCP and UNIX have it
        await until(lambda: self.over, what="the connection's end")


async def connect(address: Any, source: str = "") -> Call:
    """
    Connect.

    @param address: a port on 127.0.0.1, a C{(host, port)} or the path of a UNIX
        socket.
    @param source: the address to connect from.
    """
    creator = ClientCreator(reactor, Call)
    if isinstance(address, (int, tuple)):
        host, port = ("127.0.0.1", address) if isinstance(address, int) else address
        bindAddress = (source, 0) if source else None
        connecting = creator.connectTCP(host, port, DEADLINE, bindAddress)
    else:
        connecting = creator.connectUNIX(os.fspath(address))
    call: Call = await connecting.addTimeout(DEADLINE, reactor)
    return call


async def greet(address: Any, source: str = "") -> dict[str, Any]:
    """
    Connect, be greeted, and leave.

    @return: the greeting.
    """
    call = await connect(address, source)
    try:
        return await call.greeted()
    finally:
        await call.hangUp()


async def greetings(address: Any, count: int, source: str = "") -> list[dict[str, Any]]:
    """
    Many greetings, one after the other.
    """
    return [await greet(address, source) for _ in range(count)]


@attrs.define(eq=False)
class Account:
    """
    What became of one client of a storm.

    @ivar peer: the address that it came from, which is nobody else's.
    @ivar error: why it has no answer.
    @ivar killed: the storm's C{killed} when it was over.
    """

    token: str
    peer: str
    answer: bytes = b""
    error: str = ""
    over: bool = False
    killed: int = 0

    def ends(self, reason: Failure, killed: int, what: str = "") -> None:
        """
        It is over.
        """
        self.error = what + reason.getErrorMessage()
        self.killed = killed
        self.over = True

    @property
    def pid(self) -> int:
        """
        Who answered, or 0 if nobody did in full.
        """
        words = self.answer.split(b" ")
        if len(words) == 2 and words[0].decode() == self.token and words[1][-1:]:
            return int(words[1]) if self.answer.endswith(b"\n") else 0
        return 0


class _Client(Protocol):
    def __init__(self, storm: Storm, account: Account) -> None:
        self.storm = storm
        self.account = account

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self.account.token.encode() + b"\n")

    def dataReceived(self, data: bytes) -> None:
        self.account.answer += data

    def connectionLost(self, reason: Failure = Failure(ConnectionError())) -> None:  # noqa: B008 - as Twisted has it
        self.account.ends(reason, self.storm.killed)


class _Clients(ClientFactory):
    noisy = False

    def __init__(self, storm: Storm, account: Account) -> None:
        self.storm = storm
        self.account = account

    def buildProtocol(self, addr: Optional[IAddress]) -> _Client:
        return _Client(self.storm, self.account)

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        self.account.ends(reason, self.storm.killed, "no connection: ")


class Storm:
    """
    Clients that come at a steady rate, whatever becomes of those before, each from
    an address of its own, with the watcher's books on them.

    @ivar taken: which workers took the connection from an address.
    @ivar returned: how many connections came back to the watcher.
    @ivar killed: the worker that the test killed last, which it says before.
    """

    def __init__(self, test: Any, directory: Path) -> None:
        """
        @param test: for whose length the watcher's books are kept.
        """
        self.accounts: list[Account] = []
        self.taken: dict[str, list[int]] = {}
        self.returned = 0
        self.killed = 0
        self.made = directory / "made.log"
        self.served = directory / "served.log"
        self.made.touch()
        self.served.touch()
        self._looping: Optional[LoopingCall] = None
        self._began = 0.0
        self.seconds = 0.0
        given: dict[str, int] = {}
        give, taken, returned = Intake.give, Accepted.taken, Accepted.returned

        def noteGiven(intake: Intake, held: Any, listener: int) -> None:
            given[held.connection.peer] = intake.candidate.worker
            give(intake, held, listener)

        def noteTaken(accepted: Accepted) -> None:
            peer = accepted.connection.peer
            self.taken.setdefault(peer, []).append(given[peer])
            taken(accepted)

        def noteReturned(accepted: Accepted) -> None:
            self.returned += 1
            returned(accepted)

        test.patch(Intake, "give", noteGiven)
        test.patch(Accepted, "taken", noteTaken)
        test.patch(Accepted, "returned", noteReturned)

    def call(self, port: int) -> Account:
        """
        Let one client connect.
        """
        number = len(self.accounts)
        peer = f"127.1.{number // 250 + 1}.{number % 250 + 1}"
        account = Account(f"token{number}", peer)
        self.accounts.append(account)
        reactor.connectTCP("127.0.0.1", port, _Clients(self, account), 60, (peer, 0))
        return account

    def calls(self, port: int, count: int) -> list[Account]:
        """
        Let some connect at once.
        """
        return [self.call(port) for _ in range(count)]

    def start(self, port: int, rate: int) -> None:
        """
        Begin.

        @param rate: connections per second.
        """

        def some(times: int) -> None:
            # As many as are due, but not so many at once as to overflow.
            for _ in range(min(times, 100)):
                self.call(port)

        self._began = reactor.seconds()
        self._looping = LoopingCall.withCount(some)
        self._looping.start(1 / rate)

    async def more(self, count: int) -> None:
        """
        Wait until so many more have come.
        """
        target = len(self.accounts) + count
        await until(lambda: len(self.accounts) >= target, what="more clients")

    async def end(self, seconds: float = 60) -> None:
        """
        Let no more come, and wait for the end of all that came.
        """
        self.stop()
        await self.over(self.accounts, seconds)

    def stop(self) -> None:
        """
        Let no more come.
        """
        if self._looping is not None:
            self._looping.stop()
            self._looping = None
            self.seconds = reactor.seconds() - self._began

    async def over(self, accounts: list[Account], seconds: float = 60) -> None:
        """
        Wait for the end of some.
        """
        await until(
            lambda: all(account.over for account in accounts),
            seconds,
            "the end of every connection",
        )

    @property
    def failures(self) -> list[Account]:
        """
        Those that have ended without an answer.
        """
        return [each for each in self.accounts if each.over and not each.pid]

    def pidsThatMade(self) -> dict[str, list[int]]:
        """
        In which processes the program had the connection from an address.
        """
        return _noted(self.made)

    def check(self, test: TestCase, gone: dict[int, int]) -> list[Account]:
        """
        Check the promise: each is answered exactly once, except those that a worker
        had which is gone; and none is served twice.

        @param gone: the pids by the id of workers that were killed, have left, or
            broke the rules.
        @return: those without an answer.
        """
        made, served = self.pidsThatMade(), _noted(self.served)
        pids = set(gone.values())
        for account in self.accounts:
            workers = self.taken.get(account.peer, [])
            having = made.get(account.peer, [])
            serving = served.get(account.token, [])
            what = (account, workers, having, serving)
            test.assertLessEqual(len(workers), 1, f"taken twice: {what}")
            test.assertLessEqual(len(having), 1, f"made twice: {what}")
            test.assertLessEqual(len(serving), 1, f"served twice: {what}")
            if account.pid:
                test.assertEqual(serving, [account.pid], what)
                test.assertEqual(having, [account.pid], what)
            else:
                test.assertTrue(
                    set(workers) & set(gone) or set(having) & pids,
                    f"failed, and no worker had it that is gone: {what}",
                )
        return self.failures


class StormTestCase(FaultTestCase):
    """
    A test of clients of which each one is accounted for.
    """

    def setUp(self) -> Any:
        done = super().setUp()
        self._files |= {"made.log", "served.log"}
        self.storm = Storm(self, self.directory)
        self.addCleanup(self.storm.stop)
        return done

    async def tokens(
        self,
        workers: int,
        description: str = TCP,
        pause: float = 0.0,
        balance: str = "round-robin",
        **options: Any,
    ) -> ClusterWatcher:
        """
        Start a cluster that notes and answers tokens.
        """
        words = [self.storm.made, self.storm.served, description, pause]
        return await self.serving(
            [self.program(TOKENS), *map(str, words)],
            workers,
            balance=balance,
            **options,
        )

    def everyone(self) -> dict[int, int]:
        """
        The pids of all workers that there ever were, by id.
        """
        return {
            event["id"]: event["pid"]
            for event in self.logged.events
            if "{id} started" in str(event.get("log_format"))
        }

    def left(self, watcher: ClusterWatcher) -> dict[int, int]:
        """
        Those of them that are no more.
        """
        there = {worker.id for worker in watcher.workers}
        found = self.everyone().items()
        return {worker: pid for worker, pid in found if worker not in there}

    def connections(self, watcher: ClusterWatcher) -> list[int]:
        """
        How many connections the watcher believes that each worker has, ordered by id.
        """
        return [each.candidate.connections for each in self.intakes(watcher)]

    async def passedOver(self, watcher: ClusterWatcher, place: int) -> None:
        """
        Wait until a worker does not keep up.

        @param place: which one it is, ordered by id.
        """
        intake = self.intakes(watcher)[place]
        await until(lambda: not intake.takes(0), what="a worker that is passed over")

    def intakes(self, watcher: ClusterWatcher) -> list[Intake]:
        """
        The workers as the watcher sees them, ordered by id.
        """
        intakes = watcher._listeners._distributor._intakes
        return [intakes[each] for each in sorted(intakes)]


def _noted(path: Path) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for line in path.read_text().splitlines():
        what, pid = line.split()
        found.setdefault(what, []).append(int(pid))
    return found


def shares(values: Any) -> dict[Any, int]:
    """
    How often each value occurs.
    """
    return dict(Counter(values))
