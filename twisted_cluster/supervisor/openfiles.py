"""
How many files this process may have open, and how many of them are kept free.
"""

from __future__ import annotations

import os
import resource
import socket
import sys
from typing import Final

SPARE: Final = 64
"""
How many are kept free for what is no connection, such as the channels of workers
that are about to be started; an eighth of the limit, if that is less.
"""


def limit() -> int:
    """
    Tell how many this process may have open.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def scarce() -> int:
    """
    Tell from which descriptor on only the spare ones are left: each file gets the
    lowest that is free.
    """
    most = limit()
    return most - min(SPARE, most // 8)


def areFew(skt: socket.socket) -> bool:
    """
    Tell whether only the spare ones are left.

    @param skt: any, which is duplicated for that.
    """
    try:
        lowest = os.dup(skt.fileno())
    except OSError:
        return True
    os.close(lowest)
    return lowest >= scarce()
