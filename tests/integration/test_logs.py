"""
What a worker logs, in every way there is, and how it dies.
"""

from __future__ import annotations

from typing import Any

from twisted.logger import LogLevel, formatEvent

from tests.integration.support import ClusterTestCase, reactor
from twisted_cluster.errors import StartFailed

PROGRAM = """
import gc, logging, os, signal, sys, warnings
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python import log

setup, ending = sys.argv[1:]
if setup == "startLogging":
    log.startLogging(sys.stdout)
elif setup == "basicConfig":
    logging.basicConfig(level=logging.INFO)
elif setup == "basicConfigStdout":
    logging.basicConfig(level=logging.INFO, stream=sys.stdout)

logger = Logger("modern")

class Odd:
    def __repr__(self):
        return "<odd>"

def emit():
    logger.info("modern info {number} {thing}", number=7, thing=Odd())
    logger.error("modern error")
    try:
        raise ValueError("modern failure value")
    except ValueError:
        logger.failure("modern failure")
    log.msg("legacy message")
    log.err(KeyError("legacy error value"), "legacy error")
    logging.getLogger("standard").warning("standard warning %s", "text")
    try:
        raise OSError("standard exception value")
    except OSError:
        logging.getLogger("standard").exception("standard exception")
    warnings.warn("a careful warning")
    fail(RuntimeError("forgotten value"))
    gc.collect()
    print("printed to stdout")
    print("printed to stderr", file=sys.stderr)
    reactor.callFromThread(reactor.callLater, 0.05, die)

def die():
    logger.info("dying info")
    logger.error("dying error")
    print("dying print")
    if ending == "orderly":
        reactor.stop()
    elif ending == "exception":
        reactor.stop()
    elif ending == "exit":
        os._exit(7)
    elif ending == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif ending == "kill":
        os.kill(os.getpid(), signal.SIGKILL)

reactor.callWhenRunning(emit)
reactor.run()
logger.info("after the reactor")
if ending == "exception":
    raise ZeroDivisionError("last words")
"""

BUSY = """
import os, threading, time
from twisted.internet import reactor
from twisted.logger import Logger

logger = Logger("busy")
said = threading.Event()

def complain():
    logger.info("thread info")
    logger.error("thread error")
    said.set()

def work():
    threading.Thread(target=complain).start()
    said.wait(20)
    os._exit(7)

reactor.callWhenRunning(work)
reactor.run()
"""

MANY = """
import threading
from twisted.internet import reactor, threads
from twisted.internet.defer import gatherResults
from twisted.logger import Logger, LogLevel
from twisted_cluster import cluster

logger = Logger("many")

def complain(thread):
    for number in range(300):
        level = LogLevel.error if number % 3 else LogLevel.info
        text = f"{thread}.{number}." + "x" * 700
        logger.emit(level, text)

def talk(number=0):
    if number < 300:
        logger.error("r.{number}.", number=number)
        cluster.channel().send(number)
        reactor.callLater(0, talk, number + 1)

talk()
running = gatherResults([threads.deferToThread(complain, each) for each in range(4)])
running.addCallback(lambda _: reactor.callLater(1, reactor.stop))
reactor.run()
"""

CLOSING = """
import os, socket, sys
from twisted.logger import Logger
os.closerange(3, 65536)
pairs = [socket.socketpair() for _ in range(600)]
Logger("closing").error("into the program's own socket?")
for ours, theirs in pairs:
    for each in (ours, theirs):
        each.setblocking(False)
        try:
            print("FOREIGN BYTES", each.recv(1000))
        except BlockingIOError:
            pass
print("nothing but ours", file=sys.stderr)
os._exit(7)
"""

ONCE = [
    "modern info 7 <odd>",
    "modern error",
    "modern failure",
    "legacy message",
    "legacy error",
    "standard warning text",
    "standard exception",
    "a careful warning",
    "forgotten value",
    "printed to stdout",
    "printed to stderr",
]
SETUPS = ["none", "startLogging", "basicConfig", "basicConfigStdout"]


