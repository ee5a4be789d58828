"""
Names in the first bytes of a connection.
"""

from __future__ import annotations

import ssl
import struct
from collections.abc import Callable, Iterable
from typing import Optional

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.policy.firstbytes import hostOf, serverNameOf

Reader = Callable[[bytes], Optional[str]]


def clientHello(
    serverName: Optional[str],
    highest: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED,
) -> bytes:
    """
    What Python's own TLS client says first.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = highest
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=serverName)
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def records(handshake: bytes, sizes: Iterable[int]) -> bytes:
    """
    Spread a handshake over records of such sizes, and one more for the rest.
    """
    written, start = b"", 0
    for size in (*sizes, len(handshake)):
        piece = handshake[start : start + size]
        if piece:
            written += struct.pack("!BHH", 22, 0x0301, len(piece)) + piece
        start += size
    return written


HELLO = clientHello("WWW.Example.org")
NAMELESS = clientHello(None)
REQUEST = (
    b"POST /x?host:y HTTP/1.1\r\n"
    b"X-Host: other.example\r\n"
    b"hOST: \t WWW.Example.org:8080 \r\n"
    b"Host: second.example\r\n"
    b"\r\n"
    b"Host: in.the.body\r\n"
)
REQUESTS = [
    REQUEST,
    b"\r\n\n" + REQUEST.replace(b"\r\n", b"\n"),
    b"GET / HTTP/1.0\r\nAccept: */*\r\n\r\n",
    b"GET http://a.example/ HTTP/1.1\r\nHost: [2001:DB8::1]:443\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET /\r\n",
    b"SSH-2.0-OpenSSH_9.9\r\n",
]
fragments = st.lists(st.integers(1, 300), max_size=8)


class FirstBytesTestCase(SynchronousTestCase):
    """
    What both readers keep.
    """

    def assertSettles(self, read: Reader, data: bytes, cut: int) -> None:
        """
        Fail unless what is said of the beginning holds for the whole.
        """
        early = read(data[:cut])
        if early is not None:
            self.assertEqual(early, read(data), data[:cut])

    def settlesAt(self, read: Reader, data: bytes) -> int:
        """
        Count the bytes that it takes.
        """
        return next(cut for cut in range(len(data) + 1) if read(data[:cut]) is not None)


class HostTests(FirstBytesTestCase):
    """
    L{hostOf}.
    """

    def test_value(self) -> None:
        """
        The first C{Host} counts, whatever its case, without white space and
        port.
        """
        self.assertEqual("www.example.org", hostOf(REQUEST))

    def test_values(self) -> None:
        """
        Only a port is taken away, and nothing that is merely odd is repaired.
        """
        for value, host in {
            b"a.example": "a.example",
            b"a.example:": "a.example",
            b"192.0.2.1:80": "192.0.2.1",
            b"[::1]": "[::1]",
            b"[::1]:80": "[::1]",
            b"a.example.": "a.example.",
            b"": "",
            b"a b": "a b",
            b"a:b:80": "a:b:80",
            b"[::1": "[::1",
            b"\xc4": "\xe4",
        }.items():
            head = b"GET / HTTP/1.1\r\nHost: " + value + b"\r\n"
            self.assertEqual(host, hostOf(head), value)

    def test_notYet(self) -> None:
        """
        Nothing is told of a line that has not ended: the rest may follow.
        """
        for head in (
            b"",
            b"\r",
            b"\r\n",
            b"G",
            b"GET",
            b"GET /",
            b"GET / HTTP/1.",
            b"GET / HTTP/1.1\r",
            b"GET / HTTP/1.1\r\n",
            b"GET / HTTP/1.1\r\nAccept: x\r\nHo",
            b"GET / HTTP/1.1\r\nHost: www.example.or",
            b"GET / HTTP/1.1\r\nHost: www.example.org\r",
        ):
            self.assertIsNone(hostOf(head), head)

    def test_none(self) -> None:
        """
        The end of the head is the end of waiting, and what follows it is not
        looked at.
        """
        self.assertEqual("", hostOf(b"GET / HTTP/1.0\r\n\r\nHost: a.example\r\n"))
        self.assertEqual("", hostOf(b"GET / HTTP/1.0\nA: b\n\n"))

    def test_notFolded(self) -> None:
        """
        A line that continues another is no header, and a name with white space
        after it is another name.
        """
        head = b"GET / HTTP/1.1\r\nA: b\r\n Host: a.example\r\nHost : b.example\r\n"
        self.assertIsNone(hostOf(head))
        self.assertEqual("c.example", hostOf(head + b"Host: c.example\r\n"))

    def test_otherProtocols(self) -> None:
        """
        What cannot become HTTP/1 is known as such as soon as that is sure, so
        that nobody waits for more of it.
        """
        for other in (
            HELLO[:1],
            b"\x00",
            b" ",
            b"GET  ",
            b"GET / FTP",
            b"PRI * HTTP/2.0\r\n",
            b"SSH-2.0-OpenSSH_9.9\r\n",
            b"GET /\r\n",
            b"GET / HTTP/1.1 \r\n",
            b"{}\n",
        ):
            self.assertEqual("", hostOf(other), other)

    def test_settles(self) -> None:
        """
        Cut anywhere, a request gives L{None} or what the whole gives; with the
        last byte of the C{Host} line it is known.
        """
        for request in REQUESTS:
            for cut in range(len(request)):
                self.assertSettles(hostOf, request, cut)
        self.assertEqual(
            REQUEST.index(b"8080 \r\n") + len(b"8080 \r\n"),
            self.settlesAt(hostOf, REQUEST),
        )

    @given(
        st.one_of(
            st.binary(max_size=200),
            st.lists(
                st.sampled_from(
                    [
                        *(b"GET", b" ", b"/", b"HTTP/1.1", b"\r", b"\n", b"\r\n"),
                        *(b"Host", b":", b"host", b"a.example", b"[", b"]", b"80"),
                        *(b"\t", b"\xff"),
                    ]
                ),
                max_size=20,
            ).map(b"".join),
        ),
        st.integers(0, 200),
    )
    @example(b"\r\nGET / HTTP/1.1\r\nHost:\r\n", 10)
    def test_anything(self, data: bytes, cut: int) -> None:
        """
        Nothing raises, and no answer is taken back.
        """
        self.assertSettles(hostOf, data, cut)

    @given(
        st.from_regex(r"[a-z0-9]([a-z0-9\-.]{0,40}[a-z0-9])?", fullmatch=True),
        st.integers(0, 65535),
    )
    def test_names(self, name: str, port: int) -> None:
        """
        Every name comes out as it went in.
        """
        head = f"GET / HTTP/1.1\r\nHost: {name}:{port}\r\n"
        self.assertEqual(name, hostOf(head.encode()))


class ServerNameTests(FirstBytesTestCase):
    """
    L{serverNameOf}.
    """

    def test_name(self) -> None:
        """
        The name that a real client asks for is found, in every version of TLS.
        """
        old = clientHello("a.example", ssl.TLSVersion.TLSv1_2)
        self.assertEqual("a.example", serverNameOf(old))
        self.assertEqual("www.example.org", serverNameOf(HELLO))

    def test_noName(self) -> None:
        """
        Of a real client that asks for no name it is known that it does.
        """
        self.assertEqual("", serverNameOf(NAMELESS))

    def test_noExtensions(self) -> None:
        """
        So it is of one that is too old to have extensions, as soon as its lengths
        leave no room for any.
        """
        hello = b"\3\1" + bytes(32) + b"\0" + b"\0\2\0\x2f" + b"\1\0"
        handshake = b"\1" + len(hello).to_bytes(3, "big") + hello
        self.assertEqual("", serverNameOf(records(handshake, [])))
        self.assertIsNone(serverNameOf(records(handshake, [])[:-2]))

    def test_settles(self) -> None:
        """
        Cut anywhere, a ClientHello gives L{None} or what the whole gives; with
        the last byte of the name it is known.
        """
        for hello in (HELLO, NAMELESS):
            for cut in range(len(hello)):
                self.assertSettles(serverNameOf, hello, cut)
        end = HELLO.lower().index(b"www.example.org") + len(b"www.example.org")
        self.assertEqual(end, self.settlesAt(serverNameOf, HELLO))

    @given(fragments, st.integers(0, 3000))
    def test_fragments(self, sizes: list[int], cut: int) -> None:
        """
        A ClientHello may come in any number of records.
        """
        data = records(HELLO[5:], sizes)
        self.assertEqual("www.example.org", serverNameOf(data))
        self.assertSettles(serverNameOf, data, cut)

    def test_brokenOff(self) -> None:
        """
        When something else follows before it is complete, there is no name.
        """
        data = records(HELLO[5:60], []) + b"\x15\3\3\0\2\1\0"
        self.assertEqual("", serverNameOf(data))

    def test_wrongLengths(self) -> None:
        """
        A length that leads out of what it is part of ends the search, at once.
        """
        start = HELLO.lower().index(b"www.example.org")
        for place in (start - 2, start - 5, start - 7):
            data = bytearray(HELLO)
            data[place : place + 2] = b"\xff\xff"
            self.assertEqual("", serverNameOf(bytes(data)), place)
        self.assertEqual("", serverNameOf(b"\x16\3\1\0\0"))
        self.assertEqual("", serverNameOf(b"\x16\3\1\xff\xff"))

    def test_otherProtocols(self) -> None:
        """
        What is no ClientHello is known as such by its first bytes.
        """
        for other in (b"G", b"\x80", b"\x16\2", b"\x17\3", b"\x16\3\1\0\5\2"):
            self.assertEqual("", serverNameOf(other), other)
        for start in (b"", b"\x16", b"\x16\3", b"\x16\3\1\0\5", b"\x16\3\1\0\5\1"):
            self.assertIsNone(serverNameOf(start), start)

    def test_manyRecords(self) -> None:
        """
        One byte a record costs no more than its length.
        """
        padding = b"\xff\0\0\x15\xfe\0" + bytes(10_000)
        handshake = b"\1\0\xff\xff" + bytes(2 + 32 + 1 + 2 + 1) + padding
        data = records(handshake, [1] * len(handshake))
        self.assertEqual(6 * len(handshake), len(data))
        self.assertIsNone(serverNameOf(data))

    @given(st.binary(max_size=300), st.integers(0, 300))
    def test_anything(self, data: bytes, cut: int) -> None:
        """
        Nothing raises, and no answer is taken back.
        """
        self.assertSettles(serverNameOf, data, cut)

    @given(
        st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=4),
        fragments,
        st.integers(0, 3000),
    )
    def test_damaged(
        self, damage: list[tuple[int, int]], sizes: list[int], cut: int
    ) -> None:
        """
        Likewise for a ClientHello of which some bytes were changed.
        """
        data = bytearray(records(HELLO[5:], sizes))
        for place, value in damage:
            data[place % len(data)] = value
        self.assertSettles(serverNameOf, bytes(data), cut)
