"""
What the values of options mean.
"""

from __future__ import annotations

import grp
import pwd
from collections.abc import Callable

from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.supervisor import coercions


class CoercionTests(SynchronousTestCase):
    """
    The functions of L{coercions}.
    """

    def assertRefused(
        self, function: Callable[[str], object], text: str, way: str
    ) -> None:
        """
        Fail unless the text is refused, quoted, and the error says this of a
        way out.
        """
        error = self.assertRaises(ValueError, function, text)
        self.assertIn(repr(text), str(error))
        self.assertIn(way, str(error))

    def test_workers(self) -> None:
        """
        Workers are a whole number of one or more, or as many as processors.
        """
        self.assertEqual(coercions.workers("4"), 4)
        self.assertEqual(coercions.workers("Auto"), coercions.AUTO)
        for text in ("four", "0", "-1", "1.5", ""):
            self.assertRefused(
                coercions.workers, text, "whole number of one or more, nor 'auto'"
            )

    def test_positive(self) -> None:
        """
        A backlog is a whole number of one or more.
        """
        self.assertEqual(coercions.positive("128"), 128)
        for text in ("0", "-1", "x"):
            self.assertRefused(coercions.positive, text, "whole number of one or more")

    def test_timeout(self) -> None:
        """
        A timeout leaves some time.
        """
        self.assertEqual(coercions.timeout("1m"), 60.0)
        self.assertRefused(coercions.timeout, "0", "no time at all")
        self.assertRefused(coercions.timeout, "soon", "1h30m")

    def test_something(self) -> None:
        """
        A name is not empty.
        """
        self.assertEqual(coercions.something("x"), "x")
        self.assertRaises(ValueError, coercions.something, " ")

    def test_oneOf(self) -> None:
        """
        One of several words is taken, in whatever case, and others are told
        which there are.
        """
        choose = coercions.oneOf("auto", "text")
        self.assertEqual(choose("TEXT"), "text")
        self.assertRefused(choose, "xml", "auto, text")

    def test_logLevel(self) -> None:
        """
        Log levels have Twisted's names, and C{warning}.
        """
        self.assertEqual(coercions.logLevel("debug"), LogLevel.debug)
        self.assertEqual(coercions.logLevel("WARNING"), LogLevel.warn)
        self.assertRefused(
            coercions.logLevel, "loud", "debug, info, warn, error, critical"
        )

    def test_userAndGroup(self) -> None:
        """
        Users and groups are found by name and by number.
        """
        user = pwd.getpwall()[0]
        group = grp.getgrall()[0]
        self.assertEqual(coercions.user(user.pw_name), user.pw_uid)
        self.assertEqual(coercions.group(group.gr_name), group.gr_gid)
        self.assertEqual(coercions.user("12345"), 12345)
        self.assertRefused(coercions.user, "no such user", "there is no user")
        self.assertRefused(coercions.group, "no such group", "there is no group")
        self.assertRefused(coercions.user, "-1", "there is no user")

    def test_reactor(self) -> None:
        """
        A reactor is one that Twisted knows.
        """
        self.assertEqual(coercions.reactor("select"), "select")
        self.assertRefused(coercions.reactor, "libevent", "asyncio, ")
