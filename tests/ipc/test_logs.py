"""
Tests for L{twisted_cluster.ipc.logs}, C{formats} and C{failures}.
"""

from __future__ import annotations

import io
import traceback
from datetime import datetime
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as some
from twisted.logger import (
    LegacyLogObserverWrapper,
    Logger,
    LogLevel,
    LogPublisher,
    eventAsText,
    extractField,
    formatEvent,
    textFileLogObserver,
)
from twisted.python import log
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.ipc.test_plain import _ANYTHING, NoText, Raising
from twisted_cluster.errors import ProtocolError
from twisted_cluster.ipc.failures import RemoteFailure
from twisted_cluster.ipc.formats import isSimple
from twisted_cluster.ipc.logqueue import joinRecords
from twisted_cluster.ipc.logs import (
    MAX_EVENT,
    LogRecord,
    decodeRecords,
    encodeEvent,
    encodeRecord,
    lineRecord,
    toEvent,
)


class Site:
    """
    An argument that formats look into.
    """

    def __init__(self) -> None:
        self.ports = [80, 443]

    def name(self) -> str:
        return "example"

    def __str__(self) -> str:
        return "site"


def emitted(
    format: Any, level: Any = LogLevel.info, **arguments: Any
) -> dict[str, Any]:
    """
    Give the event that a C{Logger} emits.
    """
    events: list[dict[str, Any]] = []
    logger = Logger("app", observer=events.append)  # type: ignore[arg-type]
    logger.emit(level, format, **arguments)
    return events[0]


def legacy(function: Any, *arguments: Any, **keywords: Any) -> dict[str, Any]:
    """
    Give the event that a function of C{twisted.python.log} emits.
    """
    events: list[dict[str, Any]] = []
    publisher = log.LogPublisher(publishPublisher=LogPublisher(events.append))  # type: ignore[arg-type]
    if function is log.err:
        failure, why = arguments
        publisher.msg(failure=failure, why=why, isError=1, **keywords)
    else:
        publisher.msg(*arguments, **keywords)
    return events[0]


def record(event: dict[str, Any]) -> LogRecord:
    """
    Send an event across.
    """
    _, data = encodeEvent(event)
    [result] = decodeRecords(joinRecords([data]))
    return result


def across(event: dict[str, Any]) -> dict[str, Any]:
    """
    Send an event across and make it an event again.
    """
    return toEvent(record(event), 2, 1)


def failure() -> Failure:
    """
    Give a failure with a traceback.
    """
    try:
        raise LookupError("not here")
    except LookupError:
        return Failure()


def legacyText(event: dict[str, Any]) -> Any:
    """
    Give the text that an observer of C{twisted.python.log} shows.
    """
    events: list[dict[str, Any]] = []
    LegacyLogObserverWrapper(events.append)(event)  # type: ignore[arg-type]
    return log.textFromEventDict(events[0])


