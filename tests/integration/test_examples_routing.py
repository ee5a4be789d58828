"""
The example of routing runs, and does what its first lines say; so do the balancers
that the documentation shows.
"""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path
from typing import Any

from tests.integration.support import ROOT, ClusterTestCase, Command, exchange
from tests.policy.test_firstbytes import clientHello

EXAMPLE = ROOT / "examples" / "routing"
RUN = [sys.executable, "-m", "twisted_cluster.cli", "run", "-w", "3"]
SLOTS = """
import sys
from twisted.internet import endpoints, reactor
from twisted.internet.protocol import Factory, Protocol
from twisted_cluster import cluster

class Slot(Protocol):
    def dataReceived(self, data):
        self.transport.write(b"%d" % cluster.slot())
        self.transport.loseConnection()

listening = endpoints.serverFromString(reactor, sys.argv[1]).listen(
    Factory.forProtocol(Slot)
)
listening.addErrback(lambda failure: print("refused:", failure.getErrorMessage()))
reactor.run()
"""
"""
Tells its slot to whoever says something.
"""


class Routing(ClusterTestCase):
    """
    F{examples/routing}, and the balancers in F{docs/balancing.md}.
    """

    def start(self, directory: Path, *words: str) -> Command:
        """
        Run a cluster in a directory.
        """
        command = Command([*RUN, *words], directory)
        self.addCleanup(command.end)
        return command

    async def portOf(self, command: Command) -> int:
        """
        Wait until a cluster serves.
        """
        await command.waitFor("3 workers serve tcp:127.0.0.1:")
        found = re.search(r"3 workers serve tcp:127\.0\.0\.1:(\d+)", command.text)
        assert found is not None
        return int(found[1])

    async def stop(self, command: Command) -> None:
        """
        Stop a command as a user does.
        """
        command.signal(signal.SIGTERM)
        self.assertEqual(await command.whenEnded(), 0, command.text)

    async def visit(self, port: int, site: str) -> bytes:
        """
        What a site says.
        """
        request = f"GET / HTTP/1.1\r\nHost: {site}:{port}\r\nConnection: close\r\n\r\n"
        answer = await exchange(port, request.encode())
        return answer.partition(b"\r\n\r\n")[2]

    async def assertSitesStay(self, port: int) -> None:
        """
        Check that each site is where it was, and not all are at one place.
        """
        names = ("localhost", "red.localhost", "yellow.localhost")
        workers: dict[str, Any] = {}
        for number in range(1, 6):
            for name in names:
                answer = (await self.visit(port, name)).decode()
                found = re.fullmatch(
                    rf"{name}: visit {number} in worker (\d)\n", answer
                )
                assert found is not None, answer
                self.assertEqual(workers.setdefault(name, found[1]), found[1])
        self.assertEqual(sorted(workers.values()), ["1", "2", "3"])

    async def test_example(self) -> None:
        """
        F{server.py}, with F{routing.py}: each of three sites has a worker, whose
        count goes up by one each time.
        """
        run = self.start(EXAMPLE, "--balance", "routing:ByHost", "server.py", "0")
        await self.assertSitesStay(await self.portOf(run))
        await self.stop(run)

    async def test_exampleAlone(self) -> None:
        """
        F{server.py} runs without a cluster as well.
        """
        alone = self.execute([sys.executable, str(EXAMPLE / "server.py"), "0"])
        await alone.waitFor("Site starting on ")
        found = re.search(r"Site starting on (\d+)\n", alone.text)
        assert found is not None
        for number in range(1, 4):
            answer = await self.visit(int(found[1]), "red.localhost")
            self.assertEqual(
                answer, b"red.localhost: visit %d in worker None\n" % number
            )
        await self.stop(alone)

    def documented(self) -> None:
        """
        Write the documentation's program into the test's directory.
        """
        text = (ROOT / "docs" / "balancing.md").read_text()
        [source] = re.findall(r"(?ms)^```python\n# routing\.py\n(.*?)^```$", text)
        self.program(source, "routing.py")

    async def test_documentedByHost(self) -> None:
        """
        The documentation's C{ByHost} does what that of the example does, and who
        names no host is served, too.
        """
        self.documented()
        server = str(EXAMPLE / "server.py")
        run = self.start(self.directory, "--balance", "routing:ByHost", server, "0")
        port = await self.portOf(run)
        await self.assertSitesStay(port)
        answers = {await exchange(port, b"GET / HTTP/1.0\r\n\r\n") for _ in range(5)}
        workers = {answer.rpartition(b" ")[2] for answer in answers}
        self.assertEqual(len(answers), 5)
        self.assertEqual(len(workers), 1, answers)
        await self.stop(run)

    async def test_documentedByServerName(self) -> None:
        """
        The documentation's C{ByServerName}, named in an endpoint: one customer
        has slots 0 and 1, and all others have the rest.
        """
        self.documented()
        name = "routing:ByServerName"
        where = r"cluster:tcp:0:interface=127.0.0.1:balance=routing\:ByServerName"
        program = self.program(SLOTS)
        run = self.start(self.directory, "--balance", name, program, where)
        port = await self.portOf(run)

        async def slots(hello: bytes) -> set[bytes]:
            return {await exchange(port, hello) for _ in range(6)}

        self.assertEqual(await slots(clientHello("busy.example.org")), {b"0", b"1"})
        self.assertEqual(await slots(clientHello("www.example.org")), {b"2"})
        self.assertEqual(await slots(clientHello(None)), {b"2"})
        self.assertEqual(await slots(b"no TLS"), {b"2"})
        await self.stop(run)

    async def test_documentedLimit(self) -> None:
        """
        A program cannot have the watcher import something by listening.
        """
        self.documented()
        where = r"cluster:tcp:0:interface=127.0.0.1:balance=routing\:ByServerName"
        run = self.start(self.directory, self.program(SLOTS), where)
        await run.waitFor("code of one's own has to be named by --balance")
        await run.waitFor("3 workers serve no address")
        await self.stop(run)
