"""
The descriptors that the watcher was given.
"""

from __future__ import annotations

import os
import socket

from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.supervisor import inherited
from twisted_cluster.supervisor.inherited import (
    InheritedDescriptors,
    activatedDescriptors,
    inheritedDescriptors,
)

PID = 4711


class InheritedDescriptorsTests(SynchronousTestCase):
    """
    L{inheritedDescriptors}.
    """

    def openSocket(self, inheritable: bool) -> int:
        """
        Open a socket that is closed at the end.
        """
        skt = socket.socket()
        self.addCleanup(skt.close)
        skt.set_inheritable(inheritable)
        return skt.fileno()

    def activated(
        self, count: str, pid: str, *, first: int, opened: int
    ) -> InheritedDescriptors:
        """
        Ask with C{LISTEN_FDS}, after having opened some files at numbers that
        are free here, which stand for those from 3 on.
        """
        self.patch(inherited, "FIRST", first)
        for number in range(first, first + opened):
            os.dup2(2, number)
            self.addCleanup(os.close, number)
        return inheritedDescriptors({"LISTEN_FDS": count, "LISTEN_PID": pid}, PID)

    def test_inheritableSocket(self) -> None:
        """
        A socket that is inheritable was passed to us, one that is not was
        not, nor was a file.
        """
        passed = self.openSocket(True)
        own = self.openSocket(False)
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        self.addCleanup(os.close, writing)
        os.set_inheritable(reading, True)
        found = inheritedDescriptors({}, PID)
        self.assertIn(passed, found.descriptors)
        self.assertNotIn(own, found.descriptors)
        self.assertNotIn(reading, found.descriptors)
        self.assertEqual(found.listen, 0)

    def test_standardStreams(self) -> None:
        """
        The standard streams are never among them.
        """
        self.assertTrue(
            all(number > 2 for number in inheritedDescriptors({}, PID).descriptors)
        )

    def test_activated(self) -> None:
        """
        What a service manager passed is there, of whatever kind.
        """
        found = self.activated("3", str(PID), first=700, opened=3)
        self.assertEqual(found.listen, 3)
        self.assertLessEqual({700, 701, 702}, set(found.descriptors))

    def test_onlyActivated(self) -> None:
        """
        L{activatedDescriptors} takes no other socket for one that was passed.
        """
        self.openSocket(True)
        self.activated("2", str(PID), first=700, opened=2)
        environ = {"LISTEN_FDS": "2", "LISTEN_PID": str(PID)}
        self.assertEqual(
            activatedDescriptors(environ, PID), InheritedDescriptors((700, 701), 2)
        )
        self.assertEqual(activatedDescriptors({}, PID), InheritedDescriptors())

    def test_anotherProcess(self) -> None:
        """
        What was meant for another process is not ours.
        """
        found = self.activated("1", str(PID + 1), first=700, opened=1)
        self.assertEqual(found.listen, 0)
        self.assertNotIn(700, found.descriptors)

    def test_noPID(self) -> None:
        """
        A count that names no process, left over in an environment, is nobody's.
        """
        self.assertEqual(inheritedDescriptors({"LISTEN_FDS": "1"}, PID).listen, 0)

    def test_notOpen(self) -> None:
        """
        Numbers that are not open are not passed on.
        """
        found = self.activated("5", str(PID), first=700, opened=2)
        self.assertEqual(found.listen, 2)
        self.assertNotIn(702, found.descriptors)

    def test_garbage(self) -> None:
        """
        A count that is none counts nothing.
        """
        for count in ("", "many", "-1"):
            environ = {"LISTEN_FDS": count, "LISTEN_PID": str(PID)}
            self.assertEqual(inheritedDescriptors(environ, PID).listen, 0)

    def test_nothingIsTouched(self) -> None:
        """
        No descriptor is opened, closed or changed by asking.
        """
        passed = self.openSocket(True)
        before = os.listdir("/dev/fd")
        inheritedDescriptors({}, PID)
        self.assertEqual(os.listdir("/dev/fd"), before)
        self.assertTrue(os.get_inheritable(passed))
