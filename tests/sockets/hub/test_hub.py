"""
The hub, and those who come to it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import socket
import stat
import struct
from typing import Any, Optional

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.sockethelpers import Events, descriptors, shortDirectory
from twisted_cluster.errors import (
    AlreadyStarted,
    ChannelClosed,
    HubClosed,
    HubRefused,
    HubTimeout,
    InvalidEndpoint,
    InvalidKey,
    NotRunning,
    ProtocolError,
)
from twisted_cluster.sockets.hub import handshake
from twisted_cluster.sockets.hub.client import connect
from twisted_cluster.sockets.hub.directory import HubDirectory
from twisted_cluster.sockets.hub.door import (
    LOG_EVERY,
    MOST_SILENT,
    PATIENCE,
    PAUSE,
    HubDoor,
)
from twisted_cluster.sockets.hub.hub import LIFETIME, LocalIPCHub
from twisted_cluster.testing import DescriptorReactor

WRONG = "f" * handshake.LENGTH
UNKNOWN = "the key is wrong, was used already, or has expired"


def joined(one: socket.socket, other: socket.socket) -> bool:
    """
    Whether two sockets are the ends of one connection, with nothing in it.
    """
    for sender, receiver in ((one, other), (other, one)):
        sender.send(b"hello")
        if receiver.recv(100) != b"hello":
            return False
    return True


class HubTestCase(SynchronousTestCase):
    """
    A hub in a directory of the test's own; afterwards no descriptor may be
    open, no directory be there, and nobody be waited for.
    """

    def setUp(self) -> None:
        self.directory = shortDirectory(self)
        self.before = descriptors()
        self.events = Events()
        for each in (HubDoor, HubDirectory):
            self.patch(each, "log", Logger("hub", observer=self.events))
        self.reactor: Any = DescriptorReactor()
        self.sockets: list[socket.socket] = []
        self.hub = self.newHub()
        self.successResultOf(self.hub.listen())
        self.addCleanup(self.assertNothingLeft)

    def assertNothingLeft(self) -> None:
        """
        Close everything; nothing may be left behind.
        """
        self.successResultOf(self.hub.close())
        for skt in self.sockets:
            skt.close()
        self.assertEqual(descriptors(), self.before)
        self.assertEqual(os.listdir(self.directory), [])
        self.assertEqual(self.reactor.getReaders(), [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def newHub(self) -> LocalIPCHub:
        """
        Make a hub in the test's directory.
        """
        return LocalIPCHub(self.reactor, self.directory)

    @property
    def path(self) -> str:
        """
        The path of the hub's socket.
        """
        return handshake.pathOf(self.hub.uri)

    def socketOf(self, done: Deferred[socket.socket]) -> socket.socket:
        """
        The socket that a Deferred has; it is closed with the test.
        """
        self.reactor.settle()
        skt = self.successResultOf(done)
        self.sockets.append(skt)
        return skt

    def errorOf(self, done: Deferred[socket.socket], *kinds: type[Exception]) -> str:
        """
        What a Deferred has failed with, which is of one of these kinds.
        """
        self.reactor.settle()
        return str(self.failureResultOf(done, *kinds).value)

    def raw(self, said: bytes = b"") -> socket.socket:
        """
        A connection to the hub that says something; it is closed with the test.
        """
        skt = socket.socket(socket.AF_UNIX)
        self.sockets.append(skt)
        skt.connect(self.path)
        skt.setblocking(False)
        skt.send(said)
        self.reactor.settle()
        return skt

    def answerTo(self, skt: socket.socket) -> Optional[bytes]:
        """
        Everything that the hub has answered, or L{None} when it keeps silent
        and has not closed the connection.
        """
        self.reactor.settle()
        try:
            return skt.recv(10_000)
        except BlockingIOError:
            return None

    def assertGetsIn(self) -> None:
        """
        A process that knows a key is let in.
        """
        key = self.hub.generateKey()
        there = connect(self.reactor, self.hub.uri, key)
        here = self.socketOf(self.hub.accept(key))
        self.assertTrue(joined(here, self.socketOf(there)))


class Meetings(HubTestCase):
    """
    Both ends are there.
    """

    def test_acceptedFirst(self) -> None:
        """
        Who is waited for is let in, and the two are joined.
        """
        key = self.hub.generateKey()
        accepted = self.hub.accept(key)
        self.reactor.settle()
        self.assertNoResult(accepted)
        connected = connect(self.reactor, self.hub.uri, key)
        here, there = self.socketOf(accepted), self.socketOf(connected)
        self.assertTrue(joined(here, there))
        self.assertEqual(self.events, [])

    def test_connectedFirst(self) -> None:
        """
        Who comes before it is waited for waits, and is answered only when it
        is taken over.
        """
        key = self.hub.generateKey()
        connected = connect(self.reactor, self.hub.uri, key)
        self.reactor.elapse(PATIENCE * 2)
        self.assertNoResult(connected)
        here = self.socketOf(self.hub.accept(key))
        self.assertTrue(joined(here, self.socketOf(connected)))

    def test_several(self) -> None:
        """
        Many may come at once, in any order, and each is given to who waits for
        its key.
        """
        keys = [self.hub.generateKey() for _ in range(20)]
        accepted = {key: self.hub.accept(key) for key in keys[::2]}
        connected = {
            key: connect(self.reactor, self.hub.uri, key) for key in reversed(keys)
        }
        self.reactor.settle()
        accepted.update((key, self.hub.accept(key)) for key in keys[1::2])
        for key in keys:
            here, there = self.socketOf(accepted[key]), self.socketOf(connected[key])
            self.assertTrue(joined(here, there))

    def test_sockets(self) -> None:
        """
        Both sides get sockets that are non-blocking and close-on-exec.
        """
        key = self.hub.generateKey()
        connected = connect(self.reactor, self.hub.uri, key)
        for done in (self.hub.accept(key), connected):
            skt = self.socketOf(done)
            flags = fcntl.fcntl(skt, fcntl.F_GETFD)
            self.assertTrue(flags & fcntl.FD_CLOEXEC)
            self.assertFalse(skt.getblocking())
            self.assertEqual(skt.family, socket.AF_UNIX)

    def test_notSwallowed(self) -> None:
        """
        What follows the key and what follows the answer, descriptors included,
        is left to those who are joined.
        """
        key = self.hub.generateKey()
        connected = connect(self.reactor, self.hub.uri, key)
        accepted = self.hub.accept(key)

        def first(here: socket.socket) -> socket.socket:
            socket.send_fds(here, [b"with a descriptor"], [0])
            return here

        accepted.addCallback(first)
        self.socketOf(accepted)
        there = self.socketOf(connected)
        data, received, _, _ = socket.recv_fds(there, 100, 2)
        self.assertEqual((data, len(received)), (b"with a descriptor", 1))
        os.close(received[0])
        other = self.hub.generateKey()
        skt = self.raw(other[:30].encode())
        skt.send(other[30:].encode() + b"too early")
        here = self.socketOf(self.hub.accept(other))
        self.assertEqual(here.recv(100), b"too early")
        self.assertEqual(self.answerTo(skt), b"ok")

    def test_slowly(self) -> None:
        """
        A key may come in pieces.
        """
        key = self.hub.generateKey()
        accepted = self.hub.accept(key)
        skt = self.raw()
        for character in key:
            self.assertNoResult(accepted)
            skt.send(character.encode())
            self.reactor.settle()
        self.socketOf(accepted)
        self.assertEqual(self.answerTo(skt), b"ok")

    def test_longPath(self) -> None:
        """
        The directory may be deeper than the kernel likes.
        """
        self.hub.close()
        deep = os.path.join(self.directory, "d" * 100, "e" * 100)
        os.makedirs(deep)
        self.hub = LocalIPCHub(self.reactor, deep)
        self.successResultOf(self.hub.listen())
        self.assertGetsIn()
        self.hub.close()
        os.removedirs(deep)
        os.mkdir(self.directory)


class Refusals(HubTestCase):
    """
    Those who are not let in.
    """

    def test_wrongKey(self) -> None:
        """
        Who says a wrong key is told so, and who is waited for still gets in.
        """
        key = self.hub.generateKey()
        accepted = self.hub.accept(key)
        error = self.errorOf(connect(self.reactor, self.hub.uri, WRONG), HubRefused)
        self.assertIn(UNKNOWN, error)
        self.assertIn(self.path, error)
        self.assertNoResult(accepted)
        connected = connect(self.reactor, self.hub.uri, key)
        self.assertTrue(joined(self.socketOf(accepted), self.socketOf(connected)))

    def test_replayed(self) -> None:
        """
        A key lets one process in, whether that was taken over yet or not.
        """
        key = self.hub.generateKey()
        connected = connect(self.reactor, self.hub.uri, key)
        self.reactor.settle()
        for _ in range(2):
            replayed = connect(self.reactor, self.hub.uri, key)
            self.assertIn(UNKNOWN, self.errorOf(replayed, HubRefused))
        here = self.socketOf(self.hub.accept(key))
        replayed = connect(self.reactor, self.hub.uri, key)
        self.assertIn(UNKNOWN, self.errorOf(replayed, HubRefused))
        self.assertTrue(joined(here, self.socketOf(connected)))

    def test_garbage(self) -> None:
        """
        Whatever else is said, of it no more than a key's length is read, and
        it is refused.
        """
        for garbage in (b"\0" * 64, b"\xff" * 100_000, b"GET / HTTP/1.1\r\n" * 10):
            answer = self.answerTo(self.raw(garbage))
            self.assertEqual(answer, b"no" + UNKNOWN.encode())
        self.assertGetsIn()

    def test_descriptorsSaid(self) -> None:
        """
        Descriptors that come with a key do not stay.
        """
        skt = self.raw()
        before = descriptors()
        socket.send_fds(skt, [b"half"], [0, 0, 0])
        self.reactor.settle()
        self.assertEqual(descriptors(), before)

    def test_logged(self) -> None:
        """
        The first refusal is logged, and of those that follow one in a hundred.
        """
        for _ in range(LOG_EVERY + 1):
            self.raw(WRONG.encode()).close()
        self.assertEqual(
            self.events.texts,
            [
                f"the hub refuses a connection, its number {number}: {UNKNOWN}"
                for number in (1, LOG_EVERY + 1)
            ],
        )
        self.assertNotIn(WRONG, repr(self.events))

    def test_otherUser(self) -> None:
        """
        A process of another user is refused before it has said anything,
        although it knows a key, which stays good.
        """
        key = self.hub.generateKey()
        accepted = self.hub.accept(key)
        us = os.geteuid()
        patch = self.patch(handshake, "userOf", lambda skt: us + 1)
        skt = self.raw()
        self.assertEqual(
            self.answerTo(skt), b"noit is user %d's, and not user %d's" % (us, us + 1)
        )
        self.assertEqual(len(self.events), 1)
        patch.restore()
        connected = connect(self.reactor, self.hub.uri, key)
        self.assertTrue(joined(self.socketOf(accepted), self.socketOf(connected)))

    def test_userOfTheHub(self) -> None:
        """
        A process does not say its key to a hub of another user.
        """
        us = os.geteuid()
        self.patch(handshake, "userOf", lambda skt: us + 1)
        self.patch(os, "geteuid", lambda: us or 1000)
        done = connect(self.reactor, self.hub.uri, self.hub.generateKey())
        failure = self.failureResultOf(done, HubRefused)
        self.assertIn(f"is user {us + 1}'s, not {us or 1000}'s", str(failure.value))
        self.reactor.settle()

    def test_whoseIsIt(self) -> None:
        """
        It is the kernel that is asked whose a connection is.
        """
        asked: list[int] = []

        class Asked(socket.socket):
            def getsockopt(self, *what: int) -> Any:
                asked.append(what[1])
                found: Any = super().getsockopt(*what)
                pid, uid, gid = struct.unpack("3i", found)
                return struct.pack("3i", pid, uid + 1, gid)

        one, other = socket.socketpair()
        with one, other, Asked(fileno=os.dup(one.fileno())) as skt:
            self.assertEqual(handshake.userOf(skt), os.geteuid() + 1)
        self.assertEqual(asked, [socket.SO_PEERCRED])


class Limits(HubTestCase):
    """
    Those who take too long, or are too many.
    """

    def test_silent(self) -> None:
        """
        Who says nothing, or half a key, is turned away after a time, with the
        reason; saying a little now and then does not help.
        """
        half = self.raw(b"0" * 32)
        silent = self.raw()
        self.reactor.elapse(PATIENCE / 2)
        half.send(b"0")
        self.reactor.elapse(PATIENCE / 2 - 0.2)
        for skt in (half, silent):
            self.assertIsNone(self.answerTo(skt))
        self.reactor.elapse(0.2)
        for skt in (half, silent):
            self.assertEqual(self.answerTo(skt), b"nono key was said within 5 s")
        self.assertGetsIn()

    def test_tooMany(self) -> None:
        """
        Of those who are silent no more than so many are accepted; who comes
        later waits, without costing anything, and gets in once there is room.
        """
        before = descriptors()
        silent = [self.raw() for _ in range(MOST_SILENT)]
        key = self.hub.generateKey()
        accepted = self.hub.accept(key)
        more = [self.raw() for _ in range(5)]
        connected = connect(self.reactor, self.hub.uri, key)
        self.reactor.elapse(PATIENCE - 0.2)
        self.assertNoResult(accepted)
        clients = len(silent) + len(more) + 1
        self.assertEqual(descriptors(), before + clients + MOST_SILENT)
        self.reactor.elapse(0.2)
        self.assertTrue(joined(self.socketOf(accepted), self.socketOf(connected)))
        for skt in more:
            self.assertIsNone(self.answerTo(skt))

    def test_roomByLeaving(self) -> None:
        """
        There is room, too, when one of the silent hangs up.
        """
        silent = [self.raw() for _ in range(MOST_SILENT)]
        key = self.hub.generateKey()
        accepted = self.hub.accept(key)
        connected = connect(self.reactor, self.hub.uri, key)
        self.reactor.settle()
        self.assertNoResult(accepted)
        silent[30].close()
        self.assertTrue(joined(self.socketOf(accepted), self.socketOf(connected)))

    def test_hangsUp(self) -> None:
        """
        Who hangs up without a key, or with half of it, leaves nothing behind.
        """
        before = descriptors()
        for said in (b"", b"0" * 32):
            self.raw(said).close()
            half = self.raw(said)
            half.shutdown(socket.SHUT_WR)
            self.assertEqual(self.answerTo(half), b"")
            half.close()
        self.assertEqual(descriptors(), before)
        self.assertEqual(self.events, [])

    def test_gone(self) -> None:
        """
        Who has said its key and is gone when it is waited for is said to be.
        """
        key = self.hub.generateKey()
        self.raw(key.encode()).close()
        self.reactor.settle()
        error = self.errorOf(self.hub.accept(key), ChannelClosed)
        self.assertIn("who said the key has gone already", error)
        self.assertIn("was used", self.errorOf(self.hub.accept(key), InvalidKey))

    def test_noDescriptors(self) -> None:
        """
        When this process has no descriptor left, the hub says so once, waits
        without spinning, and goes on when it has.
        """
        key = self.hub.generateKey()
        accepted = self.hub.accept(key)
        connected = connect(self.reactor, self.hub.uri, key)
        spare = os.dup(0)
        os.close(spare)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (spare, limits[1]))
        try:
            self.reactor.settle()
            self.reactor.elapse(PAUSE * 5)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        self.assertNoResult(accepted)
        [text] = self.events.texts
        self.assertIn("Too many open files", text)
        self.reactor.elapse(PAUSE)
        self.assertTrue(joined(self.socketOf(accepted), self.socketOf(connected)))

    def test_pause(self) -> None:
        """
        While the hub waits for a descriptor nothing makes it try, and it can
        be closed.
        """
        silent = self.raw()
        tried: list[None] = []

        def accept(skt: socket.socket) -> Any:
            tried.append(None)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        self.patch(socket.socket, "accept", accept)
        self.raw()
        silent.close()
        self.raw()
        self.assertEqual(len(tried), 1)
        self.reactor.elapse(PAUSE)
        self.assertEqual(len(tried), 2)
        self.hub.close()


class Keys(HubTestCase):
    """
    The life of a key.
    """

    def test_timeout(self) -> None:
        """
        A wait ends; the key is used up by it.
        """
        key = self.hub.generateKey()
        accepted = self.hub.accept(key, timeout=3)
        self.reactor.elapse(2.9)
        self.assertNoResult(accepted)
        self.reactor.elapse(0.2)
        error = self.errorOf(accepted, HubTimeout)
        self.assertEqual(error, "nobody said the key within 3 s")
        late = connect(self.reactor, self.hub.uri, key)
        self.assertIn(UNKNOWN, self.errorOf(late, HubRefused))
        self.errorOf(self.hub.accept(key), InvalidKey)

    def test_cancelled(self) -> None:
        """
        Who does not want to wait any more cancels, and the key is used up.
        """
        key = self.hub.generateKey()
        accepted = self.hub.accept(key)
        accepted.cancel()
        self.failureResultOf(accepted, CancelledError)
        late = connect(self.reactor, self.hub.uri, key)
        self.errorOf(late, HubRefused)

    def test_unknown(self) -> None:
        """
        Keys of another hub, and other texts, cannot be waited for.
        """
        for key in (WRONG, "", "é" * 64):
            error = self.errorOf(self.hub.accept(key), InvalidKey)
            self.assertIn("generateKey()", error)

    def test_twice(self) -> None:
        """
        One waits for a key, not two; the first is not disturbed.
        """
        key = self.hub.generateKey()
        accepted = self.hub.accept(key)
        error = self.errorOf(self.hub.accept(key), InvalidKey)
        self.assertEqual(error, "somebody waits for this key already")
        connected = connect(self.reactor, self.hub.uri, key)
        self.assertTrue(joined(self.socketOf(accepted), self.socketOf(connected)))

    def test_used(self) -> None:
        """
        A key that was used cannot be waited for again.
        """
        key = self.hub.generateKey()
        connect(self.reactor, self.hub.uri, key).addCallback(self.sockets.append)
        self.socketOf(self.hub.accept(key))
        self.assertIn("was used", self.errorOf(self.hub.accept(key), InvalidKey))

    def test_expires(self) -> None:
        """
        A key with a lifetime expires: for who comes, for who has come, and for
        who waits, however long that one would.
        """
        unused, come, awaited, used = (self.hub.generateKey(4) for _ in range(4))
        visitor = connect(self.reactor, self.hub.uri, come)
        waiting = self.hub.accept(awaited, timeout=60)
        connected = connect(self.reactor, self.hub.uri, used)
        here = self.socketOf(self.hub.accept(used))
        self.reactor.elapse(3.9)
        self.assertNoResult(visitor)
        self.assertNoResult(waiting)
        self.reactor.elapse(0.2)
        expired = "the key has expired after 4 s"
        self.assertIn(expired, self.errorOf(visitor, HubRefused))
        self.assertEqual(self.errorOf(waiting, HubTimeout), expired)
        late = connect(self.reactor, self.hub.uri, unused)
        self.assertIn(UNKNOWN, self.errorOf(late, HubRefused))
        for key in (unused, come, awaited):
            self.errorOf(self.hub.accept(key), InvalidKey)
        self.assertTrue(joined(here, self.socketOf(connected)))

    def test_lives(self) -> None:
        """
        A key without a lifetime does not expire while somebody waits for it.
        """
        key = self.hub.generateKey()
        self.reactor.advance(LIFETIME - 1)
        accepted = self.hub.accept(key, timeout=1_000_000)
        self.reactor.advance(999_999)
        connected = connect(self.reactor, self.hub.uri, key)
        self.socketOf(accepted)
        self.socketOf(connected)

    def test_forgotten(self) -> None:
        """
        A key without a lifetime for which nobody waits expires after a minute; who
        has said it is told, and nothing is left of it.
        """
        before = descriptors()
        unused, come = self.hub.generateKey(), self.hub.generateKey()
        visitor = connect(self.reactor, self.hub.uri, come, timeout=100)
        self.reactor.elapse(LIFETIME - 1)
        self.assertNoResult(visitor)
        self.reactor.elapse(2)
        expired = "the key has expired after 60 s"
        self.assertIn(expired, self.errorOf(visitor, HubRefused))
        for key in (unused, come):
            self.errorOf(self.hub.accept(key), InvalidKey)
        self.assertEqual(descriptors(), before)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_saidAndGone(self) -> None:
        """
        The connection of who has said a key and hangs up is closed at once,
        although nobody waits; the key is used.
        """
        before = descriptors()
        keys = [self.hub.generateKey() for _ in range(3)]
        gone, killed, kept = (self.raw(key.encode()) for key in keys)
        self.assertEqual(descriptors(), before + 6)
        gone.close()
        killed.shutdown(socket.SHUT_WR)
        self.reactor.settle()
        self.assertEqual(descriptors(), before + 3)
        late = connect(self.reactor, self.hub.uri, keys[0])
        self.assertIn(UNKNOWN, self.errorOf(late, HubRefused))
        error = self.errorOf(self.hub.accept(keys[0]), ChannelClosed)
        self.assertEqual(error, "who said the key has gone already")
        self.reactor.elapse(LIFETIME)
        for key in keys:
            self.errorOf(self.hub.accept(key), InvalidKey)
        self.assertTrue((self.answerTo(kept) or b"").startswith(b"no"))

    def test_saidTooMuch(self) -> None:
        """
        Who says more than the key before it was answered is not watched, since
        that is not to be read, but still loses its connection with the key.
        """
        key = self.hub.generateKey()
        skt = self.raw(key.encode() + b"too early")
        self.assertEqual(len(self.reactor.getReaders()), 1)
        skt.close()
        self.reactor.elapse(LIFETIME)
        self.errorOf(self.hub.accept(key), InvalidKey)


class Life(HubTestCase):
    """
    The life of a hub.
    """

    def test_private(self) -> None:
        """
        The socket is for its owner, and so is the directory, whatever the
        umask.
        """
        old = os.umask(0)
        self.addCleanup(os.umask, old)
        hub = self.newHub()
        self.successResultOf(hub.listen())
        path = handshake.pathOf(hub.uri)
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        directory = os.path.dirname(path)
        self.assertEqual(stat.S_IMODE(os.stat(directory).st_mode), 0o700)
        hub.close()

    def test_close(self) -> None:
        """
        Closing ends every wait, closes what was not handed out, and leaves
        alone what was.
        """
        used, come, awaited = (self.hub.generateKey() for _ in range(3))
        connected = connect(self.reactor, self.hub.uri, used)
        here = self.socketOf(self.hub.accept(used))
        there = self.socketOf(connected)
        visitor = connect(self.reactor, self.hub.uri, come)
        waiting = self.hub.accept(awaited)
        silent = self.raw(b"half a key")
        inBacklog = socket.socket(socket.AF_UNIX)
        self.sockets.append(inBacklog)
        inBacklog.connect(self.path)
        done = self.hub.close()
        self.successResultOf(done)
        self.assertEqual(self.errorOf(waiting, HubClosed), "the hub was closed")
        error = self.errorOf(visitor, HubClosed)
        self.assertIn("closed the connection; start this process anew", error)
        self.assertEqual(self.answerTo(silent), b"")
        self.assertRaises(ConnectionResetError, inBacklog.recv, 1)
        self.assertTrue(joined(here, there))
        self.assertEqual(os.listdir(self.directory), [])

    def test_closeTwice(self) -> None:
        """
        A hub may be closed any number of times, also while it is being closed.
        """
        key, other = self.hub.generateKey(), self.hub.generateKey()
        waiting, alike = self.hub.accept(key), self.hub.accept(other)
        waiting.addErrback(lambda _: self.successResultOf(self.hub.close()))
        self.successResultOf(self.hub.close())
        self.successResultOf(waiting)
        self.failureResultOf(alike, HubClosed)
        self.successResultOf(self.hub.close())

    def test_closedByWhoWaited(self) -> None:
        """
        Whoever was waiting may close the hub as soon as it is answered.
        """
        key = self.hub.generateKey()
        accepted = self.hub.accept(key)

        def last(skt: socket.socket) -> socket.socket:
            self.hub.close()
            return skt

        accepted.addCallback(last)
        connected = connect(self.reactor, self.hub.uri, key)
        self.assertTrue(joined(self.socketOf(accepted), self.socketOf(connected)))

    def test_notRunning(self) -> None:
        """
        A hub that does not listen yet, or any more, says so.
        """
        closed = self.newHub()
        self.successResultOf(closed.listen())
        key = closed.generateKey()
        closed.close()
        for hub in (self.newHub(), closed):
            self.assertRaises(NotRunning, lambda hub=hub: hub.uri)
            self.assertRaises(NotRunning, hub.generateKey)
            self.errorOf(hub.accept(key), NotRunning)

    def test_listensOnce(self) -> None:
        """
        A hub listens once, and a closed one never again.
        """
        uri = self.hub.uri
        self.failureResultOf(self.hub.listen(), AlreadyStarted)
        self.assertEqual(self.hub.uri, uri)
        self.hub.close()
        self.failureResultOf(self.hub.listen(), AlreadyStarted)
        never = self.newHub()
        never.close()
        self.failureResultOf(never.listen(), AlreadyStarted)

    def test_cannotListen(self) -> None:
        """
        A hub that cannot listen leaves nothing behind, and may try again.
        """

        def fails(skt: socket.socket, backlog: int) -> None:
            raise OSError("nobody may listen")

        hub = self.newHub()
        before = descriptors(), os.listdir(self.directory)
        patch = self.patch(socket.socket, "listen", fails)
        self.failureResultOf(hub.listen(), OSError)
        self.assertEqual((descriptors(), os.listdir(self.directory)), before)
        patch.restore()
        self.successResultOf(hub.listen())
        hub.close()

    def test_reactorStops(self) -> None:
        """
        When the reactor stops, the hub closes: its directory goes, and nobody
        waits in vain.
        """
        key, other = self.hub.generateKey(), self.hub.generateKey()
        waiting = self.hub.accept(key)
        connecting = connect(self.reactor, self.hub.uri, other)
        silent = self.raw()
        for each in self.reactor.removeAll():
            each.connectionLost(Failure(ConnectionError("the reactor stops")))
        self.failureResultOf(waiting, HubClosed)
        self.failureResultOf(connecting, HubClosed)
        self.assertEqual(self.answerTo(silent), b"")
        self.assertEqual(os.listdir(self.directory), [])

    def test_directoryIsGone(self) -> None:
        """
        A hub whose directory was removed by somebody closes all the same.
        """
        os.unlink(self.path)
        os.rmdir(os.path.dirname(self.path))
        self.hub.close()
        self.assertEqual(self.events, [])


class Connecting(HubTestCase):
    """
    The other end, with what is or is not a hub.
    """

    def setUp(self) -> None:
        super().setUp()
        self.listener = socket.socket(socket.AF_UNIX)
        self.sockets.append(self.listener)
        path = os.path.join(self.directory, "listener")
        self.listener.bind(path)
        self.listener.listen(0)
        self.uri = handshake.uriOf(path)
        self.addCleanup(os.unlink, path)

    def call(self, timeout: float = 30) -> Deferred[socket.socket]:
        """
        Connect to the test's own listener.
        """
        return connect(self.reactor, self.uri, WRONG, timeout)

    def served(self) -> socket.socket:
        """
        Accept who has connected to the test's own listener, and let it say its
        key.
        """
        self.reactor.settle()
        skt, _ = self.listener.accept()
        self.sockets.append(skt)
        self.assertEqual(skt.recv(100), WRONG.encode())
        return skt

    def test_noHub(self) -> None:
        """
        Where there is no hub any more the error names the path, and the way
        out: no directory, no socket, nobody who listens.
        """
        uri = self.hub.uri
        self.hub.close()
        self.listener.close()
        path = os.path.join(self.directory, "listener")
        for wrong in (uri, self.uri + "-not", self.uri + "/not", self.uri):
            error = self.errorOf(connect(self.reactor, wrong, WRONG), HubClosed)
            self.assertIn(handshake.pathOf(wrong), error)
            self.assertIn("start this process anew", error)
        self.assertTrue(issubclass(HubClosed, ConnectionError))
        self.assertTrue(os.path.exists(path))

    def test_mayNotReach(self) -> None:
        """
        A path that this process may not reach is another user's.
        """

        class Denied(socket.socket):
            def connect(self, path: Any) -> None:
                raise PermissionError(errno.EACCES, "Permission denied")

        self.patch(socket, "socket", Denied)
        error = self.errorOf(self.call(), HubRefused)
        self.assertIn(f"{handshake.pathOf(self.uri)} is another user's", error)

    def test_otherErrors(self) -> None:
        """
        What else goes wrong is told as it is: no stream socket, a name that is
        too long, no descriptor left.
        """
        datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sockets.append(datagrams)
        path = os.path.join(self.directory, "datagrams")
        datagrams.bind(path)
        self.errorOf(connect(self.reactor, "unix:" + path, WRONG), OSError)
        os.unlink(path)
        self.errorOf(connect(self.reactor, self.uri + "n" * 200, WRONG), OSError)
        spare = os.dup(0)
        os.close(spare)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (spare, limits[1]))
        try:
            done = self.call()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        self.errorOf(done, OSError)

    def test_usage(self) -> None:
        """
        What cannot be a uri or a key fails at once, and nobody is bothered.
        """
        done = connect(self.reactor, "tcp:8080", WRONG)
        self.failureResultOf(done, InvalidEndpoint)
        self.failureResultOf(connect(self.reactor, self.uri, "short"), InvalidKey)

    def test_timeout(self) -> None:
        """
        A hub that does not answer is waited for as long as was said.
        """
        done = self.call(timeout=3)
        skt = self.served()
        self.reactor.elapse(2.9)
        self.assertNoResult(done)
        self.reactor.elapse(0.2)
        error = self.errorOf(done, HubTimeout)
        self.assertIn(
            f"{handshake.pathOf(self.uri)} did not let this process in", error
        )
        self.assertIn("within 3 s", error)
        self.assertEqual(skt.recv(1), b"")
        self.assertTrue(issubclass(HubTimeout, TimeoutError))

    def test_cancelled(self) -> None:
        """
        A connection that is not wanted any more is closed.
        """
        done = self.call()
        skt = self.served()
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.assertEqual(skt.recv(1), b"")

    def test_answerInPieces(self) -> None:
        """
        The answer may come in pieces, and what follows it is not read.
        """
        done = self.call()
        skt = self.served()
        skt.send(b"o")
        self.reactor.settle()
        self.assertNoResult(done)
        skt.send(b"knot read")
        self.assertEqual(self.socketOf(done).recv(100), b"not read")

    def test_refusalInPieces(self) -> None:
        """
        A refusal ends with the connection.
        """
        done = self.call()
        skt = self.served()
        for piece in (b"n", b"o", b"for a ", b"reason\xff"):
            skt.send(piece)
            self.reactor.settle()
            self.assertNoResult(done)
        skt.close()
        self.assertIn("refused: for a reason", self.errorOf(done, HubRefused))

    def test_refusedAtOnce(self) -> None:
        """
        A refusal is read although the hub did not wait for the key.
        """
        self.listener.close()
        os.unlink(handshake.pathOf(self.uri))
        with socket.socket(socket.AF_UNIX) as hasty:
            hasty.bind(handshake.pathOf(self.uri))
            hasty.listen()
            real = handshake.userOf

            def meanwhile(skt: socket.socket) -> int:
                accepted, _ = hasty.accept()
                accepted.send(b"noat once")
                accepted.close()
                return real(skt)

            self.patch(handshake, "userOf", meanwhile)
            self.assertIn("refused: at once", self.errorOf(self.call(), HubRefused))

    def test_endlessRefusal(self) -> None:
        """
        A refusal that does not end is cut.
        """
        done = self.call()
        self.served().send(b"no" + b"x" * 100_000)
        self.assertLess(len(self.errorOf(done, HubRefused)), 800)

    def test_noAnswer(self) -> None:
        """
        A hub that closes the connection without a word has been closed.
        """
        done = self.call()
        self.served().close()
        self.assertIn("closed the connection", self.errorOf(done, HubClosed))

    def test_somethingElse(self) -> None:
        """
        Who answers otherwise is no hub.
        """
        for answer in (b"HTTP/1.1 400", b"o", b"nx"):
            done = self.call()
            skt = self.served()
            skt.send(answer)
            skt.close()
            self.assertIn("is no hub", self.errorOf(done, ProtocolError))

    def test_crowd(self) -> None:
        """
        When as many wait at the hub as may, one tries again until there is
        room; that takes no turns of the reactor.
        """
        first = self.call()
        second = self.call()
        self.reactor.elapse(1)
        self.served()
        self.reactor.elapse(0.1)
        skt = self.served()
        skt.send(b"ok")
        self.socketOf(second)
        first.cancel()
        self.failureResultOf(first, CancelledError)

    def test_crowdTooLong(self) -> None:
        """
        Trying again ends, too.
        """
        first, second = self.call(timeout=100), self.call(timeout=2)
        self.reactor.elapse(2.1)
        self.assertIn("within 2 s", self.errorOf(second, HubTimeout))
        first.cancel()
        self.failureResultOf(first, CancelledError)
