"""
Private directories of hubs.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase

from tests.sockethelpers import Events, descriptors, shortDirectory
from twisted_cluster.sockets.hub.directory import NAME, PREFIX, HubDirectory


class HubDirectoryTests(SynchronousTestCase):
    """
    L{HubDirectory}; afterwards no descriptor may be left open.
    """

    def setUp(self) -> None:
        self.parent = shortDirectory(self)
        self.events = Events()
        self.patch(HubDirectory, "log", Logger("hub", observer=self.events))
        before = descriptors()
        self.addCleanup(lambda: self.assertEqual(before, descriptors()))

    def make(self) -> HubDirectory:
        """
        Make a directory in the test's own.
        """
        return HubDirectory.make(self.parent)

    def left(self, name: str = PREFIX + "dead") -> str:
        """
        Make what a hub leaves behind that was killed.
        """
        path = os.path.join(self.parent, name)
        os.mkdir(path, 0o700)
        with open(os.path.join(path, NAME), "w"):
            pass
        return path

    def test_private(self) -> None:
        """
        It is a directory of its own, which nobody else may look into, whatever
        the umask.
        """
        old = os.umask(0)
        self.addCleanup(os.umask, old)
        made = [self.make(), self.make()]
        self.assertNotEqual(made[0].path, made[1].path)
        for each in made:
            mode = os.stat(each.path).st_mode
            self.assertEqual(stat.S_IMODE(mode), 0o700)
            self.assertEqual(os.path.dirname(each.path), self.parent)
            self.assertEqual(os.path.dirname(each.socketPath), each.path)
            each.remove()

    def test_temporary(self) -> None:
        """
        By default it is in the directory for temporary files, however that
        was named.
        """
        self.patch(tempfile, "tempdir", os.path.relpath(self.parent))
        made = HubDirectory.make()
        self.assertEqual(os.path.dirname(made.path), self.parent)
        made.remove()

    def test_remove(self) -> None:
        """
        It is removed with its socket, and nothing is said of it.
        """
        made = self.make()
        with open(made.socketPath, "w"):
            pass
        made.remove()
        self.assertEqual((os.listdir(self.parent), self.events), ([], []))

    def test_alreadyGone(self) -> None:
        """
        A directory that somebody else removed is no trouble.
        """
        made = self.make()
        os.rmdir(made.path)
        made.remove()
        self.assertEqual(self.events, [])

    def test_strangeFile(self) -> None:
        """
        What a hub did not make is not removed: the log tells.
        """
        made = self.make()
        strange = os.path.join(made.path, "strange")
        os.mkdir(strange)
        made.remove()
        self.assertTrue(os.path.exists(strange))
        [text] = self.events.texts
        self.assertIn(f"cannot remove the hub's directory {made.path}", text)

    def test_stale(self) -> None:
        """
        Making one removes those whose makers have died, and leaves those whose
        makers live, and whatever is called otherwise.
        """
        stale = [self.left(), self.left(PREFIX + "other")]
        other = self.left("somebody-elses")
        living = self.make()
        for path in stale:
            self.assertFalse(os.path.exists(path))
        self.assertTrue(os.path.exists(other))
        self.assertEqual(len(self.events.texts), 2)
        self.assertIn("which a hub had left behind", self.events.texts[0])
        again = self.make()
        self.assertTrue(os.path.exists(living.path))
        living.remove()
        again.remove()

    def test_strangers(self) -> None:
        """
        What only has the name of a stale directory stays: a file, a link to a
        directory, a directory of another user.
        """
        target = self.left("target")
        os.symlink(target, os.path.join(self.parent, PREFIX + "link"))
        with open(os.path.join(self.parent, PREFIX + "file"), "w"):
            pass
        foreign = self.left(PREFIX + "foreign")
        before = sorted(os.listdir(self.parent))
        us = os.geteuid()
        inode = os.stat(foreign).st_ino
        fstat = os.fstat

        def seen(descriptor: int) -> Any:
            found = fstat(descriptor)
            if found.st_ino != inode:
                return found
            return os.stat_result((*found[:4], us + 1, *found[5:]))

        self.patch(os, "fstat", seen)
        self.make().remove()
        self.assertEqual(sorted(os.listdir(self.parent)), before)
        self.assertTrue(os.path.exists(os.path.join(target, NAME)))

    def test_race(self) -> None:
        """
        One that is taken for stale before its maker could lock it is given up,
        and another is made: removed already, or about to be.
        """
        mkdtemp: Callable[..., str] = tempfile.mkdtemp
        made: list[str] = []
        locked: list[int] = []

        def slowly(**options: Any) -> str:
            path = mkdtemp(**options)
            made.append(path)
            if len(made) == 1:
                os.rmdir(path)
            if len(made) == 2:
                locked.append(os.open(path, os.O_RDONLY))
                fcntl.flock(locked[0], fcntl.LOCK_EX)
            return path

        self.patch(tempfile, "mkdtemp", slowly)
        survivor = self.make()
        os.close(locked[0])
        self.assertEqual(survivor.path, made[2])
        os.rmdir(made[1])
        survivor.remove()
        self.assertEqual(os.listdir(self.parent), [])

    def test_replaced(self) -> None:
        """
        The lock of a directory that has been replaced is not one of its
        successor.
        """
        flock = fcntl.flock
        made: list[str] = []

        def late(descriptor: int, how: int) -> None:
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            if not made:
                made.append(path)
                os.rename(path, path + "-away")
                os.mkdir(path)
            flock(descriptor, how)

        self.patch(fcntl, "flock", late)
        survivor = self.make()
        self.assertNotIn(survivor.path, made)
        survivor.remove()

    def test_cannotLock(self) -> None:
        """
        Where directories cannot be locked, none is left behind.
        """

        def fails(descriptor: int, how: int) -> None:
            raise OSError("no locks here")

        self.patch(fcntl, "flock", fails)
        self.left()
        self.assertRaises(OSError, self.make)
        self.assertEqual(os.listdir(self.parent), [PREFIX + "dead"])

    def test_nowhere(self) -> None:
        """
        Where there is no directory, none can be made.
        """
        missing = os.path.join(self.parent, "missing")
        self.assertRaises(FileNotFoundError, HubDirectory.make, missing)

    def test_unlistable(self) -> None:
        """
        Where one may make directories and not list them, one is made.
        """

        def scandir(path: str) -> Any:
            raise PermissionError("not to be listed")

        self.patch(os, "scandir", scandir)
        self.make().remove()
