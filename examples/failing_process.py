"""
A process that fails, again and again.

    twisted-cluster run -w 1 examples/failing_process.py

Some seconds after its start the worker dies of an exception that nothing catches.
The log shows the traceback, and a new worker takes its place; as they keep dying
young, the pauses between them grow.
"""

from __future__ import annotations

import os
import random
import sys
from typing import Any

from twisted.internet.task import deferLater, react
from twisted.logger import Logger
from twisted.python.log import startLogging

log = Logger("failing_process")


async def main(reactor: Any, seconds: str = "") -> None:
    """
    Work for a while, and meet a problem that the program cannot survive.
    """
    life = float(seconds or random.uniform(1, 5))
    log.info("process {pid} fails in {life:.1f} s", pid=os.getpid(), life=life)
    await deferLater(reactor, life)
    raise RuntimeError("the database has melted")


startLogging(sys.stdout)
react(main, sys.argv[1:])
