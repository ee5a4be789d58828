"""
Decides whether to complain once more about what lasts.
"""

from __future__ import annotations

import math
from typing import Final

from twisted.internet.interfaces import IReactorTime

_SECONDS: Final = 60.0


class Seldom:
    """
    Lets something happen once a minute at most.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._last = -math.inf

    def due(self) -> bool:
        """
        Tell whether to do it now; if so, it is taken for done.
        """
        now = self._clock.seconds()
        if now - self._last < _SECONDS:
            return False
        self._last = now
        return True
