"""
Bytes and descriptors in one system call, see unix(7) and cmsg(3).
"""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Sequence
from typing import Final

from twisted_cluster.errors import ProtocolError

MOST_DESCRIPTORS: Final = 253
"""
What one C{sendmsg} may carry on Linux: SCM_MAX_FD.
"""

_ITEM: Final = array.array("i").itemsize
_SPACE: Final = socket.CMSG_SPACE(MOST_DESCRIPTORS * _ITEM)


def sendDescriptors(
    skt: socket.socket, data: memoryview, descriptors: Sequence[int]
) -> int:
    """
    Send bytes, and descriptors with the first of them.

    @param descriptors: up to L{MOST_DESCRIPTORS}; they stay the caller's.
    @return: how many of the bytes were sent; if any were, all descriptors were.
    @raise OSError: C{ETOOMANYREFS} when too many are on their way.
    """
    rights = array.array("i", descriptors)
    return skt.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])


def receiveSome(skt: socket.socket, size: int) -> tuple[bytes, list[int], bool]:
    """
    Receive bytes and descriptors.

    @return: the bytes, empty at the end of the stream; the descriptors,
        close-on-exec, which are the caller's; and whether the kernel dropped
        others that belong to the bytes, since this process has too many open
        files.
    @raise BlockingIOError: when there is nothing to read on a non-blocking
        socket.
    """
    data, ancillary, flags, _ = skt.recvmsg(size, _SPACE, socket.MSG_CMSG_CLOEXEC)
    descriptors: list[int] = []
    for level, kind, value in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers = array.array("i")
            numbers.frombytes(value[: len(value) - len(value) % _ITEM])
            descriptors.extend(numbers)
    return data, descriptors, bool(flags & socket.MSG_CTRUNC)


def receive(skt: socket.socket, size: int) -> tuple[bytes, list[int]]:
    """
    As L{receiveSome}, for streams on which nothing may get lost.

    @raise ProtocolError: when the kernel dropped descriptors; those that did
        arrive have been closed.
    """
    data, descriptors, truncated = receiveSome(skt, size)
    if truncated:
        for descriptor in descriptors:
            os.close(descriptor)
        raise descriptorsLost()
    return data, descriptors


def descriptorsLost() -> ProtocolError:
    """
    Make the error that says that the kernel dropped descriptors.
    """
    return ProtocolError(
        "descriptors were lost on their way: this process has too many open "
        "files (see RLIMIT_NOFILE)"
    )
