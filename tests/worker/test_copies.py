"""
Tests for L{twisted_cluster.worker.copies}.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

from twisted.logger import eventAsText, formatEventAsClassicLogText
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.worker.copies import COMPLETE, Original, repeats, words


class RepeatsTests(SynchronousTestCase):
    """
    What is a copy of a line, and what is not.
    """

    def test_formats(self) -> None:
        """
        A copy may have anything before the line, and after it punctuation,
        brackets, C{key=value} or a traceback.
        """
        for text in (
            "disk full",
            "2026-01-31 [app#info] disk full",
            "forwarded 'disk full'.",
            "INFO:app:disk full [in /srv/app.py:12]",
            "disk full (app.py:12)",
            "[12:00] INFO     disk full                        app.py:12",
            'time=12:00 msg="disk full" level=warn logger=app',
            "12:00 disk full\nTraceback (most recent call last):\n  File",
            "\x1b[2m12:00\x1b[0m \x1b[33mdisk full\x1b[0m",
            "12:00  disk\n       full",
        ):
            self.assertTrue(repeats(words(text), "disk full"), text)

    def test_quotations(self) -> None:
        """
        A sentence that quotes it, and one that is part of another word, is
        none.
        """
        for text in (
            "cannot send 'disk full': timeout",
            "disk full of it",
            "disk fuller",
            "ramdisk full",
            "disk",
            "",
        ):
            self.assertFalse(repeats(words(text), "disk full"), text)

    def test_nothing(self) -> None:
        """
        Nothing has no copies.
        """
        self.assertFalse(repeats("anything", ""))


class OriginalTests(SynchronousTestCase):
    """
    What is a copy of an event.
    """

    def failed(self) -> dict[str, Any]:
        """
        An event with a failure.
        """
        try:
            raise ZeroDivisionError("by zero")
        except ZeroDivisionError:
            failure = Failure()
        return {
            "log_format": "it {what}\nand went on",
            "what": "failed",
            "log_failure": failure,
            "log_time": 0.0,
        }

    def test_twistedsFormats(self) -> None:
        """
        All of Twisted's formats are copies.
        """
        event = self.failed()
        original = Original(event)
        for format in (eventAsText, formatEventAsClassicLogText):
            self.assertTrue(original.isRepeatedBy(format(event) or ""))

    def test_structured(self) -> None:
        """
        So are objects that quote the text or the format, not those that quote
        something else.
        """
        original = Original(self.failed())
        self.assertTrue(original.isRepeatedBy(repr(self.failed())))
        message = {"message": "it failed\nand went on", "n": 1}
        self.assertTrue(original.isRepeatedBy("\x1e" + json.dumps(message) + "\n"))
        self.assertFalse(original.isRepeatedBy('{"message": "another"}'))
        self.assertFalse(original.isRepeatedBy('message "it failed\\nand went on"'))

    def test_parts(self) -> None:
        """
        Lines are copies when all have come in their order; the traceback's
        alike, in Twisted's form and in Python's.
        """
        event = self.failed()
        original = Original(event)
        first = original.compare("12:00 it failed\n", COMPLETE)
        assert first is not None
        self.assertNotEqual(first, COMPLETE)
        self.assertEqual(original.compare("\n", first), first)
        self.assertIsNone(original.compare("and fell over\n", first))
        self.assertEqual(original.compare("12:00 and went on\n", first), COMPLETE)
        self.assertIsNone(original.compare("\n", COMPLETE))
        for text in (
            event["log_failure"].getTraceback(),
            "".join(logging.Formatter().formatException(self._info(event))),
        ):
            known = COMPLETE
            for line in text.splitlines():
                after = original.compare(line, known)
                assert after is not None, line
                known = after
            self.assertEqual(known, COMPLETE)

    def _info(self, event: dict[str, Any]) -> Any:
        error = event["log_failure"].value
        return type(error), error, error.__traceback__

    def test_anotherTraceback(self) -> None:
        """
        Another traceback is none, although it begins alike.
        """
        original = Original(self.failed())
        known = original.compare("Traceback (most recent call last):\n", COMPLETE)
        assert known
        self.assertIsNone(original.compare('  File "other.py", line 1, in f\n', known))

    def test_record(self) -> None:
        """
        Of a record of C{logging}, the message, its traceback and its stack.
        """
        try:
            raise KeyError("x")
        except KeyError:
            record = logging.LogRecord(
                "app", 40, "p.py", 1, "%s failed", ("it",), sys.exc_info()
            )
        record.stack_info = "Stack (most recent call last):\n  File"
        original = Original(record)
        formatted = logging.Formatter("%(message)s").format(record)
        self.assertEqual(original.compare(formatted, COMPLETE), COMPLETE)
        self.assertTrue(original.isRepeatedBy("app: it failed"))
