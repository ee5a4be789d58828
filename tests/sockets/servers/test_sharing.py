"""
Bound sockets, and who uses each.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import TypeVar

from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase

from tests.sockethelpers import Events, descriptors, shortDirectory
from twisted_cluster.sockets.addresses import (
    Address,
    BindRequest,
    Own,
    Refused,
    SocketRequest,
)
from twisted_cluster.sockets.servers.binding import LockHeld, makeSocket
from twisted_cluster.sockets.servers.sharing import (
    Doing,
    SharedSocket,
    SharedSockets,
    again,
    refusal,
)

LOCAL = Address("tcp", "127.0.0.1")
_T = TypeVar("_T")


class SharingTests(SynchronousTestCase):
    """
    C{SharedSockets}.
    """

    def setUp(self) -> None:
        before = descriptors()
        self.events = Events()
        self.sockets = SharedSockets(SharedSocket, 64, Logger(observer=self.events))

        def closed() -> None:
            for each in self.sockets:
                self.sockets.close(each, "the test is over")
            self.assertEqual([], self.sockets.addresses)
            self.assertEqual(before, descriptors())

        self.addCleanup(closed)

    def use(
        self, user: int, address: Address = LOCAL, index: int = 0, backlog: int = 50
    ) -> SharedSocket:
        request = SocketRequest(BindRequest(address, backlog), index)
        return self.sockets.use(user, request, makeSocket(address))

    def test_oneSocket(self) -> None:
        """
        Whoever uses an address uses one socket, with the largest backlog that
        anybody wants; what is bound is found.
        """
        first = self.use(1)
        second = self.use(2, first.bound.address, backlog=100)
        self.assertIs(first, second)
        self.assertEqual({1, 2}, first.users)
        self.assertEqual(100, first.bound.backlog)
        self.assertEqual([first], list(self.sockets))
        self.assertIs(first, self.sockets.get(first.bound.address))

    def test_ephemeral(self) -> None:
        """
        The n-th request for port 0 is the same socket for all, until that is
        closed.
        """
        first, second = self.use(1), self.use(1, index=1)
        self.assertIsNot(first, second)
        self.assertIs(first, self.use(2))
        self.sockets.close(first, "it is not wanted")
        self.assertIsNot(first, self.use(2))

    def test_open(self) -> None:
        """
        What is opened without a user has none, and takes the next free place
        among the requests for port 0.
        """
        first = self.sockets.open(BindRequest(LOCAL))
        second = self.sockets.open(BindRequest(LOCAL))
        self.assertEqual(set(), first.users)
        self.assertIs(first, self.use(1))
        self.assertIs(second, self.use(1, index=1))
        self.assertIs(first, self.sockets.open(BindRequest(first.bound.address)))

    def test_refused(self) -> None:
        """
        What cannot be bound changes nothing, and the reason becomes an answer.
        """
        with socket.create_server(("127.0.0.1", 0)) as other:
            error = self.assertRaises(OSError, self.use, 1, Address.ofSocket(other))
        self.assertEqual([], self.sockets.addresses)
        self.assertEqual(
            Refused(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE)), refusal(error)
        )
        self.assertEqual(Refused(0, "held"), refusal(LockHeld("held")))

    def test_again(self) -> None:
        """
        A second use by one that uses a socket is in use, unless both were made
        to share their port.
        """
        bound = self.use(1).bound
        plain, reusing = makeSocket(bound.address), makeSocket(bound.address)
        reusing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self.assertIsInstance(again(bound, plain), Refused)
        self.assertIsInstance(again(bound, reusing), Refused)
        self.assertEqual((-1, -1), (plain.fileno(), reusing.fileno()))
        bound.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reusing = makeSocket(bound.address)
        reusing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self.assertEqual(Own(), again(bound, reusing))

    def test_vanished(self) -> None:
        """
        A path that somebody removed is bound anew, for the same users and one
        more.
        """
        address = Address.unix(os.fsencode(shortDirectory(self)) + b"/s")
        shared = self.use(1, address)
        old = shared.bound
        os.unlink(address.path)
        self.assertIs(shared, self.use(2, address))
        self.assertIsNot(old, shared.bound)
        self.assertEqual(-1, old.socket.fileno())
        self.assertEqual({1, 2}, shared.users)
        self.assertTrue(shared.bound.ownsPath())

    def test_withRights(self) -> None:
        """
        What binds, and what changes a mode, is done as the caller says; a mode
        that cannot be changed stays, with a word in the log.
        """
        address = Address.unix(os.fsencode(shortDirectory(self)) + b"/s")
        done: list[str] = []

        def do(action: Callable[[], _T]) -> _T:
            done.append("done")
            return action()

        def refuse(action: Callable[[], _T]) -> _T:
            raise PermissionError(errno.EPERM, "not yours")

        def use(user: int, mode: int, how: Doing) -> SharedSocket:
            request = SocketRequest(BindRequest(address, mode=mode))
            return self.sockets.use(user, request, makeSocket(address), how)

        self.assertRaises(PermissionError, use, 1, 0o600, refuse)
        shared = use(1, 0o600, do)
        self.assertEqual(["done"], done)
        use(2, 0o666, refuse)
        self.assertEqual(0o600, shared.bound.mode)
        self.assertIn("stays 600", "\n".join(self.events.texts))
        use(3, 0o666, do)
        self.assertEqual(0o666, shared.bound.mode)
