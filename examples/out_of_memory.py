"""
A process that runs out of memory, again and again.

    twisted-cluster run -w 1 examples/out_of_memory.py

The worker takes more and more, up to a limit that it sets for itself, so that your
machine is in no danger.  There it dies, and a new one takes its place.
"""

from __future__ import annotations

import os
import resource
import sys
from typing import Any

from twisted.internet.task import deferLater, react
from twisted.logger import Logger
from twisted.python.log import startLogging

MIB = 1024 * 1024
log = Logger("out_of_memory")


async def main(reactor: Any, limit: str = "1024", pause: str = "0.5") -> None:
    """
    Hoard memory.

    @param limit: how many MiB this process may have.
    @param pause: seconds between two helpings.
    """
    resource.setrlimit(resource.RLIMIT_AS, (int(limit) * MIB, int(limit) * MIB))
    hoard: list[bytes] = []
    while True:
        hoard.append(b"*" * (64 * MIB))
        size = sum(map(len, hoard)) // MIB
        log.info("process {pid} has taken {size} MiB", pid=os.getpid(), size=size)
        await deferLater(reactor, float(pause))


startLogging(sys.stdout)
react(main, sys.argv[1:])
