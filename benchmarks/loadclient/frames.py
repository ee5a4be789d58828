"""
Frames of WebSocket (RFC 6455) and of HTTP/2 (RFC 9113), as far as needed.
"""

from __future__ import annotations

import base64
import hashlib
import os
import struct
from collections.abc import Sequence
from typing import Final, Optional

import attrs

TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10
GOAWAY: Final = 7
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@attrs.frozen
class Frame:
    """
    A frame of a WebSocket.

    @ivar final: whether it is its message's last.
    """

    opcode: int
    payload: bytes
    final: bool = True

    @property
    def code(self) -> int:
        """
        Why the other side closes; 1005 if it does not say.
        """
        if len(self.payload) < 2:
            return 1005
        code: int = struct.unpack_from("!H", self.payload)[0]
        return code


def maskedFrame(opcode: int, payload: bytes) -> bytes:
    """
    A frame as clients send it, of at most 125 bytes.
    """
    if len(payload) > 125:
        raise ValueError(f"{len(payload)} bytes are too many")
    mask = os.urandom(4)
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return bytes((0x80 | opcode, 0x80 | len(payload))) + mask + masked


class FrameReader:
    """
    Takes a server's frames apart.
    """

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> Sequence[Frame]:
        """
        Take bytes.

        @return: the frames that they complete.
        """
        self._buffer += data
        found = []
        while (frame := self._one()) is not None:
            found.append(frame)
        return found

    def _one(self) -> Optional[Frame]:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        length, start = buffer[1] & 0x7F, 2
        if length == 126:
            if len(buffer) < 4:
                return None
            length, start = struct.unpack_from("!H", buffer, 2)[0], 4
        elif length == 127:
            if len(buffer) < 10:
                return None
            length, start = struct.unpack_from("!Q", buffer, 2)[0], 10
        if len(buffer) < start + length:
            return None
        self._buffer = buffer[start + length :]
        payload = buffer[start : start + length]
        return Frame(buffer[0] & 0x0F, payload, bool(buffer[0] & 0x80))


def handshakeKey() -> bytes:
    """
    What a client sends.
    """
    return base64.b64encode(os.urandom(16))


def handshakeAnswer(key: bytes) -> bytes:
    """
    What a server must answer.
    """
    return base64.b64encode(hashlib.sha1(key + _GUID).digest())


@attrs.frozen
class GoAway:
    """
    An HTTP/2 server ends a connection.

    @ivar last: the highest stream that it has begun or may still begin; those
        above it may be asked again elsewhere.
    @ivar error: why; 0 for no error.
    """

    last: int
    error: int


class GoAwayFilter:
    """
    Takes GOAWAY frames out of what a server sends: the C{h2} library takes a
    connection for closed after one, and refuses the rest of the answers.
    """

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> tuple[bytes, Sequence[GoAway]]:
        """
        Take bytes.

        @return: those of all complete frames but GOAWAY, and the GOAWAY frames.
        """
        self._buffer += data
        kept: list[bytes] = []
        found: list[GoAway] = []
        at = 0
        buffer = self._buffer
        while len(buffer) - at >= 9:
            end = at + 9 + int.from_bytes(buffer[at : at + 3], "big")
            if len(buffer) < end:
                break
            if buffer[at + 3] == GOAWAY and end - at >= 17:
                last, error = struct.unpack_from("!II", buffer, at + 9)
                found.append(GoAway(last & 0x7FFFFFFF, error))
            else:
                kept.append(buffer[at:end])
            at = end
        self._buffer = buffer[at:]
        return b"".join(kept), found
