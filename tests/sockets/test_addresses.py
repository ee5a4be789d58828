"""
How addresses are written, and how C{--bind} is read.
"""

from __future__ import annotations

import os
import socket

from twisted.trial.unittest import SynchronousTestCase

from tests.sockethelpers import shortDirectory
from twisted_cluster.errors import InvalidEndpoint
from twisted_cluster.sockets.addresses import (
    Address,
    BindRequest,
    canonicalHost,
    parseBind,
    resolveHost,
)


class AddressTests(SynchronousTestCase):
    """
    Equal addresses are equal values.
    """

    def test_oneWayToWriteAHost(self) -> None:
        """
        However a numeric host is written, its address is the same.
        """
        self.assertEqual("0.0.0.0", canonicalHost(""))
        self.assertEqual("127.0.0.1", canonicalHost("127.0.0.1"))
        self.assertEqual("::", canonicalHost("0:0::0"))
        self.assertEqual("2001:db8::1", canonicalHost("2001:0DB8:0::0001"))
        self.assertEqual(
            Address.internet("tcp", "::0", 80), Address.internet("tcp", "::", 80)
        )

    def test_scope(self) -> None:
        """
        An IPv6 scope is its interface's number, whether it was given as that or
        by name.
        """
        loopback = socket.if_nametoindex("lo")
        self.assertEqual(f"fe80::1%{loopback}", canonicalHost("fe80::1%lo"))
        self.assertEqual("fe80::1", canonicalHost("fe80::1%0"))
        self.assertEqual(
            ("fe80::1", 80, 0, 7), Address("tcp", "fe80::1%7", 80).sockaddr
        )

    def test_namesAreNoAddresses(self) -> None:
        """
        A name has to be resolved first, and one that does not resolve raises
        what C{bind} raises.
        """
        self.assertRaises(OSError, canonicalHost, "localhost")
        self.assertEqual("127.0.0.1", resolveHost("localhost", socket.AF_INET))
        self.assertRaises(
            socket.gaierror, resolveHost, "no.such.name.invalid", socket.AF_INET
        )

    def test_ofSocket(self) -> None:
        """
        A bound socket of each kind tells its address, which can be bound
        again.
        """
        path = os.path.join(shortDirectory(self), "s").encode()
        for address in [
            Address("tcp", "127.0.0.1"),
            Address("udp", "127.0.0.1"),
            Address("tcp", "::1"),
            Address.unix(path),
            Address.unix(b"\0twisted-cluster-test-%d" % os.getpid()),
        ]:
            with socket.socket(address.family, address.type) as skt:
                skt.bind(address.sockaddr)
                found = Address.ofSocket(skt)
            self.assertEqual(address.kind, found.kind)
            self.assertEqual((address.host, address.path), (found.host, found.path))
            self.assertEqual(found.kind == "unix", found.port == 0)

    def test_text(self) -> None:
        """
        The log shows addresses as people write them.
        """
        self.assertEqual("tcp:127.0.0.1:8080", str(Address("tcp", "127.0.0.1", 8080)))
        self.assertEqual("tcp:[::1]:8080", str(Address("tcp", "::1", 8080)))
        self.assertEqual("unix:/run/x.sock", str(Address.unix(b"/run/x.sock")))
        self.assertEqual("unix:@x", str(Address.unix(b"\0x")))


class ParseBindTests(SynchronousTestCase):
    """
    C{--bind} understands Twisted's endpoint descriptions.
    """

    def test_internet(self) -> None:
        """
        Ports are bound everywhere unless an interface is named; an IPv6
        interface makes an IPv6 socket, also with C{tcp:}.
        """
        for description, address in {
            "tcp:8080": Address("tcp", "0.0.0.0", 8080),
            "tcp:port=8080": Address("tcp", "0.0.0.0", 8080),
            "tcp:8080:interface=127.0.0.1": Address("tcp", "127.0.0.1", 8080),
            "tcp:8080:interface=localhost": Address("tcp", "127.0.0.1", 8080),
            r"tcp:8080:interface=\:\:1": Address("tcp", "::1", 8080),
            "tcp6:8080": Address("tcp", "::", 8080),
            r"tcp6:8080:interface=\:\:1": Address("tcp", "::1", 8080),
            "udp:53": Address("udp", "0.0.0.0", 53),
        }.items():
            self.assertEqual(address, parseBind(description).address, description)

    def test_backlog(self) -> None:
        """
        A backlog may be asked for, and is Twisted's otherwise.
        """
        self.assertEqual(7, parseBind("tcp:80:backlog=7").backlog)
        self.assertEqual(50, parseBind("tcp:80").backlog)

    def test_unix(self) -> None:
        """
        A path has Twisted's defaults: everybody may connect, and a lock file
        guards it.
        """
        self.assertEqual(
            BindRequest(Address.unix(b"/run/a=b:c"), 9, 0o660, False),
            parseBind(r"unix:/run/a\=b\:c:mode=660:backlog=9:lockfile=0"),
        )
        self.assertEqual(
            BindRequest(Address.unix(b"/run/x"), 50, 0o666, True),
            parseBind("unix:/run/x"),
        )

    def test_wrong(self) -> None:
        """
        What cannot be understood is named, together with the way out.
        """
        for description, remedy in {
            "8080": "try tcp:8080",
            "tcp": "the port is missing",
            "tcp:http": "from 0 to 65535, not 'http'",
            "tcp:70000": "from 0 to 65535, not '70000'",
            "tcp:8080:backlog=x": "backlog must be",
            "tcp:8080:127.0.0.1": "write options as name=value",
            "tcp:8080:interace=::1": "write options as name=value",
            "tcp:8080:mode=600": "no option 'mode'",
            "tcp:8080:interface=no.such.name.invalid": "is no address",
            "tcp6:8080:interface=127.0.0.1": "use tcp:8080:interface=127.0.0.1",
            "unix:": "the path is missing",
            "unix:/x:mode=999": "an octal number",
            "ssl:443:privateKey=x": "bind the plain port (tcp:443)",
            "": "try tcp:8080",
        }.items():
            error = self.assertRaises(InvalidEndpoint, parseBind, description)
            self.assertIn(repr(description), str(error))
            self.assertIn(remedy, str(error))
