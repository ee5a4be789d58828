"""
What the processes of a cluster are called in C{ps} and C{top}.
"""

from __future__ import annotations


def setTitle(title: str) -> bool:
    """
    Give this process a title.

    @return: whether that was possible: not without C{setproctitle}.
    """
    try:
        from setproctitle import setproctitle
    except ImportError:
        return False
    setproctitle(title)
    return True
