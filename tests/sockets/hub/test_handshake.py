"""
Keys, users, and what a hub and its guests say.
"""

from __future__ import annotations

import hmac
import os
import socket

from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.errors import InvalidEndpoint, InvalidKey
from twisted_cluster.sockets.hub import handshake


class HandshakeTests(SynchronousTestCase):
    """
    The decisions, with no hub.
    """

    def test_keys(self) -> None:
        """
        Each key is new, and can be said.
        """
        keys = {handshake.newKey() for _ in range(100)}
        self.assertEqual(len(keys), 100)
        for key in keys:
            self.assertEqual(handshake.wordOf(key), key.encode())
            self.assertEqual(len(key), handshake.LENGTH)

    def test_noKeys(self) -> None:
        """
        What was damaged on its way is not said; the error tells what a key is,
        and does not hold the damaged one.
        """
        key = handshake.newKey()
        for damaged in ("", key[:-1], key + "0", key[:-1] + "G", key[:-1] + "é"):
            error = self.assertRaises(InvalidKey, handshake.wordOf, damaged)
            self.assertIn("64 hexadecimal digits", str(error))
            self.assertNotIn(key[:16], str(error))

    def test_which(self) -> None:
        """
        A key is found among others by what was said, and only if all of it is
        the same.
        """
        keys = [handshake.newKey() for _ in range(5)]
        for key in keys:
            self.assertEqual(handshake.whichKey(key.encode(), keys), key)
            wrong = key[:-1] + ("0" if key[-1] != "0" else "1")
            self.assertIsNone(handshake.whichKey(wrong.encode(), keys))
        for word in (b"", b"\xff" * 64, keys[0].encode() + b"0"):
            self.assertIsNone(handshake.whichKey(word, keys))
        self.assertIsNone(handshake.whichKey(keys[0].encode(), []))

    def test_sameWork(self) -> None:
        """
        Every key is compared as a whole, in constant time, also when the first
        was the right one.
        """
        compared: list[bytes] = []
        digest = hmac.compare_digest

        def compare(one: bytes, other: bytes) -> bool:
            compared.append(other)
            return digest(one, other)

        self.patch(hmac, "compare_digest", compare)
        keys = [handshake.newKey() for _ in range(5)]
        handshake.whichKey(keys[0].encode(), keys)
        self.assertEqual(compared, [key.encode() for key in keys])

    def test_refusal(self) -> None:
        """
        A refusal cannot be taken for anything else, nor be longer than a
        reader expects.
        """
        self.assertEqual(handshake.refusal("for a reason"), b"nofor a reason")
        longest = handshake.refusal("x" * 10_000)
        self.assertEqual(len(longest), handshake.LONGEST_REFUSAL)
        self.assertFalse(handshake.REFUSED.startswith(handshake.TAKEN[:1]))

    def test_uri(self) -> None:
        """
        A path becomes a uri and a path again, whatever is in it.
        """
        for path in ("/tmp/a/hub.sock", "/a:b=c d/unix:/ü", os.fsdecode(b"/\xff")):
            self.assertEqual(handshake.pathOf(handshake.uriOf(path)), path)

    def test_noURI(self) -> None:
        """
        What names no hub is refused, with an example of what does.
        """
        for wrong in ("", "unix:", "unix:hub.sock", "/tmp/hub.sock", "tcp:/8080"):
            error = self.assertRaises(InvalidEndpoint, handshake.pathOf, wrong)
            self.assertIn("unix:/path/of/its.sock", str(error))

    def test_users(self) -> None:
        """
        A hub lets in its own user and root, and nobody else, be it root's own.
        One goes to hubs of one's own and of root, and root goes anywhere.
        """
        for user in (0, 1000):
            self.assertTrue(handshake.letsIn(user, user))
            self.assertTrue(handshake.goesTo(user, user))
        self.assertTrue(handshake.letsIn(1000, 0))
        self.assertFalse(handshake.letsIn(0, 1000))
        self.assertFalse(handshake.letsIn(1000, 1001))
        self.assertTrue(handshake.goesTo(1000, 0))
        self.assertTrue(handshake.goesTo(0, 1000))
        self.assertFalse(handshake.goesTo(1000, 1001))

    def test_userOf(self) -> None:
        """
        The kernel tells whose the other end of a socket is.
        """
        one, other = socket.socketpair()
        with one, other:
            self.assertEqual(handshake.userOf(one), os.geteuid())
