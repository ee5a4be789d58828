"""
Tests for L{twisted_cluster.supervisor.console}.
"""

from __future__ import annotations

import io
import json
import os
import re
import time
from typing import Any

from hypothesis import given
from hypothesis import strategies as some
from twisted.logger import ILogObserver, LogLevel
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from twisted_cluster.ipc.failures import FailureText
from twisted_cluster.ipc.logs import LogRecord, toEvent
from twisted_cluster.supervisor.console import (
    consoleObserver,
    escape,
    jsonObserver,
    observerFor,
    plainObserver,
    shorten,
)

WHEN = 1_790_000_000.118
FAILURE = FailureText(
    ["builtins.KeyError"], "'x'", "Traceback:\n  File\nKeyError: 'x'\n"
)


class Terminal(io.StringIO):
    """
    A stream that says it is a terminal.
    """

    def isatty(self) -> bool:
        return True


def fromWorker(text: str, **fields: Any) -> dict[str, Any]:
    """
    Give an event of worker 2, in slot 1.
    """
    values = {"level": 20, "time": WHEN, "namespace": "app.web", **fields}
    return toEvent(LogRecord(text=text, **values), 2, 1)


def fromWatcher(text: str, **keys: Any) -> dict[str, Any]:
    """
    Give an event of the watcher itself.
    """
    return {
        "log_level": LogLevel.info,
        "log_namespace": "twisted_cluster",
        "log_format": text,
        "log_time": WHEN,
        **keys,
    }


