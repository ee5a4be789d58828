"""
Makes an event of C{twisted.logger} a record that crosses to the watcher, and
makes the record an event again.

The worker formats the text, once; format and arguments travel along for those
who want them, as plain data.  The event in the watcher formats to the text that
it has in the worker.

The watcher trusts nothing that it decodes: an event of a worker makes it look
up, call or allocate no more than the event is long.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import time
from typing import Any, Final

from twisted.logger import LogLevel, formatEvent
from twisted.python.failure import Failure

from twisted_cluster.ipc.failures import FailureText, RemoteFailure, describeFailure
from twisted_cluster.ipc.formats import UNFORMATTABLE, flatten, isSimple
from twisted_cluster.ipc.logqueue import LogQueue
from twisted_cluster.ipc.plain import SCALARS, plainData, safeText
from twisted_cluster.ipc.records import (
    MAX_EVENT,
    LogRecord,
    decodeRecords,
    encodeRecord,
    lineRecord,
)

__all__ = [
    "MAX_EVENT",
    "LogQueue",
    "LogRecord",
    "decodeRecords",
    "encodeEvent",
    "encodeRecord",
    "levelBelow",
    "levelNumber",
    "lineRecord",
    "recordOf",
    "toEvent",
]

LEVELS: Final[Mapping[Any, int]] = {
    LogLevel.debug: 10,
    LogLevel.info: 20,
    LogLevel.warn: 30,
    LogLevel.error: 40,
    LogLevel.critical: 50,
}
"""
The levels' numbers, those of the standard C{logging} module.
"""

_NAMES: Final = {number: level for level, number in LEVELS.items()}
_ENVELOPE: Final = frozenset(
    (
        "log_logger",
        "log_level",
        "log_namespace",
        "log_source",
        "log_format",
        "log_time",
        "log_failure",
        "log_trace",
        "log_flattened",
        "log_text",
        "log_legacy",
        "log_system",
    )
)
_LEGACY: Final = _ENVELOPE.union(
    ("message", "isError", "time", "system", "failure", "why", "format", "logLevel")
)
_RESERVED: Final = _LEGACY.union(
    (
        "cluster_worker",
        "cluster_slot",
        "cluster_system",
        "cluster_format",
        "cluster_arguments",
    )
)
_LATEST: Final = 2e11


def levelNumber(event: dict[str, Any]) -> int:
    """
    Find the number of an event's level; that of info if it has none.
    """
    return LEVELS.get(event.get("log_level"), 20)


def levelBelow(number: int) -> int:
    """
    Find the number of the level that is next to any number, from below.
    """
    return max(10, min(50, number // 10 * 10))


def encodeEvent(event: dict[str, Any]) -> tuple[int, bytes]:
    """
    Encode an event of C{twisted.logger}.  Never raises.

    @param event: the event; it is not changed.
    @return: the number of its level, and at most L{MAX_EVENT} bytes.
    """
    record = recordOf(event)
    return record.level, encodeRecord(record)


def recordOf(event: dict[str, Any]) -> LogRecord:
    """
    Describe an event of C{twisted.logger} as a record.  Never raises.
    """
    try:
        return describeEvent(event)
    except BaseException as error:
        return LogRecord(
            levelNumber(event), time(), "-", f"a log event was lost: {safeText(error)}"
        )


def describeEvent(event: dict[str, Any]) -> LogRecord:
    """
    Describe an event of C{twisted.logger} as a record.

    Where all arguments are scalars and the format is simple, that costs little
    more than formatting it.
    """
    isLegacy = "isError" in event and type(event.get("message")) is tuple
    skipped = _LEGACY if isLegacy else _ENVELOPE
    exact = True
    arguments = {}
    for key, value in event.items():
        if key not in skipped:
            if type(value) not in SCALARS or type(key) is not str:
                exact = False
            arguments[key] = value
    level = levelNumber(event)
    failure = event.get("log_failure")
    if not isinstance(failure, Failure):
        failure = None
    record = LogRecord(
        level,
        event.get("log_time") or time(),
        event.get("log_namespace") or "-",
        "",
        event.get("log_format"),
        arguments,
        system=event.get("log_system"),
        isError=int(failure is not None or level >= 40),
    )
    if isLegacy:
        record.isError = int(bool(event["isError"]))
        record.format = event.get("format")
    if failure is None and isinstance(event.get("failure"), Failure):
        failure = event["failure"]
        record.legacy = True
    if failure is not None:
        record.failure = describeFailure(failure)
    if not exact or not _RESERVED.isdisjoint(arguments):
        plain, same = plainData(arguments)
        record.arguments = plain
        exact = same and _RESERVED.isdisjoint(arguments)
    _formatInto(record, event, isLegacy, exact)
    return record


def _formatInto(
    record: LogRecord, event: dict[str, Any], isLegacy: bool, exact: bool
) -> None:
    """
    Format an event, and find out what the watcher needs to do likewise.
    """
    format = event.get("log_format")
    if "log_text" in event or "log_flattened" in event:
        if format == "{log_text}" and type(event.get("log_text")) is str:
            record.text = event["log_text"]
            record.format = record.format if isLegacy else None
        else:
            record.text = formatEvent(event)
    elif type(format) is str:
        record.braces = True
        if exact and isSimple(format):
            record.text = formatEvent(event)
            record.braces = not record.text.startswith(UNFORMATTABLE)
        else:
            try:
                record.text, record.fields = flatten(format, event)
            except BaseException:
                record.braces = False
                record.text = formatEvent(event)
    elif format is not None:
        record.text = formatEvent(event)


def toEvent(record: LogRecord, worker: int, slot: int) -> dict[str, Any]:
    """
    Make an event of C{twisted.logger} again.

    Besides the usual keys it has C{cluster_worker}, C{cluster_slot}, C{log_text}
    (the formatted text), C{cluster_system} and C{cluster_format} (as the program
    gave them) and C{cluster_arguments}: the event's own keys, which it also has
    itself as far as they do not collide with others.

    @param worker: the worker's id.
    @param slot: the place that it takes.
    """
    level = _NAMES[levelBelow(record.level)]
    when = record.time if 0 <= record.time < _LATEST else time()
    system = record.system or f"{record.namespace}#{level.name}"
    event: dict[str, Any] = {
        key: value for key, value in record.arguments.items() if key not in _RESERVED
    }
    event.update(
        log_level=level,
        log_namespace=record.namespace,
        log_time=when,
        log_text=record.text,
        log_format="{log_text}" if record.text else None,
        log_system=f"worker {worker}" if system == "-" else f"{system} worker {worker}",
        time=when,
        isError=record.isError,
        message=(record.text,) if record.text else (),
        cluster_worker=worker,
        cluster_slot=slot,
        cluster_system=record.system,
        cluster_format=record.format,
        cluster_arguments=record.arguments,
    )
    event["system"] = event["log_system"]
    if record.braces and record.format is not None:
        if record.fields is not None:
            event["log_format"] = record.format
            event["log_flattened"] = record.fields
        elif isSimple(record.format):
            event["log_format"] = record.format
    if record.failure is not None:
        _addFailure(event, record, record.failure)
    return event


def _addFailure(event: dict[str, Any], record: LogRecord, text: FailureText) -> None:
    failure = RemoteFailure(text)
    event["failure"] = failure
    if record.legacy:
        event["why"] = record.text.removesuffix(text.traceback).rstrip("\n")
    else:
        event["log_failure"] = failure
        event["why"] = record.text
    if record.isError:
        event["message"] = ()
