"""
Messages that the commands log.
"""

from __future__ import annotations

from typing import Any

from twisted.logger import ILogObserver, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.doubles import FakeWatcher
from twisted_cluster.interfaces import WorkerMessage
from twisted_cluster.supervisor.mail import logMessages


class _Worker:
    id = 3


class LogMessagesTests(SynchronousTestCase):
    """
    What nobody else reads.
    """

    def test_logged(self) -> None:
        """
        Each message is logged with the worker that sent it.
        """
        texts: list[str] = []

        @implementer(ILogObserver)
        def observe(event: dict[str, Any]) -> None:
            texts.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        watcher = FakeWatcher()
        watcher.mail.append(WorkerMessage({"done": 5}, _Worker()))
        logMessages(watcher.messages())
        self.assertEqual(texts, ["worker 3 sent {'done': 5}"])
