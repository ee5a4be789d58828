"""
Tests of L{twisted_cluster.worker.applications} and
L{twisted_cluster.worker.callables}: plugins, C{.tac} files and callables run as
under twistd.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from textwrap import dedent

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.worker.driver import Result, runAlone, runInWorker
from twisted_cluster.worker.surroundings import twistdScript

PLUGIN = """
from zope.interface import implementer
from twisted.application.service import IServiceMaker
from twisted.plugin import IPlugin
from demo import maker
demo = maker
"""

MAKER = """
import os, sys
from zope.interface import implementer
from twisted.application.service import IServiceMaker, Service
from twisted.plugin import IPlugin
from twisted.python.usage import Options

class DemoOptions(Options):
    optParameters = [["number", "n", 1, "A number.", int]]

class Demo(Service):
    def privilegedStartService(self):
        Service.privilegedStartService(self)
        print("privileged", os.geteuid(), file=sys.__stdout__)

    def startService(self):
        Service.startService(self)
        from twisted.internet import reactor
        print("start", os.geteuid(), os.getegid(), file=sys.__stdout__)
        reactor.callLater(0, reactor.callLater, 0, reactor.stop)

    def stopService(self):
        print("stop", file=sys.__stdout__)

@implementer(IServiceMaker, IPlugin)
class Maker:
    tapname = "demo"
    description = "Demonstrates."
    options = DemoOptions

    def makeService(self, options):
        print(sys.argv, sys.path, os.getcwd(), options["number"])
        print("twisted.internet.reactor" in sys.modules)
        return Demo()

maker = Maker()
"""

TAC = """
import os, sys
from twisted.application.service import Application, IProcess
from demo import Demo
print(sys.argv, sys.path, __name__, __file__, sorted(globals()))
application = Application("demo", **{arguments})
IProcess(application).processName = "renamed"
Demo().setServiceParent(application)
"""

CALLABLES = """
import sys
from twisted.application.service import Application, MultiService, Service
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from demo import Demo

def service():
    print(sys.argv, sys.path[0])
    return Demo()

def application():
    made = Application("made")
    Demo().setServiceParent(made)
    return made

def worksWithReactor(reactor, option=None):
    reactor.callWhenRunning(reactor.callLater, 0, reactor.stop)

async def coroutine(reactor):
    await deferLater(reactor, 0)
    print("awaited", file=sys.__stdout__)
    return Demo()

def fired(reactor):
    reactor.callWhenRunning(reactor.callLater, 0, reactor.stop)
    done = Deferred()
    done.callback(7)
    return done

async def failing(reactor):
    await deferLater(reactor, 0)
    raise ValueError("no luck")

def runsItself():
    from twisted.internet import reactor
    reactor.callWhenRunning(reactor.callLater, 0, reactor.stop)
    reactor.run()

def raises():
    raise ValueError("no luck")

def number():
    return 7

def greedy(one, two):
    pass

class Late(Demo):
    def startService(self):
        from twisted.internet import reactor
        Service.startService(self)
        def begin():
            print("late", file=sys.__stdout__)
            super(Late, self).startService()
        return deferLater(reactor, 0, begin)

class LateFailing(Service):
    def startService(self):
        from twisted.internet import reactor
        return deferLater(reactor, 0, raises)

