"""
Binds one socket, and undoes that.

A socket that stands for a file is bound as Twisted's UNIX ports do it: with a
lock file, which tells a stale socket from a live one; never in the place of
anything but a stale socket; and at the end only what is still our own file is
removed.  No socket here is ever shut down: others may hold it.
"""

from __future__ import annotations

import os
import socket
import stat
from typing import Optional

import attrs
from twisted.python.lockfile import FilesystemLock

from twisted_cluster.sockets.addresses import Address, BindRequest
from twisted_cluster.sockets.paths import shortened


class LockHeld(Exception):
    """
    The lock file of a UNIX socket belongs to a process that lives.
    """


@attrs.define(eq=False)
class BoundSocket:
    """
    A socket that is bound, and listens where that makes sense.

    @ivar socket: the socket, owned by this object.
    @ivar address: what it is bound to.
    @ivar backlog: how many connections may wait.
    @ivar mode: the permissions of its path.
    """

    socket: socket.socket
    address: Address
    backlog: int
    mode: int
    _inode: Optional[tuple[int, int]] = None
    _lock: Optional[FilesystemLock] = None

    def atLeast(self, backlog: int) -> None:
        """
        Let more connections wait, if so many cannot yet.
        """
        if backlog > self.backlog and self.address.kind != "udp":
            self.socket.listen(backlog)
            self.backlog = backlog

    def changeMode(self, mode: int) -> None:
        """
        Change the permissions of the path, if it is still our own.

        @raise OSError: when that is not allowed.
        """
        if mode >= 0 and mode != self.mode and self.ownsPath():
            os.chmod(self.address.path, mode)
            self.mode = mode

    def ownsPath(self) -> bool:
        """
        Whether the file that stands for this socket is the one that it made.
        """
        return self._inode is not None and _inode(self.address.path) == self._inode

    def vanished(self) -> bool:
        """
        Whether somebody removed the file that stands for this socket, so that
        no client can reach it.
        """
        return self._inode is not None and _inode(self.address.path) is None

    def close(self) -> None:
        """
        Close the socket, and remove its path and its lock file if they are
        ours.

        @raise OSError: when a file could not be removed; the socket has been
            closed all the same.
        """
        try:
            if self.ownsPath():
                os.unlink(self.address.path)
        finally:
            self.socket.close()
            self.unlock()

    def unlock(self) -> None:
        """
        Give the lock file up, if there is one and it is still ours.
        """
        lock, self._lock = self._lock, None
        if lock is not None:
            _unlock(lock)


def _inode(path: bytes) -> Optional[tuple[int, int]]:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _unlock(lock: FilesystemLock) -> None:
    try:
        lock.unlock()
    except (OSError, ValueError):
        pass  # somebody removed it, or took it over: it is not ours to remove


def _removeStale(path: bytes) -> None:
    try:
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)
    except OSError:
        pass  # bind() is going to say why


def makeSocket(address: Address) -> socket.socket:
    """
    Make an unbound socket with the options that Twisted's own ports have.
    """
    skt = socket.socket(address.family, address.type)
    skt.setblocking(False)
    if address.kind == "tcp":
        skt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return skt


def bindSocket(wanted: BindRequest, skt: socket.socket, backlog: int) -> BoundSocket:
    """
    Bind a socket, and listen on it.

    @param skt: an unbound socket, taken over in success and in failure.
    @param backlog: how many connections may wait if the request names fewer.
    @raise OSError: what C{bind} or the file system says.
    @raise LockHeld: see there.
    """
    address = wanted.address
    backlog = max(backlog, wanted.backlog)
    lock: Optional[FilesystemLock] = None
    made: Optional[tuple[int, int]] = None
    try:
        if wanted.lock and address.inFilesystem:
            lock = FilesystemLock(address.path + b".lock")
            if not lock.lock():
                lock = None
                raise LockHeld("Cannot acquire lock")
            if not lock.clean:
                _removeStale(address.path)
        if address.kind == "unix":
            with shortened(address.path) as path:
                skt.bind(path)
        else:
            skt.bind(address.sockaddr)
            address = Address.ofSocket(skt)
        if address.inFilesystem:
            made = _inode(address.path)
            if wanted.mode >= 0:
                os.chmod(address.path, wanted.mode)
        if address.kind != "udp":
            skt.listen(backlog)
        skt.setblocking(False)
        skt.set_inheritable(False)
        return BoundSocket(skt, address, backlog, wanted.mode, made, lock)
    except BaseException:
        skt.close()
        if made is not None and _inode(address.path) == made:
            os.unlink(address.path)
        if lock is not None:
            _unlock(lock)
        raise
