"""
What the tests of draining share: a worker whose connections are known, and
protocols that say how they drain.
"""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from tests.worker.receiving import Echo, IncomingTestCase
from twisted_cluster.interfaces import IDrain, IDrainable
from twisted_cluster.worker.connections import Connections


@implementer(IDrainable)
class Drainable(Echo):
    """
    Keeps what it may do when it is to be drained.
    """

    def __init__(self) -> None:
        super().__init__()
        self.drains: list[IDrain] = []

    def drain(self, drain: IDrain) -> None:
        """
        See L{IDrainable.drain}.
        """
        self.drains.append(drain)


class DrainingTestCase(IncomingTestCase):
    """
    A worker whose connections are known.
    """

    def setUp(self) -> None:
        super().setUp()
        self.attach()
        self.connections = Connections()
        self.addCleanup(self.connections.install())

    def start(self, port: Any, number: int = 3, accepts: bool = False) -> Any:
        """
        Start a port, which is then known.
        """
        self.connections.ports.add(port)
        return super().start(port, number, accepts)

    def served(self, port: Any) -> tuple[Any, Any]:
        """
        A client whose connection the worker has.

        @return: it and its protocol.
        """
        client = self.client(port)
        return client, self.factory.protocols[-1]
