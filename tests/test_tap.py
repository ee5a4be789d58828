"""
C{twistd cluster}: its options and its service.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

from twisted.application.app import ServerOptions
from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogPublisher
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

import twisted_cluster
from tests.doubles import FakeWatcher
from twisted_cluster import tap
from twisted_cluster.errors import StartFailed
from twisted_cluster.policy.recycling import RecycleLimits
from twisted_cluster.supervisor.inherited import inheritedDescriptors
from twisted_cluster.supervisor.signals import SIGNALS

ROOT = str(Path(twisted_cluster.__file__).parent.parent)


class OptionsTests(SynchronousTestCase):
    """
    The options of both commands, as C{twistd cluster} has them.
    """

    def parsed(self, line: str, **environ: str) -> tap.Options:
        """
        Parse a line.
        """
        options = tap.Options()
        options.environ = environ
        options.parseOptions(line.split())
        return options

    def assertRefused(self, line: str, *parts: str, **environ: str) -> None:
        """
        Fail unless a line is refused, and the error names all of these.
        """
        error = self.assertRaises(UsageError, self.parsed, line, **environ)
        for part in parts:
            self.assertIn(part, str(error))

    def test_defaults(self) -> None:
        """
        A target alone is enough: the rest has the defaults of the
        documentation.
        """
        options = self.parsed("web --listen=tcp:8080")
        self.assertEqual(options["target"], ["web", "--listen=tcp:8080"])
        self.assertIs(options.workers, None)
        self.assertEqual(
            options.watcherArguments(),
            {
                "binds": [],
                "backlog": socket.SOMAXCONN,
                "balance": "kernel",
                "startTimeout": 60.0,
                "heartbeatTimeout": 30.0,
                "shutdownTimeout": 30.0,
                "drainIdle": 5.0,
                "drainDelay": 0.0,
                "restartBatch": 1,
                "recycle": RecycleLimits(),
                "maxMessageSize": 256 * 1024 * 1024,
                "logLevel": LogLevel.info,
                "waitReady": False,
                "workerReactor": None,
                "name": None,
                "uid": None,
                "gid": None,
                "exitOnCrashLoop": False,
            },
        )

    def test_everything(self) -> None:
        """
        Each option reaches the watcher.
        """
        self.patch(os, "geteuid", lambda: 0)
        options = self.parsed(
            "-w 3 -b tcp:80 --bind=unix:/run/x --backlog 9 --balance sticky "
            "--start-timeout 1m "
            "--heartbeat-timeout 2m --shutdown-timeout 0 --max-message-size 1K "
            "--log-level debug --wait-ready --reactor select --name shop --uid 1 "
            "--gid 2 --exit-on-crash-loop --drain-idle 1 --drain-delay 200ms "
            "--restart-batch 2 --recycle-age 1h --recycle-connections 1000 "
            "--recycle-memory 2G --recycle-jitter 20% -m daphne -w 5"
        )
        self.assertEqual(options["target"], ["-m", "daphne", "-w", "5"])
        self.assertEqual(options.workers, 3)
        self.assertEqual(
            options.watcherArguments(),
            {
                "binds": ["tcp:80", "unix:/run/x"],
                "backlog": 9,
                "balance": "sticky",
                "startTimeout": 60.0,
                "heartbeatTimeout": 120.0,
                "shutdownTimeout": 0.0,
                "drainIdle": 1.0,
                "drainDelay": 0.2,
                "restartBatch": 2,
                "recycle": RecycleLimits(3600.0, 1000, 2 * 1024**3, 0.2),
                "maxMessageSize": 1024,
                "logLevel": LogLevel.debug,
                "waitReady": True,
                "workerReactor": "select",
                "name": "shop",
                "uid": 1,
                "gid": 2,
                "exitOnCrashLoop": True,
            },
        )

    def test_realWatcherTakesThem(self) -> None:
        """
        L{ClusterWatcher} knows every argument that the options make.
        """
        from twisted_cluster.watcher import ClusterWatcher

        options = self.parsed("-w 2 web")
        reactor: Any = MemoryReactorClock()
        watcher = ClusterWatcher(
            reactor, options["target"], options.workers, **options.watcherArguments()
        )
        self.assertEqual(watcher.desired, 2)

    def test_workers(self) -> None:
        """
        What is no number of workers is refused, with what may be written.
        """
        self.assertRefused(
            "--workers=four web",
            "--workers: 'four' is not a whole number of one or more, nor 'auto'",
        )
        self.assertRefused("-w 0 web", "--workers: '0'")

    def test_concurrency(self) -> None:
        """
        C{WEB_CONCURRENCY} says how many, when the command line does not.
        """
        self.assertEqual(self.parsed("web", WEB_CONCURRENCY="3").workers, 3)
        self.assertEqual(self.parsed("-w 2 web", WEB_CONCURRENCY="3").workers, 2)
        self.assertIs(self.parsed("-w auto web", WEB_CONCURRENCY="3").workers, None)
        self.assertIs(self.parsed("web", WEB_CONCURRENCY="").workers, None)
        self.assertRefused("web", "WEB_CONCURRENCY: 'x'", WEB_CONCURRENCY="x")

    def test_noTarget(self) -> None:
        """
        A missing target is told, with what one looks like.
        """
        self.assertRefused("-w 2", "no target", "server.py")
        self.assertRefused("", "no target")
        self.assertRefused("-m", "-m needs the name of a module")

    def test_notRoot(self) -> None:
        """
        Who is not root cannot start workers as somebody else.
        """
        self.patch(os, "geteuid", lambda: 1000)
        self.assertRefused("--uid 1 web", "--uid: only root")
        self.assertEqual(self.parsed("--uid 1000 web")["uid"], 1000)

    def test_ofTwistd(self) -> None:
        """
        What twistd has options of its own for is refused, with their names.
        """
        for option, way in {
            "log-file": "--logfile",
            "log-format": "twisted-cluster run",
            "pid-file": "--pidfile",
            "check": "twisted-cluster run --check",
        }.items():
            self.assertRefused(f"--{option}=x web", f"--{option}", way)

    def test_later(self) -> None:
        """
        What does not exist is refused.
        """
        for option in ("--preload", "--reload", "--dashboard", "--config"):
            self.assertRefused(f"{option} x web", f"unknown option {option}")

    def test_reactorOfTwistd(self) -> None:
        """
        The reactor that twistd is told to use is the workers', too, unless
        they are told another.
        """
        for line, reactor in {
            "web": "poll",
            "--reactor=select web": "select",
        }.items():
            options = tap.Options()
            options.parent = ServerOptions()
            options.parent["reactor"] = "poll"
            options.parseOptions(line.split())
            self.assertEqual(options["reactor"], reactor)

    def test_help(self) -> None:
        """
        The help names every option, fits a terminal, and ends with examples.
        """
        text = tap.Options().getUsage()
        for group in tap.Options.groups:
            for option in group.options:
                shown = re.findall(rf"^  .{{4}}--{option.name}\b", text, re.M)
                self.assertEqual(len(shown), 1, option.name)
        self.assertNotIn("--log-file", text)
        self.assertIn("twistd -n cluster", text)
        self.assertLessEqual(max(len(line) for line in text.splitlines()), 80)


class WaitingReactor(MemoryReactorClock):
    """
    A reactor that calls what is to be called when it runs, at once.
    """

    stops = 0

    def callWhenRunning(self, callable: Any, *args: Any, **kw: Any) -> None:
        """
        Call it.
        """
        callable(*args, **kw)

    def callFromThread(self, function: Any, *args: Any, **kwargs: Any) -> None:
        """
        Call it.
        """
        function(*args, **kwargs)

    def stop(self) -> None:
        """
        Count it.
        """
        self.stops += 1


class ClusterServiceTests(SynchronousTestCase):
    """
    L{tap.ClusterService}.
    """

    def setUp(self) -> None:
        for number in SIGNALS:
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        self.reactor = WaitingReactor()
        self.watcher = FakeWatcher()
        self.service = tap.ClusterService(self.reactor, self.watcher, None)

    def test_started(self) -> None:
        """
        The watcher starts with it, in both phases, and takes the signals.
        """
        self.service.privilegedStartService()
        self.service.startService()
        self.assertTrue(self.service.running)
        signal.raise_signal(signal.SIGHUP)
        self.assertEqual(
            self.watcher.calls, ["privilegedStartService", "startService", "restart"]
        )

    def test_stopped(self) -> None:
        """
        It stops when the watcher has stopped; until then it hears signals.
        """
        before = signal.getsignal(signal.SIGQUIT)
        self.service.startService()
        stopped = self.service.stopService()
        assert stopped is not None
        self.assertNoResult(stopped)
        signal.raise_signal(signal.SIGQUIT)
        self.assertEqual(self.watcher.calls, ["startService", "stopService", "stopNow"])
        self.watcher.end()
        self.successResultOf(stopped)
        self.assertEqual(signal.getsignal(signal.SIGQUIT), before)

    def test_twistdStops(self) -> None:
        """
        The first TERM is left to twistd's own handler, the second ends the
        workers.
        """
        heard: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
        self.service.startService()
        signal.raise_signal(signal.SIGTERM)
        self.assertEqual((heard, self.watcher.calls), ([15], ["startService"]))
        signal.raise_signal(signal.SIGTERM)
        self.assertEqual(self.watcher.calls, ["startService", "stopNow"])

    def test_ended(self) -> None:
        """
        A cluster that ends for an error stops the reactor; the reason is
        logged in one line.
        """
        events: list[LogEvent] = []
        observer = cast(ILogObserver, events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.service.startService()
        self.watcher.end(StartFailed("no module x\nTraceback …"))
        self.assertEqual(self.reactor.stops, 1)
        [event] = events
        self.assertEqual(event["log_level"], LogLevel.critical)
        self.assertEqual(event["reason"], "no module x")

    def test_cannotStart(self) -> None:
        """
        What the watcher raises is twistd's to show.
        """
        self.watcher.startError = CannotListenError("", 80, OSError(13, "denied"))
        self.assertRaises(CannotListenError, self.service.startService)

    def test_made(self) -> None:
        """
        The service is made of the options, and starts nothing yet.  Workers get
        the sockets that this process was started with.
        """
        passed = socket.socket()
        self.addCleanup(passed.close)
        passed.set_inheritable(True)
        options = tap.Options()
        options.parseOptions(["-w", "3", "web", "--path=."])
        made: list[FakeWatcher] = []

        def factory(*args: Any, **kwargs: Any) -> FakeWatcher:
            made.append(FakeWatcher(*args, **kwargs))
            return made[-1]

        service = tap.makeService(options, factory)
        [watcher] = made
        args, kwargs = watcher.arguments
        self.assertEqual(args[1:], (["web", "--path=."], 3))
        inherited = kwargs.pop("inherited")
        self.assertEqual(kwargs, options.watcherArguments())
        self.assertEqual(inherited, inheritedDescriptors(os.environ, os.getpid()))
        self.assertIn(passed.fileno(), inherited.descriptors)
        self.assertEqual(watcher.calls, [])
        self.assertIsInstance(service, tap.ClusterService)


class TitleTests(SynchronousTestCase):
    """
    L{tap.setTitle}.
    """

    def titles(self, name: str | None) -> list[str]:
        """
        Set the title with a stand-in for C{setproctitle}.
        """
        titles: list[str] = []

        class Module:
            setproctitle = staticmethod(titles.append)

        self.patch(sys, "modules", {**sys.modules, "setproctitle": Module})
        tap.setTitle(name)
        return titles

    def test_named(self) -> None:
        """
        A name becomes the watcher's title.
        """
        self.assertEqual(self.titles("shop"), ["shop: watcher"])

    def test_unnamed(self) -> None:
        """
        Without a name, the title stays.
        """
        self.assertEqual(self.titles(None), [])

    def test_notInstalled(self) -> None:
        """
        Without C{setproctitle}, a name does nothing.
        """
        self.patch(sys, "modules", {**sys.modules, "setproctitle": None})
        tap.setTitle("shop")


class PluginTests(SynchronousTestCase):
    """
    The file in C{twisted.plugins}, in a fresh interpreter.
    """

    def python(self, code: str) -> str:
        """
        Run code; fail unless it succeeds.

        @return: what it printed.
        """
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": ROOT},
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def setUp(self) -> None:
        self.directory = self.mktemp()
        os.mkdir(self.directory)

    def test_cheap(self) -> None:
        """
        To import the plugins imports neither the reactor nor the package.
        """
        out = self.python(
            "import sys, twisted.plugins.twisted_cluster_plugin\n"
            "print([name for name in sys.modules if name in "
            "('twisted.internet.reactor', 'twisted_cluster', 'msgspec')])"
        )
        self.assertEqual(out, "[]\n")

    def test_optionsChooseNoReactor(self) -> None:
        """
        To read the options imports no reactor: twistd may still install one.
        """
        out = self.python(
            "import sys\n"
            "from twisted.plugins.twisted_cluster_plugin import cluster\n"
            "cluster.options().parseOptions(['-w', '2', 'web'])\n"
            "cluster.makeService\n"
            "print('twisted.internet.reactor' in sys.modules)"
        )
        self.assertEqual(out, "False\n")

    def test_provided(self) -> None:
        """
        Twisted finds the command and both endpoint prefixes.
        """
        from twisted.application.service import IServiceMaker
        from twisted.internet.interfaces import IStreamServerEndpointStringParser
        from twisted.plugins import twisted_cluster_plugin as plugin
        from zope.interface.verify import verifyObject

        verifyObject(IServiceMaker, plugin.cluster)
        self.assertEqual(plugin.cluster.tapname, "cluster")
        self.assertIs(plugin.cluster.options, tap.Options)
        for parser, prefix in (
            (plugin.clusterEndpointParser, "cluster"),
            (plugin.localEndpointParser, "local"),
        ):
            verifyObject(IStreamServerEndpointStringParser, parser)
            self.assertEqual(parser.prefix, prefix)