made = Demo()
constant = 3
"""


class ApplicationCase(SynchronousTestCase):
    """
    Runs targets in a directory that holds a plugin and what it needs.
    """

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        plugins = self.directory / "lib" / "twisted" / "plugins"
        plugins.mkdir(parents=True)
        self.plugin = plugins / "demo_plugin.py"
        self.plugin.write_text(dedent(PLUGIN))
        self.write("lib/demo.py", MAKER)
        self.write("calls.py", CALLABLES)
        self.environ(PYTHONPATH=str(self.directory / "lib"))

    def environ(self, **variables: str) -> None:
        self.patch(os, "environ", {**os.environ, **variables})

    def write(self, name: str, source: str) -> str:
        (self.directory / name).write_text(dedent(source))
        return name

    def worker(
        self,
        *words: str,
        check: bool = False,
        uid: int | None = None,
        gid: int | None = None,
    ) -> Result:
        return runInWorker(*words, cwd=self.directory, check=check, uid=uid, gid=gid)

    def files(self) -> set[str]:
        return {path.name for path in self.directory.iterdir()} - {"__pycache__"}

    def failure(self, *words: str, check: bool = False) -> list[str]:
        result = self.worker(*words, check=check)
        self.assertEqual(result.status, 1, result)
        return result.told[-1]


class AsTwistdTests(ApplicationCase):
    """
    Plugins and C{.tac} files run as twistd alone runs them.
    """

    def assertAsTwistd(self, words: tuple[str, ...], twistd: tuple[str, ...]) -> Result:
        if not os.path.exists(twistdScript()):
            raise SkipTest("no twistd is installed beside this Python")
        alone = runAlone(
            twistdScript(),
            "--pidfile=",
            "--logfile=/dev/null",
            "--originalname",
            *twistd,
            cwd=self.directory,
        )
        files = self.files()
        worker = self.worker(*words)
        shortened = alone.out.replace(
            "'--pidfile=', '--logfile=/dev/null', '--originalname', ", ""
        )
        self.assertEqual(worker.out, shortened, alone)
        self.assertEqual((worker.status, alone.status), (0, 0), worker)
        self.assertEqual(worker.told, [["started"]])
        self.assertEqual(self.files(), files)
        return worker

    def test_plugin(self) -> None:
        """
        A plugin gets its options, and finds the command line and the path of
        C{twistd -n}; its service is started and stopped; no file is left.
        """
        words = ("demo", "-n", "5")
        result = self.assertAsTwistd(words, ("-n", *words))
        self.assertIn(
            f"'-n', 'demo', '-n', '5'] ['{Path(sys.executable).parent}", result.out
        )
        self.assertTrue(result.out.endswith("stop\n"), result)

    def test_tac(self) -> None:
        """
        So does a C{.tac} file, and the name that it gives its process does not
        make the worker execute itself anew.
        """
        name = self.write("app.tac", TAC.replace("{arguments}", "{}"))
        result = self.assertAsTwistd((name,), ("-n", "-y", name))
        self.assertTrue(result.out.endswith("stop\n"), result)

    def test_observerOfTac(self) -> None:
        """
        A log observer that a C{.tac} file brings is used; without one, nothing
        is written to standard output.
        """
        name = self.write("app.tac", TAC.replace("{arguments}", "{}"))
        self.assertNotIn("starting up", self.worker(name).out)
        (self.directory / name).write_text(
            (self.directory / name).read_text()
            + dedent(
                """
                from twisted.logger import ILogObserver, textFileLogObserver
                observer = textFileLogObserver(sys.__stdout__)
                application.setComponent(ILogObserver, observer)
                """
            )
        )
        self.assertIn("starting up", self.worker(name).out)

    def test_privileges(self) -> None:
        """
        C{privilegedStartService} runs as root; the service starts as the user
        that the C{.tac} file names, or else the settings.
        """
        if os.getuid() != 0:
            raise SkipTest("only root may become somebody else")
        self.directory.chmod(0o755)
        own = "{'uid': 65534, 'gid': 65533}"
        name = self.write("app.tac", TAC.replace("{arguments}", own))
        result = self.worker(name)
        self.assertEqual(
            result.out.splitlines()[1:], ["privileged 0", "start 65534 65533", "stop"]
        )
        result = self.worker(name, uid=1, gid=2)
        self.assertEqual(
            result.out.splitlines()[1:], ["privileged 0", "start 1 2", "stop"]
        )

    def test_privilegesRefused(self) -> None:
        """
        A user that cannot be had is a failed start that says so.
        """
        if os.getuid() != 0:
            raise SkipTest("only root may become somebody else")
        name = self.write(
            "app.tac",
            TAC.replace("{arguments}", "{}")
            + "\nfrom twisted.internet import reactor\nos.setuid(65534)\n",
        )
        result = self.worker(name, uid=1, gid=2)
        kind, reason, _ = result.told[-1]
        self.assertEqual((result.status, kind), (1, "TargetStartError"))
        self.assertIn("1/2", reason)
        self.assertIn("not permitted", reason)


class FailingApplicationTests(ApplicationCase):
    """
    What cannot be loaded or started is told once, in the user's terms.
    """

    def test_misspelt(self) -> None:
        """
        A misspelt plugin is answered with those that it may have meant, and
        with all that there are.
        """
        kind, reason, traceback = self.failure("demoo")
        self.assertEqual((kind, traceback), ("TargetLoadError", ""))
        self.assertIn("did you mean demo?", reason)
        self.assertIn("web", reason)

    def test_module(self) -> None:
        """
        Who names a module without C{-m} is told of that.
        """
        self.assertIn("say -m calls", self.failure("calls")[1])

    def test_brokenPlugin(self) -> None:
        """
        A plugin that is not there because its module does not import is
        answered with the traceback of that.
        """
        self.plugin.write_text("import nosuch_thing\n")
        kind, _, traceback = self.failure("demo")
        self.assertEqual(kind, "TargetLoadError")
        self.assertIn("demo_plugin.py", traceback)
        self.assertIn("No module named 'nosuch_thing'", traceback)

    def test_usage(self) -> None:
        """
        Options that a plugin refuses are the user's fault, and come with the
        plugin's usage.
        """
        for words in (("--nonsense",), ("--number", "many")):
            kind, reason, usage = self.failure("demo", *words)
            self.assertEqual(kind, "TargetUsageError")
            self.assertIn("demo", reason)
            self.assertIn("--number=", usage)

    def test_help(self) -> None:
        """
        C{--help} is printed, and is no failure.
        """
        result = self.worker("demo", "--help")
        self.assertEqual(
            (result.status, result.told), (0, [["failed", "help", "", ""]])
        )
        self.assertIn("--number=", result.out)

    def test_makeServiceRaises(self) -> None:
        """
        A plugin that raises while it makes its service shows its own frames.
        """
        self.write("lib/demo.py", MAKER.replace("return Demo()", "return 1 / 0"))
        kind, reason, traceback = self.failure("demo", check=True)
        self.assertEqual(kind, "TargetLoadError")
        self.assertIn("ZeroDivisionError", reason)
        self.assertEqual(traceback.count("File"), 1, traceback)

    def test_tacRaises(self) -> None:
        """
        So does a C{.tac} file that raises, or does not compile.
        """
        for source in ("1 / 0\n", "if True print\n"):
            name = self.write("app.tac", source)
            kind, _, traceback = self.failure(name, check=True)
            self.assertEqual(kind, "TargetLoadError")
            self.assertEqual(traceback.count("File"), 1, traceback)
            self.assertIn("app.tac", traceback)

    def test_tacWithoutApplication(self) -> None:
        """
        A C{.tac} file without an application is told what is missing.
        """
        self.assertIn("'application'", self.failure(self.write("app.tac", "x = 1"))[1])

    def test_tacWords(self) -> None:
        """
        A C{.tac} file takes no words that twistd would not take.
        """
        name = self.write("app.tac", TAC.replace("{arguments}", "{}"))
        for word in ("--nonsense", "demo", "nosuch"):
            self.assertEqual(self.failure(name, word)[0], "TargetUsageError")

    def test_portTaken(self) -> None:
        """
        A plugin's listen that fails, though Twisted would go on without it,
        ends the worker with status 1.
        """
        kind, reason, _ = self.failure("web", "--listen=tcp:1:interface=192.0.2.1")
        self.assertEqual(kind, "TargetStartError")
        self.assertIn("192.0.2.1:1", reason)


class CallableTests(ApplicationCase):
    """
    C{package.module:callable} is imported from the working directory and
    called.
    """

    def test_started(self) -> None:
        """
        A service, an application, a coroutine or a Deferred of a service or of
        something else, and a callable that works with the reactor or runs it
        itself: all count as started, once, when they have.
        """
        for name in (
            "service", "application", "worksWithReactor", "coroutine", "fired",
            "runsItself", "Demo", "Late", "made",
        ):  # fmt: skip
            result = self.worker(f"calls:{name}", "--word")
            self.assertEqual((result.status, result.told), (0, [["started"]]), result)

    def test_surroundings(self) -> None:
        """
        A callable finds the words after it, and its directory first in the path.
        """
        out = self.worker("calls:service", "--word").out
        self.assertIn(f"['calls:service', '--word'] {self.directory}", out)

    def test_lateStart(self) -> None:
        """
        A service that comes late is started and stopped like any other.
        """
        for name, first in (("coroutine", "awaited"), ("Late", "late")):
            lines = self.worker(f"calls:{name}").out.splitlines()
            self.assertEqual(lines[-1], "stop")
            self.assertIn(first, lines)

    def test_lateFailure(self) -> None:
        """
        A Deferred that fails, the callable's or the service's, is told at once,
        and ends the worker with the user's traceback.
        """
        for name in ("failing", "LateFailing"):
            result = self.worker(f"calls:{name}")
            self.assertEqual(result.status, 1)
            self.assertEqual(result.told[0][:2], ["failed", "start"])
            kind, reason, traceback = result.told[-1]
            self.assertEqual(kind, "TargetStartError")
            self.assertIn("ValueError: no luck", reason)
            self.assertIn("calls.py", traceback)

    def test_failures(self) -> None:
        """
        What cannot be called, or returns what cannot be run, is refused by name.
        """
        for name, expected in (
            ("servise", "did you mean service"),
            ("nosuch", "no 'nosuch' in calls"),
            ("number", "type int"),
            ("constant", "type int"),
            ("greedy", "2 arguments"),
            ("raises", "ValueError: no luck"),
            ("service.x", "no 'x' in calls.service"),
        ):
            kind, reason, _ = self.failure(f"calls:{name}")
            self.assertEqual(kind, "TargetLoadError")
            self.assertIn(expected, reason)
        for name in ("nosuch:x", "calls.nosuch:x"):
            self.assertIn("no module named", self.failure(name)[1])
        for name in (":x", "calls:"):
            self.assertIn("package.module:callable", self.failure(name)[1])

    def test_check(self) -> None:
        """
        C{--check} finds the callable, and does not call it.
        """
        result = self.worker("calls:raises", check=True)
        self.assertEqual((result.status, result.told), (0, []), result)
        self.failure("calls:nosuch", check=True)
