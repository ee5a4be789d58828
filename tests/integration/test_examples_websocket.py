"""
The example of WebSockets that change their process runs, and does what its first
lines say.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path
from typing import Any, Optional

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from autobahn.websocket.compress import (
    PerMessageDeflateOffer,
    PerMessageDeflateResponseAccept,
)

from tests.integration.balancing import Call, connect
from tests.integration.support import (
    ROOT,
    ClusterTestCase,
    Command,
    exchange,
    isAlive,
    reactor,
    until,
)

EXAMPLE = ROOT / "examples" / "websocket_handover"
REQUEST = (
    b"GET %s HTTP/1.1\r\n"
    b"Host: localhost\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"\r\n"
)
ACCEPT = b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""
What RFC 6455 says is the answer to that key.
"""
BYE = b"\x88\x82" + bytes(4) + b"\x03\xe8"
"""
A client's close frame, with the status 1000.
"""
ACCEPT_COMPRESSION = """\
    from autobahn.websocket.compress import PerMessageDeflateOfferAccept
    factory.setProtocolOptions(
        perMessageCompressionAccept=lambda offers: PerMessageDeflateOfferAccept(
            offers[0]
        )
    )
"""
"""
What a program says after it has made its factory.
"""


def spoken(text: bytes) -> bytes:
    """
    A short text as a client's frame, whose mask changes nothing.
    """
    return bytes([0x81, 0x80 | len(text)]) + bytes(4) + text


def heard(text: bytes) -> bytes:
    """
    A short text as a server's frame.
    """
    return bytes([0x81, len(text)]) + text


class Visitor(WebSocketClientProtocol):
    """
    Keeps what it hears.
    """

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.closed: Optional[tuple[bool, int, str]] = None
        self.extensions: list[Any] = []

    def onConnect(self, response: Any) -> None:
        self.extensions = response.extensions

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.texts.append(payload.decode())

    def onClose(self, wasClean: bool, code: int, reason: str) -> None:
        self.closed = (wasClean, code, reason)


