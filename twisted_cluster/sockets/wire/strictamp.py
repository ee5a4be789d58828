"""
AMP that carries descriptors, and ends with the first thing that breaks the
rules: who breaks them once cannot be believed again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final, Optional

from twisted.internet.interfaces import IUNIXTransport
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols import amp
from twisted.python.failure import Failure

from twisted_cluster.errors import ProtocolError
from twisted_cluster.sockets.wire.quietamp import QuietAMP

_log = Logger("twisted_cluster")


LARGEST: Final = 128 * 1024
"""
The most bytes that an unfinished box may have.
"""

MOST_DESCRIPTORS: Final = 8
"""
The most descriptors that may wait for the box that they belong to.
"""

LOST: Final = -1
"""
What stands for a descriptor that the kernel dropped, since this process has too
many open files.
"""

_AMP: Final[Any] = QuietAMP


class StrictAMP(QuietAMP):
    """
    Receives boxes, and owns each descriptor that arrives until that is claimed.

    @ivar name: what the log calls the other side, such as C{worker 7}.
    @ivar saying: what the log calls a box of the other side.
    @ivar broken: why the connection ends, if that is because the other side broke
        the rules.
    @ivar ended: called once, when the connection has ended, with that.
    """

    transport: IUNIXTransport
    ended: Callable[[Optional[ProtocolError]], None]
    saying = "a question for a socket"

    def __init__(self, name: str) -> None:
        """
        @param name: see there.
        """
        self._amp: Any = super()
        _AMP.__init__(self)
        self.name = name
        self.ended = lambda error: None
        self._unclaimed: set[int] = set()
        self._pending = 0
        self._over = False
        self.broken: Optional[ProtocolError] = None

    def boxReceived(self, box: amp.AmpBox) -> None:
        """
        Do what a box says; what this raises is taken for the other side's fault.
        """
        raise NotImplementedError

    def claim(self, descriptor: int) -> int:
        """
        Take a descriptor that a box names; it is the caller's now.

        @return: it, or L{LOST}.
        """
        self._unclaimed.discard(descriptor)
        return descriptor

    def breakOff(self, why: str) -> None:
        """
        End the connection: the other side broke the rules.
        """
        if self._over:
            return
        self._over = True
        self.broken = ProtocolError(why)
        _log.error(
            "{name} broke the rules of its server-socket channel, which is "
            "closed: {why}",
            name=capital(self.name),
            why=why,
        )
        self._closeUnclaimed()
        transport: Any = self.transport
        if getattr(transport, "pending", 0):
            transport.abortConnection()
        else:
            transport.loseConnection()

    def descriptorsReceived(self, descriptors: list[int], truncated: bool) -> None:
        """
        Take descriptors over; in this protocol they are sent one by one.
        """
        for descriptor in descriptors:
            self.fileDescriptorReceived(descriptor)
        if truncated and descriptors:
            self.breakOff("several descriptors at once, and some of them were lost")
        elif truncated and not self._over:
            self._amp.fileDescriptorReceived(LOST)

    def fileDescriptorReceived(self, descriptor: int) -> None:
        """
        Take a descriptor over until the box that it belongs to arrives.
        """
        if self._over:
            os.close(descriptor)
            return
        self._amp.fileDescriptorReceived(descriptor)
        self._unclaimed.add(descriptor)
        if len(self._unclaimed) > MOST_DESCRIPTORS:
            self.breakOff("more descriptors than anything to do with them")

    def dataReceived(self, data: bytes) -> None:
        """
        Do what each box says that is complete.
        """
        if self._over:
            return
        self._pending += len(data)
        try:
            self._amp.dataReceived(data)
        except Exception as error:
            self.breakOff(f"{type(error).__name__}: {error}")
        if self._pending > LARGEST:
            self.breakOff(f"{self.saying} without an end")

    def lengthLimitExceeded(self, length: int) -> None:
        """
        What arrived is no AMP.
        """
        self.breakOff(f"a key of {length} bytes")

    def ampBoxReceived(self, box: amp.AmpBox) -> None:
        """
        Do what a box says, as long as the rules are kept.
        """
        self._pending = 0
        if not self._over:
            self.boxReceived(box)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Close what was never claimed, and tell.
        """
        if isinstance(reason.value, ProtocolError) and not self._over:
            self.broken = reason.value
            _log.error(
                "The server-socket channel of {name} is closed: {why}",
                name=self.name,
                why=reason.getErrorMessage(),
            )
        elif self._pending and not self._over:
            _log.warn(
                "{name} ended in the middle of {saying}.",
                name=capital(self.name),
                saying=self.saying,
            )
        self._over = True
        self._closeUnclaimed()
        self._amp.connectionLost(reason)
        self.ended(self.broken)

    def _closeUnclaimed(self) -> None:
        while self._unclaimed:
            os.close(self._unclaimed.pop())


def capital(name: str) -> str:
    """
    Write a name as a sentence begins.
    """
    return name[:1].upper() + name[1:]
