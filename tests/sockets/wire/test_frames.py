"""
The frames in which sockets travel: each rule, and what a kernel may do to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional, Union

from hypothesis import given, settings
from hypothesis import strategies as some
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.sockets.wire.frames import (
    LOST,
    MOST,
    Arrival,
    Event,
    FrameParser,
    GivenBack,
    Note,
    Taken,
    encodeBatch,
    encodeGivenBack,
    encodeNote,
    encodeTaken,
)


class Writing(SynchronousTestCase):
    """
    What is written is what is read.
    """

    def read(self, data: bytes) -> list[Event]:
        """
        Parse what needs no descriptors.
        """
        parser = FrameParser()
        events = parser.data(data)
        self.assertEqual((parser.error, parser.unfinished), (None, False))
        return events

    def test_batch(self) -> None:
        """
        Each socket of a batch is read with its own data, in order.
        """
        parser = FrameParser()
        parser.descriptors([7, 8, 9], False)
        events = parser.data(encodeBatch([b"seven", b"", b"nine"]))
        self.assertEqual(
            events, [Arrival(7, b"seven"), Arrival(8, b""), Arrival(9, b"nine")]
        )
        self.assertEqual((parser.close(), parser.unfinished), ([], False))

    def test_answers(self) -> None:
        """
        Answers and notes are read in the order in which they were written.
        """
        data = encodeTaken(3) + encodeGivenBack(2, "no") + encodeNote(b"n") * 2
        self.assertEqual(
            self.read(data), [Taken(3), GivenBack(2, "no"), Note(b"n"), Note(b"n")]
        )

    def test_largestAnswers(self) -> None:
        """
        The largest counts that answers may have survive.
        """
        data = encodeTaken(2**32 - 1) + encodeGivenBack(65535, "")
        self.assertEqual(self.read(data), [Taken(2**32 - 1), GivenBack(65535, "")])

    def test_longReason(self) -> None:
        """
        A reason is cut to 1,000 bytes, and no half of a letter is left.
        """
        [event] = self.read(encodeGivenBack(1, "x" + "é" * 1000))
        self.assertEqual(event, GivenBack(1, "x" + "é" * 499))

    def test_reasonThatIsNoText(self) -> None:
        """
        A reason may hold what the operating system says, be it UTF-8 or not.
        """
        [event] = self.read(encodeGivenBack(1, "no file \udcff"))
        self.assertEqual(event, GivenBack(1, "no file \\udcff"))

    def test_longestNote(self) -> None:
        """
        A note may have 64 KiB, not more.
        """
        self.assertEqual(self.read(encodeNote(b"n" * 65536)), [Note(b"n" * 65536)])
        self.assertRaises(ValueError, encodeNote, b"n" * 65537)


class Rules(SynchronousTestCase):
    """
    What is against the rules ends the parsing, and no descriptor is lost.
    """

    def setUp(self) -> None:
        self.parser = FrameParser(largest=100)

    def assertBroken(self, why: str, left: Sequence[int] = ()) -> None:
        """
        Nothing is parsed any more, for that reason, and those descriptors are
        the parser's.
        """
        self.assertIn(why, str(self.parser.error))
        self.assertEqual(self.parser.data(encodeTaken(1)), [])
        self.parser.descriptors([99], False)
        self.assertEqual(self.parser.data(encodeBatch([b""])), [])
        self.assertEqual(self.parser.close(), [*left, 99])
        self.assertEqual(self.parser.close(), [])

    def test_unknown(self) -> None:
        """
        A frame of no known kind; what came before it still counts.
        """
        self.assertEqual(self.parser.data(encodeTaken(1) + b"X"), [Taken(1)])
        self.assertBroken("a frame of unknown kind b'X'")

    def test_noDescriptor(self) -> None:
        """
        A batch without descriptors.
        """
        self.assertEqual(self.parser.data(encodeBatch([b"one"])), [])
        self.assertBroken("a frame came without its descriptor")

    def test_noDescriptorYet(self) -> None:
        """
        Descriptors come with the first byte of their batch, not later.
        """
        self.assertEqual(self.parser.data(b"S"), [])
        self.assertBroken("a frame came without its descriptor")

    def test_oneGroupForTwo(self) -> None:
        """
        One batch with descriptors and one without, in one read: the descriptors
        are the first one's, the second is an error.
        """
        self.parser.descriptors([7], False)
        events = self.parser.data(encodeBatch([b"one"]) + encodeBatch([b"two"])[:1])
        self.assertEqual(events, [Arrival(7, b"one")])
        self.assertBroken("a frame came without its descriptor")

    def test_noFrame(self) -> None:
        """
        Descriptors with bytes that begin no batch.
        """
        self.parser.descriptors([7, 8], False)
        self.assertEqual(self.parser.data(encodeTaken(2)), [Taken(2)])
        self.assertBroken("a descriptor came without its frame", [7, 8])

    def test_withinABatch(self) -> None:
        """
        Descriptors with bytes within a batch.
        """
        data = encodeBatch([b"one"])
        self.parser.descriptors([7], False)
        self.assertEqual(self.parser.data(data[:5]), [])
        self.parser.descriptors([8], False)
        self.assertEqual(self.parser.data(data[5:6]), [])
        self.assertBroken("a descriptor came without its frame", [7, 8])

    def test_withinTheHead(self) -> None:
        """
        Descriptors with the second byte of a batch.
        """
        self.parser.descriptors([7], False)
        self.assertEqual(self.parser.data(b"S"), [])
        self.assertIsNone(self.parser.error)
        self.parser.descriptors([8], False)
        self.assertEqual(self.parser.data(b"\0"), [])
        self.assertBroken("a descriptor came without its frame", [7, 8])

    def test_tooFew(self) -> None:
        """
        Fewer descriptors than sockets.
        """
        self.parser.descriptors([7], False)
        self.assertEqual(self.parser.data(encodeBatch([b"", b""])), [])
        self.assertBroken("1 descriptors for 2 sockets", [7])

    def test_tooMany(self) -> None:
        """
        More descriptors than sockets.
        """
        self.parser.descriptors([7, 8, 9], True)
        self.assertEqual(self.parser.data(encodeBatch([b"", b""])), [])
        self.assertBroken("3 descriptors for 2 sockets", [7, 8, 9])

    def test_count(self) -> None:
        """
        A batch of none, or of more than 64.
        """
        for count in (0, MOST + 1):
            self.parser = FrameParser()
            self.parser.descriptors([7], True)
            self.assertEqual(self.parser.data(b"S" + count.to_bytes(2, "big")), [])
            self.assertBroken(f"a batch of {count} sockets", [7])

    def test_largest(self) -> None:
        """
        Data over the limit is refused by its length, before it comes; data at
        the limit is not.
        """
        self.parser.descriptors([7], False)
        self.assertEqual(
            self.parser.data(encodeBatch([b"x" * 100])), [Arrival(7, b"x" * 100)]
        )
        self.parser.descriptors([8], False)
        self.parser.data(encodeBatch([b"x" * 101])[:7])
        self.assertBroken("data of 101 bytes, over 100", [8])

    def test_reason(self) -> None:
        """
        A reason longer than what is written.
        """
        self.assertEqual(self.parser.data(b"R\0\1\3\xe9"), [])
        self.assertBroken("a reason of 1001 bytes")

    def test_note(self) -> None:
        """
        A note longer than what is written.
        """
        self.assertEqual(self.parser.data(b"N\0\1\0\1"), [])
        self.assertBroken("a note of 65537 bytes")

    def test_dropped(self) -> None:
        """
        What the kernel dropped is the last of its batch, all of it maybe; the
        batch after it is whole.
        """
        self.parser.descriptors([7], True)
        self.assertEqual(
            self.parser.data(encodeBatch([b"a", b"b"])),
            [Arrival(7, b"a"), Arrival(LOST, b"b")],
        )
        self.parser.descriptors([], True)
        self.parser.data(encodeBatch([b"c", b"d"])[:5])
        self.assertEqual(self.parser.close(), [], "LOST is no descriptor")

    def test_truncatedForNothing(self) -> None:
        """
        That the kernel says to have dropped some, when all are there, is no
        reason to lose them.
        """
        self.parser.descriptors([7], True)
        [event] = self.parser.data(encodeBatch([b"a"]))
        self.assertEqual(event, Arrival(7, b"a"))

    def test_unfinished(self) -> None:
        """
        Whoever reads the end of the stream can tell whether it is one of a
        frame.
        """
        for data in (encodeTaken(1), encodeGivenBack(1, "x"), encodeNote(b"x")):
            parser = FrameParser()
            for at in range(len(data)):
                self.assertEqual(parser.unfinished, at > 0)
                parser.data(data[at : at + 1])
            self.assertFalse(parser.unfinished)
        self.parser.descriptors([7, 8], False)
        data = encodeBatch([b"", b"x"])
        for at in range(len(data)):
            self.assertTrue(self.parser.unfinished)
            self.parser.data(data[at : at + 1])
        self.assertFalse(self.parser.unfinished)


Chunk = tuple[bytes, list[int]]
"""
What one C{sendmsg} carries: descriptors go with the first byte.
"""


class Stream:
    """
    A stream socket as af_unix keeps it: a queue of pieces, some of which hold
    descriptors.
    """

    def __init__(self) -> None:
        self._pieces: list[list[Any]] = []

    def send(self, chunk: Chunk, sizes: Sequence[int]) -> None:
        """
        Put a chunk into the queue in pieces of these sizes, as a sender does
        whose socket takes only so much; the rest is the last piece.
        """
        data, descriptors = chunk
        for size in (*sizes, len(data)):
            if data:
                self._pieces.append([data[:size], descriptors])
                data, descriptors = data[size:], []

    def read(self, size: int) -> Chunk:
        """
        Read up to so many bytes: of as many pieces as it takes, up to the
        first one that holds descriptors, which go with whatever part of it is
        read first.
        """
        data = b""
        found: list[int] = []
        while self._pieces and size > len(data) and not found:
            piece = self._pieces[0]
            part = piece[0][: size - len(data)]
            data += part
            found, piece[1] = piece[1], []
            piece[0] = piece[0][len(part) :]
            if not piece[0]:
                del self._pieces[0]
            else:
                break
        return data, found


class Kernel(SynchronousTestCase):
    """
    Whatever the kernel cuts and merges, the same is read.
    """

    frames = some.lists(
        some.one_of(
            some.lists(some.binary(max_size=20), min_size=1, max_size=5),
            some.builds(Taken, some.integers(0, 2**32 - 1)),
            some.builds(
                GivenBack, some.integers(0, 65535), some.text("abcé", max_size=9)
            ),
            some.builds(Note, some.binary(max_size=20)),
        ),
        max_size=12,
    )

    def encode(
        self, frames: Sequence[Union[Event, list[bytes]]]
    ) -> tuple[list[Chunk], list[Event]]:
        """
        What a sender writes, and what a receiver should read.
        """
        chunks: list[Chunk] = []
        expected: list[Event] = []
        number = 100
        for frame in frames:
            if isinstance(frame, list):
                numbers = list(range(number, number + len(frame)))
                number += len(frame)
                chunks.append((encodeBatch(frame), numbers))
                expected.extend(map(Arrival, numbers, frame))
                continue
            expected.append(frame)
            if isinstance(frame, Taken):
                chunks.append((encodeTaken(frame.count), []))
            elif isinstance(frame, GivenBack):
                chunks.append((encodeGivenBack(frame.count, frame.why), []))
            elif isinstance(frame, Note):
                chunks.append((encodeNote(frame.data), []))
        return chunks, expected

    @settings(deadline=None)
    @given(frames, some.data())
    def test_cutAndMerged(self, frames: Any, data: some.DataObject) -> None:
        """
        Partial sends of any length and reads of any size give what was sent.
        """
        chunks, expected = self.encode(frames)
        stream = Stream()
        parser = FrameParser()
        events: list[Event] = []
        pending = [*chunks]
        while True:
            now = data.draw(some.integers(0, 3))
            for chunk in pending[:now]:
                sizes = data.draw(some.lists(some.integers(1, 30), max_size=6))
                stream.send(chunk, sizes)
            del pending[:now]
            read, found = stream.read(data.draw(some.integers(1, 60)))
            if found:
                parser.descriptors(found, False)
            if read:
                events.extend(parser.data(read))
                self.assertIsNone(parser.error)
            elif not pending:
                break
        self.assertEqual(events, expected)
        self.assertEqual((parser.unfinished, parser.close()), (False, []))

    @settings(deadline=None)
    @given(frames, some.data())
    def test_truncated(self, frames: Any, data: some.DataObject) -> None:
        """
        A receiver that is at its limit of open files from time to time misses
        only descriptors that the kernel dropped, whatever is cut and merged,
        and knows which.
        """
        chunks, expected = self.encode(frames)
        stream = Stream()
        for chunk in chunks:
            stream.send(chunk, data.draw(some.lists(some.integers(1, 30), max_size=6)))
        parser = FrameParser()
        events: list[Event] = []
        dropped: set[int] = set()
        while True:
            read, found = stream.read(data.draw(some.integers(1, 60)))
            if not read:
                break
            if found:
                kept = data.draw(some.integers(0, len(found)))
                dropped.update(found[kept:])
                parser.descriptors(found[:kept], kept < len(found))
            events.extend(parser.data(read))
            self.assertIsNone(parser.error)
        self.assertEqual(
            events,
            [
                Arrival(LOST, each.data)
                if isinstance(each, Arrival) and each.descriptor in dropped
                else each
                for each in expected
            ],
        )
        self.assertEqual((parser.unfinished, parser.close()), (False, []))

    @settings(deadline=None)
    @given(
        some.lists(
            some.tuples(
                some.one_of(
                    some.binary(max_size=30),
                    some.sampled_from(
                        [
                            encodeBatch([b"x"]),
                            encodeBatch([b"x", b"yz"]),
                            encodeBatch([b"x"])[:1],
                            encodeBatch([b"x"])[1:],
                            encodeTaken(1),
                            encodeNote(b"note"),
                            encodeGivenBack(1, "why"),
                        ]
                    ),
                ),
                some.one_of(some.none(), some.integers(0, 4)),
                some.booleans(),
            ),
            max_size=12,
        )
    )
    def test_garbage(self, reads: list[tuple[bytes, Optional[int], bool]]) -> None:
        """
        Whatever comes, each descriptor ends in an event or is given back by
        close(), once; after an error there are no events.
        """
        parser = FrameParser(largest=1000)
        number = 100
        found: list[int] = []
        for data, count, truncated in reads:
            if count is not None:
                parser.descriptors([*range(number, number + count)], truncated)
                number += count
            broken = parser.error is not None
            events = parser.data(data)
            self.assertFalse(broken and events)
            found.extend(
                event.descriptor
                for event in events
                if isinstance(event, Arrival) and event.descriptor != LOST
            )
        found.extend(parser.close())
        self.assertEqual(sorted(found), [*range(100, number)])
        self.assertFalse(parser.unfinished)

    @settings(deadline=None)
    @given(frames, some.data())
    def test_damaged(self, frames: Any, data: some.DataObject) -> None:
        """
        One wrong byte: what was sent whole before it is read right, and no
        descriptor is lost or doubled.
        """
        chunks, expected = self.encode(frames)
        if not chunks:
            return
        at = data.draw(some.integers(0, len(chunks) - 1))
        damaged = bytearray(chunks[at][0])
        place = data.draw(some.integers(0, len(damaged) - 1))
        damaged[place] = data.draw(some.integers(0, 255))
        before = len(self.encode(frames[:at])[1])
        parser = FrameParser(largest=1000)
        events: list[Event] = []
        given: list[int] = []
        for number, (bytes_, numbers) in enumerate(chunks):
            if numbers:
                parser.descriptors(numbers, False)
                given.extend(numbers)
            events.extend(parser.data(bytes(damaged) if number == at else bytes_))
        self.assertEqual(events[:before], expected[:before])
        found = [each.descriptor for each in events if isinstance(each, Arrival)]
        self.assertEqual(sorted(found + parser.close()), given)
