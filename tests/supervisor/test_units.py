"""
Durations, sizes and fractions as people write them.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.supervisor.units import (
    parseDuration,
    parseFraction,
    parseSize,
)


class DurationTests(SynchronousTestCase):
    """
    L{parseDuration}.
    """

    def test_read(self) -> None:
        """
        A number is seconds; units are added up.
        """
        for text, seconds in {
            "30": 30.0,
            "0": 0.0,
            "0.5": 0.5,
            "500ms": 0.5,
            "45s": 45.0,
            "1m": 60.0,
            "1h30m": 5400.0,
            "1.5h": 5400.0,
            "1d1ms": 86400.001,
            " 2M ": 120.0,
        }.items():
            self.assertAlmostEqual(parseDuration(text), seconds, 6, text)

    def test_refused(self) -> None:
        """
        What is no duration is quoted, with an example of one.
        """
        for text in ("", "soon", "-1", "1x", "30m1h", "1h1h", "m", "1h 30m", "nan"):
            error = self.assertRaises(ValueError, parseDuration, text)
            self.assertIn(repr(text), str(error))
            self.assertIn("1h30m", str(error))


class SizeTests(SynchronousTestCase):
    """
    L{parseSize}.
    """

    def test_read(self) -> None:
        """
        A number is bytes; K, M, G and T are powers of 1024.
        """
        for text, size in {
            "4096": 4096,
            "1k": 1024,
            "64KiB": 65536,
            "256M": 256 * 1024**2,
            "1.5G": 3 * 1024**3 // 2,
            "1 TB": 1024**4,
        }.items():
            self.assertEqual(parseSize(text), size, text)

    def test_refused(self) -> None:
        """
        What is no size, or nothing at all, is quoted, with an example.
        """
        for text in ("", "big", "-1", "0", "0.1", "1X", "M", "256MM"):
            error = self.assertRaises(ValueError, parseSize, text)
            self.assertIn(repr(text), str(error))
            self.assertIn("256M", str(error))


class FractionTests(SynchronousTestCase):
    """
    L{parseFraction}.
    """

    def test_read(self) -> None:
        """
        A fraction is a number, or a percentage.
        """
        for text, value in {
            "10%": 0.1,
            "0.1": 0.1,
            "0": 0.0,
            "0%": 0.0,
            "2.5 %": 0.025,
            " 99% ": 0.99,
        }.items():
            self.assertAlmostEqual(parseFraction(text), value, 9, text)

    def test_refused(self) -> None:
        """
        What is no fraction, or the whole and more, such as a percentage without
        its sign, is quoted, with an example.
        """
        for text in ("", "some", "-1%", "10", "1", "100%", "%", "1%%", "5%x", "nan"):
            error = self.assertRaises(ValueError, parseFraction, text)
            self.assertIn(repr(text), str(error))
            self.assertIn("10%", str(error))
