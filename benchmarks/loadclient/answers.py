"""
The answer to a request in HTTP/1.1, as its bytes come.
"""

from __future__ import annotations

from typing import Final, Optional

LONGEST_HEAD: Final = 65_536


class BadAnswer(Exception):
    """
    The bytes are no answer.
    """


class Answer:
    """
    Collects an answer, interim ones (1xx) left out.

    @ivar received: how many bytes have come.
    @ivar complete: whether all have.
    @ivar status: the number in the first line; 0 before that has come.
    @ivar head: the first line and the headers, in lower case.
    @ivar body: so far, decoded.
    @ivar keeps: whether the connection may be used again.
    """

    def __init__(self) -> None:
        self.received = 0
        self.complete = False
        self.status = 0
        self.head = b""
        self.body = b""
        self.keeps = False
        self._buffer = b""
        self._left: Optional[int] = None
        self._chunked = False

    def feed(self, data: bytes) -> bytes:
        """
        Take bytes.

        @return: those that follow the answer.
        @raise BadAnswer: they are none.
        """
        self.received += len(data)
        self._buffer += data
        while not self.status:
            if not self._readHead():
                return b""
        if self._chunked:
            self._readChunks()
        elif self._left is None:
            self.body += self._buffer
            self._buffer = b""
        elif len(self._buffer) >= self._left:
            self.body = self._buffer[: self._left]
            self._buffer = self._buffer[self._left :]
            self.complete = True
        if not self.complete:
            return b""
        rest, self._buffer = self._buffer, b""
        return rest

    def end(self) -> None:
        """
        The other side has closed, which completes an answer that has no length.
        """
        if self.status and self._left is None and not self._chunked:
            self.complete = True

    def _readHead(self) -> bool:
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            if len(self._buffer) > LONGEST_HEAD:
                raise BadAnswer("the headers do not end")
            if not b"HTTP/1.".startswith(self._buffer[:7]):
                raise BadAnswer(f"it begins with {self._buffer[:40]!r}")
            return False
        self._buffer = rest
        first = head.split(b"\r\n", 1)[0].split(b" ", 2)
        if len(first) < 2 or first[0] not in (b"HTTP/1.1", b"HTTP/1.0"):
            raise BadAnswer(f"it begins with {head[:40]!r}")
        try:
            status = int(first[1])
        except ValueError:
            raise BadAnswer(f"it begins with {head[:40]!r}") from None
        if 100 <= status < 200 and status != 101:
            return bool(self._buffer) and self._readHead()
        self.status = status
        self.head = head.lower()
        self._readLength(first[0] == b"HTTP/1.1")
        return True

    def header(self, name: bytes) -> Optional[bytes]:
        """
        The value of a header, in lower case.
        """
        _, found, rest = self.head.partition(b"\r\n" + name + b":")
        return rest.partition(b"\r\n")[0].strip() if found else None

    def _readLength(self, keeps: bool) -> None:
        length = self.header(b"content-length")
        self._chunked = b"chunked" in (self.header(b"transfer-encoding") or b"")
        connection = self.header(b"connection") or b""
        if self.status in (101, 204, 304):
            self._left = 0
        elif length is not None and not self._chunked:
            try:
                self._left = int(length)
            except ValueError:
                raise BadAnswer(f"its length is {length!r}") from None
        bounded = self._chunked or self._left is not None
        keeps = keeps or b"keep-alive" in connection
        self.keeps = bounded and keeps and b"close" not in connection

    def _readChunks(self) -> None:
        while True:
            line, found, rest = self._buffer.partition(b"\r\n")
            if not found:
                if len(self._buffer) > 32:
                    raise BadAnswer(f"a chunk begins with {self._buffer[:40]!r}")
                return
            try:
                size = int(line.partition(b";")[0], 16)
            except ValueError:
                raise BadAnswer(f"a chunk begins with {line[:40]!r}") from None
            if len(rest) < size + 2:
                return
            if rest[size : size + 2] != b"\r\n":
                raise BadAnswer("a chunk is longer than it says")
            self.body += rest[:size]
            self._buffer = rest[size + 2 :]
            if not size:
                self.complete = True
                return


def fault(status: int, body: bytes, word: bytes, expect: bytes) -> str:
    """
    Say what is wrong with an answer that is complete; nothing if it is right.

    @param word: what its first word must be, if anything.
    @param expect: what it must begin with.
    """
    if status != 200:
        return f"status {status}"
    if not body.startswith(expect):
        return f"it begins with {body[:40]!r}"
    if word and body.split(None, 1)[:1] != [word]:
        return f"the answer to another request: {body[:40]!r}"
    return ""
