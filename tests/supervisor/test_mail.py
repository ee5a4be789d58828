"""
Messages that the commands log.
"""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.logger import ILogObserver, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.doubles import FakeWatcher
from twisted_cluster.interfaces import WorkerMessage
from twisted_cluster.ipc.codec import registerMessage
from twisted_cluster.supervisor.mail import logMessages


class _Typed(msgspec.Struct):
    items: list[bytes]


class _Worker:
    id = 3


class LogMessagesTests(SynchronousTestCase):
    """
    What nobody else reads.
    """

    def logged(self, data: Any) -> str:
        """
        What is logged of a message.
        """
        texts: list[str] = []

        @implementer(ILogObserver)
        def observe(event: dict[str, Any]) -> None:
            texts.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        watcher = FakeWatcher()
        watcher.mail.append(WorkerMessage(data, _Worker()))
        logMessages(watcher.messages())
        [text] = texts
        return text

    def test_logged(self) -> None:
        """
        Each message is logged with the worker that sent it.
        """
        self.assertEqual(self.logged({"done": 5}), "worker 3 sent {'done': 5}")

    def test_long(self) -> None:
        """
        Of a long one, a part and the size.
        """
        registerMessage(_Typed, "tests.mail")
        million = 1_000_000
        for data in (
            b"\xff" * million,
            "x" * million,
            list(range(million)),
            {"key": {"inner": b"\0" * million}},
            [["x" * 5000] * 100] * 100,
            _Typed([b"\xff" * million]),
        ):
            text = self.logged(data)
            self.assertLess(len(text), 4200)
            self.assertRegex(text, r"… \(\d{7,} bytes\)$")
        self.assertIn("_Typed({'items': [b'\\xff", text)

    def test_deep(self) -> None:
        """
        Of one that is nested deeper than Python goes, the outermost.
        """
        data: list[Any] = []
        for _ in range(20_000):
            data = [data]
        self.assertRegex(self.logged(data), r"worker 3 sent \[+\.\.\.\]+…$")
