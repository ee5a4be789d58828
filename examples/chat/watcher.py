"""
Runs the chat in two workers, and tells all of them what one of them heard.

    python examples/chat/watcher.py
    nc localhost 1337          # in several terminals
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from twisted.internet.task import react
from twisted.python.log import startLogging

from twisted_cluster import ClusterWatcher


async def main(reactor: Any, *arguments: str) -> None:
    """
    Run the cluster until it, or this program, is stopped.
    """
    server = Path(__file__).with_name("server.py")
    watcher = ClusterWatcher(reactor, [str(server), *arguments], workers=2)
    watcher.startService()
    reactor.addSystemEventTrigger("before", "shutdown", watcher.stopService)
    await watcher.whenReady()
    async for message in watcher.messages():
        await watcher.broadcast(message.data)


startLogging(sys.stdout)
react(main, sys.argv[1:])
