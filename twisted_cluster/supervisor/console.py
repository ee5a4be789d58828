"""
How the log looks: on a terminal, in a file, and as JSON.

Rules:

  - One event is one line, or a first line and indented ones after it.  What an
    event contains cannot look like another event's line, nor steer a terminal:
    control characters are escaped.
  - The text was formatted where the event was logged, and is not formatted
    again.
  - An observer never raises because of an event; of the stream, what writing
    raises.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from time import time as now
from typing import IO, Any, Final, Optional

import msgspec
from twisted.logger import FileLogObserver, ILogObserver, LogLevel, formatEvent
from twisted.python.failure import Failure

from twisted_cluster.ipc.logs import LEVELS, describeEvent, levelNumber
from twisted_cluster.ipc.plain import plainData, safeText
from twisted_cluster.supervisor.pipes import PipeWriter, isPipe

_WATCHER: Final = "watcher"
_NAMESPACE: Final = 20
_LEVEL_NAMES: Final = {number: level.name for level, number in LEVELS.items()}
_SHORT_NAMES: Final = {
    number: f"{'crit' if name == 'critical' else name:<5}"
    for number, name in _LEVEL_NAMES.items()
}
_UNSAFE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)

_RESET: Final = "\x1b[0m"
_DIM: Final = "\x1b[2m"
_BOLD: Final = "\x1b[1m"
_LEVEL_COLOURS: Final = {
    10: _DIM,
    20: "\x1b[32m",
    30: "\x1b[33m",
    40: "\x1b[1;31m",
    50: "\x1b[1;37;41m",
}
_SLOT_COLOURS: Final = (
    "\x1b[36m",
    "\x1b[35m",
    "\x1b[94m",
    "\x1b[96m",
    "\x1b[95m",
    "\x1b[92m",
)


def observerFor(stream: IO[Any], format: str = "auto") -> ILogObserver:
    """
    Choose how the log looks on a stream.

    @param format: C{auto} (aligned on a terminal, and coloured unless
        C{NO_COLOR} is set or the terminal is dumb; plain elsewhere), C{text}
        (plain) or C{json}.
    @raise ValueError: for another format.
    """
    if format == "json":
        return jsonObserver(stream)
    if format == "auto" and _isTerminal(stream):
        dumb = os.environ.get("TERM", "dumb") == "dumb"
        return consoleObserver(stream, not dumb and not os.environ.get("NO_COLOR"))
    if format in ("auto", "text"):
        return plainObserver(stream)
    raise ValueError(f"no log format is called {format!r}: auto, text or json")


def _isTerminal(stream: IO[Any]) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False


def consoleObserver(stream: IO[Any], colour: bool) -> ILogObserver:
    """
    Write the log for people who watch it: time, level, worker and namespace in
    columns.
    """
    return _observer(stream, _Console(colour))


def plainObserver(stream: IO[Any]) -> ILogObserver:
    """
    Write the log for files and for C{grep}: one event a line, its further lines
    indented, as in

    C{2026-01-31T14:03:22.118+01:00 [worker 2]  info     mypackage.server: text}
    """
    return _observer(stream, _Plain())


def jsonObserver(stream: IO[Any]) -> ILogObserver:
    """
    Write the log for programs: one JSON object a line.

    Its keys: C{time} (ISO 8601, UTC), C{level}, C{worker} and C{slot} (null for
    the watcher's own events), C{namespace}, C{message} (the text),
    C{format} (as the program gave it, or null), C{traceback} (or null) and
    C{arguments} (an object of the event's own keys).
    """
    return _observer(stream, _json)


def _observer(stream: IO[Any], line: Callable[[_Entry], str]) -> ILogObserver:
    encoding = (getattr(stream, "encoding", None) or "utf-8").lower().replace("_", "-")

    def text(event: dict[str, Any]) -> Optional[str]:
        entry = _Entry(event)
        if not entry.text and not entry.traceback:
            return None
        result = line(entry)
        if encoding not in ("utf-8", "utf8"):
            result = result.encode(encoding, "backslashreplace").decode(encoding)
        return result

    def report(count: int) -> str:
        event = {
            "log_level": LogLevel.warn,
            "log_namespace": "twisted_cluster",
            "log_format": "nobody read the log: {count} events were dropped",
            "count": count,
        }
        return text(event) or ""

    file: Any = PipeWriter(stream, report) if isPipe(stream) else stream
    return FileLogObserver(file, text)


class _Entry:
    """
    What is to be shown of an event, wherever it comes from.

    @ivar text: the text, without the traceback.
    @ivar traceback: the traceback, or the empty string.
    @ivar worker: the worker's id, or L{None} for the watcher itself.
    @ivar origin: the namespace, or what C{twisted.python.log} calls the system.
    """

    def __init__(self, event: dict[str, Any]) -> None:
        self.event = event
        self.level = levelNumber(event)
        when = event.get("log_time")
        self.time: float = when if isinstance(when, (int, float)) else now()
        self.namespace = _string(event.get("log_namespace", "-"))
        self.origin = self.namespace
        if self.namespace == "log_legacy":
            self.origin = _string(event.get("cluster_system", event.get("system", "-")))
        self.worker: Optional[int] = event.get("cluster_worker")
        self.slot: Optional[int] = event.get("cluster_slot")
        text = event.get("log_text")
        self.text: str = text if type(text) is str else formatEvent(event)
        self.traceback = ""
        failure = event.get("log_failure") or event.get("failure")
        if isinstance(failure, Failure):
            try:
                self.traceback = failure.getTraceback()
            except Exception as error:
                self.traceback = f"(no traceback: {safeText(error)})"
            if self.traceback:
                self.text = self.text.removesuffix(self.traceback).rstrip("\n")

    def lines(self) -> Iterator[str]:
        """
        Give the lines of the text and of the traceback, made safe.
        """
        whole = self.text
        if self.traceback:
            whole = f"{whole}\n{self.traceback.rstrip()}" if whole else self.traceback
        if whole.isprintable():
            yield whole
            return
        for line in whole.replace("\r\n", "\n").rstrip("\n").split("\n"):
            yield escape(line)


def escape(line: str) -> str:
    """
    Make control characters, and others that deceive the reader, visible.
    """
    if line.isprintable():
        return line
    return _UNSAFE.sub(_escaped, line.replace("\n", "\\n"))


def _escaped(match: re.Match[str]) -> str:
    return ascii(match.group())[1:-1]


def _string(value: object) -> str:
    return value if isinstance(value, str) else safeText(value, str)


class _Clock:
    """
    Formats times, most of which fall into the same second.
    """

    def __init__(self, format: str, zone: bool = False) -> None:
        self._format = format
        self._zone = zone
        self._second: Optional[int] = None
        self._before = self._after = ""

    def __call__(self, when: float) -> str:
        try:
            second = int(when // 1)
            if second != self._second:
                moment = datetime.fromtimestamp(second).astimezone()
                self._before = moment.strftime(self._format)
                self._after = moment.isoformat()[19:] if self._zone else ""
                self._second = second
            return f"{self._before}.{int((when - second) * 1000):03}{self._after}"
        except (ValueError, OverflowError, OSError):
            return "-"


class _Console:
    """
    Lines for a terminal.
    """

    def __init__(self, colour: bool) -> None:
        self._colour = colour
        self._time = _Clock("%H:%M:%S")
        self._worker = len("worker 99")

    def __call__(self, entry: _Entry) -> str:
        own = entry.worker is None
        label = _WATCHER if own else f"worker {entry.worker}"
        self._worker = max(self._worker, len(label))
        first, *rest = entry.lines()
        paint = self._paint
        head = " ".join(
            (
                paint(_DIM, self._time(entry.time)),
                paint(_LEVEL_COLOURS[entry.level], _SHORT_NAMES[entry.level]),
                paint(_slotColour(entry.slot), f"{label:<{self._worker}}"),
                paint(_DIM, f"{shorten(entry.origin, _NAMESPACE):<{_NAMESPACE}}"),
            )
        )
        gutter = " " * 13 + paint(_DIM, "│") + " "
        body = [self._body(entry, first)]
        body += [gutter + self._body(entry, line) for line in rest]
        return head + " " + "\n".join(body) + "\n"

    def _body(self, entry: _Entry, line: str) -> str:
        if entry.level <= 10:
            return self._paint(_DIM, line)
        return line

    def _paint(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_RESET}" if self._colour else text


def _slotColour(slot: Optional[int]) -> str:
    return _BOLD if slot is None else _SLOT_COLOURS[slot % len(_SLOT_COLOURS)]


def shorten(namespace: str, width: int) -> str:
    """
    Abbreviate a namespace: first its leading parts shrink to their initials, then
    it is cut on the left.
    """
    parts = escape(namespace).split(".")
    for index in range(len(parts) - 1):
        if len(".".join(parts)) <= width:
            break
        parts[index] = parts[index][:1]
    short = ".".join(parts)
    return short if len(short) <= width else "…" + short[1 - width :]


class _Plain:
    """
    Lines for a file.
    """

    def __init__(self) -> None:
        self._time = _Clock("%Y-%m-%dT%H:%M:%S", zone=True)
        self._worker = len("[worker 99]")

    def __call__(self, entry: _Entry) -> str:
        label = "[watcher]" if entry.worker is None else f"[worker {entry.worker}]"
        self._worker = max(self._worker, len(label))
        time, level = self._time(entry.time), _LEVEL_NAMES[entry.level]
        namespace = escape(entry.origin)
        text = "\n    ".join(entry.lines())
        return f"{time} {label:<{self._worker}} {level:<8} {namespace}: {text}\n"


def _json(entry: _Entry) -> str:
    event = entry.event
    arguments, format = event.get("cluster_arguments"), event.get("cluster_format")
    if arguments is None:
        record = describeEvent(event)
        arguments, format = record.arguments, record.format
    values = {
        "time": _utc(entry.time),
        "level": _LEVEL_NAMES[entry.level],
        "worker": entry.worker,
        "slot": entry.slot,
        "namespace": entry.namespace,
        "message": entry.text,
        "format": format,
        "traceback": entry.traceback or None,
        "arguments": arguments,
    }
    try:
        values["arguments"] = _jsonable(arguments)
        encoded = msgspec.json.encode(values)
    except Exception:
        encoded = msgspec.json.encode(_jsonable(plainData(values)[0]))
    return encoded.decode("utf-8") + "\n"


def _jsonable(value: Any) -> Any:
    """
    Write bytes as text, which JSON would have as Base64.
    """
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, dict):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_jsonable(item) for item in value]
    return value


def _utc(when: float) -> str:
    try:
        moment = datetime.fromtimestamp(when, timezone.utc)
        return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return "-"