class LookTests(SynchronousTestCase):
    """
    The same events, in each look.
    """

    def setUp(self) -> None:
        before = os.environ.get("TZ")
        os.environ["TZ"] = "Europe/Berlin"
        time.tzset()

        def restore() -> None:
            os.environ.pop("TZ")
            if before is not None:
                os.environ["TZ"] = before
            time.tzset()

        self.addCleanup(restore)
        self.stream = io.StringIO()

    def show(self, observer: Any, *events: dict[str, Any]) -> list[str]:
        verifyObject(ILogObserver, observer)
        for event in events:
            observer(event)
        written = self.stream.getvalue()
        self.stream.seek(0)
        self.stream.truncate()
        self.assertTrue(written.endswith("\n") or not written)
        return written.splitlines()

    def test_console(self) -> None:
        """
        On a terminal: time, level, worker, namespace and text in columns, and
        further lines behind a gutter.
        """
        lines = self.show(
            consoleObserver(self.stream, colour=False),
            fromWatcher("Starting {n}", n=2),
            fromWorker("serving\nmany", level=10),
            fromWorker("failed", level=50, failure=FAILURE),
        )
        self.assertEqual(
            lines,
            [
                "16:13:20.118 info  watcher   twisted_cluster      Starting 2",
                "16:13:20.118 debug worker 2  app.web              serving",
                "             │ many",
                "16:13:20.118 crit  worker 2  app.web              failed",
                "             │ Traceback:",
                "             │   File",
                "             │ KeyError: 'x'",
            ],
        )

    def test_colour(self) -> None:
        """
        With colours, the same text in the same columns, each worker's number in
        its slot's colour, and every colour ended on its line.
        """
        events = [fromWatcher("one"), fromWorker("two\nlines", level=10)]
        events.append(fromWorker("three", level=50, failure=FAILURE))
        plain = self.show(consoleObserver(self.stream, colour=False), *events)
        coloured = self.show(consoleObserver(self.stream, colour=True), *events)
        self.assertEqual(
            [re.sub("\x1b\\[[0-9;]*m", "", line) for line in coloured], plain
        )
        for line in coloured:
            self.assertTrue(line.rfind("\x1b[0m") >= line.rfind("\x1b["), line)
        [first] = re.findall("\x1b\\[([0-9;]*)mworker 2", coloured[1])
        other = toEvent(LogRecord(20, WHEN, "n", "text"), 3, 2)
        [line] = self.show(consoleObserver(self.stream, colour=True), other)
        self.assertNotIn(f"\x1b[{first}mworker 3", line)

    def test_alignment(self) -> None:
        """
        A worker's number that needs more room gets it from then on.
        """
        observer = consoleObserver(self.stream, colour=False)
        event = toEvent(LogRecord(20, WHEN, "n", "text"), 12345, 0)
        long, short = self.show(observer, event, fromWatcher("text"))
        self.assertEqual(long.index("text"), short.index("text"))

    def test_plain(self) -> None:
        """
        In a file: the date and the zone, names in full, further lines indented.
        """
        lines = self.show(
            plainObserver(self.stream),
            fromWatcher("Starting"),
            fromWorker("failed", level=40, failure=FAILURE),
        )
        self.assertEqual(
            lines,
            [
                "2026-09-21T16:13:20.118+02:00 [watcher]   info     "
                "twisted_cluster: Starting",
                "2026-09-21T16:13:20.118+02:00 [worker 2]  error    app.web: failed",
                "    Traceback:",
                "      File",
                "    KeyError: 'x'",
            ],
        )

    def test_winterTime(self) -> None:
        """
        The zone is that of the event's day.
        """
        [line] = self.show(plainObserver(self.stream), fromWorker("x", time=0.5))
        self.assertTrue(line.startswith("1970-01-01T01:00:00.500+01:00 "), line)

    def test_json(self) -> None:
        """
        As JSON: all that is known of an event, on one line.
        """
        lines = self.show(
            jsonObserver(self.stream),
            fromWorker(
                "failed\ntwice",
                level=40,
                format="{what}\n{n}",
                arguments={"what": "failed", "n": [b"\xff", float("nan")]},
                failure=FAILURE,
            ),
            fromWatcher("Starting {n} {x}", n=2, x={1}),
        )
        self.assertEqual(
            [json.loads(line) for line in lines],
            [
                {
                    "time": "2026-09-21T14:13:20.118000Z",
                    "level": "error",
                    "worker": 2,
                    "slot": 1,
                    "namespace": "app.web",
                    "message": "failed\ntwice",
                    "format": "{what}\n{n}",
                    "traceback": FAILURE.traceback,
                    "arguments": {"what": "failed", "n": ["\\xff", None]},
                },
                {
                    "time": "2026-09-21T14:13:20.118000Z",
                    "level": "info",
                    "worker": None,
                    "slot": None,
                    "namespace": "twisted_cluster",
                    "message": "Starting 2 {1}",
                    "format": "Starting {n} {x}",
                    "traceback": None,
                    "arguments": {"n": 2, "x": [1]},
                },
            ],
        )

    def test_legacy(self) -> None:
        """
        An event of C{twisted.python.log} shows its system in place of a
        namespace, and its traceback once.
        """
        event = fromWorker(
            "why\n" + FAILURE.traceback,
            namespace="log_legacy",
            system="HTTP",
            failure=FAILURE,
            legacy=True,
            isError=1,
        )
        text = "\n".join(self.show(plainObserver(self.stream), event))
        self.assertIn("HTTP: why\n    Traceback:", text)
        self.assertEqual(text.count("KeyError"), 1)
        [line] = self.show(jsonObserver(self.stream), event)
        self.assertEqual(json.loads(line)["message"], "why")
        self.assertEqual(json.loads(line)["traceback"], FAILURE.traceback)

    def test_failureOfWatcher(self) -> None:
        """
        The watcher's own failures are shown likewise.
        """
        event = fromWatcher("failed", log_failure=Failure(ValueError("bad")))
        first, *rest = self.show(plainObserver(self.stream), event)
        self.assertTrue(first.endswith(": failed"))
        self.assertIn("    Failure: builtins.ValueError: bad", rest)

    def test_empty(self) -> None:
        """
        An event without a text is not shown.
        """
        for make in (plainObserver, jsonObserver):
            self.assertEqual(self.show(make(self.stream), fromWatcher("")), [])

    def test_formattedOnce(self) -> None:
        """
        The text of a worker's event is shown as it came.
        """
        event = fromWorker("as it came")
        event["log_format"] = "{broken"
        [line] = self.show(plainObserver(self.stream), event)
        self.assertTrue(line.endswith("app.web: as it came"))


