"""
Messages become bytes and come back.
"""

from __future__ import annotations

import datetime
import inspect
import sys
import uuid
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.errors import (
    MessageNotSerializable,
    MessageTooLarge,
    ProtocolError,
    UsageError,
)
from twisted_cluster.ipc import codec

LIMIT = 1_000_000

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
)
keys = st.text() | st.integers(-(2**63), 2**64 - 1)
plain = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(keys, inner), max_leaves=20
)


class Point(msgspec.Struct):
    x: int
    y: int = 0


class Row(msgspec.Struct, array_like=True):
    a: int
    b: str


class Unregistered(msgspec.Struct):
    x: int


def trip(*items: Any) -> list[Any]:
    """
    Send items in one batch.
    """
    encoded = [codec.encode(item, LIMIT) for item in items]
    return codec.splitMessages(codec.joinBatch(encoded))


class Batches(SynchronousTestCase):
    """
    Batches of plain data.
    """

    @given(st.lists(plain))
    def test_messages(self, items: list[Any]) -> None:
        """
        A batch gives the messages that were put into it, in order.
        """
        self.assertEqual(trip(*items), items)

    @given(st.lists(st.tuples(st.integers(0, 2**63), plain)))
    def test_numbered(self, items: list[tuple[int, Any]]) -> None:
        """
        Requests keep their numbers.
        """
        batch = [codec.pair(n, codec.encode(data, LIMIT)) for n, data in items]
        self.assertEqual(codec.splitNumbered(codec.joinBatch(batch)), items)

    @given(st.lists(st.tuples(st.integers(0, 2**63), st.booleans(), plain)))
    def test_replies(self, items: list[tuple[int, bool, Any]]) -> None:
        """
        Replies keep their numbers, and whether they are good ones.
        """
        batch = [codec.reply(n, ok, codec.encode(d, LIMIT)) for n, ok, d in items]
        self.assertEqual(codec.splitReplies(codec.joinBatch(batch)), items)

    @given(st.lists(st.tuples(st.integers(1, 2**32), plain)))
    def test_forwards(self, items: list[tuple[int, Any]]) -> None:
        """
        What is passed on stays as it was encoded.
        """
        encoded = [(to, codec.encode(data, LIMIT)) for to, data in items]
        batch = codec.joinBatch([codec.pair(to, data) for to, data in encoded])
        found = [(to, bytes(raw)) for to, raw in codec.splitForwards(batch)]
        self.assertEqual(found, encoded)

    @given(st.binary())
    def test_garbage(self, garbage: bytes) -> None:
        """
        What is no batch is a ProtocolError, and nothing else.
        """
        for split in (
            codec.splitMessages,
            codec.splitNumbered,
            codec.splitReplies,
            codec.splitForwards,
        ):
            try:
                split(garbage)
            except ProtocolError:
                pass

    def test_certainGarbage(self) -> None:
        """
        Batches that are cut, followed by more, or of the wrong shape are
        refused.
        """
        good = codec.joinBatch([codec.encode("text", LIMIT)])
        for batch in (b"", good[:-1], good + b"\xc0", b"\xc0", b"\xdd\xff\xff\xff\xff"):
            self.assertRaises(ProtocolError, codec.splitMessages, batch)
        self.assertRaises(ProtocolError, codec.splitNumbered, good)
        self.assertRaises(ProtocolError, codec.splitReplies, good)
        self.assertRaises(ProtocolError, codec.splitForwards, good)

    def test_kinds(self) -> None:
        """
        Tuples and sets arrive as lists, dates as dates, UUIDs as text.
        """
        now = datetime.datetime.now(datetime.timezone.utc)
        name = uuid.uuid4()
        self.assertEqual(trip((1, 2), {3}, now, name), [[1, 2], [3], now, str(name)])

    def test_deepAsSent(self) -> None:
        """
        What could be encoded is decoded, also where the stack is deeper.
        """
        depth = sys.getrecursionlimit() - len(inspect.stack()) - 60
        data: Any = "bottom"
        for _ in range(depth):
            data = [data]
        batch = codec.joinBatch([codec.encode(data, LIMIT)])

        def deeper(levels: int) -> list[Any]:
            return deeper(levels - 1) if levels else codec.splitMessages(batch)

        [found] = deeper(50)
        while isinstance(found, list):
            [found] = found
        self.assertEqual(found, "bottom")
        self.assertEqual(
            sys.getrecursionlimit() - len(inspect.stack()) - 60, depth, "as before"
        )


