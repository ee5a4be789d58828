"""
Which descriptors somebody passed to this process when it was started, so that
the workers get them too.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping

import attrs

FIRST = 3
"""
The first descriptor that a service manager passes.
"""


@attrs.frozen
class InheritedDescriptors:
    """
    What was passed.  The descriptors stay whoever's they were: nothing here
    opens, closes or changes one.

    @ivar descriptors: all of them, ascending.
    @ivar listen: how many, from L{FIRST} on, a service manager passed
        (C{LISTEN_FDS}).
    """

    descriptors: tuple[int, ...] = ()
    listen: int = 0


def activatedDescriptors(environ: Mapping[str, str], pid: int) -> InheritedDescriptors:
    """
    Find the descriptors of systemd's socket activation.

    @param environ: the environment that this process was started with.
    @param pid: the process that C{LISTEN_PID} must name.  A daemon asks with
        the pid that it had before it forked.
    """
    listen = 0
    for descriptor in _activated(environ, pid):
        if not _isOpen(descriptor):
            break
        listen += 1
    return InheritedDescriptors(tuple(range(FIRST, FIRST + listen)), listen)


def inheritedDescriptors(environ: Mapping[str, str], pid: int) -> InheritedDescriptors:
    """
    Find the descriptors that this process inherited to pass them on: those of
    systemd's socket activation, and each socket that is inheritable, as left
    by a process manager for an option such as Daphne's C{--fd}.

    @param environ: the environment that this process was started with.
    @param pid: the process that C{LISTEN_PID} must name.  A daemon asks with
        the pid that it had before it forked.
    """
    activated = activatedDescriptors(environ, pid)
    sockets = {number for number in _openDescriptors() if _isPassedSocket(number)}
    found = sockets.union(activated.descriptors)
    return InheritedDescriptors(tuple(sorted(found)), activated.listen)


def _activated(environ: Mapping[str, str], pid: int) -> range:
    if environ.get("LISTEN_PID", "").strip() != str(pid):
        return range(0)
    try:
        count = int(environ.get("LISTEN_FDS", ""))
    except ValueError:
        return range(0)
    return range(FIRST, FIRST + count)


def _openDescriptors() -> Iterator[int]:
    for directory in ("/proc/self/fd", "/dev/fd"):
        try:
            names = os.listdir(directory)
        except OSError:
            continue
        yield from (int(name) for name in names if name.isdigit())
        return


def _isOpen(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _isPassedSocket(descriptor: int) -> bool:
    if descriptor < FIRST:
        return False
    try:
        return os.get_inheritable(descriptor) and stat.S_ISSOCK(
            os.fstat(descriptor).st_mode
        )
    except OSError:
        return False
