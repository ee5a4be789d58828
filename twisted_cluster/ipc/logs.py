"""
How a log event crosses from a worker to the watcher.

The worker formats the text, once; format and arguments travel along for those
who want them, as plain data.  The watcher gets an event of C{twisted.logger}
again, which formats to the text that it has in the worker.

The watcher trusts nothing that it decodes: an event of a worker makes it look
up, call or allocate no more than the event is long.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import time
from typing import Any, Final, Optional

import msgspec
from twisted.logger import LogLevel, formatEvent
from twisted.python.failure import Failure

from twisted_cluster.errors import ProtocolError
from twisted_cluster.ipc.failures import FailureText, RemoteFailure, describeFailure
from twisted_cluster.ipc.formats import flatten, isSimple
from twisted_cluster.ipc.logqueue import LogQueue
from twisted_cluster.ipc.plain import SCALARS, cut, plainData, safeText, scrub

__all__ = [
    "MAX_EVENT",
    "LogQueue",
    "LogRecord",
    "decodeRecords",
    "encodeEvent",
    "encodeRecord",
    "levelNumber",
    "lineRecord",
    "toEvent",
]

MAX_EVENT: Final = 1024 * 1024
"""
The most bytes that an encoded event takes; what is longer is cut and says so.
"""

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
_TEXT: Final = 96 * 1024
_TRACEBACK: Final = 48 * 1024
_NAME: Final = 256


class LogRecord(msgspec.Struct, array_like=True):
    """
    A log event on its way.

    @ivar level: 10 (debug), 20 (info), 30 (warn), 40 (error) or 50 (critical).
    @ivar time: when it was logged, in seconds since the epoch.
    @ivar namespace: the logger's name.
    @ivar text: the event, formatted.
    @ivar format: the format that the program gave, in whichever style, or
        L{None} when it gave none.
    @ivar arguments: the event's own keys, as plain data.
    @ivar braces: whether C{format} is one of C{twisted.logger} that worked.
    @ivar fields: the texts of the format's fields, where the arguments alone
        would not format to C{text}.
    @ivar failure: the failure, if there is one.
    @ivar legacy: whether C{text} ends with the failure's traceback, as
        C{twisted.python.log.err} has it.
    @ivar isError: what C{twisted.python.log} calls so.
    @ivar system: C{log_system} or C{system}, where the program said one.
    """

    level: int
    time: float
    namespace: str
    text: str
    format: Optional[str] = None
    arguments: dict[str, Any] = {}
    braces: bool = False
    fields: Optional[dict[str, str]] = None
    failure: Optional[FailureText] = None
    legacy: bool = False
    isError: int = 0
    system: Optional[str] = None

    @property
    def traceback(self) -> Optional[str]:
        """
        The failure's traceback.
        """
        return None if self.failure is None else self.failure.traceback


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[LogRecord]).decode


def levelNumber(event: dict[str, Any]) -> int:
    """
    Find the number of an event's level; that of info if it has none.
    """
    return LEVELS.get(event.get("log_level"), 20)


def encodeEvent(event: dict[str, Any]) -> tuple[int, bytes]:
    """
    Encode an event of C{twisted.logger}.  Never raises.

    @param event: the event; it is not changed.
    @return: the number of its level, and at most L{MAX_EVENT} bytes.
    """
    try:
        record = describeEvent(event)
    except BaseException as error:
        record = LogRecord(
            levelNumber(event), time(), "-", f"a log event was lost: {safeText(error)}"
        )
    return record.level, encodeRecord(record)


def encodeRecord(record: LogRecord) -> bytes:
    """
    Encode a record.  Never raises.

    @return: at most L{MAX_EVENT} bytes.
    """
    try:
        if len(record.text) <= MAX_EVENT:
            encoded = _encode(record)
            if len(encoded) <= MAX_EVENT:
                return encoded
    except (OverflowError, UnicodeEncodeError, TypeError, RecursionError, ValueError):
        pass
    return _encode(_bounded(_scrubbed(record)))


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
        else:
            try:
                record.text, record.fields = flatten(format, event)
            except BaseException:
                record.braces = False
                record.text = formatEvent(event)
    elif format is not None:
        record.text = formatEvent(event)


def _scrubbed(record: LogRecord) -> LogRecord:
    """
    Make a record encodable, whatever types it holds.
    """
    plain, same = plainData(record.arguments)
    fields = record.fields
    if fields is not None:
        fields = {scrub(key): scrub(text) for key, text in fields.items()}
    return LogRecord(
        record.level,
        record.time if type(record.time) in (int, float) else time(),
        _textOf(record.namespace) or "-",
        scrub(record.text),
        _textOf(record.format),
        plain if type(plain) is dict else {"arguments": plain},
        record.braces and (same or fields is not None),
        fields,
        record.failure,
        record.legacy,
        record.isError,
        _textOf(record.system),
    )


def _bounded(record: LogRecord) -> LogRecord:
    if len(_encode(record)) <= MAX_EVENT:
        return record
    failure = record.failure
    if failure is not None:
        failure = FailureText(
            [cut(name, _NAME) for name in failure.classes],
            failure.message,
            cut(failure.traceback, _TRACEBACK),
        )
    arguments = record.arguments
    if len(_encode(arguments)) > MAX_EVENT // 8:
        arguments = {"cut": "the arguments were too long"}
    format = record.format
    return LogRecord(
        record.level,
        record.time,
        cut(record.namespace, _NAME),
        cut(record.text, _TEXT),
        None if format is None else cut(format, 4 * _NAME),
        arguments,
        failure=failure,
        legacy=record.legacy,
        isError=record.isError,
        system=None if record.system is None else cut(record.system, _NAME),
    )


def _textOf(value: object) -> Optional[str]:
    if value is None:
        return None
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return safeText(value, str)


def lineRecord(stream: str, line: str, when: float) -> LogRecord:
    """
    Describe a line that a worker printed, as C{twisted.logger} does where it
    stands in for the standard streams.

    @param stream: C{stdout} or C{stderr}.
    """
    isError = stream == "stderr"
    return LogRecord(
        40 if isError else 20,
        when,
        stream,
        line,
        "{log_io}",
        {"log_io": line},
        braces=True,
        isError=int(isError),
    )


def decodeRecords(batch: bytes) -> list[LogRecord]:
    """
    Decode a batch.

    @raise ProtocolError: when it is none.
    """
    try:
        return _decode(batch)
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
        raise ProtocolError(
            f"a batch of log events that cannot be decoded: {error}"
        ) from error


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
    level = _NAMES.get(record.level) or _levelBelow(record.level)
    system = record.system or f"{record.namespace}#{level.name}"
    event: dict[str, Any] = {
        key: value for key, value in record.arguments.items() if key not in _RESERVED
    }
    event.update(
        log_level=level,
        log_namespace=record.namespace,
        log_time=record.time,
        log_text=record.text,
        log_format="{log_text}" if record.text else None,
        log_system=f"worker {worker}" if system == "-" else f"{system} worker {worker}",
        time=record.time,
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


def _levelBelow(number: int) -> Any:
    return _NAMES[max(10, min(50, number // 10 * 10))]
