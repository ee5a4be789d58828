"""
What twistd must not do in a process that is one of many: fork away, keep a pid
file, write a log file of its own, execute itself anew under another name.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any, Final

from twisted.logger import ILogObserver, LogEvent
from twisted.python import log
from twisted.scripts._twistd_unix import UnixAppLogger
from zope.interface import provider

ONE_OF_MANY: Final[Mapping[str, object]] = {
    "nodaemon": True,
    "pidfile": "",
    "logfile": None,
    "originalname": True,
    "no_save": True,
}
"""
The options of twistd that are not the target's to choose.
"""


def tame(config: MutableMapping[str, Any]) -> None:
    """
    Change parsed options of twistd so that it runs as one process of many.

    To be done before an application runner is made of them, which is when some
    of them are read.
    """
    config.update(ONE_OF_MANY)


@provider(ILogObserver)
def discard(event: LogEvent) -> None:
    """
    Observe nothing: whatever is logged goes to the watcher already.
    """


class WorkerLogger(UnixAppLogger):
    """
    twistd's logger without its file and without its standard output.

    An observer that the application brings, one named by C{--logger}, and
    C{--syslog} are honoured.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self._named = bool(options.get("logger") or options.get("syslog"))

    def start(self, application: Any) -> None:
        """
        Begin to log as twistd does.
        """
        brought = any(
            application.getComponent(interface, None) is not None
            for interface in (ILogObserver, log.ILogObserver)
        )
        if not (brought or self._named):
            application.setComponent(ILogObserver, discard)
        super().start(application)
