"""
Hello world over TCP, from several processes.

    twisted-cluster run -w 2 examples/hello_world.py
    nc localhost 1337

Connect a few times: the worker that answers changes.  The program knows nothing of
clusters; alone, C{python examples/hello_world.py} does the same in one process.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.protocol import Factory, Protocol

reactor: Any = _reactor


class Hello(Protocol):
    """
    Says who it is, and hangs up.
    """

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"Hello from process %d!\n" % os.getpid())
        self.transport.loseConnection()


number = int(sys.argv[1]) if len(sys.argv) > 1 else 1337
port = reactor.listenTCP(number, Factory.forProtocol(Hello), interface="127.0.0.1")
print(f"listening on port {port.getHost().port}", flush=True)
reactor.run()
