"""
Who gets the next connection: all for one host name go to the same worker.  The watcher
imports this; see C{server.py}.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from zope.interface import implementer

from twisted_cluster.balancing import (
    Candidate,
    Connection,
    IBalancer,
    hostOf,
    rendezvous,
)


@implementer(IBalancer)
class ByHost:
    """
    Routes by the Host header.
    """

    firstBytes = 8192
    patience = 2.0

    def choose(
        self, connection: Connection, candidates: Sequence[Candidate]
    ) -> Optional[Candidate]:
        """
        Choose a worker by the name, or by the client's address when there is none.
        """
        host = hostOf(connection.firstBytes)
        if host is None:  # not yet; or never, then any worker will do
            return None
        return rendezvous(host or connection.peer, candidates)
