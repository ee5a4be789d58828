"""
What the commands do with messages that workers send: nobody else is there to
read them, so they are logged, the long ones in part.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from reprlib import Repr
from typing import Any, Final

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from twisted_cluster.errors import ChannelError
from twisted_cluster.interfaces import Data, WorkerMessage
from twisted_cluster.ipc.codec import encode

_log = Logger("twisted_cluster")
_LENGTH: Final = 4096


class _Excerpt(Repr):
    """
    Shows the beginnings of what is long, and never makes a text of the whole.
    """

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 512
        self.maxdict = self.maxlist = self.maxset = self.maxfrozenset = 16

    def repr_bytes(self, data: bytes, level: int) -> str:
        """
        Bytes have a text four times their length.
        """
        return f"{data[: self.maxstring]!r}{'...' * (len(data) > self.maxstring)}"

    def repr_instance(self, value: Any, level: int) -> str:
        """
        A type that was registered may hold anything.
        """
        if not isinstance(value, msgspec.Struct):
            return super().repr_instance(value, level)
        fields = self.repr1(msgspec.structs.asdict(value), level - 1)
        return f"{type(value).__name__}({fields})"


def logMessages(messages: AsyncIterator[WorkerMessage]) -> None:
    """
    Log every message, until there are no more.

    @param messages: what C{watcher.messages()} returns.
    """

    async def read() -> None:
        async for message in messages:
            _log.info(
                "worker {worker} sent {data}",
                worker=message.worker.id,
                data=_shown(message.data),
            )

    Deferred.fromCoroutine(read()).addErrback(
        lambda failure: _log.failure("messages are logged no longer", failure)
    )


def _shown(data: Data) -> str:
    try:
        size = len(encode(data, sys.maxsize))
    except ChannelError:
        return f"{_Excerpt().repr(data)[:_LENGTH]}…"
    if size <= _LENGTH:
        return repr(data)
    return f"{_Excerpt().repr(data)[:_LENGTH]}… ({size} bytes)"
