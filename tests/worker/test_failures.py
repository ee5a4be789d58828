"""
Tests of L{twisted_cluster.worker.failures}.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet.error import CannotListenError
from twisted.python.failure import Failure
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.errors import (
    TargetLoadError,
    TargetStartError,
    TargetUsageError,
)
from twisted_cluster.errors import UsageError as OurUsageError
from twisted_cluster.worker.failures import (
    describeFailure,
    failureError,
    startError,
    targetError,
    userTraceback,
)
from twisted_cluster.worker.target import parseTarget


class Raises(Service):
    """
    A service that cannot start.
    """

    def startService(self) -> None:
        """
        Do not start.
        """
        raise ValueError("no luck")


def caught(function: Callable[[], Any]) -> BaseException:
    """
    Call something that raises.
    """
    try:
        function()
    except BaseException as exc:
        exc.__traceback__ = exc.__traceback__ and exc.__traceback__.tb_next
        return exc
    raise AssertionError("nothing was raised")


class DescribeFailureTests(SynchronousTestCase):
    """
    L{describeFailure} and L{userTraceback} show the user's own frames.
    """

    def test_launchersAbove(self) -> None:
        """
        Twisted's frames above the first of the user's are left out.
        """
        root = MultiService()
        Raises().setServiceParent(root)
        exc = caught(root.startService)
        text = describeFailure(exc)
        self.assertEqual(text.count("File "), 1, text)
        self.assertIn(__file__, text)
        self.assertTrue(text.endswith("ValueError: no luck\n"))
        found = userTraceback(exc)
        assert found is not None
        self.assertEqual(found.tb_frame.f_code.co_filename, __file__)

    def test_oursBelow(self) -> None:
        """
        This library's frames are left out wherever they are.
        """
        exc = caught(lambda: parseTarget([]))
        text = describeFailure(exc)
        self.assertEqual(text.count("File "), 1, text)
        self.assertIn(OurUsageError.__qualname__, text)

    def test_chain(self) -> None:
        """
        The exception that it was raised from is shown as well.
        """

        def raises() -> None:
            try:
                dict[str, int]()["key"]
            except KeyError as exc:
                raise ValueError("no luck") from exc

        text = describeFailure(caught(raises))
        self.assertIn("KeyError: 'key'", text)
        self.assertIn("direct cause", text)

    def test_cleanedFailure(self) -> None:
        """
        A failure that has lost its traceback is described from its own frames.
        """
        root = MultiService()
        Raises().setServiceParent(root)
        try:
            root.startService()
        except ValueError:
            failure = Failure()
        failure.cleanFailure()
        assert failure.value is not None
        failure.value.__traceback__ = None
        error = failureError("thing", failure)
        self.assertEqual(error.reason, "thing: ValueError: no luck")
        self.assertIn(__file__, error.traceback)
        self.assertTrue(error.traceback.endswith("ValueError: no luck\n"))


class TargetErrorTests(SynchronousTestCase):
    """
    L{targetError} tells whose fault it is.
    """

    def test_kinds(self) -> None:
        """
        Refused options, an address that cannot be had, and the rest.
        """
        taken = OSError(errno.EADDRINUSE, "Address already in use")
        for exc, kind in (
            (UsageError("bad"), TargetUsageError),
            (CannotListenError("", 80, taken), TargetStartError),
            (taken, TargetStartError),
            (OSError(errno.ENOENT, "No such file"), TargetLoadError),
            (ImportError("none"), TargetLoadError),
        ):
            self.assertIs(type(targetError("thing", exc)), kind, exc)
            expected = kind if kind is TargetUsageError else TargetStartError
            if kind is not TargetUsageError:
                self.assertIs(type(startError("thing", exc)), expected)

    def test_passedOn(self) -> None:
        """
        What has been judged already is not judged again.
        """
        error = TargetLoadError("why")
        self.assertIs(targetError("thing", error), error)
        self.assertIs(startError("thing", error), error)
        self.assertIs(failureError("thing", Failure(error)), error)

    def test_reason(self) -> None:
        """
        The reason is one line that names the target, also for an exception of
        several lines.
        """
        error = targetError("thing", ValueError("one\ntwo"))
        self.assertNotIn("\n", error.reason)
        self.assertIn("thing", error.reason)