class SameTextTests(SynchronousTestCase):
    """
    The watcher's C{formatEvent} gives the text that the worker's gives.
    """

    def check(self, format: Any, **arguments: Any) -> dict[str, Any]:
        event = emitted(format, **arguments)
        arrived = across(event)
        self.assertEqual(formatEvent(arrived), formatEvent(event))
        self.assertEqual(arrived["log_text"], formatEvent(event))
        return arrived

    def test_plain(self) -> None:
        """
        With plain arguments, which arrive as they were, with the format.
        """
        arrived = self.check("{a} {b!r} {c:.2f} {d:03d} {{}}", a="x", b="y", c=1.5, d=7)
        self.assertEqual(arrived["log_format"], "{a} {b!r} {c:.2f} {d:03d} {{}}")
        self.assertEqual((arrived["a"], arrived["c"]), ("x", 1.5))
        self.assertNotIn("log_flattened", arrived)

    def test_nested(self) -> None:
        """
        With lists and dicts of plain data.
        """
        arrived = self.check("{a} {b}", a=[1, [2.5, None]], b={"k": [True]})
        self.assertEqual(arrived["b"], {"k": [True]})

    def test_access(self) -> None:
        """
        With a format that looks into its arguments and calls them.
        """
        arrived = self.check(
            "{site.ports[1]} {site.name()} {f()} {site!s:>8} {site.ports!r} {site}",
            site=Site(),
            f=lambda: "called",
        )
        self.assertEqual(extractField("site.name()!s", arrived), "example")
        self.assertTrue(arrived["log_format"].startswith("{site.ports[1]}"))

    def test_changed(self) -> None:
        """
        With arguments that MessagePack does not have.
        """
        self.check(
            "{a} {b} {c} {d} {e!r:>40}",
            a=(1, 2),
            b={3},
            c=2**70,
            d=datetime(2026, 1, 1),
            e=b"bytes",
        )

    def test_repeated(self) -> None:
        """
        With fields that occur more than once.
        """
        self.check("{a} {a} {a!r} {a!r}", a=(1,))

    def test_nestedSpecification(self) -> None:
        """
        With a format specification made of arguments.
        """
        self.check("{a:>{width}}", a="x", width=9)

    def test_own(self) -> None:
        """
        With arguments named like keys that an event has anyway.
        """
        self.check(
            "{message} {time} {system} {isError} {cluster_worker} {log_source} {why}",
            message="m",
            time="now",
            system=(1,),
            isError="no",
            cluster_worker=9,
            why="so",
        )

    def test_broken(self) -> None:
        """
        With formats that cannot be formatted.
        """
        for format in ("{", "{missing}", "{}", "{a.nothing}", "{a!x}", 7, b"\xff"):
            self.check(format, a=1)

    def test_bytesFormat(self) -> None:
        """
        With a format of bytes.
        """
        self.check(b"{a}", a=1)

    def test_none(self) -> None:
        """
        With no format at all.
        """
        self.check(None, a=1)

    def test_legacyMessage(self) -> None:
        """
        Of C{log.msg}.
        """
        for event in (
            legacy(log.msg, "two", "words"),
            legacy(log.msg, format="%(a)s and %(b)d", a=Site(), b=3),
            legacy(log.msg, format="%(a)d", a="text"),
            legacy(log.msg, "text", system="HTTP"),
        ):
            self.assertEqual(formatEvent(across(event)), formatEvent(event))

    def test_legacyError(self) -> None:
        """
        Of C{log.err}, the traceback included.
        """
        for why in ("why", None):
            event = legacy(log.err, failure(), why)
            self.assertEqual(formatEvent(across(event)), formatEvent(event))

    def test_zeroes(self) -> None:
        """
        Of texts with null characters.
        """
        event = emitted("{a!s:>5}|{b.real}|{a}", a="\0x\0", b=1)
        self.assertEqual(formatEvent(across(event)), formatEvent(event))

    def test_formatOfItself(self) -> None:
        """
        Of a format that refers to itself.
        """
        event = emitted("{a!r} is {log_format!r}", a=[1])
        self.assertEqual(formatEvent(across(event)), formatEvent(event))

    @given(some.dictionaries(some.from_regex(r"\A[a-z]{1,4}\Z"), _ANYTHING, max_size=5))
    def test_anything(self, arguments: dict[str, Any]) -> None:
        """
        With any arguments, as far as UTF-8 can express it.
        """
        arguments.pop("self", None)
        format = " ".join(f"{{{name}}} {{{name}!r}}" for name in arguments)
        event = emitted(None)
        event.update(arguments, log_format=format)
        expected = formatEvent(event).encode("utf-8", "backslashreplace").decode()
        if "0x" not in expected:
            self.assertEqual(formatEvent(across(event)), expected)