class EveryKind(ClusterTestCase):
    """
    Whatever the program uses to log, and however it dies.
    """

    async def _finish(self, setup: str, ending: str) -> list[dict[str, Any]]:
        """
        Run the program in a worker to its end.

        @return: the events of that worker.
        """
        program = self.program(PROGRAM)
        watcher = self.cluster(
            [program, setup, ending], 1, logLevel=LogLevel.debug, waitReady=True
        )
        over = watcher.whenStopped().addTimeout(40, reactor)
        try:
            await over
        except StartFailed as error:
            self.why = str(error)
        return [e for e in self.logged.events if e.get("cluster_worker") == 1]

    def _texts(self, events: list[dict[str, Any]]) -> list[str]:
        texts = []
        for event in events:
            text = formatEvent(event)
            if "log_failure" in event:
                text += "\n" + event["log_failure"].getTraceback()
            texts.append(text)
        return texts

    def _once(self, texts: list[str], wanted: list[str]) -> None:
        for each in wanted:
            found = [text for text in texts if each in text]
            self.assertEqual(len(found), 1, f"{each!r} in {texts}")

    async def _endsBy(self, ending: str, *, gentle: bool) -> None:
        for setup in SETUPS:
            self.logged.events.clear()
            texts = self._texts(await self._finish(setup, ending))
            self._once(texts, [*ONCE, "dying error"])
            if gentle or setup != "startLogging":
                self._once(texts, ["dying print"])
            if gentle:
                self._once(texts, ["dying info", "after the reactor"])

    async def test_orderly(self) -> None:
        """
        Of a program that ends in an orderly way, everything arrives, once.
        """
        await self._endsBy("orderly", gentle=True)

    async def test_exception(self) -> None:
        """
        Of one that ends by an exception, everything, and the traceback.
        """
        await self._endsBy("exception", gentle=True)
        self.assertIn("ZeroDivisionError: last words", self.why)
        self.assertIn("in <module>", self.why)

    async def test_exit(self) -> None:
        """
        Of one that calls C{os._exit}, everything of earlier turns; of the last
        turn, errors and what was printed (by C{startLogging}, that is an event
        below an error, which may be lost).
        """
        await self._endsBy("exit", gentle=False)

    async def test_segmentationFault(self) -> None:
        """
        Likewise of one that crashes.
        """
        await self._endsBy("segfault", gentle=False)

    async def test_killed(self) -> None:
        """
        Likewise of one that is killed.
        """
        await self._endsBy("kill", gentle=False)

    async def test_asTheyWere(self) -> None:
        """
        Events keep their namespace, level, format and traceback, and say which
        worker they are from.
        """
        events = await self._finish("none", "orderly")
        by: dict[str, dict[str, Any]] = {}
        for event in events:
            for text in ONCE:
                if text in formatEvent(event):
                    by.setdefault(text, event)
        modern = by["modern info 7 <odd>"]
        self.assertEqual(modern["log_namespace"], "modern")
        self.assertEqual(modern["log_level"], LogLevel.info)
        self.assertEqual(modern["log_format"], "modern info {number} {thing}")
        self.assertEqual((modern["number"], modern["thing"]), (7, "<odd>"))
        self.assertEqual((modern["cluster_worker"], modern["cluster_slot"]), (1, 0))
        self.assertLess(abs(modern["log_time"] - reactor_time()), 60)
        failure = by["modern failure"]["log_failure"]
        self.assertEqual(failure.type.__name__, "ValueError")
        self.assertIn("in emit", failure.getTraceback())
        self.assertEqual(by["modern failure"]["log_level"], LogLevel.critical)
        self.assertEqual(by["legacy error"]["isError"], 1)
        self.assertIn("KeyError", by["legacy error"]["failure"].getTraceback())
        standard = by["standard warning text"]
        self.assertEqual(standard["log_namespace"], "standard")
        self.assertEqual(standard["log_level"], LogLevel.warn)
        self.assertEqual(by["a careful warning"]["log_level"], LogLevel.warn)
        self.assertEqual(by["printed to stdout"]["log_namespace"], "stdout")
        self.assertEqual(by["printed to stderr"]["log_namespace"], "stderr")

    async def _textsOf(self, code: str) -> list[str]:
        """
        Run a program in a worker to its end.

        @return: the texts of its events.
        """
        watcher = self.cluster(self.program(code), 1, waitReady=True)
        over = watcher.whenStopped().addTimeout(40, reactor)
        try:
            await over
        except StartFailed as error:
            self.why = str(error)
        events = [e for e in self.logged.events if e.get("cluster_worker") == 1]
        return self._texts(events)

    async def test_errorInThread(self) -> None:
        """
        An error that a thread logs arrives, with what came before it, although
        the reactor is busy until the process ends.
        """
        texts = await self._textsOf(BUSY)
        self._once(texts, ["thread info", "thread error"])

    async def test_threads(self) -> None:
        """
        What many threads log at once, while messages are sent, arrives once, in
        the order of each.
        """
        texts = await self._textsOf(MANY)
        for thread in ("0", "1", "2", "3", "r"):
            own = [text for text in texts if text.startswith(f"{thread}.")]
            self.assertEqual([int(text.split(".")[1]) for text in own], [*range(300)])

    async def test_closedChannel(self) -> None:
        """
        A program that closes every descriptor and opens sockets of its own finds
        nothing in them that it has not written.
        """
        texts = await self._textsOf(CLOSING)
        self._once(texts, ["nothing but ours"])
        self.assertEqual([text for text in texts if "FOREIGN" in text], [])


def reactor_time() -> float:
    """
    The seconds since the epoch.
    """
    import time

    return time.time()
