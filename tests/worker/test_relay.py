"""
Tests for L{twisted_cluster.worker.relay}, C{stdlog} and C{publications}.
"""

from __future__ import annotations

import gc
import logging
import threading
import warnings
from collections.abc import Callable
from textwrap import dedent
from typing import Any

from twisted.internet.defer import fail
from twisted.logger import (
    ILogObserver,
    Logger,
    LogLevel,
    LogPublisher,
    STDLibLogObserver,
    formatEvent,
    globalLogBeginner,
    globalLogPublisher,
)
from twisted.python import log
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.worker.running import runRelayed
from twisted_cluster.interfaces import ILogSink
from twisted_cluster.ipc.logqueue import joinRecords
from twisted_cluster.ipc.logs import LogRecord, decodeRecords
from twisted_cluster.worker.relay import RelayObserver, installRelay

EVERYTHING = """
import gc, logging, sys, warnings
from twisted.internet.defer import fail
from twisted.logger import Logger
from twisted.python import log

Logger(namespace="app").info("{text}", text=mark("logger"))
try:
    1 / 0
except ZeroDivisionError:
    Logger(namespace="app").failure(mark("failure"))
    log.err(None, mark("err"))
    logging.getLogger("lib").exception("%s", mark("exception"))
log.msg(mark("msg"), system="old")
logging.getLogger("lib").warning("%s", mark("logging"))
warnings.warn(mark("warning"))
print(mark("print"))
print(mark("stderr"), file=sys.stderr)
fail(RuntimeError("lost"))
gc.collect()
"""

KINDS = ("logger", "failure", "err", "exception", "msg", "logging", "warning")
PRINTED = ("print", "stderr")

SETUPS = {
    "nothing": "",
    "startLogging": """
        import sys
        from twisted.python import log
        log.startLogging(sys.stdout)
        """,
    "startLogging without redirection": """
        import sys
        from twisted.python import log
        log.startLogging(sys.stderr, setStdout=False)
        """,
    "basicConfig": """
        import logging
        logging.basicConfig(level=logging.DEBUG)
        """,
    "basicConfig on stdout": """
        import logging, sys
        logging.basicConfig(stream=sys.stdout, format="%(asctime)s %(message)s")
        """,
    "both": """
        import logging, sys
        from twisted.python import log
        log.startLogging(sys.stdout)
        logging.basicConfig()
        logging.captureWarnings(True)
        """,
    "Twisted to logging": """
        import logging
        from twisted.logger import STDLibLogObserver, globalLogBeginner
        logging.basicConfig(level=logging.DEBUG)
        globalLogBeginner.beginLoggingTo(
            [STDLibLogObserver()], redirectStandardIO=False
        )
        """,
    "logging to Twisted": """
        import logging, sys
        from twisted.python import log
        class Handler(logging.Handler):
            def emit(self, record):
                log.msg("[%s] %s" % (record.name, self.format(record)))
        logging.getLogger().addHandler(Handler())
        log.startLogging(sys.stdout)
        """,
    "JSON": """
        import sys
        from twisted.logger import globalLogBeginner, jsonFileLogObserver
        globalLogBeginner.beginLoggingTo(
            [jsonFileLogObserver(sys.stdout)], redirectStandardIO=False
        )
        """,
    "odd formats": """
        import logging, sys
        from twisted.logger import globalLogPublisher, eventAsText, formatEvent
        logging.basicConfig(
            stream=sys.stdout, format="%(name)s\\n>> %(message)s was said"
        )
        class Handler(logging.Handler):
            def emit(self, record):
                sys.stderr.write(f"{record.levelname} ")
                for line in self.format(record).splitlines():
                    print("  ", line, f"({record.filename}:{record.lineno})",
                          file=sys.stderr)
        logging.getLogger().addHandler(Handler())
        def observer(event):
            if event["log_namespace"] == "log_legacy":
                return
            text = eventAsText(event, includeTraceback=False)
            print("%s:" % event["log_namespace"], text)
            print(formatEvent(event), event["log_level"].name)
        globalLogPublisher.addObserver(observer)
        """,
    "line at a time": """
        import logging, sys, traceback
        from twisted.logger import formatEvent, globalLogPublisher
        class Handler(logging.Handler):
            def emit(self, record):
                print(record.name, record.getMessage())
                if record.exc_info:
                    traceback.print_exception(*record.exc_info)
        logging.getLogger().addHandler(Handler())
        def observer(event):
            print("12:00:01", end=": ")
            print(formatEvent(event))
            if "log_failure" in event and "err>" not in formatEvent(event):
                event["log_failure"].printTraceback(sys.stdout)
        globalLogPublisher.addObserver(observer)
        """,
    "twistd": """
        from twisted.application.app import AppLogger
        from twisted.python.components import Componentized
        AppLogger({"logfile": "-"}).start(Componentized())
        """,
}


