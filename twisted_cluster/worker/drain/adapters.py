"""
Tells of the protocols for which we know how their connections are drained.
"""

from __future__ import annotations

from typing import Final

from twisted_cluster.worker.drain import http1, http2, websocket

_MODULES: Final = (http1, http2, websocket)


def registerAdapters() -> None:
    """
    Make those known that the program has imported.
    """
    for module in _MODULES:
        module.register()
