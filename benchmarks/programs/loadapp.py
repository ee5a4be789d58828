"""
Answers load as L{loadserver<benchmarks.programs.loadserver>} does: as an ASGI
application, with WebSockets, and as a WSGI application.

The file that C{LOAD_APP} names, if any, is run first.
"""

from __future__ import annotations

import asyncio
import os
import runpy
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import parse_qs

Message = dict[str, Any]

if "LOAD_APP" in os.environ:
    runpy.run_path(os.environ["LOAD_APP"])


def settings(query: str) -> tuple[str, float]:
    """
    The number that is asked for, and after how many seconds.
    """
    found = parse_qs(query, keep_blank_values=True)
    if "block" in found:
        time.sleep(86_400)
    return found.get("n", ["-"])[0], int(found.get("delay", ["0"])[0]) / 1000


async def application(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    """
    The ASGI application.
    """
    if scope["type"] == "websocket":
        await echo(receive, send)
    elif scope["type"] == "http":
        number, delay = settings(scope["query_string"].decode())
        if delay:
            await asyncio.sleep(delay)
        body = f"{number} {os.getpid()}\n".encode()
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
    elif scope["type"] == "lifespan":
        for step in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{step}.complete"})


async def echo(
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    """
    Send back what comes, and who sends it.
    """
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        text = message.get("text") or (message.get("bytes") or b"").decode()
        await send({"type": "websocket.send", "text": f"{text} {os.getpid()}"})


def wsgi(
    environ: dict[str, Any],
    startResponse: Callable[[str, Sequence[tuple[str, str]]], object],
) -> Sequence[bytes]:
    """
    The WSGI application.
    """
    number, delay = settings(environ.get("QUERY_STRING", ""))
    if delay:
        time.sleep(delay)
    body = f"{number} {os.getpid()}\n".encode()
    startResponse("200 OK", [("Content-Length", str(len(body)))])
    return [body]
