"""
Catches whatever a worker's program logs, by whichever logging system, and
hands it to the channel to the watcher.

Rules:

  - The program sees nothing of it: its observers, handlers, loggers and
    C{showwarning} are what they would be alone.
  - Each logging system is caught where its events are published, before anybody
    sees them.  What repeats an event while it is being published is not relayed
    again; see L{twisted_cluster.worker.publications}.
  - An event below the level costs a comparison.
"""

from __future__ import annotations

import gc
import logging
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from time import time
from typing import Any, Optional, TextIO, cast

from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    ILogObserver,
    LimitedHistoryLogObserver,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    LogPublisher,
    eventAsText,
    globalLogBeginner,
    globalLogPublisher,
)
from twisted.python.reflect import qual
from zope.interface import implementer

from twisted_cluster.interfaces import ILogSink
from twisted_cluster.ipc.logs import (
    LEVELS,
    LogRecord,
    encodeRecord,
    levelBelow,
    levelNumber,
    recordOf,
)
from twisted_cluster.ipc.plain import safeText
from twisted_cluster.worker.copies import Event
from twisted_cluster.worker.publications import (
    Publication,
    activate,
    collecting,
    here,
    isActive,
    isCopy,
    isPublished,
    original,
    unlessCopied,
)
from twisted_cluster.worker.stdlog import catchLogging, describeLogging

__all__ = ["RelayObserver", "installRelay"]

_Undo = Callable[[], None]


@implementer(ILogObserver)
class RelayObserver:
    """
    Relays events to the watcher; the observer for a program that wants some
    events relayed on purpose, C{Logger(observer=…)}.  An event that this thread
    is publishing through C{globalLogPublisher}, and which is therefore relayed
    already, it lets pass.
    """

    def __init__(self, sink: ILogSink, level: Any = LogLevel.debug) -> None:
        """
        @param sink: where events go.
        @param level: the lowest L{LogLevel} to relay.
        """
        self._put = sink.put
        self._threshold = LEVELS[level]

    def __call__(self, event: dict[str, Any]) -> None:
        """
        Relay an event, unless that is a copy.  Never raises.
        """
        self.relay(event)

    def relay(self, event: dict[str, Any]) -> Optional[LogRecord]:
        """
        Relay an event, unless that is a copy.  Never raises.

        @return: what is relayed of it, or would be if it were no copy.
        """
        if levelNumber(event) < self._threshold:
            return None
        return self._relay(event, lambda: recordOf(event))

    def describe(self, event: dict[str, Any]) -> Optional[LogRecord]:
        """
        Tell what was relayed of an event that was logged earlier.
        """
        if here.encoding or levelNumber(event) < self._threshold:
            return None
        here.encoding = True
        try:
            return recordOf(event)
        finally:
            here.encoding = False

    def relayLogging(self, record: logging.LogRecord) -> Optional[LogRecord]:
        """
        Relay a record of C{logging}, likewise.
        """
        level = levelBelow(record.levelno)
        if level < self._threshold:
            return None
        return self._relay(record, lambda: describeLogging(record, level))

    def _relay(
        self, event: Event, describe: Callable[[], LogRecord]
    ) -> Optional[LogRecord]:
        if here.encoding or not isActive() or isPublished(event):
            return None
        here.encoding = True
        try:
            record = describe()
            if isCopy(event, record):
                return record
            data = encodeRecord(record)
        finally:
            here.encoding = False
        with suppress(Exception):
            self._put(record.level, data)
        return record


class _RelayingPublisher(LogPublisher):
    """
    What C{globalLogPublisher} becomes.

    @ivar relayObserver: what relays.
    """

    relayObserver: RelayObserver

    def __call__(self, event: dict[str, Any]) -> None:
        relay = self.relayObserver.relay
        record = None
        if here.publications and type(event.get("log_io")) is str:
            stream = event.get("log_namespace")
            unlessCopied(stream, event["log_io"], lambda: relay(event))
        else:
            record = relay(event)
        with Publication(event, record):
            super().__call__(event)

    def _errorLoggerForObserver(self, observer: ILogObserver) -> Logger:
        """
        An observer raised: that is news to all others.  (Twisted asks for this;
        if it did not, the others would still be told.)
        """
        logger = super()._errorLoggerForObserver(observer)
        if type(logger.observer) is LogPublisher:
            _makeRelaying(logger.observer, self.relayObserver)
        return logger