@implementer(ILogSink)
class ListSink:
    """
    Remembers records.
    """

    def __init__(self) -> None:
        self.records: list[LogRecord] = []

    def put(self, level: int, data: bytes) -> None:
        [record] = decodeRecords(joinRecords([data]))
        assert record.level == level
        self.records.append(record)


class OnceTests(SynchronousTestCase):
    """
    Every kind of event arrives once, whatever the program does with its log.
    """

    def check(self, setup: str) -> None:
        run = runRelayed(self.mktemp(), f"{dedent(setup)}\n{EVERYTHING}")
        self.assertEqual(run.status, 0, run.stderr)
        self.assertEqual(
            {kind: run.count(f"<{kind}>") for kind in KINDS + PRINTED},
            dict.fromkeys(KINDS + PRINTED, 1),
            run,
        )
        relayed = " ".join(record.text for record in run.records)
        for kind in KINDS:
            self.assertIn(f"<{kind}>", relayed)
        self.assertEqual(run.count("Unhandled error in Deferred"), 1)
        tracebacks = [record.traceback or "" for record in run.records]
        self.assertEqual(sum("RuntimeError: lost" in text for text in tracebacks), 1)
        self.assertEqual(sum("division by zero" in text for text in tracebacks), 3)
        self.assertNotIn("division by zero", run.stdout + run.stderr)

    def test_nothing(self) -> None:
        """
        The program begins no logging.
        """
        self.check(SETUPS["nothing"])

    def test_startLogging(self) -> None:
        """
        C{log.startLogging(sys.stdout)}, which makes events of what is printed.
        """
        self.check(SETUPS["startLogging"])

    def test_startLoggingPlain(self) -> None:
        """
        C{log.startLogging(sys.stderr, setStdout=False)}.
        """
        self.check(SETUPS["startLogging without redirection"])

    def test_basicConfig(self) -> None:
        """
        C{logging.basicConfig()}, to standard error.
        """
        self.check(SETUPS["basicConfig"])

    def test_basicConfigStdout(self) -> None:
        """
        C{logging.basicConfig(stream=sys.stdout)}.
        """
        self.check(SETUPS["basicConfig on stdout"])

    def test_both(self) -> None:
        """
        Twisted takes the streams over, C{logging} writes to them and captures
        warnings.
        """
        self.check(SETUPS["both"])

    def test_twistedToLogging(self) -> None:
        """
        An observer hands Twisted's events to C{logging}.
        """
        self.check(SETUPS["Twisted to logging"])

    def test_loggingToTwisted(self) -> None:
        """
        A handler hands C{logging}'s records to Twisted.
        """
        self.check(SETUPS["logging to Twisted"])

    def test_twistd(self) -> None:
        """
        What twistd does with its log.
        """
        self.check(SETUPS["twistd"])

    def test_json(self) -> None:
        """
        Twisted's events as JSON.
        """
        self.check(SETUPS["JSON"])

    def test_oddFormats(self) -> None:
        """
        Formats with a line before or words after the text.
        """
        self.check(SETUPS["odd formats"])

    def test_lineAtATime(self) -> None:
        """
        Observers that print a text and its traceback line by line.
        """
        self.check(SETUPS["line at a time"])

    def test_loggingTwice(self) -> None:
        """
        Twisted's warning of a second beginning arrives, with the place of the
        program's call, and what was logged before the first does so once.
        """
        run = runRelayed(
            self.mktemp(),
            """
            from twisted.logger import Logger, globalLogBeginner
            Logger().critical("{text}", text=mark("before"))
            globalLogBeginner.beginLoggingTo([], redirectStandardIO=False)
            globalLogBeginner.beginLoggingTo([], redirectStandardIO=False)
            """,
        )
        self.assertEqual(run.count("<before>"), 1)
        self.assertEqual(run.count("target selected twice at <<program>:5>"), 1)