class EncodeTests(SynchronousTestCase):
    """
    Encoding never raises and is bounded.
    """

    def test_strange(self) -> None:
        """
        Events that no C{Logger} makes are encoded, too.
        """
        cycle: list[Any] = []
        cycle.append(cycle)
        strange: list[dict[Any, Any]] = [
            {},
            {"log_level": "info", "log_time": "now", "log_namespace": 5},
            {"log_format": object(), "log_system": object(), 7: 8, None: cycle},
            {"log_format": "{a}", "a": Raising(), "log_namespace": Raising()},
            {"log_format": "{a!r}", "a": NoText()},
            {"log_format": "\udc80{a}", "a": "\udc80", "log_namespace": "\udcff"},
            {"log_failure": "none"},
            {"isError": Raising(), "message": ()},
            {"log_format": "{log_text}", "log_text": 7},
            {"log_format": "{log_text}"},
            {"log_format": "{a}", "log_flattened": {}},
            {"log_time": float("nan"), "log_format": "x"},
            {"log_time": 2**80, "log_format": "x"},
        ]
        for event in strange:
            before = dict(event)
            arrived = across(event)
            self.assertEqual(event.keys(), before.keys())
            eventAsText(arrived)
            legacyText(arrived)

    def test_long(self) -> None:
        """
        A long event is cut, and says so.
        """
        for event in (
            emitted("{x}", x="y" * 10**7),
            emitted("y" * 10**7),
            emitted("{x}", x="\U0001f600" * 10**6, z=["z" * 1000] * 10_000),
            emitted("short", x=["\U0001f600" * 1000] * 1000),
            emitted("failed", log_failure=Failure(ValueError("v" * 10**7))),
            legacy(log.err, Failure(ValueError("v" * 10**7)), "why"),
            legacy(log.msg, "m" * 10**7),
        ):
            _, data = encodeEvent(event)
            self.assertLessEqual(len(data), MAX_EVENT)
            arrived = across(event)
            self.assertIn("cut", repr(arrived))
            self.assertLessEqual(len(eventAsText(arrived)), MAX_EVENT)
            self.assertEqual(formatEvent(arrived), arrived["log_text"])

    def test_longRecord(self) -> None:
        """
        So is a record, whatever is long in it.
        """
        long = "\U0001f600" * 10**6
        for name in ("namespace", "text", "format", "system"):
            values: dict[str, Any] = {"namespace": "n", "text": "t", name: long}
            self.assertLessEqual(
                len(encodeRecord(LogRecord(20, 0.0, **values))), MAX_EVENT
            )

    def test_level(self) -> None:
        """
        The level's number comes with the encoded event.
        """
        numbers = [
            encodeEvent(emitted("x", level))[0] for level in LogLevel.iterconstants()
        ]
        self.assertEqual(sorted(numbers), [10, 20, 30, 40, 50])
        self.assertEqual(encodeEvent({"log_format": "x"})[0], 20)


class DecodeTests(SynchronousTestCase):
    """
    The watcher trusts no worker.
    """

    def test_garbage(self) -> None:
        """
        What is no batch is a L{ProtocolError}.
        """
        whole = joinRecords([encodeEvent(emitted("x"))[1]])
        for batch in (
            b"",
            b"\xc1",
            b"garbage",
            whole[:-1],
            whole + b"\x00",
            msgspec.msgpack.encode([1, 2]),
            msgspec.msgpack.encode([["20", 0.0, "n", "t"]]),
            msgspec.msgpack.encode([[20, 0.0, "n", "t", None, {1: 2}]]),
            msgspec.msgpack.encode(
                [[20, 0.0, "n", "t", None, {}, False, None, [[], 1]]]
            ),
            b"\xdd\0\0\0\1" + b"\x91" * 100_000 + b"\xc0",
            b"\xdd\xff\xff\xff\xff",
        ):
            self.assertRaises(ProtocolError, decodeRecords, batch)

    @given(some.binary(max_size=60))
    def test_anyBytes(self, data: bytes) -> None:
        """
        No bytes raise anything else.
        """
        try:
            decodeRecords(data)
        except ProtocolError:
            pass

    def test_hostileFormats(self) -> None:
        """
        A format that looks into the watcher, or that makes a short event long, is
        not formatted there.
        """
        for format in (
            "{log_level.__class__}",
            "{log_failure.cleanFailure()}",
            "{a[0]}",
            "{a()}",
            "{a:>999999999}",
            "{a:>{b}}",
            "{log_source}",
            "{a}" * 1000,
        ):
            self.assertFalse(isSimple(format), format)
            hostile = LogRecord(20, 0.0, "n", "text", format, {"a": "x"}, braces=True)
            self.assertEqual(formatEvent(toEvent(hostile, 1, 0)), "text")

    def test_hostileKeys(self) -> None:
        """
        Arguments cannot stand in for what the watcher says of an event.
        """
        names = [
            "cluster_worker",
            "log_trace",
            "log_level",
            "log_failure",
            "isError",
            "format",
        ]
        hostile = LogRecord(
            20, 0.0, "n", "text", None, dict.fromkeys(names, "%(a)999d")
        )
        event = toEvent(hostile, 1, 0)
        self.assertEqual(
            (event["cluster_worker"], event["log_level"]), (1, LogLevel.info)
        )
        for name in ("log_trace", "log_failure", "format"):
            self.assertNotIn(name, event)

    def test_strangeLevels(self) -> None:
        """
        A level that does not exist becomes one that does.
        """
        for number, level in ((-5, "debug"), (25, "info"), (10**6, "critical")):
            event = toEvent(LogRecord(number, 0.0, "n", "t"), 1, 0)
            self.assertEqual(event["log_level"].name, level)

    def test_emptyFailure(self) -> None:
        """
        A failure without a class has one all the same.
        """
        data = msgspec.msgpack.encode(
            [[40, 0.0, "n", "t", None, {}, False, None, [["\0."], "m", "tb"]]]
        )
        [hostile] = decodeRecords(data)
        self.assertIn("tb", eventAsText(toEvent(hostile, 1, 0)))


