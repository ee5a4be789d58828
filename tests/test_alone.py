"""
What C{cluster.whenStopping()} means without a cluster.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import twisted_cluster

ROOT = str(Path(twisted_cluster.__file__).parent.parent)


class AloneTests(SynchronousTestCase):
    """
    Programs, in processes of their own.
    """

    def output(self, program: str) -> list[str]:
        """
        Run a program, whose reactor is to stop by itself.

        @return: the lines that it wrote, to standard output and error.
        """
        prelude = (
            "import os, signal, sys\n"
            "from twisted.internet import reactor\n"
            "from twisted.python import log\n"
            "from twisted_cluster import cluster\n"
            "for number in (signal.SIGHUP, signal.SIGQUIT):\n"
            "    signal.signal(number, signal.SIG_DFL)\n"
            "log.startLogging(sys.stdout)\n"
            "def when(text):\n"
            "    cluster.whenStopping().addCallback(lambda _: print(text))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", prelude + program],
            env={**os.environ, "PYTHONPATH": ROOT},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        self.assertEqual(done.returncode, 0, done.stdout)
        return done.stdout.splitlines()

    def assertSaid(self, lines: list[str], *texts: str) -> None:
        """
        Fail unless these were printed, in this order, and no error was logged.
        """
        self.assertFalse([line for line in lines if "Traceback" in line], lines)
        wanted = [text for line in lines for text in texts if line.endswith(text)]
        self.assertEqual(wanted, list(texts), lines)

    def test_signals(self) -> None:
        """
        HUP and QUIT stop the program, and again does no harm.
        """
        for name in ("SIGHUP", "SIGQUIT"):
            lines = self.output(
                "when('it stops')\n"
                "def twice():\n"
                f"    os.kill(os.getpid(), signal.{name})\n"
                f"    os.kill(os.getpid(), signal.{name})\n"
                "reactor.callWhenRunning(twice)\n"
                "def late():\n"
                f"    os.kill(os.getpid(), signal.{name})\n"
                "    from twisted.internet.task import deferLater\n"
                "    return deferLater(reactor, 0.05, lambda: None)\n"
                "reactor.addSystemEventTrigger('before', 'shutdown', late)\n"
                "reactor.run()\n"
            )
            self.assertSaid(lines, "it stops")

    def test_askedLate(self) -> None:
        """
        Who asks while the reactor stops is told at once, as in a worker.
        """
        lines = self.output(
            "when('the first')\n"
            "for phase in ('before', 'during', 'after'):\n"
            "    reactor.addSystemEventTrigger(phase, 'shutdown', when, phase)\n"
            "reactor.callWhenRunning(reactor.stop)\n"
            "reactor.run()\n"
            "when('the end')\n"
        )
        self.assertSaid(lines, "the first", "before", "during", "after", "the end")

    def test_askedFirstWhileItStops(self) -> None:
        """
        So is who asks then for the first time.
        """
        for phase in ("before", "during", "after"):
            lines = self.output(
                f"reactor.addSystemEventTrigger('{phase}', 'shutdown', when, 'late')\n"
                "reactor.callWhenRunning(reactor.stop)\n"
                "reactor.run()\n"
            )
            self.assertSaid(lines, "late")