class TalkativeTests(SynchronousTestCase):
    """
    An argument whose C{__repr__} logs does not send the relay round in circles.
    """

    CODE = """
        import sys
        from twisted.logger import Logger, globalLogBeginner, textFileLogObserver
        logger = Logger(namespace="app")
        class Talkative:
            def __repr__(self):
                logger.info({asked})
                return "talkative"
        globalLogBeginner.beginLoggingTo({observers}, redirectStandardIO=False)
        logger.info("{{x!r}}", x=Talkative())
        """

    def test_itself(self) -> None:
        """
        Not even where it logs itself.
        """
        code = self.CODE.format(asked="'{x!r}', x=self", observers="[]")
        self.assertEqual(runRelayed(self.mktemp(), code).texts(), ["talkative"])

    def test_observed(self) -> None:
        """
        What it logs when an observer formats it arrives, as often as alone.
        """
        code = self.CODE.format(
            asked="mark('asked')", observers="[textFileLogObserver(sys.stdout)]"
        )
        texts = runRelayed(self.mktemp(), code).texts()
        self.assertEqual(sum(text == "talkative" for text in texts), 1, texts)
        self.assertEqual(sum("<asked>" in text for text in texts), 1, texts)


class LastWordsTests(SynchronousTestCase):
    """
    What a program says last arrives.
    """

    def test_exception(self) -> None:
        """
        Python's words on an exception that ends the program arrive on standard
        error.
        """
        run = runRelayed(self.mktemp(), "raise RuntimeError(mark('end'))")
        self.assertEqual(run.status, 1)
        self.assertIn("RuntimeError: <end>", run.stderr)

    def test_exceptionInThread(self) -> None:
        """
        So do those on an exception that ends a thread.
        """
        run = runRelayed(
            self.mktemp(),
            """
            import threading
            def die():
                raise RuntimeError(mark("end"))
            thread = threading.Thread(target=die)
            thread.start()
            thread.join()
            """,
        )
        self.assertIn("RuntimeError: <end>", run.stderr)

    def test_exceptionIntoTwistedLog(self) -> None:
        """
        Where Twisted has taken the streams over, they arrive as its events.
        """
        run = runRelayed(
            self.mktemp(),
            """
            import sys
            from twisted.python import log
            log.startLogging(sys.stdout)
            raise RuntimeError(mark("end"))
            """,
        )
        self.assertEqual(run.count("RuntimeError: <end>"), 1)

    def test_brokenHandler(self) -> None:
        """
        A handler that raises is told of, although it does so while its record
        is published.
        """
        run = runRelayed(
            self.mktemp(),
            """
            import logging
            class Handler(logging.Handler):
                def emit(self, record):
                    try:
                        1 / 0
                    except ZeroDivisionError:
                        self.handleError(record)
            logging.getLogger().addHandler(Handler())
            logging.warning(mark("record"))
            """,
        )
        self.assertIn("ZeroDivisionError", run.stderr)
        self.assertEqual([record.text for record in run.records], ["<record>"])

    def test_forked(self) -> None:
        """
        A process that the program forks relays nothing, and prints what its
        observers print.
        """
        run = runRelayed(
            self.mktemp(),
            """
            import logging, os
            logging.basicConfig()
            if os.fork() == 0:
                logging.warning(mark("child"))
                os._exit(0)
            os.wait()
            logging.warning(mark("parent"))
            """,
        )
        self.assertEqual([record.text for record in run.records], ["<parent>"])
        self.assertIn("<child>", run.stderr)
        self.assertNotIn("<parent>", run.stderr)


