"""
What the load client of the benchmarks reads from its connections.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from benchmarks.loadclient.answers import Answer, BadAnswer, fault
from benchmarks.loadclient.frames import (
    CLOSE,
    TEXT,
    Frame,
    FrameReader,
    GoAway,
    GoAwayFilter,
    handshakeAnswer,
    maskedFrame,
)

ANSWERS = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n17 me",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"2\r\n17\r\n3;a=b\r\n me\r\n0\r\n\r\n",
    "interim": b"HTTP/1.1 100 Continue\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n17 me",
}


class Answers(SynchronousTestCase):
    """
    Answers in HTTP/1.1.
    """

    @given(st.sampled_from(sorted(ANSWERS)), st.integers(1, 20))
    def test_pieces(self, name: str, size: int) -> None:
        """
        However its bytes come, an answer is complete with the last, not before.
        """
        data = ANSWERS[name]
        answer = Answer()
        for at in range(0, len(data), size):
            self.assertFalse(answer.complete)
            self.assertEqual(answer.feed(data[at : at + size]), b"")
        self.assertTrue(answer.complete)
        self.assertEqual((answer.status, answer.body), (200, b"17 me"))
        self.assertTrue(answer.keeps)
        self.assertEqual(answer.received, len(data))

    @given(st.sampled_from(sorted(ANSWERS)), st.data())
    def test_truncated(self, name: str, data: st.DataObject) -> None:
        """
        An answer that was cut anywhere is not complete.
        """
        whole = ANSWERS[name]
        answer = Answer()
        answer.feed(whole[: data.draw(st.integers(1, len(whole) - 1))])
        answer.end()
        self.assertFalse(answer.complete)

    def test_withoutLength(self) -> None:
        """
        An answer without a length ends with its connection.
        """
        answer = Answer()
        answer.feed(b"HTTP/1.0 200 OK\r\n\r\n17")
        self.assertFalse(answer.complete)
        answer.end()
        self.assertTrue(answer.complete)
        self.assertEqual((answer.body, answer.keeps), (b"17", False))

    def test_rest(self) -> None:
        """
        Bytes that follow an answer are returned.
        """
        answer = Answer()
        self.assertEqual(answer.feed(ANSWERS["length"] + b"more"), b"more")

    def test_closes(self) -> None:
        """
        A connection whose answer says that it closes is not used again.
        """
        answer = Answer()
        answer.feed(
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
        self.assertTrue(answer.complete)
        self.assertFalse(answer.keeps)

    def test_bad(self) -> None:
        """
        What is no answer is refused.
        """
        for data in (b"SSH-2.0\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"<html>....."):
            with self.assertRaises(BadAnswer):
                Answer().feed(data)

    def test_fault(self) -> None:
        """
        A wrong status, another request's answer and other text are faults.
        """
        self.assertEqual(fault(200, b"17 me\n", b"17", b""), "")
        self.assertEqual(fault(503, b"17 me\n", b"17", b""), "status 503")
        self.assertIn("another request", fault(200, b"171 me\n", b"17", b""))
        self.assertIn("another request", fault(200, b"", b"17", b""))
        self.assertIn("begins with", fault(200, b"bye", b"", b"hello"))


class Frames(SynchronousTestCase):
    """
    Frames of WebSocket and HTTP/2.
    """

    @given(st.integers(1, 300))
    def test_pieces(self, size: int) -> None:
        """
        However bytes come, frames are found whole, of every way to tell length.
        """
        long, longer = b"x" * 200, b"y" * 70_000
        data = (
            b"\x81\x03abc"
            + (b"\x81\x7e" + len(long).to_bytes(2, "big") + long)
            + (b"\x81\x7f" + len(longer).to_bytes(8, "big") + longer)
            + b"\x88\x02\x03\xe9"
        )
        reader = FrameReader()
        found: list[Frame] = []
        for at in range(0, 400, size):
            found.extend(reader.feed(data[at : min(at + size, 400)]))
        found.extend(reader.feed(data[400:]))
        payloads = [each.payload for each in found]
        self.assertEqual(payloads[:3], [b"abc", long, longer])
        self.assertEqual((found[3].opcode, found[3].code), (CLOSE, 1001))

    def test_masked(self) -> None:
        """
        What a client sends is masked, and can be unmasked.
        """
        frame = maskedFrame(TEXT, b"hello")
        self.assertEqual(frame[:2], b"\x81\x85")
        mask, payload = frame[2:6], frame[6:]
        plain = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
        self.assertEqual(plain, b"hello")

    def test_handshake(self) -> None:
        """
        The standard's example.
        """
        self.assertEqual(
            handshakeAnswer(b"dGhlIHNhbXBsZSBub25jZQ=="),
            b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        )

    @given(st.integers(1, 60))
    def test_goAway(self, size: int) -> None:
        """
        GOAWAY is taken out, and what is around it is passed on as it was.
        """
        other = b"\x00\x00\x04\x08\x00\x00\x00\x00\x00" + b"\x00\x00\x10\x00"
        away = b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + bytes(
            (0x7F, 255, 255, 255, 0, 0, 0, 2)
        )
        data = other + away + other
        reader = GoAwayFilter()
        kept, found = b"", list[GoAway]()
        for at in range(0, len(data), size):
            more, goAways = reader.feed(data[at : at + size])
            kept += more
            found.extend(goAways)
        self.assertEqual(kept, other + other)
        self.assertEqual(found, [GoAway(2**31 - 1, 2)])
