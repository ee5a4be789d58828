"""
Tests for L{twisted_cluster.worker.publications}, in a program of their own.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.worker.running import runRelayed

BEGIN = """
import logging, os, sys
from twisted.logger import (
    Logger, eventAsText, formatEvent, globalLogBeginner, globalLogPublisher,
    textFileLogObserver,
)
logger = Logger(namespace="app")
"""


class ObserversOwnTests(SynchronousTestCase):
    """
    What observers say for themselves arrives, once, as if the program ran
    alone.
    """

    def run_(self, code: str, *before: str) -> list[str]:
        """
        Run code that has an C{observer(event)}, and log C{<event>}.

        @return: all that arrives.
        """
        lines = [
            BEGIN,
            *before,
            code,
            "globalLogPublisher.addObserver(observer)",
            'logger.warn("{text}", text=mark("event"))',
        ]
        run = runRelayed(self.mktemp(), "\n".join(lines))
        return run.texts()

    def test_print(self) -> None:
        """
        What one prints that fails, beside one that writes the log.
        """
        texts = self.run_(
            "def observer(event):\n"
            "    print('cannot send', repr(formatEvent(event)), 'to', mark('host'))\n",
            "globalLogBeginner.beginLoggingTo("
            "[textFileLogObserver(sys.stdout)], redirectStandardIO=False)",
        )
        self.assertEqual(texts, ["<event>", "cannot send '<event>' to <host>"])

    def test_printIntoLog(self) -> None:
        """
        Likewise where Twisted makes events of what is printed.
        """
        texts = self.run_(
            "class Handler(logging.Handler):\n"
            "    def emit(self, record):\n"
            "        print('cannot send', mark('it'))\n"
            "        print('copy:', record.getMessage())\n"
            "logging.getLogger().addHandler(Handler())\n"
            "logging.warning(mark('record'))\n"
            "def observer(event): pass\n",
            "globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)])",
        )
        self.assertEqual(texts, ["<record>", "cannot send <it>", "<event>"])

    def test_ownFile(self) -> None:
        """
        What one logs by a logger of its own that writes to standard error.
        """
        texts = self.run_(
            "own = Logger(namespace='own', observer=textFileLogObserver(sys.stderr))\n"
            "def observer(event): own.error(mark('ALERT SENT FAILED'))\n"
        )
        self.assertEqual(texts[0], "<event>")
        self.assertRegex(texts[1], r"\[own#error\] <ALERT SENT FAILED>")
        self.assertEqual(len(texts), 2)

    def test_ownLogger(self) -> None:
        """
        What one logs by an ordinary logger, once, however many write the log.
        """
        texts = self.run_(
            "own = Logger(namespace='own')\n"
            "def observer(event):\n"
            "    if event['log_namespace'] == 'app':\n"
            "        own.error(mark('ALERT SENT FAILED'))\n",
            "globalLogBeginner.beginLoggingTo("
            "[textFileLogObserver(sys.stdout), textFileLogObserver(sys.stderr)],"
            "redirectStandardIO=False)",
        )
        self.assertEqual(texts, ["<event>", "<ALERT SENT FAILED>"])

    def test_brokenObserver(self) -> None:
        """
        What Twisted says of an observer that raises arrives once, although
        others write it.
        """
        texts = self.run_(
            "def observer(event): raise RuntimeError(mark('broken'))\n",
            "globalLogBeginner.beginLoggingTo("
            "[textFileLogObserver(sys.stdout)], redirectStandardIO=False)",
        )
        self.assertEqual(len(texts), 2, texts)
        self.assertIn("Temporarily disabling observer", texts[1])

    def test_lastWords(self) -> None:
        """
        What one prints before it ends the process.
        """
        texts = self.run_(
            "def observer(event):\n    print(mark('fatal'))\n    os._exit(3)\n"
        )
        self.assertEqual(texts, ["<event>", "<fatal>"])

    def test_beginningOfCopy(self) -> None:
        """
        What begins like a copy and goes on otherwise arrives whole, in order.
        """
        texts = self.run_(
            "def observer(event):\n"
            "    if '\\n' in formatEvent(event):\n"
            "        print('copy: first'); print('copy: second')\n"
            "        print('own: first'); print('and', mark('more'))\n"
            "        print('own: first')\n"
            "globalLogPublisher.addObserver(observer)\n"
            "logger.info('first\\nsecond')\n"
        )
        self.assertEqual(
            texts,
            ["first\nsecond", "<event>", "own: first", "and <more>", "own: first"],
        )

    def test_replayed(self) -> None:
        """
        So does what an observer says of the events from before logging began,
        which arrive once.
        """
        run = runRelayed(
            self.mktemp(),
            BEGIN
            + "logger.info(mark('early'))\n"
            + "def observer(event):\n"
            + "    print(formatEvent(event))\n"
            + "    print('own', mark('words'))\n"
            + "globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)",
        )
        self.assertEqual(run.texts(), ["<early>", "own <words>"])
