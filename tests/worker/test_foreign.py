"""
Tests of L{twisted_cluster.worker.foreign} and L{twisted_cluster.worker.twistd}:
a target that is itself twistd or twist runs as one process of many.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from textwrap import dedent

from twisted.application import app
from twisted.application.runner import _runner
from twisted.application.twist import _options, _twist
from twisted.internet import reactor
from twisted.scripts import _twistd_unix
from twisted.trial.unittest import SynchronousTestCase

from tests.worker.driver import runInWorker
from twisted_cluster.worker.foreign import installForeign
from twisted_cluster.worker.twistd import ONE_OF_MANY, WorkerLogger, tame

TAC = """
import os, signal, sys
from twisted.application.service import Application, IProcess, Service

class Ends(Service):
    def startService(self):
        Service.startService(self)
        from twisted.internet import reactor
        free = signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
        print("started", os.getpid() == main, free, file=sys.__stdout__)
        reactor.callLater(0, os.kill, os.getpid(), signal.SIGTERM)

    def stopService(self):
        print("stopped", file=sys.__stdout__)

main = sys.modules["__main__"].pid
application = Application("foreign")
IProcess(application).processName = "renamed"
Ends().setServiceParent(application)
"""

SCRIPT = """
import os, sys
pid = os.getpid()
from twisted.scripts.twistd import run
run()
print("returned")
"""

TWIST = """
import os, signal, sys
from twisted.application.twist._twist import Twist
from twisted.internet import reactor
reactor.callWhenRunning(reactor.callLater, 0, os.kill, os.getpid(), signal.SIGTERM)
Twist.main(sys.argv)
print("returned")
"""


class ForeignTests(SynchronousTestCase):
    """
    Launchers leave no files, stay in the foreground and end with status 0.
    """

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir(parents=True)
        (self.directory / "app.tac").write_text(dedent(TAC))
        (self.directory / "run.py").write_text(dedent(SCRIPT))
        (self.directory / "twist.py").write_text(dedent(TWIST))
        self.before = self.files()

    def files(self) -> set[str]:
        return {path.name for path in self.directory.iterdir()}

    def test_twistd(self) -> None:
        """
        A script that is twistd, and would become a daemon with a pid file and a
        log file under another name, is none, has none and keeps its own; SIGTERM
        stops its services, and is not raised again.
        """
        for words in (
            ("-y", "app.tac"),
            ("-l", "x.log", "--pidfile", "x.pid", "-y", "app.tac"),
            ("-n", "-y", "app.tac"),
        ):
            result = runInWorker("run.py", *words, cwd=self.directory)
            expected = "started True True\nstopped\n"
            self.assertEqual((result.status, result.out), (0, expected), result)
            self.assertEqual(self.files(), self.before)

    def test_otherPidFile(self) -> None:
        """
        A pid file of a process that lives does not keep it from starting.
        """
        (self.directory / "twistd.pid").write_text(str(os.getpid()))
        result = runInWorker("run.py", "-y", "app.tac", cwd=self.directory)
        self.assertEqual(result.status, 0, result)
        self.assertEqual((self.directory / "twistd.pid").read_text(), str(os.getpid()))

    def test_twist(self) -> None:
        """
        A script that is twist opens no log file, writes nothing to its
        standard output, and ends with status 0 after SIGTERM.
        """
        result = runInWorker(
            "twist.py", "--log-file=x.log", "web", "--listen=tcp:0:interface=127.0.0.1",
            cwd=self.directory,
        )  # fmt: skip
        self.assertEqual((result.status, result.out), (0, ""), result)
        self.assertEqual(self.files(), self.before)

    def test_notImported(self) -> None:
        """
        A program that has nothing to do with twistd gets none of it imported,
        and no reactor.
        """
        (self.directory / "plain.py").write_text(
            "import sys\n"
            "unwanted = 'twisted.application', 'twisted.scripts', "
            "'twisted.internet.reactor'\n"
            "print([name for name in sys.modules if name.startswith(unwanted)])\n"
        )
        result = runInWorker("plain.py", cwd=self.directory)
        self.assertEqual(result.out, "[]\n", result)


class InstallForeignTests(SynchronousTestCase):
    """
    L{installForeign} changes what this Twisted has, and can take it back.
    """

    places = (
        (app, "_exitWithSignal"),
        (_twist, "_exitWithSignal"),
        (_options, "openFile"),
        (_runner.Runner, "startLogging"),
        (_twistd_unix.UnixApplicationRunner, "__init__"),
        (_twistd_unix.UnixApplicationRunner, "loggerFactory"),
        (_twistd_unix.UnixApplicationRunner, "daemonize"),
    )

    def look(self) -> list[object]:
        return [getattr(owner, name) for owner, name in self.places]

    def test_allReplaced(self) -> None:
        """
        Each private name that is relied upon exists, and is changed.
        """
        before = self.look()
        self.addCleanup(installForeign())
        for place, old, new in zip(self.places, before, self.look(), strict=True):
            self.assertIsNot(old, new, place)

    def test_undo(self) -> None:
        """
        Everything is as before when it is undone, C{sys.meta_path} included.
        """
        before, finders = self.look(), list(sys.meta_path)
        own = {name: name in vars(owner) for owner, name in self.places}
        installForeign()()
        self.assertEqual(self.look(), before)
        self.assertEqual(sys.meta_path, finders)
        self.assertEqual(
            {name: name in vars(owner) for owner, name in self.places}, own
        )

    def test_runner(self) -> None:
        """
        A runner's configuration is tamed before the runner reads it, and its
        logger is ours.
        """
        self.addCleanup(installForeign())
        config = _twistd_unix.ServerOptions()
        config.parseOptions(["-l", "x.log", "--pidfile=x.pid"])
        runner = _twistd_unix.UnixApplicationRunner(config)
        self.assertIsInstance(runner.logger, WorkerLogger)
        self.assertEqual({key: config[key] for key in ONE_OF_MANY}, dict(ONE_OF_MANY))

    def test_daemonize(self) -> None:
        """
        A runner that becomes a daemon in spite of its options does not fork.
        """
        self.addCleanup(installForeign())
        config = _twistd_unix.ServerOptions()
        config.parseOptions([])
        runner = _twistd_unix.UnixApplicationRunner(config)
        before = os.getpid()
        runner.daemonize(reactor)
        self.assertEqual(os.getpid(), before)

    def test_tame(self) -> None:
        """
        L{tame} leaves the target's other options alone.
        """
        config = {"pidfile": "x", "uid": 5, "rundir": "/"}
        tame(config)
        self.assertEqual(config, {**ONE_OF_MANY, "uid": 5, "rundir": "/"})

    def test_noRotation(self) -> None:
        """
        L{WorkerLogger} makes no log file and takes no signal.
        """
        before = signal.getsignal(signal.SIGUSR1)
        WorkerLogger({"logfile": "x.log", "nodaemon": False})
        self.assertEqual(signal.getsignal(signal.SIGUSR1), before)
        self.assertFalse(os.path.exists("x.log"))
