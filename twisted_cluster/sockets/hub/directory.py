"""
The private directory that a hub's socket is in, and the removal of those that
hubs have left behind.

The rules:

  1. A directory is mode 0700, and only its maker puts anything into it: one
     socket, L{NAME}.
  2. It is locked, by C{flock} on the directory itself, as long as its hub
     lives; the kernel gives the lock back whatever the process dies of.  It
     also keeps C{systemd-tmpfiles} from taking an old one for rubbish.
  3. Whoever makes a directory first removes those beside it that belong to the
     same user and are not locked, holding the lock meanwhile.
  4. So one that was made and not yet locked may be removed, which its maker
     sees when it has the lock, and makes another.

They are in the directory for temporary files (C{TMPDIR}), since
C{XDG_RUNTIME_DIR} ends with the user's session, and a daemon does not.
"""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from typing import Final, Optional

from twisted.logger import Logger

PREFIX: Final = "twisted-cluster-hub-"
NAME: Final = "hub.sock"

_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class HubDirectory:
    """
    A private directory, locked.

    @ivar path: the directory.
    @ivar socketPath: where the socket belongs.
    """

    log = Logger()

    def __init__(self, path: str, descriptor: int) -> None:
        """
        @param descriptor: of the directory, with its lock; it is this object's
            from now on.
        """
        self.path = path
        self.socketPath = os.path.join(path, NAME)
        self._descriptor = descriptor

    @classmethod
    def make(cls, parent: Optional[str] = None) -> HubDirectory:
        """
        Make a directory, and remove what hubs of the same user have left
        behind beside it.

        @param parent: where; by default in the directory for temporary files.
        @raise OSError: when no directory can be made there.
        """
        parent = os.path.abspath(parent or tempfile.gettempdir())
        cls._removeStale(parent)
        while True:
            path = tempfile.mkdtemp(prefix=PREFIX, dir=parent)
            try:
                descriptor = _lock(path)
            except OSError:
                os.rmdir(path)
                raise
            if descriptor is not None:
                return cls(path, descriptor)

    @classmethod
    def _removeStale(cls, parent: str) -> None:
        try:
            with os.scandir(parent) as entries:
                names = [each.name for each in entries if each.name.startswith(PREFIX)]
        except PermissionError:
            return  # one may make directories where one cannot list them
        for name in names:
            path = os.path.join(parent, name)
            try:
                descriptor = _lock(path)
            except OSError:
                continue
            if descriptor is not None:
                cls(path, descriptor).remove()
                cls.log.info("removed {path}, which a hub had left behind", path=path)

    def remove(self) -> None:
        """
        Remove the socket and the directory, and give up the lock.  What cannot
        be removed is logged.
        """
        try:
            for remove, path in (
                (os.unlink, self.socketPath),
                (os.rmdir, self.path),
            ):
                try:
                    remove(path)
                except FileNotFoundError:
                    pass
        except OSError as error:
            self.log.warn(
                "cannot remove the hub's directory {path}: {error}",
                path=self.path,
                error=error,
            )
        finally:
            os.close(self._descriptor)


def _lock(path: str) -> Optional[int]:
    """
    Take the lock of a directory that is this user's.

    @return: a descriptor of the directory, which is the caller's; L{None} when
        somebody else has the lock, or when the directory has gone.
    @raise OSError: when it is no directory, or another user's, or cannot be
        locked.
    """
    try:
        descriptor = os.open(path, _OPEN)
    except FileNotFoundError:
        return None
    try:
        found = os.fstat(descriptor)
        if found.st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "belongs to another user", path)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(found, os.lstat(path)):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None
