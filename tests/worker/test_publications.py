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
            "        print(record.levelname, record.getMessage())\n"
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
            "        print('app: first'); print('app: second')\n"
            "        print('12:00 first'); print('and', mark('more'))\n"
            "        print('app: first')\n"
            "globalLogPublisher.addObserver(observer)\n"
            "logger.info('first\\nsecond')\n"
        )
        self.assertEqual(
            texts,
            ["first\nsecond", "<event>", "12:00 first", "and <more>", "app: first"],
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

    def test_quotations(self) -> None:
        """
        What one logs and prints arrives also where it ends with the text, be
        that as short as it may.
        """
        texts = self.run_(
            "def observer(event):\n"
            "    if event['log_namespace'] != 'app': return\n"
            "    text = formatEvent(event)\n"
            "    logging.warning('alert not sent: %s', text)\n"
            "    print('mail to root failed; dropped:', text, file=sys.stderr)\n"
            "    print('retry', text); print({'retry': text}); print('2', text)\n"
            "globalLogPublisher.addObserver(observer)\n"
            "logger.error('1')\n"
            "globalLogPublisher.removeObserver(observer)\n"
        )
        self.assertEqual(
            sorted(texts),
            sorted(
                f"{front}{text}{back}"
                for text in ("1", "<event>")
                for front, back in (
                    ("", ""),
                    ("alert not sent: ", ""),
                    ("mail to root failed; dropped: ", ""),
                    ("retry ", ""),
                    ("{'retry': '", "'}"),
                    ("2 ", ""),
                )
            ),
        )

    def test_belowLevel(self) -> None:
        """
        Of an event that is not relayed for its level, what Twisted's observers
        write is left out, and anything that is printed arrives.
        """
        run = runRelayed(
            self.mktemp(),
            BEGIN
            + "globalLogBeginner.beginLoggingTo("
            + "[textFileLogObserver(sys.stdout)], redirectStandardIO=False)\n"
            + "globalLogPublisher.addObserver(lambda event: print('saw', mark('it')))\n"
            + "logger.info(mark('low'))",
            "error",
        )
        self.assertEqual(run.texts(), ["saw <it>"])


class PrintingArgumentTests(SynchronousTestCase):
    """
    An argument whose C{__repr__} prints is as harmless as alone.
    """

    CODE = (
        BEGIN
        + """
import faulthandler, threading
faulthandler.dump_traceback_later(20, exit=True)
class Pool:
    asked = 0
    lock = threading.Lock()
    def __repr__(self):
        with self.lock:
            Pool.asked += 1
            print(mark("computing"))
            return "pool"
"""
    )

    def check(self, code: str, asked: int, level: str = "debug") -> list[str]:
        """
        Log or print by some code.

        @param asked: how often the argument is to be formatted.
        """
        run = runRelayed(
            self.mktemp(), self.CODE + code + "\nprint('asked', Pool.asked)", level
        )
        self.assertEqual((run.status, run.stderr), (0, ""))
        texts = run.texts()
        self.assertEqual(texts.pop(), f"asked {asked}")
        return texts

    def test_observed(self) -> None:
        """
        It is formatted for the watcher, in the text and by itself, and by each
        observer that does, and what it prints arrives, although it holds a lock.
        """
        texts = self.check(
            "globalLogBeginner.beginLoggingTo("
            "[lambda event: print('app:', formatEvent(event)),"
            " lambda event: print('cannot send', formatEvent(event))],"
            "redirectStandardIO=False)\n"
            "logger.info('{x}', x=Pool())",
            4,
        )
        computing = ["<computing>"] * 4
        self.assertEqual(texts, ["pool", *computing, "cannot send pool"])

    def test_intoLog(self) -> None:
        """
        Likewise where Twisted makes events of what is printed; what it prints
        for the watcher, to the program's log alone, is left out.
        """
        texts = self.check(
            "globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)])\n"
            "logger.info('{x}', x=Pool())",
            3,
        )
        self.assertEqual(texts, ["pool", "<computing>"])

    def test_logging(self) -> None:
        """
        Likewise by C{logging}, and by an observer of what its handler forwards.
        """
        texts = self.check(
            "class Handler(logging.Handler):\n"
            "    def emit(self, record): logger.warn('{x}', x=record.args[0])\n"
            "logging.getLogger().addHandler(Handler())\n"
            "globalLogBeginner.beginLoggingTo("
            "[textFileLogObserver(sys.stdout)], redirectStandardIO=False)\n"
            "logging.warning('%s', Pool())",
            5,
        )
        self.assertEqual(texts, ["pool", *["<computing>"] * 5])

    def test_belowLevel(self) -> None:
        """
        Below the level, it is formatted by the observers alone.
        """
        texts = self.check(
            "globalLogBeginner.beginLoggingTo("
            "[lambda event: print('saw', formatEvent(event))],"
            "redirectStandardIO=False)\n"
            "logger.info('{x}', x=Pool())",
            1,
            "error",
        )
        self.assertEqual(texts, ["<computing>", "saw pool"])