class WebSocketHandover(ClusterTestCase):
    """
    F{examples/websocket_handover}.
    """

    async def start(self, directory: Path = EXAMPLE) -> Command:
        """
        Run F{parent.py}, until it and its F{child.py} have begun.
        """
        command = [sys.executable, str(directory / "parent.py"), "0"]
        self.parent = self.execute(command)
        await self.parent.waitFor("WebSocketServerFactory starting on ")
        await self.parent.waitFor("is room red")
        await self.parent.waitFor("is room blue")
        found = re.findall(r"process (\d+) is room (\w+)", self.parent.text)
        self.rooms = {name: int(pid) for pid, name in found}
        self.addCleanup(self.killRooms)
        port = re.search(r"Factory starting on (\d+)", self.parent.text)
        assert port is not None
        self.port = int(port[1])
        return self.parent

    async def stop(self) -> None:
        """
        Stop the parent as a user does: nothing is left.
        """
        self.parent.signal(signal.SIGTERM)
        self.assertEqual(await self.parent.whenEnded(), 0, self.parent.text)
        await until(lambda: not any(map(isAlive, self.rooms.values())))
        self.assertNotIn("Traceback", self.parent.text)

    def killRooms(self) -> None:
        """
        Let no room outlive a test that has failed.
        """
        for pid in self.rooms.values():
            if isAlive(pid):
                os.kill(pid, signal.SIGKILL)

    async def visit(self, path: str, compressed: bool = False) -> Visitor:
        """
        Enter a room with Autobahn's client.
        """
        factory: Any = WebSocketClientFactory(
            f"ws://127.0.0.1:{self.port}{path}", protocols=["chat"], reactor=reactor
        )
        if compressed:
            factory.setProtocolOptions(
                perMessageCompressionOffers=[PerMessageDeflateOffer()],
                perMessageCompressionAccept=PerMessageDeflateResponseAccept,
            )
        visitor = Visitor()
        factory.buildProtocol = lambda _: visitor
        visitor.factory = factory
        reactor.connectTCP("127.0.0.1", self.port, factory)
        await until(lambda: visitor.texts or visitor.closed, what="a first word")
        return visitor

    async def leave(self, visitor: Visitor) -> None:
        """
        Leave, and be let go by the room.
        """
        visitor.sendClose(1000)
        await until(lambda: visitor.closed, what="a goodbye")
        self.assertEqual(visitor.closed, (True, 1000, None))

    async def test_rooms(self) -> None:
        """
        Who comes in talks with those in the same room, which is another process
        than the one that shook hands; the subprotocol is what was agreed there.
        """
        await self.start()
        red, blue = self.rooms["red"], self.rooms["blue"]
        ada = await self.visit("/red?user=ada")
        bob = await self.visit("/red?user=bob")
        eve = await self.visit("/blue?user=eve")
        self.assertEqual(ada.websocket_protocol_in_use, "chat")
        ada.sendMessage(b"hello")
        bob.sendMessage(b"x" * 100_000)
        await until(
            lambda: ada.texts[-1:] == bob.texts[-1:] == ["bob: " + "x" * 100_000]
        )
        await self.leave(bob)
        await until(lambda: "bob has gone" in ada.texts)
        await self.leave(ada)
        await self.leave(eve)
        self.assertEqual(
            ada.texts[0], f"ada has come to process {red}, subprotocol chat"
        )
        self.assertEqual(
            bob.texts[0], f"bob has come to process {red}, subprotocol chat"
        )
        self.assertCountEqual(bob.texts[1:], ["ada: hello", "bob: " + "x" * 100_000])
        self.assertEqual(
            eve.texts, [f"eve has come to process {blue}, subprotocol chat"]
        )
        self.assertEqual(len({red, blue, self.parent.pid}), 3)
        await self.stop()

    async def test_early(self) -> None:
        """
        What a client sends right behind its request, without waiting for the
        answer, is heard once and in its place; a frame may be cut anywhere.
        """
        await self.start()
        for cut in range(len(spoken(b"second")) + 1):
            await self.speakEarly(cut)
        await self.stop()

    async def speakEarly(self, cut: int) -> None:
        """
        Speak before the door is open.

        @param cut: how much of the second frame goes with the first.
        """
        second = spoken(b"second")
        text = f"ada has come to process {self.rooms['red']}, subprotocol None"
        came = heard(text.encode())
        call = await connect(self.port)
        call.say(REQUEST % b"/red?user=ada" + spoken(b"first") + second[:cut])
        await until(lambda: heard(b"ada: first") in call.data, what="the first")
        call.say(second[cut:])
        await until(lambda: heard(b"ada: second") in call.data, what="the second")
        call.say(BYE)
        await until(lambda: call.over, what="the end")
        head, _, frames = call.data.partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 101 "), head)
        self.assertIn(ACCEPT, head)
        words = heard(b"ada: first") + heard(b"ada: second")
        self.assertEqual(frames, came + words + b"\x88\x02\x03\xe8")

    async def test_refused(self) -> None:
        """
        Who names no user or no room is refused by an HTTP answer, and so is who
        comes to a room whose process has died; the other room goes on.
        """
        await self.start()
        for path, line in (
            (b"/red", b"HTTP/1.1 403 Say who you are\r\n"),
            (b"/green?user=ada", b"HTTP/1.1 404 No such room\r\n"),
        ):
            answer = await exchange(self.port, REQUEST % path)
            self.assertTrue(answer.startswith(line), answer)
        ada = await self.visit("/red?user=ada")
        os.kill(self.rooms["red"], signal.SIGKILL)
        await until(lambda: ada.closed, what="the end of who was inside")

        async def isClosed() -> bool:
            call = await connect(self.port)
            call.say(REQUEST % b"/red?user=bob")
            await until(lambda: call.data or call.over)
            await call.hangUp()
            return call.data.startswith(b"HTTP/1.1 404 ")

        while not await isClosed():
            pass
        eve = await self.visit("/blue?user=eve")
        await self.leave(eve)
        await self.stop()

    async def test_stays(self) -> None:
        """
        A room that dies while it should take somebody over has not done so: the
        parent says that it is closed, as a WebSocket.
        """
        await self.start()
        os.kill(self.rooms["red"], signal.SIGSTOP)
        call: Call = await connect(self.port)
        call.say(REQUEST % b"/red?user=ada" + spoken(b"half a frame")[:5])
        await until(lambda: b"\r\n\r\n" in call.data, what="the handshake")
        os.kill(self.rooms["red"], signal.SIGKILL)
        closed = b"\x88\x14" + (4503).to_bytes(2, "big") + b"The room is closed"
        await until(lambda: call.data.endswith(b"\r\n\r\n" + closed), what="the close")
        call.say(spoken(b"half a frame")[5:] + BYE)
        await until(lambda: call.over, what="the end")
        self.assertIn("ada stays outside", self.parent.text)
        self.assertNotIn("failing WebSocket connection", self.parent.text)
        self.parent.signal(signal.SIGTERM)
        self.assertEqual(await self.parent.whenEnded(), 0, self.parent.text)

    async def test_compressed(self) -> None:
        """
        When both programs accept compression, the connection that was handed
        over is compressed.
        """
        made = "WebSocketServerFactory(reactor=reactor)\n"
        for name in ("parent.py", "child.py"):
            source = (EXAMPLE / name).read_text()
            self.assertEqual(source.count(made), 1)
            self.program(source.replace(made, made + ACCEPT_COMPRESSION), name)
        await self.start(self.directory)
        ada = await self.visit("/red?user=ada", compressed=True)
        self.assertEqual(len(ada.extensions), 1)
        words = "the same again " * 100
        for _ in range(3):
            ada.sendMessage(words.encode())
        await until(lambda: len(ada.texts) == 4, what="an answer")
        self.assertEqual(ada.texts[1:], ["ada: " + words] * 3)
        self.assertLess(ada.trafficStats.incomingOctetsWebSocketLevel, 1000)
        await self.leave(ada)
        await self.stop()
