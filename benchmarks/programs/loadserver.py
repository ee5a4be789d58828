"""
Answers load: C{GET /?n=17&delay=100} with C{17} and the process's id, after 100
ms; with C{chunks=3} in pieces; C{block=1} stands still for ever.

    loadserver.py PORT [--tls PORT CERTIFICATE] [--websocket PORT] [--app FILE]

With TLS it speaks HTTP/2, too.  The file, if any, is run first, as code of an
application that takes its time to import, or is wrong, would be.
"""

from __future__ import annotations

import argparse
import os
import runpy
import time
from typing import Any

from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

running: Any = reactor
ME = str(os.getpid()).encode()


class Answers(Resource):
    """
    Answers after a while.
    """

    isLeaf = True

    def render_GET(self, request: Request) -> Any:
        """
        Answer with what was asked, and who answers.
        """
        arguments: Any = request.args
        [number] = arguments.get(b"n", [b"-"])
        [delay] = arguments.get(b"delay", [b"0"])
        [chunks] = arguments.get(b"chunks", [b"0"])
        if b"block" in arguments:
            time.sleep(86_400)
        body = b"%s %s\n" % (number, ME)
        if delay == b"0" and chunks == b"0":
            return body
        gone: list[object] = []
        request.notifyFinish().addErrback(lambda failure: gone.append(failure))
        pieces = int(chunks) or 1
        if not int(chunks):
            request.setHeader(b"content-length", b"%d" % len(body))

        def write(left: int) -> None:
            if gone:
                return
            request.write(body if left == pieces else b".\n")
            if left == 1:
                request.finish()
            else:
                running.callLater(int(delay) / 1000, write, left - 1)

        running.callLater(int(delay) / 1000, write, pieces)
        return NOT_DONE_YET


class QuietSite(Site):
    """
    Logs no requests.
    """

    noisy = False

    def log(self, request: Request) -> None:
        """
        Do nothing.
        """


def site() -> Site:
    """
    What is served.
    """
    return QuietSite(Answers())


def echo(port: int) -> None:
    """
    Serve WebSockets that send back what comes, and who sends it.
    """
    from autobahn.twisted.websocket import (
        WebSocketServerFactory,
        WebSocketServerProtocol,
    )

    class Echo(WebSocketServerProtocol):
        def onMessage(self, payload: bytes, isBinary: bool) -> None:
            self.sendMessage(payload + b" " + ME, isBinary)

    factory = WebSocketServerFactory()
    factory.protocol = Echo
    factory.noisy = False
    running.listenTCP(port, factory, backlog=4096, interface="127.0.0.1")


def main() -> None:
    """
    Serve.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--tls", nargs=2, metavar=("PORT", "CERTIFICATE"))
    parser.add_argument("--websocket", type=int)
    parser.add_argument("--app")
    arguments = parser.parse_args()
    if arguments.app is not None:
        runpy.run_path(arguments.app)
    running.listenTCP(arguments.port, site(), backlog=4096, interface="127.0.0.1")
    if arguments.tls is not None:
        port, certificate = arguments.tls
        endpoint = f"ssl:{port}:interface=127.0.0.1:privateKey={certificate}"
        serverFromString(running, endpoint).listen(site())
    if arguments.websocket is not None:
        echo(arguments.websocket)
    running.run()


main()
