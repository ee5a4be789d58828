"""
How sockets and the data that belongs to them share one stream: pure encoding
and decoding, without a socket.

The rules:

  1. Sockets travel in batches.  A batch says how many there are, then the data
     of each; their descriptors ride on the batch's first byte, all of them.
  2. A read that yields descriptors therefore holds the first byte of the batch
     that they belong to, whatever the kernel merges or cuts: it ends a read
     after the piece that carried some.  What does not fit that is an error: a
     batch that begins in a read without descriptors, and descriptors of a read
     in which no batch begins.
  3. Descriptors that the kernel dropped, because the receiver is at its limit of
     open files, are the last ones of their batch.
  4. Every socket is answered once, in the order in which they were sent: taken,
     or given back and why.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Sequence
from typing import Final, Optional, Union

import msgspec

from twisted_cluster.errors import ProtocolError

MOST: Final = 64
"""
The most sockets in one batch.  The kernel carries up to 253; larger batches
gain nothing, and what a receiver has to open at once is less.
"""

LARGEST: Final = 256 * 1024 * 1024
"""
The most bytes of data that belong to one socket, unless told otherwise.
"""

LOST: Final = -1
"""
Stands for a descriptor that did not arrive.
"""

_BATCH: Final = struct.Struct("!cH")
_ITEM: Final = struct.Struct("!I")
_TAKEN: Final = struct.Struct("!cI")
_GIVEN_BACK: Final = struct.Struct("!cHH")
_NOTE: Final = struct.Struct("!cI")
_LONGEST_REASON: Final = 1000
_LONGEST_NOTE: Final = 64 * 1024


class Arrival(msgspec.Struct, frozen=True, gc=False):
    """
    A socket that arrived.

    @ivar descriptor: it, or L{LOST}.
    @ivar data: what was sent along.
    """

    descriptor: int
    data: bytes


class Taken(msgspec.Struct, frozen=True, gc=False):
    """
    The other side took this many sockets, the oldest that it had not answered.
    """

    count: int


class GivenBack(msgspec.Struct, frozen=True, gc=False):
    """
    The other side did not take this many sockets, the oldest that it had not
    answered; and why.
    """

    count: int
    why: str


class Note(msgspec.Struct, frozen=True, gc=False):
    """
    Something else that the other side has to say.
    """

    data: bytes


Event = Union[Arrival, Taken, GivenBack, Note]


def encodeBatch(items: Sequence[bytes]) -> bytes:
    """
    Write a batch of sockets.

    @param items: the data of each, 1 to L{MOST}.  Their descriptors are to go
        with the first byte.
    """
    parts = [_BATCH.pack(b"S", len(items))]
    for item in items:
        parts.append(_ITEM.pack(len(item)))
        parts.append(item)
    return b"".join(parts)


def encodeTaken(count: int) -> bytes:
    """
    Write that sockets were taken.
    """
    return _TAKEN.pack(b"T", count)


def encodeGivenBack(count: int, why: str) -> bytes:
    """
    Write that sockets were not taken.

    @param count: how many, up to 65,535.
    @param why: for the sender's error, cut to 1,000 bytes.
    """
    reason = why.encode(errors="backslashreplace")[:_LONGEST_REASON]
    return _GIVEN_BACK.pack(b"R", count, len(reason)) + reason


def encodeNote(data: bytes) -> bytes:
    """
    Write something else.

    @raise ValueError: for more than 64 KiB.
    """
    if len(data) > _LONGEST_NOTE:
        raise ValueError(f"a note of {len(data)} bytes")
    return _NOTE.pack(b"N", len(data)) + data


class FrameParser:
    """
    Turns what was read back into events.  It owns the descriptors that it was
    given and has not returned.

    @ivar error: how the other side broke the rules, or L{None}.  What follows
        is not understood any more.
    """

    def __init__(self, largest: int = LARGEST) -> None:
        """
        @param largest: the most bytes of one socket's data.
        """
        self._largest = largest
        self.error: Optional[ProtocolError] = None
        self._buffer = bytearray()
        self._groups: deque[tuple[list[int], bool]] = deque()
        self._batch: deque[int] = deque()

    @property
    def unfinished(self) -> bool:
        """
        Whether what was read ends within a frame.
        """
        return bool(self._buffer or self._batch or self._groups)

    def descriptors(self, descriptors: list[int], truncated: bool) -> None:
        """
        Take over the descriptors of one read, to be called before L{data} with
        that read's bytes.

        @param truncated: whether the kernel dropped more that belonged to them.
        """
        self._groups.append((descriptors, truncated))

    def data(self, data: bytes) -> list[Event]:
        """
        Take bytes.

        @return: what is complete now, in the order in which it was sent, up to
            where the other side broke the rules: then there is an L{error}.  The
            descriptors in it are the caller's.
        """
        events: list[Event] = []
        if self.error is not None:
            return events
        self._buffer += data
        used = 0
        try:
            while length := self._next(used, events):
                used += length
            self._match(used)
        except ProtocolError as error:
            self.error = error
        del self._buffer[:used]
        return events

    def close(self) -> list[int]:
        """
        End.

        @return: the descriptors that were not returned, which are the caller's.
        """
        left = [d for d in self._batch if d != LOST]
        for descriptors, _ in self._groups:
            left.extend(descriptors)
        self._batch.clear()
        self._groups.clear()
        self._buffer.clear()
        return left

    def _next(self, at: int, events: list[Event]) -> int:
        """
        Read one frame, or the items of a batch that are complete.

        @return: how many bytes it took, or 0 when it is not complete.
        """
        if self._batch:
            return self._readItems(at, events)
        kind = self._buffer[at : at + 1]
        if kind == b"S":
            return self._begin(at)
        if kind == b"T":
            return self._taken(at, events)
        if kind == b"R":
            return self._givenBack(at, events)
        if kind == b"N":
            return self._note(at, events)
        if kind:
            raise ProtocolError(f"a frame of unknown kind {bytes(kind)!r}")
        return 0

    def _match(self, at: int) -> None:
        """
        Hold what is left to the rules: only a batch that has begun, and cannot
        be read yet, leaves descriptors.
        """
        begun = not self._batch and self._buffer[at : at + 1] == b"S"
        if len(self._groups) > begun:
            raise ProtocolError("a descriptor came without its frame")
        if len(self._groups) < begun:
            raise ProtocolError("a frame came without its descriptor")

    def _fits(self, at: int, size: int) -> bool:
        return len(self._buffer) - at >= size

    def _begin(self, at: int) -> int:
        if not self._fits(at, _BATCH.size):
            return 0
        _, count = _BATCH.unpack_from(self._buffer, at)
        if not 0 < count <= MOST:
            raise ProtocolError(f"a batch of {count} sockets")
        if not self._groups:
            raise ProtocolError("a frame came without its descriptor")
        descriptors, truncated = self._groups.popleft()
        missing = count - len(descriptors)
        self._batch.extend(descriptors)
        if missing < 0 or (missing and not truncated):
            raise ProtocolError(f"{len(descriptors)} descriptors for {count} sockets")
        self._batch.extend([LOST] * missing)
        return _BATCH.size

    def _readItems(self, at: int, events: list[Event]) -> int:
        buffer, batch = self._buffer, self._batch
        size, end, start = _ITEM.size, len(self._buffer), at
        while batch and end - at >= size:
            (length,) = _ITEM.unpack_from(buffer, at)
            if length > self._largest:
                raise ProtocolError(f"data of {length} bytes, over {self._largest}")
            after = at + size + length
            if after > end:
                break
            events.append(Arrival(batch.popleft(), bytes(buffer[at + size : after])))
            at = after
        return at - start

    def _taken(self, at: int, events: list[Event]) -> int:
        if not self._fits(at, _TAKEN.size):
            return 0
        events.append(Taken(_TAKEN.unpack_from(self._buffer, at)[1]))
        return _TAKEN.size

    def _givenBack(self, at: int, events: list[Event]) -> int:
        if not self._fits(at, _GIVEN_BACK.size):
            return 0
        _, count, length = _GIVEN_BACK.unpack_from(self._buffer, at)
        if length > _LONGEST_REASON:
            raise ProtocolError(f"a reason of {length} bytes")
        if not self._fits(at, _GIVEN_BACK.size + length):
            return 0
        start = at + _GIVEN_BACK.size
        why = self._buffer[start : start + length].decode(errors="ignore")
        events.append(GivenBack(count, why))
        return _GIVEN_BACK.size + int(length)

    def _note(self, at: int, events: list[Event]) -> int:
        if not self._fits(at, _NOTE.size):
            return 0
        _, length = _NOTE.unpack_from(self._buffer, at)
        if length > _LONGEST_NOTE:
            raise ProtocolError(f"a note of {length} bytes")
        if not self._fits(at, _NOTE.size + length):
            return 0
        start = at + _NOTE.size
        events.append(Note(bytes(self._buffer[start : start + length])))
        return _NOTE.size + int(length)