class EventTests(SynchronousTestCase):
    """
    What the watcher's observers see.
    """

    def test_envelope(self) -> None:
        """
        Level, namespace and time are as they were; worker and slot come along.
        """
        event = emitted("x", LogLevel.warn)
        arrived = across(event)
        for key in ("log_level", "log_namespace", "log_time", "log_format"):
            self.assertEqual(arrived[key], event[key])
        self.assertEqual((arrived["cluster_worker"], arrived["cluster_slot"]), (2, 1))

    def test_twistdsText(self) -> None:
        """
        Twistd's own log names the worker.
        """
        for event, system in (
            (emitted("x"), "app#info worker 2"),
            (legacy(log.msg, "x"), "worker 2"),
            (legacy(log.msg, "x", system="HTTP,1"), "HTTP,1 worker 2"),
        ):
            stream = io.StringIO()
            textFileLogObserver(stream, timeFormat=None)(across(event))
            self.assertEqual(stream.getvalue(), f"- [{system}] x\n")

    def test_legacyObserver(self) -> None:
        """
        Observers of C{twisted.python.log} print what they would in the worker.
        """
        for event in (
            emitted("x {y}", y=1),
            emitted("failed", LogLevel.critical, log_failure=failure()),
            legacy(log.msg, "x"),
            legacy(log.err, failure(), "why"),
            legacy(log.err, failure(), None),
            emitted(None),
        ):
            self.assertEqual(legacyText(across(event)), legacyText(dict(event)))

    def test_isError(self) -> None:
        """
        What C{twisted.python.log} calls an error stays one.
        """
        for event, isError in (
            (emitted("x"), 0),
            (emitted("x", LogLevel.error), 1),
            (legacy(log.msg, "x"), 0),
            (legacy(log.msg, "x", isError=1), 1),
            (legacy(log.err, failure(), None), 1),
        ):
            self.assertEqual(across(event)["isError"], isError)

    def test_failure(self) -> None:
        """
        A failure is one again: same text, same name, found by C{check}.
        """
        original = failure()
        event = emitted("failed", LogLevel.critical, log_failure=original)
        arrived = across(event)
        copy = arrived["log_failure"]
        self.assertIsInstance(copy, RemoteFailure)
        self.assertEqual(copy.getTraceback(), original.getTraceback())
        self.assertEqual(copy.getErrorMessage(), "not here")
        self.assertEqual(repr(copy).split()[1:], repr(original).split()[1:])
        self.assertIs(copy.check(LookupError), LookupError)
        self.assertIs(copy.check(Exception), Exception)
        self.assertIsNone(copy.check(KeyError))
        self.assertEqual(copy.type.__name__, "LookupError")
        self.assertIn("LookupError'>: not here", copy.getBriefTraceback())
        self.assertEqual(
            eventAsText(arrived, includeSystem=False),
            eventAsText(event, includeSystem=False),
        )

    def test_failureElsewhere(self) -> None:
        """
        Python's own way to print exceptions shows the worker's traceback.
        """
        copy = across(emitted("failed", log_failure=failure()))["log_failure"]
        printed = "".join(traceback.format_exception(copy.type, copy.value, copy.tb))
        self.assertIn('raise LookupError("not here")', printed)

    def test_formatOfOthers(self) -> None:
        """
        A format of another style is kept, and not taken for Twisted's.
        """
        event = legacy(log.msg, format="%(a)s", a=1)
        arrived = across(event)
        self.assertEqual(arrived["cluster_format"], "%(a)s")
        self.assertEqual(arrived["log_format"], "{log_text}")
        self.assertEqual(arrived["cluster_arguments"], {"a": 1})

    def test_line(self) -> None:
        """
        A printed line looks as Twisted has it where it takes the streams over.
        """
        event = toEvent(lineRecord("stderr", "{oops}", 5.0), 2, 1)
        self.assertEqual(formatEvent(event), "{oops}")
        self.assertEqual(event["log_level"], LogLevel.error)
        self.assertEqual(
            (event["log_namespace"], event["log_io"]), ("stderr", "{oops}")
        )
        event = toEvent(lineRecord("stdout", "fine", 5.0), 2, 1)
        self.assertEqual((event["log_level"], event["isError"]), (LogLevel.info, 0))
