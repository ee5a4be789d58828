"""
What becomes of a target that cannot be run: the exit status, one clear message
with the traceback of the user's code, and nothing left running.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence

from tests.integration.faults import PUPPET, FaultTestCase, failed
from tests.integration.support import Command, reactor, until
from twisted_cluster.errors import RestartFailed, StartFailed

NEVER_READY, NOT_LOADED, USAGE = 3, 4, 2


class TargetFaults(FaultTestCase):
    """
    A target that cannot be run.
    """

    async def run_(self, status: int, *words: str) -> Command:
        """
        Run a target, and check its end.

        @param words: the options, if any, and the target.
        """
        command = self.command("run", "-w", "2", *words)
        self.assertEqual(await command.whenEnded(), status, command.text)
        frames = re.findall(r'File "(.*?)"', command.text)
        ours = [name for name in frames if "twisted_cluster" in name]
        self.assertEqual(ours, [], command.text)
        complaints = [
            line
            for line in command.text.splitlines()
            if line.startswith("twisted-cluster: ")
        ]
        self.assertEqual(len(complaints), 1, command.text)
        self.complaint = complaints[0]
        return command

    async def script(self, status: int, source: str) -> Command:
        """
        Run a script, and check its end.
        """
        return await self.run_(status, self.program(source, "script.py"))

    async def test_missingScript(self) -> None:
        """
        A script that does not exist is named, with status 4.
        """
        await self.run_(NOT_LOADED, "./missing.py")
        self.assertIn("'./missing.py'", self.complaint)
        self.assertIn("no such file", self.complaint)

    async def test_misspeltPlugin(self) -> None:
        """
        A plugin that does not exist is named, with status 4.
        """
        await self.run_(NOT_LOADED, "wbe", "--listen=tcp:0")
        self.assertIn("wbe", self.complaint)

    async def test_missingModule(self) -> None:
        """
        A module that does not exist is named, with status 4.
        """
        await self.run_(NOT_LOADED, "-m", "nosuchmodule")
        self.assertIn("no module named nosuchmodule", self.complaint)

    async def test_missingTac(self) -> None:
        """
        A C{.tac} that does not exist is named, with status 4.
        """
        await self.run_(NOT_LOADED, "nosuch.tac")
        self.assertIn("nosuch.tac", self.complaint)

    async def test_missingAttribute(self) -> None:
        """
        A callable that its module does not have is named, with status 4.
        """
        self.program("def makeServer(): ...", "module.py")
        await self.run_(NOT_LOADED, "module:makeService")
        self.assertIn("makeService", self.complaint)

    async def test_importError(self) -> None:
        """
        A script that cannot import something shows where, with status 4.
        """
        command = await self.script(NOT_LOADED, "import nosuchmodule")
        self.assertIn("No module named 'nosuchmodule'", self.complaint)
        self.assertIn("script.py", command.text)
        self.assertIn("import nosuchmodule", command.text)

    async def test_moduleImportError(self) -> None:
        """
        A callable's module that cannot be imported shows where, with status 4.
        """
        self.program("import nosuchmodule", "module.py")
        command = await self.run_(NOT_LOADED, "module:makeService")
        self.assertIn("import nosuchmodule", command.text)

    async def test_syntaxError(self) -> None:
        """
        A script with a syntax error shows it, with status 4.
        """
        command = await self.script(NOT_LOADED, "def f(:\n    pass")
        self.assertIn("SyntaxError", self.complaint)
        self.assertIn("def f(:", command.text)

    async def test_raises(self) -> None:
        """
        A script that raises while it is loaded shows its own frames, all and
        only, with status 4.
        """
        command = await self.script(
            NOT_LOADED,
            """
            def inner():
                raise ValueError("too bad")
            inner()
            """,
        )
        self.assertIn("ValueError: too bad", self.complaint)
        self.assertEqual(len(re.findall(r'File ".*script.py", line', command.text)), 2)
        self.assertEqual(command.text.count('File "'), 2)

    async def test_tacRaises(self) -> None:
        """
        A C{.tac} that raises shows its own frames, with status 4.
        """
        path = self.program("raise ValueError('too bad')", "app.tac")
        command = await self.run_(NOT_LOADED, path)
        self.assertIn("ValueError: too bad", self.complaint)
        self.assertIn('app.tac", line 1', command.text)

    async def test_serviceRaises(self) -> None:
        """
        A service that raises when it is started shows its own frames, with
        status 3.
        """
        self.program(
            """
            from twisted.application.service import Service
            class Broken(Service):
                def startService(self):
                    raise ValueError("too bad")
            """,
            "module.py",
        )
        command = await self.run_(NEVER_READY, "module:Broken")
        self.assertIn("ValueError: too bad", self.complaint)
        self.assertIn("in startService", command.text)

    async def test_usage(self) -> None:
        """
        Options that the target refuses are its own usage error, with status 2.
        """
        await self.run_(USAGE, "web", "--nosuch")
        self.assertIn("nosuch", self.complaint)

    async def test_exitsWithZero(self) -> None:
        """
        A program that ends at once with 0 was never ready: status 3, and what
        may be the matter.
        """
        await self.script(NEVER_READY, "pass")
        self.assertIn("exited with status 0 before it was ready", self.complaint)
        self.assertIn("foreground", self.complaint)

    async def test_exitsWithOne(self) -> None:
        """
        A program that ends at once with 1 was never ready: status 3, and its
        last words.
        """
        command = await self.script(NEVER_READY, "import sys; sys.exit('no database')")
        self.assertIn("exited with status 1 before it was ready", self.complaint)
        self.assertIn("its last words:\n    no database", command.text)

    async def test_stopsItsReactor(self) -> None:
        """
        A program that stops its reactor before it is ready was never ready:
        status 3.
        """
        await self.script(
            NEVER_READY,
            """
            from twisted.internet import reactor
            reactor.callLater(0, reactor.stop)
            reactor.run()
            """,
        )
        self.assertIn("exited with status 0 before it was ready", self.complaint)

    async def test_killed(self) -> None:
        """
        A program that is killed before it is ready: status 3, and the signal.
        """
        await self.script(
            NEVER_READY, "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
        )
        self.assertIn("SIGSEGV", self.complaint)

    async def test_daemonises(self) -> None:
        """
        A program that forks itself away gets one clear message and status 3, and
        what it left in the background does not keep the watcher.
        """
        began = reactor.seconds()
        command = await self.script(
            NEVER_READY,
            """
            import os, time
            if os.fork():
                os._exit(0)
            os.setsid()
            if os.fork():
                os._exit(0)
            print("the daemon is", os.getpid(), flush=True)
            time.sleep(3)
            """,
        )
        self.assertIn("background", self.complaint)
        self.assertLess(reactor.seconds() - began, 3, command.text)

    async def test_blocksAtImport(self) -> None:
        """
        A program that is not ready in time is ended with status 3, and its log
        says where it stood.
        """
        source = """
            import time
            def theUsersFunction():
                time.sleep(3600)
            theUsersFunction()
            """
        path = self.program(source, "script.py")
        command = self.command("run", "-w", "2", "--start-timeout=1", path)
        self.assertEqual(await command.whenEnded(), NEVER_READY)
        self.assertIn("in theUsersFunction", command.text)
        self.assertIn("it was not ready within 1 s", command.text)

    async def test_signalWhileStarting(self) -> None:
        """
        A command that is told to stop before its workers are ready leaves at
        once, with status 0.
        """
        path = self.program("print('here'); import time; time.sleep(3600)")
        command = self.command("run", "-w", "2", path)
        await command.waitFor("here")
        command.signal(signal.SIGTERM)
        self.assertEqual(await command.whenEnded(10), 0)


class RestartFaults(FaultTestCase):
    """
    New code that cannot be run: the restart fails, the old workers serve on.
    """

    async def _restart(self, source: str, expected: Sequence[str]) -> None:
        watcher = await self.puppets(2)
        before = await self.full(watcher)
        self.program(source, "puppet.py")
        error = await failed(watcher.restart()).addTimeout(30, reactor)
        self.assertIsInstance(error, RestartFailed)
        for text in expected:
            self.assertIn(text, str(error))
        self.assertEqual(await self.full(watcher), before)
        self.program(PUPPET, "puppet.py")
        await watcher.restart().addTimeout(30, reactor)
        self.assertEqual(set(await self.full(watcher)) & set(before), set())

    async def test_syntaxError(self) -> None:
        """
        A syntax error in the new code is shown.
        """
        await self._restart("def f(:\n    pass", ["SyntaxError", "def f(:"])

    async def test_raises(self) -> None:
        """
        An exception in the new code is shown with its traceback.
        """
        await self._restart(
            "def inner():\n    raise ValueError('too bad')\ninner()",
            ["ValueError: too bad", "in inner"],
        )

    async def test_exits(self) -> None:
        """
        New code that ends at once is reported.
        """
        await self._restart("raise SystemExit(1)", ["exited with status 1"])


class StartFailures(FaultTestCase):
    """
    What a program that uses L{ClusterWatcher} learns of a failed start.
    """

    async def test_statuses(self) -> None:
        """
        C{whenReady} fails with the status that the command would end with.
        """
        for source, status in [
            ("import nosuch", NOT_LOADED),
            ("raise SystemExit(1)", NEVER_READY),
        ]:
            error = await self.failing(self.program(source))
            self.assertIsInstance(error, StartFailed)
            self.assertEqual(error.status, status)

    async def test_stopMeanwhile(self) -> None:
        """
        A watcher that is stopped while its first worker starts does stop.
        """
        watcher = self.cluster(self.program("import time; time.sleep(3600)"), 2)
        await until(lambda: bool(watcher.workers))
        await watcher.stopService().addTimeout(10, reactor)
        self.assertEqual(watcher.workers, [])
        await failed(watcher.whenReady())
