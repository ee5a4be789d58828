"""
The command C{twisted-cluster}: what it prints, and its exit status.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, Optional

from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

import twisted_cluster
from twisted_cluster import cli

ROOT = str(Path(twisted_cluster.__file__).parent.parent)


class MainTests(SynchronousTestCase):
    """
    L{cli.main}, without a reactor.
    """

    def main(self, line: str) -> tuple[int, str, str]:
        """
        Run a command line.

        @return: the status, and what was written to standard output and error.
        """
        stdout, stderr = StringIO(), StringIO()
        self.patch(sys, "stdout", stdout)
        self.patch(sys, "stderr", stderr)
        error = self.assertRaises(SystemExit, cli.main, line.split())
        assert isinstance(error.code, int)
        return error.code, stdout.getvalue(), stderr.getvalue()

    def test_nothing(self) -> None:
        """
        Without a command, the usage goes to standard error, with status 2.
        """
        status, out, err = self.main("")
        self.assertEqual((status, out), (2, ""))
        self.assertIn("Usage: twisted-cluster", err)

    def test_unknown(self) -> None:
        """
        An unknown command is named, in one line.  Who forgot C{run} is told.
        """
        self.assertEqual(
            self.main("server.py --port 80"),
            (
                2,
                "",
                "twisted-cluster: unknown command 'server.py'; did you mean: "
                "twisted-cluster run server.py --port 80\n",
            ),
        )
        status, out, err = self.main("--workers=4 server.py")
        self.assertEqual((status, out), (2, ""))
        self.assertIn("'--workers=4'", err)

    def test_help(self) -> None:
        """
        The help goes to standard output, with status 0.
        """
        for line in ("--help", "-h", "help"):
            status, out, err = self.main(line)
            self.assertEqual((status, err), (0, ""))
            self.assertIn("run [options] TARGET", out)

    def test_runHelp(self) -> None:
        """
        So does that of C{run}, which tells all.
        """
        for line in ("run --help", "run -h", "run -w 4 --help"):
            status, out, err = self.main(line)
            self.assertEqual((status, err), (0, ""))
            self.assertTrue(out.startswith("Usage: twisted-cluster run [options]"))
            for part in ("Signals:", "Exit status:", "Examples:", "--log-file FILE"):
                self.assertIn(part, out)

    def test_version(self) -> None:
        """
        The versions of what is at work are told.
        """
        for line in ("--version", "run --version"):
            status, out, err = self.main(line)
            self.assertEqual((status, err), (0, ""))
            self.assertIn(f"twisted-cluster {twisted_cluster.__version__} (", out)

    def test_usage(self) -> None:
        """
        What is wrong with the options is told in one line, with status 2.
        """
        self.assertEqual(
            self.main("run -w four server.py"),
            (
                2,
                "",
                "twisted-cluster: --workers: 'four' is not a whole number of one or "
                "more, nor 'auto'\n",
            ),
        )
        for line in ("run", "run --balance x web", "run --log-format xml web"):
            status, out, err = self.main(line)
            self.assertEqual((status, out, err.count("\n")), (2, "", 1), err)

    def test_internal(self) -> None:
        """
        An error that nobody foresaw is status 70, with its traceback.
        """

        def explode(words: object) -> int:
            raise ZeroDivisionError("oh")

        self.patch(cli, "run", explode)
        status, _, err = self.main("run web")
        self.assertEqual(status, 70)
        self.assertIn("ZeroDivisionError: oh", err)

    def test_interrupted(self) -> None:
        """
        An interrupt before anything runs is a stop that was asked for.
        """

        def interrupt(words: object) -> int:
            raise KeyboardInterrupt

        self.patch(cli, "run", interrupt)
        self.assertEqual(self.main("run web"), (0, "", ""))


class RunOptionsTests(SynchronousTestCase):
    """
    L{cli.RunOptions}.
    """

    def test_help(self) -> None:
        """
        The help names every option once, and fits a terminal.
        """
        text = cli.RunOptions().getUsage()
        for group in cli.RunOptions.groups:
            for option in group.options:
                shown = re.findall(rf"^  .{{4}}--{option.name}\b", text, re.M)
                self.assertEqual(len(shown), 1, option.name)
        self.assertLessEqual(max(len(line) for line in text.splitlines()), 80)

    def test_everyOptionIsInTheHelp(self) -> None:
        """
        Nothing is parsed that the help does not name.
        """
        options = cli.RunOptions()
        text = options.getUsage()
        for name in options.longOpt:
            self.assertIn(f"--{name.rstrip('=')}", text)

    def test_ownOptions(self) -> None:
        """
        The options that C{twistd cluster} has not are there.
        """
        options = cli.RunOptions()
        options.parseOptions(
            [
                "--log-file",
                "x-*.log",
                "--log-format=json",
                "--pid-file=p",
                "--check",
                "w",
            ]
        )
        self.assertEqual(
            [options[n] for n in ("log-file", "log-format", "pid-file", "check")],
            ["x-*.log", "json", "p", 1],
        )
        self.assertRaises(
            UsageError, cli.RunOptions().parseOptions, ["--pid-file=", "w"]
        )


SCRIPT = """
import sys
from tests.doubles import FakeWatcher
from twisted_cluster import cli, errors
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger

class Watcher(FakeWatcher):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        {setup}

    def startService(self):
        super().startService()
        Logger().info("the watcher started")
        Logger().debug("a detail")
        {start}

    def restart(self):
        Logger().info("restarting")
        return succeed(None)

    def stopService(self):
        from twisted.internet import reactor
        reactor.callLater(0, self.end)
        return super().stopService()

def check(reactor, target, **options):
    {check}

sys.exit(cli.run(sys.argv[1:], Watcher, check))
"""


class RunTests(SynchronousTestCase):
    """
    L{cli.run} in a process of its own, with a stand-in for the watcher.
    """

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()

    def start(
        self,
        line: str,
        *,
        setup: str = "pass",
        start: str = "pass",
        check: str = "return succeed(None)",
        descriptors: Sequence[int] = (),
    ) -> subprocess.Popen[str]:
        """
        Start the command; it is killed when the test ends.
        """
        script = self.directory / "script.py"
        script.write_text(SCRIPT.format(setup=setup, start=start, check=check))
        process = subprocess.Popen(
            [sys.executable, str(script), *line.split()],
            cwd=self.directory,
            env={**os.environ, "PYTHONPATH": ROOT, "NO_COLOR": "1"},
            pass_fds=descriptors,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

        def end() -> None:
            process.kill()
            process.communicate(timeout=60)

        self.addCleanup(end)
        return process

    def finished(self, process: subprocess.Popen[str]) -> tuple[int, str, str]:
        """
        Wait for the end.

        @return: the status, and what was written to standard output and error.
        """
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def awaitLine(self, process: subprocess.Popen[str], part: str) -> str:
        """
        Read the output up to a line with this in it.
        """
        assert process.stdout is not None
        for line in process.stdout:
            if part in line:
                return line
        self.fail(f"the output ended without {part!r}")

    def stopped(
        self, line: str, before: Optional[Callable[[int], object]] = None
    ) -> tuple[int, str]:
        """
        Run a command whose log goes to standard output, and stop it with TERM.

        @param before: called with the pid before it is stopped.
        @return: the status, and what was written to standard error.
        """
        process = self.start(line)
        self.awaitLine(process, "the watcher started")
        if before is not None:
            before(process.pid)
        process.send_signal(signal.SIGTERM)
        status, _, err = self.finished(process)
        return status, err

    def test_stopped(self) -> None:
        """
        TERM ends it with status 0, and not a word on standard error.
        """
        self.assertEqual(self.stopped("web"), (0, ""))

    def test_restart(self) -> None:
        """
        HUP restarts, and INT stops.
        """
        process = self.start("web")
        self.awaitLine(process, "the watcher started")
        process.send_signal(signal.SIGHUP)
        self.awaitLine(process, "restarting")
        process.send_signal(signal.SIGINT)
        self.assertEqual(self.finished(process)[0], 0)

    def test_inherited(self) -> None:
        """
        Workers get the sockets that the process was started with.
        """
        passed = socket.socket()
        self.addCleanup(passed.close)
        process = self.start(
            "web",
            setup="self.passed = kwargs['inherited'].descriptors",
            start="Logger().info('passed: {all}', all=self.passed)",
            descriptors=[passed.fileno()],
        )
        line = self.awaitLine(process, "passed: ")
        self.assertIn(f"passed: ({passed.fileno()},)", line)

    def test_startFailed(self) -> None:
        """
        A failed start is told once on standard error, with its status.
        """
        status, out, err = self.finished(
            self.start(
                "web",
                start="from twisted.internet import reactor; reactor.callLater("
                "0, self.end, errors.StartFailed('there is no web\\n  more', 4))",
            )
        )
        self.assertEqual((status, err), (4, "twisted-cluster: there is no web\n"))
        self.assertNotIn("there is no web", out)

    def test_logLevel(self) -> None:
        """
        What is below the level is not in the log.
        """
        process = self.start("--log-level=debug web")
        self.awaitLine(process, "a detail")
        process = self.start("web", start="self._ended.append(None); 1 / 0")
        status, out, err = self.finished(process)
        self.assertEqual(status, 70)
        self.assertIn("the watcher started", out)
        self.assertNotIn("a detail", out)
        self.assertIn("ZeroDivisionError", err)

    def test_logFile(self) -> None:
        """
        The log is appended to the file, C{*} standing for the pid; failures
        are in both places.
        """
        process = self.start(
            "--log-file app-*.log web", start="raise errors.InvalidEndpoint('bad: x')"
        )
        status, out, err = self.finished(process)
        self.assertEqual((status, out, err), (2, "", "twisted-cluster: bad: x\n"))
        log = (self.directory / f"app-{process.pid}.log").read_text()
        self.assertIn("the watcher started", log)
        self.assertIn("bad: x", log)

    def test_logFileCannotBeOpened(self) -> None:
        """
        A log file that cannot be opened is told in one line, with status 1.
        """
        status, out, err = self.finished(self.start("--log-file missing/app.log web"))
        self.assertEqual((status, out, err.count("\n")), (1, "", 1), err)
        self.assertIn("--log-file: cannot open", err)
        self.assertIn("missing/app.log", err)

    def test_pidFile(self) -> None:
        """
        The pid file is there while it runs, and gone afterwards.
        """
        path = self.directory / "app.pid"
        pids: list[tuple[int, int]] = []

        def look(pid: int) -> None:
            pids.append((pid, int(path.read_text())))

        self.assertEqual(self.stopped("--pid-file app.pid web", look)[0], 0)
        self.assertEqual(pids[0][0], pids[0][1])
        self.assertFalse(path.exists())

    def test_pidFileInUse(self) -> None:
        """
        Beside a live owner of the pid file nothing is started, and the owner
        keeps it.
        """

        def second(pid: int) -> None:
            status, out, err = self.finished(self.start("--pid-file app.pid web"))
            self.assertEqual((status, out, err.count("\n")), (1, "", 1), err)
            self.assertIn(f"process {pid} runs", err)
            self.assertTrue((self.directory / "app.pid").exists())

        self.assertEqual(self.stopped("--pid-file app.pid web", second)[0], 0)

    def test_check(self) -> None:
        """
        A check says on standard output that the target loads, or how far it
        got without running it, and nothing else; no pid file is needed.
        """
        (self.directory / "app.pid").write_text(f"{os.getpid()}\n")
        (self.directory / "app.tac").touch()
        for target, shown in (
            ("app.tac --port 80", "loads"),
            ("package.module:callable", "loads"),
            ("./script.py", "compiles"),
            ("-m module", "is found"),
        ):
            process = self.start(f"--check --pid-file app.pid {target}")
            self.assertEqual(self.finished(process), (0, f"ok: {target} {shown}\n", ""))

    def test_checkFailed(self) -> None:
        """
        A target that does not load is told, with status 4.
        """
        process = self.start(
            "--check web", check="return fail(errors.TargetLoadError('no module x'))"
        )
        self.assertEqual(
            self.finished(process), (4, "", "twisted-cluster: no module x\n")
        )

    def test_nobodyReads(self) -> None:
        """
        When nobody reads the log any more, the status is still ours.
        """
        process = self.start("web")
        self.awaitLine(process, "the watcher started")
        assert process.stdout is not None
        process.stdout.close()
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(60), 0)
        assert process.stderr is not None
        process.stderr.close()
        process.stdout = process.stderr = None


class ModuleTests(SynchronousTestCase):
    """
    C{python -m twisted_cluster.cli}.
    """

    def python(self, arguments: Sequence[str]) -> tuple[int, str, str]:
        """
        Run Python.
        """
        done: Any = subprocess.run(
            [sys.executable, *arguments],
            env={**os.environ, "PYTHONPATH": ROOT},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def test_run(self) -> None:
        """
        The module is the command, too.
        """
        status, out, err = self.python(["-m", "twisted_cluster.cli", "--version"])
        self.assertEqual((status, err), (0, ""))
        self.assertIn("twisted-cluster", out)

    def test_usageIsQuick(self) -> None:
        """
        A usage error needs no reactor.
        """
        status, out, _ = self.python(
            [
                "-c",
                "import sys; from twisted_cluster import cli\n"
                "print(cli.run(['-w', 'x', 'web']))\n"
                "print('twisted.internet.reactor' in sys.modules)",
            ]
        )
        self.assertEqual((status, out), (0, "2\nFalse\n"))
