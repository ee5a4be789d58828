"""
What the commands do with messages that workers send: nobody else is there to
read them, so they are logged.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from twisted_cluster.interfaces import WorkerMessage

_log = Logger("twisted_cluster")


def logMessages(messages: AsyncIterator[WorkerMessage]) -> None:
    """
    Log every message, until there are no more.

    @param messages: what C{watcher.messages()} returns.
    """

    async def read() -> None:
        async for message in messages:
            _log.info(
                "worker {worker} sent {data!r}",
                worker=message.worker.id,
                data=message.data,
            )

    Deferred.fromCoroutine(read()).addErrback(
        lambda failure: _log.failure("messages are logged no longer", failure)
    )
