"""
Reads what a client asks for by name in the first bytes that it sent, for
balancers that route by it.

The bytes may be cut anywhere and may be anything.  Every answer is one of three:

  - L{None}: it cannot be told yet; more bytes may tell it.
  - an empty string: there is no such name, and no further byte will change that.
  - the name, in lower case; no further byte will change that either.

This is for routing, not for checking: whoever gets the connection reads the same
bytes by the rules of its protocol.
"""

from __future__ import annotations

import re
from typing import Final, Optional

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE: Final = re.compile(_TOKEN + rb" [^\x00-\x20\x7f]+ HTTP/1\.[0-9]")
_BEGINNING: Final = re.compile(
    _TOKEN + rb"(?: (?:[^\x00-\x20\x7f]+(?: [HTP/.0-9]*\r?)?)?)?"
)
_HOST_AND_PORT: Final = re.compile(r"(\[[^\]]*\]|[^:]*)(?::[0-9]*)?")


def hostOf(firstBytes: bytes) -> Optional[str]:
    """
    Read the C{Host} header of an HTTP/1 request.

    @return: the first C{Host} header's value, in lower case and without the port:
        C{example.org}, C{[::1]}.  An empty string when the head of the request
        ends without one, when it is empty, or when this is no HTTP/1 request.
        L{None} while it may still come, its line's end included.
    """
    lines = firstBytes.lstrip(b"\r\n").split(b"\n")
    rest = lines.pop()
    if not lines:
        return None if not rest or _BEGINNING.fullmatch(rest) else ""
    if not _REQUEST_LINE.fullmatch(_stripped(lines[0])):
        return ""
    for line in lines[1:]:
        line = _stripped(line)
        if not line:
            return ""
        name, _, value = line.partition(b":")
        if name.lower() == b"host":
            return _withoutPort(value.strip(b" \t").decode("latin-1").lower())
    return None


def _stripped(line: bytes) -> bytes:
    return line[:-1] if line.endswith(b"\r") else line


def _withoutPort(value: str) -> str:
    found = _HOST_AND_PORT.fullmatch(value)
    return value if found is None else found[1]


def serverNameOf(firstBytes: bytes) -> Optional[str]:
    """
    Read the server name (SNI) of a TLS ClientHello, which may come in several
    records.

    @return: the name, in lower case.  An empty string when the ClientHello ends
        without one, or when this is none.  L{None} while it may still come.  Of an
        encrypted ClientHello, it is the public name.
    """
    try:
        return _readHello(_Bytes(*_handshake(firstBytes)))
    except _NotYet:
        return None
    except _NoHello:
        return ""


class _NotYet(Exception):
    """
    The bytes end too early.
    """


class _NoHello(Exception):
    """
    This is no ClientHello with a name.
    """


_HANDSHAKE: Final = 22
_CLIENT_HELLO: Final = 1
_SERVER_NAME: Final = 0
_HOST_NAME: Final = 0
_LONGEST_RECORD: Final = 2**14


def _handshake(data: bytes) -> tuple[bytes, bool]:
    """
    Join what the records at the beginning hold of the handshake.

    @return: that, and whether more of it may follow.
    """
    parts: list[bytes] = []
    start = 0
    while start < len(data):
        head = data[start : start + 5]
        if head[0] != _HANDSHAKE or head[1:2] not in (b"", b"\x03"):
            return b"".join(parts), False
        if len(head) < 5:
            break
        length = int.from_bytes(head[3:], "big")
        if not 0 < length <= _LONGEST_RECORD:
            return b"".join(parts), False
        start += 5 + length
        parts.append(data[start - length : start])
    return b"".join(parts), True


class _Bytes:
    """
    Bytes that are read from the left, of which the last may be missing.

    @ivar _end: how many there are when all have come; L{None} for as many as come.
    """

    def __init__(self, data: bytes, more: bool, end: Optional[int] = None) -> None:
        self._data = data
        self._more = more
        self._end = end
        self._place = 0

    def take(self, count: int) -> bytes:
        """
        @raise _NoHello: there are not so many.
        @raise _NotYet: so many have not come yet.
        """
        start, self._place = self._place, self._place + count
        if self._end is not None and self._place > self._end:
            raise _NoHello
        if self._place > len(self._data):
            raise _NotYet if self._more else _NoHello
        return self._data[start : self._place]

    def number(self, size: int) -> int:
        """
        Take a number of so many bytes.
        """
        return int.from_bytes(self.take(size), "big")

    def inner(self, size: int) -> _Bytes:
        """
        Take as many bytes as a number of so many bytes says, whether they have
        come or not.
        """
        length = self.number(size)
        start, self._place = self._place, self._place + length
        if self._end is not None and self._place > self._end:
            raise _NoHello
        return _Bytes(self._data[start : self._place], self._more, length)

    @property
    def exhausted(self) -> bool:
        """
        Whether all have been taken.
        """
        return self._place == self._end


def _readHello(handshake: _Bytes) -> str:
    if handshake.number(1) != _CLIENT_HELLO:
        raise _NoHello
    hello = handshake.inner(3)
    hello.take(2 + 32)
    for size in (1, 2, 1):
        hello.inner(size)
    extensions = hello.inner(2)
    while not extensions.exhausted:
        kind = extensions.number(2)
        extension = extensions.inner(2)
        if kind == _SERVER_NAME:
            names = extension.inner(2)
            while not names.exhausted:
                kind = names.number(1)
                name = names.take(names.number(2))
                if kind == _HOST_NAME:
                    return name.decode("latin-1").lower()
    raise _NoHello
