"""
An ASGI application, served by Daphne in several processes.

    pip install daphne
    cd examples
    twisted-cluster run -w 2 -m daphne -p 8000 asgi_app:application
    curl localhost:8000
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """
    Tell which process answers.
    """
    if scope["type"] != "http":
        raise ValueError(f"this application speaks HTTP, not {scope['type']}")
    body = b"Hello from process %d!\n" % os.getpid()
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
