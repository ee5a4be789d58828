"""
Balancers as users write them, for tests that name them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Optional

from zope.interface import implementer

from twisted_cluster.interfaces import Candidate, Connection, IBalancer
from twisted_cluster.policy.firstbytes import hostOf, serverNameOf

seen: Final[list[Connection]] = []
"""
What balancers of this process were shown, which tests clear.
"""


def bySlot(name: str, candidates: Sequence[Candidate]) -> Optional[Candidate]:
    """
    Choose by a name such as C{slot2.example}.
    """
    found = re.match(r"slot(\d+)\.", name)
    for candidate in candidates:
        if found is not None and candidate.slot == int(found[1]):
            return candidate
    return None


class _ByName:
    firstBytes = 4096
    patience = 30.0

    def choose(
        self, connection: Connection, candidates: Sequence[Candidate]
    ) -> Optional[Candidate]:
        """
        Choose the worker that the client names.
        """
        seen.append(connection)
        name = self.nameIn(connection.firstBytes)
        return None if name is None else bySlot(name, candidates)

    def nameIn(self, firstBytes: bytes) -> Optional[str]:
        """
        Read what the client names.
        """
        raise NotImplementedError


@implementer(IBalancer)
class ByHost(_ByName):
    """
    By the Host header.
    """

    def nameIn(self, firstBytes: bytes) -> Optional[str]:
        """
        Read it.
        """
        return hostOf(firstBytes)


@implementer(IBalancer)
class ByServerName(_ByName):
    """
    By the name in a TLS ClientHello.
    """

    def nameIn(self, firstBytes: bytes) -> Optional[str]:
        """
        Read it.
        """
        return serverNameOf(firstBytes)


@implementer(IBalancer)
class Impatient(ByHost):
    """
    By the Host header, if it comes soon.
    """

    patience = 0.5


@implementer(IBalancer)
class Fails:
    """
    Raises.
    """

    firstBytes = 0
    patience = 0.0

    def choose(
        self, connection: Connection, candidates: Sequence[Candidate]
    ) -> Optional[Candidate]:
        """
        Fail.
        """
        raise ZeroDivisionError("the user's own fault")
