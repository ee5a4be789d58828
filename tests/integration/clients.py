"""
Clients of well-known protocols that block, for a thread of their own.
"""

from __future__ import annotations

import base64
import datetime
import os
import re
import socket
import ssl
import struct
from collections.abc import Callable
from pathlib import Path

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocolNegotiationFactory
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.internet.testing import StringTransport
from twisted.names import dns
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest
from zope.interface import implementer

Connect = Callable[[], socket.socket]
TIMEOUT = 20.0

PID_SCRIPT = """
import os
from twisted.web.resource import Resource

class Pid(Resource):
    isLeaf = True
    def render_GET(self, request):
        return b"%d" % os.getpid()

resource = Pid()
"""
"""
What C{twistd web --path} serves as a dynamic page, if it ends in C{.rpy}.
"""


def toTCP(port: int, host: str = "127.0.0.1") -> Connect:
    """
    What connects to a port.
    """
    return lambda: socket.create_connection((host, port), TIMEOUT)


def toUNIX(path: str | Path) -> Connect:
    """
    What connects to a path.
    """

    def connect() -> socket.socket:
        skt = socket.socket(socket.AF_UNIX)
        skt.settimeout(TIMEOUT)
        try:
            skt.connect(os.fspath(path))
        except BaseException:
            skt.close()
            raise
        return skt

    return connect


def toTLS(port: int, certificate: Path) -> Connect:
    """
    What connects to a port over TLS and insists on a certificate.
    """
    context = ssl.create_default_context(cafile=os.fspath(certificate))

    def connect() -> socket.socket:
        plain = toTCP(port)()
        try:
            return context.wrap_socket(plain, server_hostname="localhost")
        except BaseException:
            plain.close()
            raise

    return connect


def makeCertificate(directory: Path) -> tuple[Path, Path]:
    """
    Make a certificate for localhost that vouches for itself.

    @return: the files of the key and of the certificate.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    keyFile, certificateFile = directory / "key.pem", directory / "cert.pem"
    keyFile.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    certificateFile.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return keyFile, certificateFile


@implementer(IProtocolNegotiationFactory)
class _Negotiating(Factory):
    """
    Lets its protocols be negotiated, as a web server does.
    """

    protocol = Protocol

    def acceptableProtocols(self) -> list[bytes]:
        """
        What it speaks.
        """
        return [b"http/1.1"]


def skipWithoutTLS(key: Path, certificate: Path) -> None:
    """
    Skip a test where not even a lone Twisted can serve HTTP over TLS: Twisted
    24.7 cannot with a pyOpenSSL of today.

    @raise SkipTest: there.
    """
    contexts = DefaultOpenSSLContextFactory(os.fspath(key), os.fspath(certificate))
    factory = TLSMemoryBIOFactory(contexts, False, _Negotiating())
    protocol = factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
    assert protocol is not None
    try:
        protocol.makeConnection(StringTransport())
    except ValueError as error:
        raise SkipTest(f"this Twisted cannot serve TLS: {error}") from error
    protocol.connectionLost(Failure(ConnectionDone()))


def readAll(skt: socket.socket) -> bytes:
    """
    Read until the other side closes.
    """
    data = b""
    while True:
        chunk = skt.recv(65536)
        if not chunk:
            return data
        data += chunk


def httpAnswer(connect: Connect, path: str = "/", method: str = "GET") -> bytes:
    """
    A whole HTTP answer, its head included.
    """
    with connect() as skt:
        skt.sendall(f"{method} {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        return readAll(skt)


def httpBody(connect: Connect, path: str = "/") -> bytes:
    """
    The body of a successful HTTP answer.
    """
    head, _, body = httpAnswer(connect, path).partition(b"\r\n\r\n")
    assert head.split()[1:2] == [b"200"], head
    return body


def undated(answer: bytes) -> bytes:
    """
    An HTTP answer without the time at which it was given.
    """
    return re.sub(rb"(?im)^date: .*\r\n", b"", answer)


def _readExactly(skt: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = skt.recv(size - len(data))
        if not chunk:
            raise ConnectionError(f"only {data!r} of {size} bytes")
        data += chunk
    return data


def webSocketEcho(connect: Connect, text: bytes) -> bytes:
    """
    Open a WebSocket, send a short text, and return the short text that comes
    back.
    """
    assert len(text) < 126
    with connect() as skt:
        key = base64.b64encode(os.urandom(16)).decode()
        skt.sendall(
            "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += _readExactly(skt, 1)
        assert head.startswith(b"HTTP/1.1 101 "), head
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(text))
        skt.sendall(bytes([0x81, 0x80 | len(text)]) + mask + masked)
        kind, size = _readExactly(skt, 2)
        assert (kind, size < 126) == (0x81, True), (kind, size)
        return _readExactly(skt, size)


def dnsQuery(name: str) -> bytes:
    """
    The bytes of a question for a name's address.
    """
    message = dns.Message(id=4711, recDes=1)
    message.addQuery(name.encode(), dns.A, dns.IN)
    encoded: bytes = message.toStr()
    return encoded


def dnsOverUDP(port: int, name: str) -> bytes:
    """
    The bytes of the answer over UDP.
    """
    with socket.socket(type=socket.SOCK_DGRAM) as skt:
        skt.settimeout(TIMEOUT)
        skt.connect(("127.0.0.1", port))
        skt.send(dnsQuery(name))
        return skt.recv(65536)


def dnsOverTCP(port: int, name: str) -> bytes:
    """
    The bytes of the answer over TCP.
    """
    query = dnsQuery(name)
    with toTCP(port)() as skt:
        skt.sendall(struct.pack("!H", len(query)) + query)
        [size] = struct.unpack("!H", _readExactly(skt, 2))
        return _readExactly(skt, size)