class SafetyTests(SynchronousTestCase):
    """
    No event can look like another, steer the terminal, or break the log.
    """

    @given(some.text(min_size=1), some.text())
    def test_anyText(self, text: str, namespace: str) -> None:
        """
        Whatever an event contains: its first line is one line, the others are
        indented, nothing but newlines and tabs controls anything; as JSON it is
        one line.
        """
        event = fromWorker(text, namespace=namespace or "-")
        for observe, indent in (
            (lambda stream: consoleObserver(stream, colour=False), "             │ "),
            (plainObserver, "    "),
        ):
            stream = io.StringIO(newline="")
            observe(stream)(event)
            written = stream.getvalue()
            first, *rest = written.removesuffix("\n").split("\n")
            self.assertRegex(first, r"16|14|\d\d:\d\d")
            for line in rest:
                self.assertTrue(line.startswith(indent.rstrip()), written)
            for character in written:
                self.assertFalse(
                    character not in "\n\t"
                    and (ord(character) < 32 or 127 <= ord(character) < 160)
                )
            written.encode("utf-8")
        stream = io.StringIO(newline="")
        jsonObserver(stream)(event)
        [line, end] = stream.getvalue().split("\n")
        self.assertEqual((json.loads(line)["worker"], end), (2, ""))

    def test_escape(self) -> None:
        """
        Control characters, line separators and changes of direction are made
        visible; letters of any script are left alone.
        """
        self.assertEqual(
            escape("a\x1b[31m\r\x00\x9b\u2028\u202e\ud800"),
            "a\\x1b[31m\\r\\x00\\x9b\\u2028\\u202e\\ud800",
        )
        for text in ("日本語", "naïve\u00a0", "\U0001f600", "tab\there"):
            self.assertEqual(escape(text), text)

    def test_strangeEvents(self) -> None:
        """
        Events that no C{Logger} makes are shown somehow.
        """

        class Raising:
            def __repr__(self) -> str:
                raise RuntimeError("no")

        cycle: list[Any] = []
        cycle.append(cycle)
        for event in (
            {"log_format": "x"},
            fromWatcher("x", log_time="now", log_level=3, log_namespace=None),
            fromWatcher("x", log_time=float("nan")),
            fromWatcher("x", log_time=1e300),
            fromWatcher("{a}", a=Raising()),
            fromWatcher("x", a=cycle, b=10**100, c="\ud800", d=Raising(), e=Raising),
            fromWatcher("x", log_failure="none"),
            {**fromWorker("x"), "cluster_arguments": {"a": cycle, "b": 10**100}},
        ):
            for observe in (
                lambda stream: consoleObserver(stream, colour=True),
                plainObserver,
                jsonObserver,
            ):
                stream = io.StringIO()
                observe(stream)(dict(event))
                self.assertTrue(stream.getvalue().endswith("\n"))
            json.loads(stream.getvalue())

    def test_narrowEncoding(self) -> None:
        """
        A stream that cannot express a character gets its escape.
        """
        raw = io.BytesIO()
        stream = io.TextIOWrapper(raw, encoding="ascii")
        consoleObserver(stream, colour=False)(fromWorker("é\nmore"))
        self.assertIn(b"\\xe9\n             \\u2502 more\n", raw.getvalue())

    def test_shorten(self) -> None:
        """
        A namespace gives up its leading parts first.
        """
        for namespace, expected in (
            ("twisted_cluster", "twisted_cluster"),
            ("twisted.web.server.Site", "t.web.server.Site"),
            ("my.very.long.package.name.Class", "m.v.l.p.name.Class"),
            ("a" * 30, "…" + "a" * 19),
            ("", ""),
        ):
            self.assertEqual(shorten(namespace, 20), expected)


class ChoiceTests(SynchronousTestCase):
    """
    L{observerFor} chooses what suits the stream.
    """

    def setUp(self) -> None:
        self.patch(os, "environ", {"TERM": "xterm"})

    def written(self, stream: io.StringIO, format: str = "auto") -> str:
        observerFor(stream, format)(fromWorker("text"))
        return stream.getvalue()

    def test_terminal(self) -> None:
        """
        A terminal gets columns and colours.
        """
        self.assertIn("\x1b[", self.written(Terminal()))

    def test_noColour(self) -> None:
        """
        Not the colours, when C{NO_COLOR} is set or the terminal is dumb.
        """
        for name, value in (("NO_COLOR", "1"), ("TERM", "dumb")):
            self.patch(os, "environ", {"TERM": "xterm", name: value})
            written = self.written(Terminal())
            self.assertNotIn("\x1b[", written)
            self.assertNotIn("[worker 2]", written)

    def test_file(self) -> None:
        """
        A file or a pipe gets plain text; so does a terminal when asked.
        """
        self.assertIn("[worker 2]", self.written(io.StringIO()))
        self.assertIn("[worker 2]", self.written(Terminal(), "text"))

    def test_json(self) -> None:
        """
        JSON wherever it is asked for.
        """
        json.loads(self.written(Terminal(), "json"))

    def test_unknown(self) -> None:
        """
        There are no other formats.
        """
        self.assertRaises(ValueError, observerFor, io.StringIO(), "xml")
