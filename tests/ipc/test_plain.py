"""
Tests for L{twisted_cluster.ipc.plain}.
"""

from __future__ import annotations

from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as some
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.ipc.plain import cut, plainData, safeText, scrub


class Raising:
    """
    Says nothing of itself.
    """

    def __repr__(self) -> str:
        raise RuntimeError("no")


class NoText:
    """
    Breaks what C{repr} promises.
    """

    def __repr__(self) -> str:
        return None  # type: ignore[return-value]


_SCALARS = (
    some.none()
    | some.booleans()
    | some.floats(allow_nan=False)
    | some.text(some.characters(exclude_categories=["Cs"]), max_size=20)
    | some.binary(max_size=20)
    | some.integers(-(2**63), 2**64 - 1)
)
_PLAIN = some.recursive(
    _SCALARS,
    lambda inner: (
        some.lists(inner, max_size=4)
        | some.dictionaries(
            some.text(some.characters(exclude_categories=["Cs"]), max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)
_ANYTHING = some.recursive(
    _SCALARS
    | some.text(max_size=20)
    | some.integers()
    | some.floats()
    | some.complex_numbers()
    | some.datetimes()
    | some.decimals()
    | some.uuids()
    | some.builds(Raising)
    | some.builds(NoText),
    lambda inner: (
        some.lists(inner, max_size=4)
        | some.tuples(inner, inner)
        | some.dictionaries(
            some.integers() | some.text(max_size=5) | some.none(), inner, max_size=4
        )
    ),
    max_leaves=20,
)


class PlainTests(SynchronousTestCase):
    """
    Whatever a log event holds becomes plain data.
    """

    @given(_PLAIN)
    def test_exact(self, value: Any) -> None:
        """
        What is plain stays as it is.
        """
        self.assertEqual(plainData(value), (value, True))

    @given(_ANYTHING)
    def test_encodable(self, value: Any) -> None:
        """
        Everything can be encoded afterwards.
        """
        plain, _ = plainData(value)
        msgspec.msgpack.decode(msgspec.msgpack.encode(plain))

    def test_changed(self) -> None:
        """
        What had to be changed is named as such, and is text that tells most.
        """
        moment = datetime(2026, 1, 2, tzinfo=timezone.utc)
        for value, expected in (
            ((1, 2), [1, 2]),
            ({3}, [3]),
            ({1: 2}, {"1": 2}),
            (2**64, str(2**64)),
            (moment, "2026-01-02T00:00:00+00:00"),
            (Decimal("1.50"), "1.50"),
            (Path("/tmp"), "/tmp"),
            (bytearray(b"x"), b"x"),
            ("\udc80", "\\udc80"),
            ([object], ["<class 'object'>"]),
        ):
            self.assertEqual(plainData(value), (expected, False))

    def test_raising(self) -> None:
        """
        An object that cannot say what it is, is named by its class.
        """
        self.assertEqual(
            safeText(Raising()),
            "<tests.ipc.test_plain.Raising, whose text raised RuntimeError>",
        )
        self.assertIn("TypeError", plainData([NoText()])[0][0])
        self.assertIn("ValueError", safeText(10**5000))

    def test_cycle(self) -> None:
        """
        A list that contains itself ends.
        """
        cycle: list[Any] = []
        cycle.append(cycle)
        plain, same = plainData(cycle)
        self.assertFalse(same)
        msgspec.msgpack.encode(plain)

    def test_deep(self) -> None:
        """
        So does nesting deeper than the interpreter's stack.
        """
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]
        plain, same = plainData(deep)
        self.assertFalse(same)
        msgspec.msgpack.encode(plain)

    def test_bounded(self) -> None:
        """
        Many items, long texts, and many long texts are cut.
        """
        for value in (
            list(range(10**6)),
            "x" * 10**7,
            b"x" * 10**7,
            ["x" * 10**5] * 1000,
            {str(n): "x" * 100 for n in range(10**5)},
            [[0] * 1000] * 1000,
        ):
            plain, same = plainData(value)
            self.assertFalse(same)
            self.assertLess(len(msgspec.msgpack.encode(plain)), 512 * 1024)

    def test_cut(self) -> None:
        """
        A text that was cut says so.
        """
        self.assertEqual(cut("abc", 3), "abc")
        self.assertEqual(cut("abcdef", 4), "abcd… [2 characters cut]")

    def test_scrub(self) -> None:
        """
        Lone surrogates are escaped, and nothing else is.
        """
        self.assertEqual(scrub("é\udcff\U0001f600"), "é\\udcff\U0001f600")