class Refused(SynchronousTestCase):
    """
    What cannot be sent.
    """

    def test_notSerializable(self) -> None:
        """
        What MessagePack cannot express is refused, and named.
        """
        loop: list[Any] = []
        loop.append(loop)
        for data in (object(), print, [1, 2j], 2**64, -(2**63) - 1, "\ud800", loop):
            error = self.assertRaises(MessageNotSerializable, codec.encode, data, LIMIT)
            self.assertIn(type(data).__name__, str(error))

    def test_tooLarge(self) -> None:
        """
        A message over the limit is refused; one at the limit is not.
        """
        encoded = codec.encode(b"x" * 100, LIMIT)
        self.assertEqual(codec.encode(b"x" * 100, len(encoded)), encoded)
        error = self.assertRaises(
            MessageTooLarge, codec.encode, b"x" * 100, len(encoded) - 1
        )
        self.assertIn("--max-message-size", str(error))

    def test_shortInErrors(self) -> None:
        """
        An error never holds a long message.
        """
        error = self.assertRaises(MessageTooLarge, codec.encode, "x" * LIMIT, 10)
        self.assertTrue(len(str(error)) < 200)


class Registered(SynchronousTestCase):
    """
    Messages of types of one's own.
    """

    def setUp(self) -> None:
        self.patch(codec, "_types", {})
        self.patch(codec, "_names", {})

    def test_arrives(self) -> None:
        """
        A registered type arrives as itself, whatever its layout.
        """
        self.assertIs(codec.registerMessage(Point), Point)
        codec.registerMessage(Row, "row")
        self.assertEqual(
            trip(Point(1, 2), Row(1, "b"), 3), [Point(1, 2), Row(1, "b"), 3]
        )

    def test_unregistered(self) -> None:
        """
        Any other type arrives as a dict, and so does a registered one within
        other data.
        """
        codec.registerMessage(Point)
        self.assertEqual(
            trip(Unregistered(1), [Point(1)]), [{"x": 1}, [{"x": 1, "y": 0}]]
        )

    def test_registeredAtOneEnd(self) -> None:
        """
        Where the receiver does not know the type, it arrives as plain data.
        """
        codec.registerMessage(Point)
        codec.registerMessage(Row)
        batch = [codec.encode(each, LIMIT) for each in (Point(1), Row(1, "b"))]
        codec._types.clear()
        self.assertEqual(
            codec.splitMessages(codec.joinBatch(batch)), [{"x": 1, "y": 0}, [1, "b"]]
        )

    def test_changedType(self) -> None:
        """
        Where the receiver's type of that name refuses the data, it arrives as
        plain data, and the channel lives.
        """
        codec.registerMessage(Point)
        encoded = codec.encode(Point(1), LIMIT)
        codec._types["Point"] = Row
        self.assertEqual(
            codec.splitMessages(codec.joinBatch([encoded])), [{"x": 1, "y": 0}]
        )

    def test_sameName(self) -> None:
        """
        Two types cannot share a name; registering one twice is fine.
        """
        codec.registerMessage(Point)
        codec.registerMessage(Point)
        self.assertRaises(UsageError, codec.registerMessage, Row, "Point")

    def test_foreignExtensions(self) -> None:
        """
        Extensions that are not ours arrive as they were, whatever their code.
        """
        ours = msgspec.msgpack.Ext(1, b"\x00")
        other = msgspec.msgpack.Ext(5, b"abc")
        found = trip(ours, other)
        self.assertEqual(
            [(e.code, bytes(e.data)) for e in found], [(1, b"\x00"), (5, b"abc")]
        )