def _makeRelaying(publisher: LogPublisher, relay: RelayObserver) -> None:
    """
    Change the class of a publisher rather than its observers or C{Logger}s: all
    who hold it, hold it still.
    """
    publisher.__class__ = _RelayingPublisher
    publisher.relayObserver = relay  # type: ignore[attr-defined]


class _History(LimitedHistoryLogObserver):
    """
    What was logged before the program began logging.  It is published again
    when the program does.

    @ivar relayObserver: what relayed it.
    """

    relayObserver: RelayObserver

    def replayTo(self, otherObserver: ILogObserver) -> None:
        @implementer(ILogObserver)
        def repeat(event: dict[str, Any]) -> None:
            with Publication(event, self.relayObserver.describe(event)):
                otherObserver(event)

        super().replayTo(repeat)


def installRelay(sink: ILogSink, level: Any = LogLevel.debug) -> _Undo:
    """
    Relay what is logged from now on, and what was logged before if nobody has
    begun logging yet.

    @param sink: where the events go.
    @param level: the lowest L{LogLevel} to relay.
    @return: what takes the relay out again.
    """
    relay = RelayObserver(sink, level)
    activate(True)
    gc.callbacks.append(collecting)
    undoings: list[_Undo] = [
        _catchTwisted(relay),
        _catchHistory(relay),
        catchLogging(relay.relayLogging),
        _catchWarnings(relay),
    ]

    def undo() -> None:
        while undoings:
            undoings.pop()()
        gc.callbacks.remove(collecting)
        activate(False)

    return undo


def _catchTwisted(relay: RelayObserver) -> _Undo:
    before = globalLogPublisher.__class__
    _makeRelaying(globalLogPublisher, relay)

    def undo() -> None:
        globalLogPublisher.__class__ = before
        del globalLogPublisher.relayObserver  # type: ignore[attr-defined]

    return undo


def _catchHistory(relay: RelayObserver) -> _Undo:
    """
    Relay what was logged already, and neither relay it once more when it is
    published to the program's first observers, nor print the worst of it to a
    standard error that was replaced meanwhile.
    """
    beginner: Any = globalLogBeginner
    history = getattr(beginner, "_initialBuffer", None)
    before = getattr(beginner, "_temporaryObserver", None)
    if before is None or type(history) is not LimitedHistoryLogObserver:
        return lambda: None
    events: list[dict[str, Any]] = []
    history.replayTo(cast(ILogObserver, events.append))
    for event in events:
        relay.relay(event)
    history.__class__ = _History
    history.relayObserver = relay  # type: ignore[attr-defined]
    temporary = LogPublisher(history, _lastResort(sys.stderr))
    beginner._temporaryObserver = temporary
    globalLogPublisher.removeObserver(before)
    globalLogPublisher.addObserver(temporary)

    def undo() -> None:
        history.__class__ = LimitedHistoryLogObserver
        del history.relayObserver  # type: ignore[attr-defined]
        if beginner._temporaryObserver is temporary:
            beginner._temporaryObserver = before
            globalLogPublisher.removeObserver(temporary)
            globalLogPublisher.addObserver(before)

    return undo


def _lastResort(stream: TextIO) -> ILogObserver:
    """
    What C{LogBeginner} does with critical events until logging begins.
    """

    def text(event: dict[str, Any]) -> str:
        return eventAsText(event, includeTimestamp=False, includeSystem=False) + "\n"

    return FilteringLogObserver(
        FileLogObserver(stream, text),
        [LogLevelFilterPredicate(defaultLogLevel=LogLevel.critical)],
    )


def _catchWarnings(relay: RelayObserver) -> _Undo:
    """
    Stand in front of C{warnings.showwarning}.  Who replaces it later, Twisted
    and C{logging.captureWarnings} among them, logs the warning, and is caught
    there.
    """
    before = warnings.showwarning

    def showwarning(
        message: Any,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: Optional[TextIO] = None,
        line: Optional[str] = None,
    ) -> None:
        if file is not None:
            before(message, category, filename, lineno, file, line)
            return
        event = {
            "log_level": LogLevel.warn,
            "log_namespace": "warnings",
            "log_time": time(),
            "log_format": "{filename}:{lineno}: {category}: {warning}",
            "filename": filename,
            "lineno": lineno,
            "category": qual(category),
            "warning": safeText(message, str),
        }
        with original():
            relay.relay(event)
        with Publication(None):
            before(message, category, filename, lineno, file, line)

    warnings.showwarning = showwarning

    def undo() -> None:
        if warnings.showwarning is showwarning:
            warnings.showwarning = before

    return undo
