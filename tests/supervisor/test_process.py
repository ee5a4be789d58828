"""
How a worker's process is started.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.ipc.settings import WorkerSettings
from twisted_cluster.sockets.wire.handover import Handover
from twisted_cluster.supervisor.death import Exit
from twisted_cluster.supervisor.process import WorkerProcess
from twisted_cluster.testing import DescriptorReactor, PlayedProcess

ROOT = str(Path(__file__).resolve().parent.parent.parent)


class Silent:
    """
    A protocol that hears nothing.
    """

    def makeConnection(self, transport: object) -> None: ...

    def dataReceived(self, data: bytes) -> None: ...

    def connectionLost(self, reason: object) -> None: ...

    def fileDescriptorReceived(self, descriptor: int) -> None: ...


class SpawnTests(SynchronousTestCase):
    """
    What a worker's process is given.
    """

    def setUp(self) -> None:
        self.reactor: Any = DescriptorReactor()
        self.before = sorted(os.listdir("/proc/self/fd"))
        self.exits: list[Exit] = []
        self.settings = WorkerSettings(
            worker=1,
            slot=0,
            generation=1,
            watcher=1,
            control=-1,
            sockets=-1,
            clients=-1,
        )

    def spawn(self, inherited: tuple[int, ...] = ()) -> WorkerProcess:
        """
        Spawn a worker.
        """
        process = WorkerProcess(
            self.reactor,
            lambda *_: None,
            self.exits.append,
            Silent(),
            Silent(),
            lambda skt: Handover(self.reactor, skt),
        )
        process.spawn(self.settings, ["server.py", "-m"], inherited)
        return process

    def end(self) -> None:
        """
        End it, and look at what is left.
        """
        self.reactor.processes[0].end(0)
        self.assertEqual(self.exits, [Exit(0, None)])
        self.assertEqual(sorted(os.listdir("/proc/self/fd")), self.before)

    def channels(self, process: PlayedProcess) -> set[int]:
        """
        The descriptors of the channels, as the worker is told.
        """
        settings = process.settings
        return {settings.control, settings.sockets, settings.clients}

    def test_descriptors(self) -> None:
        """
        The standard streams, the three channels, and nothing else.
        """
        self.spawn()
        [process] = self.reactor.processes
        self.assertEqual(sorted(process.descriptors), [0, 1, 2, 3, 4, 5])
        self.assertEqual(self.channels(process), {3, 4, 5})
        self.assertEqual(process.args[-2:], ["server.py", "-m"])
        self.end()

    def test_inherited(self) -> None:
        """
        Descriptors that are passed on keep their numbers, and the channels
        keep clear of them.
        """
        ours = os.open(os.devnull, os.O_RDONLY)
        self.addCleanup(os.close, ours)
        self.before = sorted(os.listdir("/proc/self/fd"))
        self.spawn((ours,))
        [process] = self.reactor.processes
        self.assertIn(ours, process.descriptors)
        self.assertNotIn(ours, self.channels(process))
        self.assertEqual(len(process.descriptors), 7)
        self.end()

    def test_failure(self) -> None:
        """
        When there is no process, nothing is left of what it would have had.
        """
        self.reactor.spawnError = OSError(11, "Resource temporarily unavailable")
        self.assertRaises(OSError, self.spawn)
        self.assertEqual(sorted(os.listdir("/proc/self/fd")), self.before)

    def test_signalToTheDead(self) -> None:
        """
        A signal to a process that has ended goes nowhere.
        """
        process = self.spawn()
        self.end()
        process.signal(15)
        self.assertEqual(self.reactor.processes[0].signals, [])


class FlagTests(SynchronousTestCase):
    """
    The interpreter's flags.
    """

    def test_reachWorkers(self) -> None:
        """
        C{-O}, C{-W} and C{-X} of the watcher are those of its workers.
        """
        done = subprocess.run(
            [
                *(sys.executable, "-O", "-W", "error::UserWarning", "-X", "utf8"),
                "-c",
                "from twisted_cluster.supervisor.process import interpreterFlags; "
                "print(*interpreterFlags())",
            ],
            env={**os.environ, "PYTHONPATH": ROOT},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        for flag in ("-O", "-Werror::UserWarning", "utf8"):
            self.assertIn(flag, done.stdout)
