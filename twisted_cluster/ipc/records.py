"""
What a log event is on its way from a worker to the watcher: its fields, its
bytes, and how long it may be.
"""

from __future__ import annotations

from time import time
from typing import Any, Final, Optional

import msgspec

from twisted_cluster.errors import ProtocolError
from twisted_cluster.ipc.failures import FailureText
from twisted_cluster.ipc.plain import cut, plainData, safeText, scrub

MAX_EVENT: Final = 1024 * 1024
"""
The most bytes that an encoded event takes; what is longer is cut and says so.
"""

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


def encodeRecord(record: LogRecord) -> bytes:
    """
    Encode a record.  Never raises.

    @return: at most L{MAX_EVENT} bytes.
    """
    try:
        if _isSound(record) and len(record.text) <= MAX_EVENT:
            encoded = _encode(record)
            if len(encoded) <= MAX_EVENT:
                return encoded
    except (OverflowError, UnicodeEncodeError, TypeError, RecursionError, ValueError):
        pass
    return _encode(_bounded(_scrubbed(record)))


def _isSound(record: LogRecord) -> bool:
    """
    Tell whether the watcher can decode a record: events come with anything.
    """
    return (
        type(record.namespace) is str
        and type(record.time) is float
        and (record.format is None or type(record.format) is str)
        and (record.system is None or type(record.system) is str)
    )


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
        _timeOf(record.time),
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


def _timeOf(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except Exception:
        return time()


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
