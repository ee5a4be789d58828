"""
Catches what the standard C{logging} module publishes.

A record is caught where its logger hands it to handlers, not by a handler of
ours: C{logging.basicConfig} does nothing when the root logger has a handler.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from typing import Any, Optional

from twisted_cluster.ipc.failures import FailureText, describeException
from twisted_cluster.ipc.logs import LogRecord
from twisted_cluster.ipc.plain import plainData, safeText
from twisted_cluster.worker.copies import messageOf
from twisted_cluster.worker.publications import Publication, original

_STANDARD = frozenset(
    logging.LogRecord("", 0, "", 0, "", (), None).__dict__
) | frozenset(("message", "asctime", "taskName"))


def catchLogging(
    relay: Callable[[logging.LogRecord], Optional[LogRecord]],
) -> Callable[[], None]:
    """
    Relay each record that a logger of this process handles.

    @param relay: takes each record before its handlers do, and gives what was
        relayed of it.
    @return: what undoes it.
    """
    callHandlers = logging.Logger.callHandlers
    handleError = logging.Handler.handleError

    def relayThenCallHandlers(self: logging.Logger, record: logging.LogRecord) -> None:
        with Publication(record, relay(record)):
            callHandlers(self, record)

    def originalHandleError(self: logging.Handler, record: logging.LogRecord) -> None:
        """
        A handler raised: that is news.
        """
        with original():
            handleError(self, record)

    logging.Logger.callHandlers = relayThenCallHandlers  # type: ignore[method-assign]
    logging.Handler.handleError = originalHandleError  # type: ignore[method-assign]

    def undo() -> None:
        logging.Logger.callHandlers = callHandlers  # type: ignore[method-assign]
        logging.Handler.handleError = handleError  # type: ignore[method-assign]

    return undo


def describeLogging(record: logging.LogRecord, level: int) -> LogRecord:
    """
    Describe a record of C{logging}.  Never raises.

    @param level: the number of its level among those of C{twisted.logger}.
    """
    text = messageOf(record)
    if record.stack_info:
        text = f"{text}\n{record.stack_info}"
    arguments: dict[str, Any] = {
        key: value for key, value in record.__dict__.items() if key not in _STANDARD
    }
    if isinstance(record.args, dict):
        arguments.update(record.args)
    elif record.args:
        arguments["args"] = record.args
    if arguments:
        arguments = plainData(arguments)[0]
    failure = _failureOf(record)
    return LogRecord(
        level,
        record.created,
        record.name,
        text,
        record.msg if isinstance(record.msg, str) else None,
        arguments,
        failure=failure,
        isError=int(failure is not None or level >= 40),
    )


def _failureOf(record: logging.LogRecord) -> Optional[FailureText]:
    exception = record.exc_info
    if not exception or exception[1] is None:
        return None
    try:
        text = "".join(traceback.format_exception(*exception))
    except BaseException as error:
        text = f"(no traceback: {safeText(error)})"
    return describeException(exception[1], text)
