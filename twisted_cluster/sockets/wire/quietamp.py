"""
AMP without words about itself.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import connectionDone
from twisted.protocols import amp
from twisted.python.failure import Failure


class QuietAMP(amp.AMP):
    """
    AMP that does not log each connection's beginning and end.
    """

    def makeConnection(self, transport: Any) -> None:
        """
        Begin, as AMP does, without the words.
        """
        amp.BinaryBoxProtocol.makeConnection(self, transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        End, as AMP does, without the words.
        """
        amp.BinaryBoxProtocol.connectionLost(self, reason)
        self.transport = None
