"""
Tells the log of the addresses that workers asked for and cannot have.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from twisted_cluster.sockets.addresses import Address, Refused

QUIET: Final = 60.0
"""
Seconds for which the same failure is not logged again: every worker meets it.
"""


class Refusals:
    """
    What was refused a short time ago.
    """

    def __init__(self, clock: IReactorTime, log: Logger) -> None:
        self._clock = clock
        self._log = log
        self._since: dict[tuple[Address, int], float] = {}

    def note(
        self, worker: int, address: Address, refused: Refused, ours: Iterable[Address]
    ) -> Refused:
        """
        Log that a worker is refused an address, unless that is known.

        @param ours: what the cluster itself listens on, which may be why.
        @return: the refusal.
        """
        now = self._clock.seconds()
        for failure, since in list(self._since.items()):
            if now - since >= QUIET:
                del self._since[failure]
        if (address, refused.errno) not in self._since:
            self._since[address, refused.errno] = now
            self._log.warn(
                "Cannot listen on {address}, which worker {worker} asks for: "
                "{message}{hint}",
                address=address,
                worker=worker,
                message=refused.message,
                hint=_hint(address, refused, ours),
            )
        return refused

    def forget(self, address: Address) -> None:
        """
        The address could be had after all: its next failure is a new one.
        """
        for failure in [each for each in self._since if each[0] == address]:
            del self._since[failure]

    def clear(self) -> None:
        """
        Forget everything.
        """
        self._since.clear()


def _hint(address: Address, refused: Refused, ours: Iterable[Address]) -> str:
    if refused.errno == errno.EADDRINUSE and address.kind != "unix":
        for other in ours:
            if other.kind == address.kind and other.port == address.port:
                return f" (the cluster itself listens on {other})"
    return ""
