"""
One asyncio server made of several, each of which listens on one socket.
"""

from __future__ import annotations

import asyncio
from typing import Any


class Servers(asyncio.AbstractServer):
    """
    Several servers that are started, stopped and awaited as one.
    """

    def __init__(self, servers: list[Any]) -> None:
        self._servers = servers

    def __repr__(self) -> str:
        return f"<{type(self).__name__} sockets={self.sockets!r}>"

    @property
    def sockets(self) -> tuple[Any, ...]:
        """
        The sockets of all.
        """
        return tuple(skt for server in self._servers for skt in server.sockets)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """
        The loop that all of them belong to.
        """
        loop: asyncio.AbstractEventLoop = self._servers[0].get_loop()
        return loop

    def is_serving(self) -> bool:
        """
        Whether they accept connections.
        """
        return all(server.is_serving() for server in self._servers)

    def close(self) -> None:
        """
        Stop listening on every socket.
        """
        for server in self._servers:
            server.close()

    def close_clients(self) -> None:
        """
        Close every connection (from Python 3.13 on).
        """
        for server in self._servers:
            server.close_clients()

    def abort_clients(self) -> None:
        """
        Cut every connection (from Python 3.13 on).
        """
        for server in self._servers:
            server.abort_clients()

    async def start_serving(self) -> None:
        """
        Begin to accept connections.
        """
        for server in self._servers:
            await server.start_serving()

    async def serve_forever(self) -> None:
        """
        Accept connections until this is cancelled, or the server is closed.
        """
        await asyncio.gather(*(server.serve_forever() for server in self._servers))

    async def wait_closed(self) -> None:
        """
        Wait until every server has closed.
        """
        for server in self._servers:
            await server.wait_closed()
