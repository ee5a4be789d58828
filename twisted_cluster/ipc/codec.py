"""
How a message becomes bytes, and a batch of them becomes messages again.

Messages are MessagePack.  A batch is an array of them, put together from
messages that were encoded one by one, and taken apart in one go.
"""

from __future__ import annotations

import struct
import sys
from typing import Any, Optional, TypeVar

import msgspec

from twisted_cluster.errors import (
    MessageNotSerializable,
    MessageTooLarge,
    ProtocolError,
    UsageError,
)
from twisted_cluster.interfaces import Data

T = TypeVar("T")

_REGISTERED = 1
"""The MessagePack extension type of a message whose type was registered."""
_DEEPER = 1000
"""How much deeper than usual Python's stack may get for a nested message."""

_types: dict[str, type[msgspec.Struct]] = {}
_names: dict[type[msgspec.Struct], str] = {}
_encoder = msgspec.msgpack.Encoder()


def registerMessage(
    kind: type[msgspec.Struct], name: Optional[str] = None
) -> type[msgspec.Struct]:
    """
    Have messages of a C{msgspec.Struct} type arrive as that type, where the
    receiver has registered it too.  Elsewhere, where the receiver's type
    refuses them (a restart may change it), and within other data, they arrive
    as the dicts (for C{array_like} types: the lists) that other structs become.
    May be used as a decorator.

    @param name: what the two sides call the type; its C{__name__} by default.
    @return: C{kind}.
    @raise UsageError: when another type has that name.
    """
    name = name or kind.__name__
    if _types.setdefault(name, kind) is not kind:
        raise UsageError(
            f"message type {name!r} is {_types[name]!r} already: "
            f"register {kind!r} under another name"
        )
    _names[kind] = name
    return kind


def encode(data: Data, limit: int) -> bytes:
    """
    Encode one message.

    @param limit: the most bytes that it may take.
    @raise MessageNotSerializable: when MessagePack cannot express the data.
    @raise MessageTooLarge: when it takes more than C{limit} bytes.
    """
    try:
        encoded = _encoder.encode(data)
        if type(data) in _names:
            encoded = _named(_names[type(data)].encode(), encoded)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise MessageNotSerializable(
            f"cannot send {_excerpt(data)}: {error}; "
            f"send plain data or a msgspec.Struct"
        ) from error
    if len(encoded) > limit:
        raise MessageTooLarge(
            f"a message of {len(encoded):,} bytes is over the limit of {limit:,} "
            f"(see --max-message-size): {_excerpt(data)}"
        )
    return encoded


def _named(name: bytes, encoded: bytes) -> bytes:
    body = b"".join((struct.pack(">H", len(name)), name, encoded))
    return _encoder.encode(msgspec.msgpack.Ext(_REGISTERED, body))


def _excerpt(data: Data) -> str:
    """
    Name a value in an error message: its type, and its text if that is short.
    """
    kind = type(data).__name__
    if isinstance(data, (bool, int, float)) or (
        isinstance(data, (str, bytes)) and len(data) <= 60
    ):
        return f"{kind} {data!r}"
    return f"a {kind}"


def _restore(code: int, body: memoryview) -> Any:
    """
    Make a message of a registered type from an extension.  One that is
    something else, whoever sent it, stays an C{Ext}.
    """
    # Before msgspec 0.20, the view says that it is longer than it is.
    extension = bytes(body)
    try:
        if code == _REGISTERED:
            (length,) = struct.unpack_from(">H", extension)
            kind = _types.get(str(extension[2 : 2 + length], "utf-8"))
            return _typed(extension[2 + length :], kind)
    except (msgspec.MsgspecError, ValueError, struct.error):
        pass
    return msgspec.msgpack.Ext(code, extension)


def _typed(encoded: bytes, kind: Optional[type[msgspec.Struct]]) -> Any:
    if kind is not None:
        try:
            return msgspec.msgpack.decode(encoded, type=kind)
        except msgspec.ValidationError:
            pass
    return msgspec.msgpack.decode(encoded)


_messages = msgspec.msgpack.Decoder(list[Any], ext_hook=_restore)
_requests = msgspec.msgpack.Decoder(list[tuple[int, Any]], ext_hook=_restore)
_replies = msgspec.msgpack.Decoder(list[tuple[int, bool, Any]], ext_hook=_restore)
_forwards = msgspec.msgpack.Decoder(list[tuple[int, msgspec.Raw]])


def joinBatch(items: list[bytes]) -> bytes:
    """
    Put a batch together from encoded items.
    """
    return b"".join([b"\xdd", len(items).to_bytes(4, "big"), *items])


def pair(number: int, encoded: bytes) -> bytes:
    """
    Encode C{[number, data]} from data that is encoded already.
    """
    return b"\x92" + _encoder.encode(number) + encoded


def reply(number: int, succeeded: bool, encoded: bytes) -> bytes:
    """
    Encode C{[number, succeeded, data]} from data that is encoded already.
    """
    return b"".join(
        (b"\x93", _encoder.encode(number), b"\xc3" if succeeded else b"\xc2", encoded)
    )


def splitMessages(batch: bytes) -> list[Any]:
    """
    Decode a batch of messages.

    @raise ProtocolError: when it is none.
    """
    return _decode(_messages, batch)


def splitNumbered(batch: bytes) -> list[tuple[int, Any]]:
    """
    Decode a batch of requests, or of messages from another worker.

    @raise ProtocolError: when it is none.
    """
    return _decode(_requests, batch)


def splitReplies(batch: bytes) -> list[tuple[int, bool, Any]]:
    """
    Decode a batch of replies.

    @raise ProtocolError: when it is none.
    """
    return _decode(_replies, batch)


def splitForwards(batch: bytes) -> list[tuple[int, msgspec.Raw]]:
    """
    Decode a batch of messages for other workers, leaving the data encoded.

    @raise ProtocolError: when it is none.
    """
    return _decode(_forwards, batch)


def _decode(decoder: msgspec.msgpack.Decoder[T], batch: bytes) -> T:
    try:
        try:
            return decoder.decode(batch)
        except RecursionError:
            return _decodeDeep(decoder, batch)
    except (msgspec.MsgspecError, RecursionError, TypeError, ValueError) as error:
        raise ProtocolError(f"a batch that cannot be decoded: {error}") from error


def _decodeDeep(decoder: msgspec.msgpack.Decoder[T], batch: bytes) -> T:
    """
    Decode what was nested as deeply as the sender's stack allowed, on a stack
    that was deeper to begin with.
    """
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(limit + _DEEPER)
    try:
        return decoder.decode(batch)
    finally:
        sys.setrecursionlimit(limit)
