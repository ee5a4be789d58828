"""
Tests for L{twisted_cluster.worker.copies}.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

from twisted.logger import LogLevel, eventAsText, formatEventAsClassicLogText
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.ipc.logs import recordOf
from twisted_cluster.worker.copies import COMPLETE, Original
from twisted_cluster.worker.stdlog import describeLogging


def failed() -> dict[str, Any]:
    """
    Make an event with a failure.
    """
    try:
        raise ZeroDivisionError("by zero")
    except ZeroDivisionError:
        failure = Failure()
    return {
        "log_format": "it {what}\nand went on",
        "what": "failed",
        "log_failure": failure,
        "log_level": LogLevel.critical,
        "log_namespace": "my.app",
        "log_time": 0.0,
    }


def originalOf(text: str, **keys: Any) -> Original:
    """
    Prepare an event of the logger C{my.app} for comparison.
    """
    event = {"log_format": "{t}", "t": text, "log_level": LogLevel.warn, **keys}
    event.setdefault("log_namespace", "my.app")
    return Original(event, recordOf(event))


def recordOfLogging(**keys: Any) -> logging.LogRecord:
    """
    Make a record of C{logging}.
    """
    record = logging.LogRecord(
        "lib", 40, "/srv/app.py", 12, "%s failed", ("it",), None, "main"
    )
    record.__dict__.update(keys)
    return record


class LineTests(SynchronousTestCase):
    """
    What is a copy of one line, and what is not.
    """

    def test_formats(self) -> None:
        """
        A copy may have around it what loggers say beside the text.
        """
        original = originalOf("Disk full", log_system="HTTPChannel,3,127.0.0.1")
        for text in (
            "Disk full",
            "2026-01-31T12:00:01+0000 [my.app#warn] Disk full",
            "2026-01-31 12:00:01,125 - my.app - WARNING - Disk full",
            "2026-01-31 12:00:01+0100 [HTTPChannel,3,127.0.0.1] Disk full",
            "12:00:01.5 [Warn] 'Disk full'.",
            "WARNING:app:Disk full",
            f"[{os.getpid()} MainThread] Disk full [31/01/2026 12:00]",
            "\x1b[2m12:00\x1b[0m \x1b[33mDisk full\x1b[0m",
        ):
            self.assertTrue(original.isRepeatedBy(text), text)

    def test_otherWords(self) -> None:
        """
        Any other word, name, level or number around it makes it another text.
        """
        original = originalOf("disk full")
        for text in (
            "cannot send 'disk full': timeout",
            "could not send the alert about: disk full",
            "mail to root failed; dropped: disk full",
            "disk full of it",
            "disk full (mail not sent)",
            "disk full retry=7",
            "disk fuller",
            "ramdisk full",
            "error: disk full",
            "7 disk full",
            "other.app: disk full",
            '{"alert": "disk full"}',
            "disk",
            "",
        ):
            self.assertFalse(original.isRepeatedBy(text), text)

    def test_shortText(self) -> None:
        """
        That holds for the shortest texts, too.
        """
        original = originalOf("1")
        self.assertTrue(original.isRepeatedBy("12:00 warn: 1"))
        for text in ("11", "2 1", "attempt 1", "1.1"):
            self.assertFalse(original.isRepeatedBy(text), text)

    def test_nothing(self) -> None:
        """
        Of nothing, nothing is a copy, and what loggers put beside it.
        """
        original = originalOf("")
        self.assertTrue(original.isRepeatedBy(""))
        self.assertTrue(original.isRepeatedBy("12:00 [my.app#warn] "))
        self.assertFalse(original.isRepeatedBy("anything"))

    def test_record(self) -> None:
        """
        Of a record of C{logging}, the names are those that it has.
        """
        record = recordOfLogging(threadName="Pool-7", processName="Worker")
        original = Original(record, describeLogging(record, 40))
        for text in (
            "lib: it failed",
            "ERROR it failed (app.py:12)",
            "[12:00] ERROR    it failed         app.py:12",
            f"{os.getpid()} Pool-7 Worker app: it failed",
        ):
            self.assertTrue(original.isRepeatedBy(text), text)
        for text in ("it failed (app.py:13)", "CRITICAL it failed", "so it failed"):
            self.assertFalse(original.isRepeatedBy(text), text)

    def test_strangeNames(self) -> None:
        """
        A name that is no text is left alone.
        """

        class Name:
            def __str__(self) -> str:
                raise AssertionError("asked")

        event = {"log_namespace": Name(), "log_format": "text"}
        record = recordOf({"log_format": "text"})
        self.assertTrue(Original(event, record).isRepeatedBy("text"))


class EventTests(SynchronousTestCase):
    """
    What is a copy of an event of several lines.
    """

    def test_twistedsFormats(self) -> None:
        """
        All of Twisted's formats are copies.
        """
        event = failed()
        original = Original(event, recordOf(event))
        for format in (eventAsText, formatEventAsClassicLogText):
            self.assertTrue(original.isRepeatedBy(format(event) or ""))

    def test_parts(self) -> None:
        """
        Lines are copies when all have come in their order; the traceback's
        alike.
        """
        event = failed()
        original = Original(event, recordOf(event))
        first = original.compare("12:00 it failed\n", COMPLETE)
        assert first is not None
        self.assertNotEqual(first, COMPLETE)
        self.assertEqual(original.compare("\n", first), first)
        self.assertIsNone(original.compare("and fell over\n", first))
        self.assertIsNone(original.compare("12:00 it failed\n", first))
        self.assertEqual(original.compare("12:00 and went on\n", first), COMPLETE)
        self.assertIsNone(original.compare("\n", COMPLETE))
        self.assertIsNone(original.compare("and went on\n", COMPLETE))
        self._checkTraceback(original, event["log_failure"].getTraceback())

    def _checkTraceback(self, original: Original, text: str) -> None:
        known = COMPLETE
        for line in text.splitlines():
            after = original.compare(f"    {line}\n", known)
            assert after is not None, line
            known = after
        self.assertEqual(known, COMPLETE)
        self.assertFalse(original.isRepeatedBy(text.rstrip().rpartition("\n")[0]))

    def test_anotherTraceback(self) -> None:
        """
        Another traceback is none, although it begins alike.
        """
        event = failed()
        original = Original(event, recordOf(event))
        known = original.compare("Traceback (most recent call last):\n", COMPLETE)
        assert known
        self.assertIsNone(original.compare('  File "other.py", line 1, in f\n', known))

    def test_record(self) -> None:
        """
        Of a record of C{logging}, the message and its traceback.
        """
        try:
            raise KeyError("x")
        except KeyError:
            record = recordOfLogging(exc_info=sys.exc_info())
        original = Original(record, describeLogging(record, 40))
        formatter = logging.Formatter("%(asctime)s %(message)s")
        self.assertTrue(original.isRepeatedBy(formatter.format(record)))
        assert record.exc_text is not None
        self._checkTraceback(original, record.exc_text)
