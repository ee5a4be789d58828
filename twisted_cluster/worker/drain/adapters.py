"""
Tells of the protocols for which we know how their connections are drained.
"""

from __future__ import annotations


def registerAdapters() -> None:
    """
    Make those known that the program has imported.
    """
