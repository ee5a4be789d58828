"""
Reaches UNIX sockets whose paths are too long for the kernel.

A program may bind C{s.sock} in a directory however deep.  Another process, with
another working directory, has to go by the absolute path, which may not fit: it
takes the way over a descriptor of the directory instead.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

LONGEST: Final = 107
"""
The most bytes of a path that fit into C{sun_path}, see unix(7); a name in the
abstract namespace has one more, its first zero byte.
"""


def fits(path: bytes) -> bool:
    """
    Whether a socket can be bound or connected to this path, as it stands.
    """
    return len(path) <= LONGEST + (path[:1] == b"\0")


@contextmanager
def shortened(path: bytes) -> Iterator[bytes]:
    """
    Give a path that fits, and leads to the same file as long as the context
    lasts.  What is bound by it must be asked for its name no more.

    @param path: an absolute path, or a name in the abstract namespace.
    @raise OSError: when the directory cannot be reached; C{ENAMETOOLONG} when
        there is no such path.
    """
    if fits(path) or path[:1] == b"\0":
        yield path
        return
    directory, name = os.path.split(path)
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        way = b"/proc/self/fd/%d" % descriptor
        short = way + b"/" + name
        if not (fits(short) and os.path.isdir(way)):
            raise OSError(
                errno.ENAMETOOLONG,
                f"the path has {len(path)} bytes, and UNIX sockets take no more "
                f"than {LONGEST}: use a shorter name, or a directory less deep",
            )
        yield short
    finally:
        os.close(descriptor)