class RelayTests(SynchronousTestCase):
    """
    What is relayed, and what is not.
    """

    def setUp(self) -> None:
        self.sink = ListSink()
        verifyObject(ILogSink, self.sink)
        self.undo = installRelay(self.sink, LogLevel.info)
        self.addCleanup(lambda: self.undo())
        self.sink.records.clear()
        self.log = Logger(namespace="app")

    def texts(self) -> list[str]:
        return [record.text for record in self.sink.records]

    def test_level(self) -> None:
        """
        Events below the level are not relayed, of whichever system.
        """
        logger = logging.getLogger("tests.relay.level")
        logger.setLevel(1)
        self.log.debug("low")
        logger.debug("low")
        logger.log(19, "low, too")
        self.log.info("high")
        logger.log(25, "custom")
        logger.log(77, "highest")
        self.assertEqual(
            [(record.text, record.level) for record in self.sink.records],
            [("high", 20), ("custom", 20), ("highest", 50)],
        )

    def test_record(self) -> None:
        """
        A record of C{logging} keeps its name, level, time, format, arguments and
        extras.
        """
        logger = logging.getLogger("tests.relay.record")
        with self.assertLogs(logger, logging.INFO) as watched:
            logger.info("%s costs %d", "tea", 3, extra={"table": object})
        [record] = self.sink.records
        self.assertEqual(record.namespace, "tests.relay.record")
        self.assertEqual((record.level, record.text), (20, "tea costs 3"))
        self.assertEqual(record.format, "%s costs %d")
        self.assertEqual(
            record.arguments, {"args": ["tea", 3], "table": "<class 'object'>"}
        )
        self.assertEqual(record.time, watched.records[0].created)

    def test_recordOfMapping(self) -> None:
        """
        Arguments that C{logging} got by name keep their names.
        """
        logging.getLogger("tests").warning("%(what)s", {"what": "named"})
        self.assertEqual(self.sink.records[0].arguments, {"what": "named"})

    def test_unformattableRecord(self) -> None:
        """
        A record whose arguments do not fit its format arrives as far as it can.
        """
        logger = logging.getLogger("tests.relay.broken")
        logger.propagate = False
        logger.addHandler(logging.NullHandler())
        logger.warning("%d", "text")
        self.assertIn("unable to format '%d' with ('text',)", self.texts()[0])

    def test_exceptionOfRecord(self) -> None:
        """
        C{logging.exception} arrives with the traceback and the exception's
        names, the chain of exceptions included.
        """
        logger = logging.getLogger("tests.relay.exception")
        try:
            try:
                raise KeyError("inner")
            except KeyError as error:
                raise ValueError("outer") from error
        except ValueError:
            logger.exception("failed")
        [record] = self.sink.records
        assert record.failure is not None
        self.assertEqual(record.failure.classes[0], "builtins.ValueError")
        self.assertIn("KeyError: 'inner'", record.failure.traceback)
        self.assertIn("ValueError: outer", record.failure.traceback)

    def observe(self, observer: Callable[[dict[str, Any]], object]) -> None:
        """
        Have something called with each event of this test's logger.
        """

        @implementer(ILogObserver)
        def observe(event: dict[str, Any]) -> None:
            if event["log_namespace"] == "app":
                observer(event)

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def test_copies(self) -> None:
        """
        What an observer hands to the other logging system is a copy, in that
        thread alone.
        """

        def observer(event: dict[str, Any]) -> None:
            logging.getLogger("tests").warning("app: %s", formatEvent(event))
            STDLibLogObserver("tests")(event)
            thread = threading.Thread(
                target=lambda: Logger(namespace="thread").info("elsewhere")
            )
            thread.start()
            thread.join()

        self.observe(observer)
        self.log.warn("{what}", what="original")
        self.log.failure("failed", Failure(ZeroDivisionError()))
        self.flushLoggedErrors(ZeroDivisionError)
        self.assertEqual(self.texts(), ["original", "elsewhere", "failed", "elsewhere"])

    def test_observersOwn(self) -> None:
        """
        What an observer logs for itself is relayed, by whichever system, also
        where it quotes the event or is called like it.
        """

        def observer(event: dict[str, Any]) -> None:
            Logger(namespace="own").error("ALERT SENT FAILED")
            Logger(namespace="own").info("disk full")
            logging.getLogger("tests").error("cannot send: %s", formatEvent(event))
            logging.getLogger("tests").warning("'disk full' could not be sent")
            logging.getLogger("tests").warning("not sent: %s", formatEvent(event))
            Logger(namespace="own").warn("not sent: disk full")
            log.msg("one more")

        self.observe(observer)
        self.log.warn("disk full")
        self.assertEqual(
            self.texts(),
            [
                "disk full",
                "ALERT SENT FAILED",
                "disk full",
                "cannot send: disk full",
                "'disk full' could not be sent",
                "not sent: disk full",
                "not sent: disk full",
                "one more",
            ],
        )

    def test_handlersOwn(self) -> None:
        """
        So is what a handler of C{logging} logs.
        """
        outer = logging.getLogger("tests.relay.handler")
        outer.propagate = False

        class Handler(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                logging.getLogger("handler.internal").warning("internal")
                Logger(namespace="own").warn("own")
                log.msg(self.format(record))

        handler = Handler()
        outer.addHandler(handler)
        self.addCleanup(outer.removeHandler, handler)
        outer.warning("outer")
        self.assertEqual(self.texts(), ["outer", "internal", "own"])

    def test_nothingSaid(self) -> None:
        """
        An event without a text has no copies but such without a text.
        """

        def observer(event: dict[str, Any]) -> None:
            STDLibLogObserver("tests")(event)
            logging.getLogger("tests").warning("something")

        self.observe(observer)
        self.log.emit(LogLevel.warn, None, key="value")
        self.assertEqual(self.texts(), ["", "something"])

    def test_strangeRecord(self) -> None:
        """
        A record that nobody could format harms nobody, and neither do those
        that are logged because of it.
        """
        logger = logging.getLogger("tests.relay.strange")
        logger.propagate = False

        class Handler(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                log.msg("seen")

        handler = Handler()
        logger.addHandler(handler)
        self.addCleanup(logger.removeHandler, handler)
        logger.warning("%d", "x")
        record = logger.makeRecord("tests", 30, "f", 1, "%s", (object,), None)
        record.stack_info = [7]  # type: ignore[assignment]
        logger.handle(record)
        self.assertEqual(self.texts()[1::2], ["seen", "seen"])

    def test_privateRelay(self) -> None:
        """
        An observer that reports by a relay observer of its own is heard, and
        one that hands a changed copy of the event to such is not.
        """
        relay = RelayObserver(self.sink)
        own = Logger(namespace="own", observer=relay)

        def observer(event: dict[str, Any]) -> None:
            own.error("ALERT SENT FAILED")
            relay({**event, "enriched": True})

        self.observe(observer)
        self.log.warn("disk full")
        self.assertEqual(self.texts(), ["disk full", "ALERT SENT FAILED"])

    def test_garbageIsNoCopy(self) -> None:
        """
        An error that no Deferred handled arrives also when the garbage
        collector finds it while an event is being published.
        """

        @implementer(ILogObserver)
        def observer(event: dict[str, Any]) -> None:
            if event["log_namespace"] == "app":
                gc.collect()

        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        cycle: list[Any] = [fail(RuntimeError("unnoticed"))]
        cycle.append(cycle)
        del cycle
        self.log.info("original")
        self.flushLoggedErrors(RuntimeError)
        self.assertIn("original", self.texts())
        self.assertIn(
            "RuntimeError: unnoticed",
            "".join(record.traceback or "" for record in self.sink.records),
        )

    def test_brokenObserver(self) -> None:
        """
        What Twisted says of an observer that raises is relayed.
        """

        @implementer(ILogObserver)
        def observer(event: dict[str, Any]) -> None:
            raise RuntimeError("broken")

        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.log.info("original")
        self.flushLoggedErrors(RuntimeError)
        self.assertEqual(self.texts()[0], "original")
        self.assertIn("Temporarily disabling observer", self.texts()[1])

    def test_warning(self) -> None:
        """
        A warning arrives with its place and category.
        """
        self.undo()
        self.undo = installRelay(self.sink, LogLevel.info)
        self.sink.records.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn_explicit("careful", UserWarning, "program.py", 7)
        self.flushWarnings()
        [record] = self.sink.records
        self.assertEqual((record.level, record.namespace), (30, "warnings"))
        self.assertEqual(record.text, "program.py:7: builtins.UserWarning: careful")
        self.assertEqual(record.arguments["lineno"], 7)

    def test_recordedWarning(self) -> None:
        """
        A program that records warnings keeps them to itself.
        """
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warnings.warn_explicit("mine", UserWarning, "program.py", 8)
        self.assertEqual([str(each.message) for each in caught], ["mine"])
        self.assertEqual(self.sink.records, [])

    def test_sinkThatRaises(self) -> None:
        """
        A sink that raises does not harm the program.
        """
        self.patch(self.sink, "records", None)
        self.log.info("lost")
        logging.getLogger("tests").warning("lost")

    def test_observer(self) -> None:
        """
        A program's own relay observer relays what C{globalLogPublisher} does not
        see, and nothing that it does.
        """
        observer = RelayObserver(self.sink)
        verifyObject(ILogObserver, observer)
        Logger(namespace="private", observer=observer).debug("private")
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.log.info("public")
        self.assertEqual(self.texts(), ["private", "public"])

    def test_undo(self) -> None:
        """
        Everything is as before when the relay has been taken out.
        """
        self.undo()
        self.undo = lambda: None
        self.assertIs(type(globalLogPublisher), LogPublisher)
        self.assertNotIn("relayThenCallHandlers", repr(logging.Logger.callHandlers))
        self.assertNotIn("original", repr(logging.Handler.handleError))
        self.assertNotIn("tests", repr(gc.callbacks))
        self.log.info("late")
        logging.getLogger("tests").warning("late")
        self.assertEqual(self.sink.records, [])

    def test_loggingToTwistedAndBack(self) -> None:
        """
        Two systems that forward to each other do not loop through the relay.
        """
        logger = logging.getLogger("tests.relay.loop")
        logger.propagate = False
        seen: list[str] = []

        class Handler(logging.Handler):
            def emit(this, record: logging.LogRecord) -> None:
                seen.append(record.getMessage())

        logger.addHandler(Handler())
        observer = STDLibLogObserver("tests.relay.loop")
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.log.warn("round")
        self.assertEqual(seen, ["round"])
        self.assertEqual(self.texts(), ["round"])


class PrivateAttributeTests(SynchronousTestCase):
    """
    Twisted still has what the relay touches.
    """

    def test_beginner(self) -> None:
        """
        C{globalLogBeginner} keeps its history and its observer of the time
        before logging began where we look for them.
        """
        self.assertTrue(hasattr(globalLogBeginner, "_initialBuffer"))
        self.assertTrue(hasattr(globalLogBeginner, "_temporaryObserver"))

    def test_errorLogger(self) -> None:
        """
        C{LogPublisher} asks C{_errorLoggerForObserver} for a logger with a
        publisher of its own.
        """
        publisher = LogPublisher()
        logger = publisher._errorLoggerForObserver(publisher)
        self.assertIsInstance(logger.observer, LogPublisher)

    def test_withoutHistory(self) -> None:
        """
        Where C{globalLogBeginner} keeps none there, what is logged from now on is
        relayed all the same.
        """
        sink = ListSink()
        self.patch(globalLogBeginner, "_initialBuffer", None)
        undo = installRelay(sink, LogLevel.info)
        self.addCleanup(undo)
        Logger(namespace="app").info("text")
        self.assertEqual([record.text for record in sink.records], ["text"])
