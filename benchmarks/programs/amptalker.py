"""
The same with plain AMP, over descriptor 3.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import reactor
from twisted.internet.protocol import ServerFactory, connectionDone
from twisted.python.failure import Failure

from benchmarks.ampcommands import Talker

running: Any = reactor


class Peer(Talker):
    """
    Ends the process with the connection.
    """

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        running.stop()


factory = ServerFactory.forProtocol(Peer)
running.adoptStreamConnection(3, socket.AF_UNIX, factory)
running.run()
