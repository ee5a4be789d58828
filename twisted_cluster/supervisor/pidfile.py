"""
The file that says which process is the watcher, and its rules:

  - it appears whole, with the pid in it, or not at all;
  - whoever wrote it holds a lock on it for as long as it lives, so that two
    watchers started at once cannot both have it;
  - a file whose process is gone is replaced; one whose process lives is not;
  - it is removed at the end only by the process that wrote it, and only if it
    is still the same file.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import tempfile
from typing import Optional

from twisted_cluster.errors import PIDFileError, PIDFileInUse


class PIDFile:
    """
    A pid file that this process takes, and later gives back.

    @ivar path: where it is.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self._pid = 0
        self._descriptor: Optional[int] = None

    def acquire(self) -> None:
        """
        Write the file.

        @raise PIDFileInUse: when the process that it names lives.
        @raise PIDFileError: when it cannot be written, or is something else
            than a file.
        """
        self._pid = os.getpid()
        try:
            draft, descriptor = self._draft()
        except OSError as error:
            raise PIDFileError(self.path, str(error.strerror)) from None
        try:
            while not self._publish(draft):
                pass
        except BaseException as error:
            os.close(descriptor)
            if isinstance(error, OSError):
                raise PIDFileError(self.path, str(error.strerror)) from None
            raise
        else:
            self._descriptor = descriptor
        finally:
            _unlink(draft)

    def release(self) -> None:
        """
        Remove the file, if it is still ours, and let go of it.  Harmless when
        it was never taken, and in a fork of the process that took it.
        """
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        try:
            if os.getpid() == self._pid and _isAt(descriptor, self.path):
                _unlink(self.path)
        finally:
            os.close(descriptor)

    def _draft(self) -> tuple[str, int]:
        directory, name = os.path.split(self.path)
        descriptor, draft = tempfile.mkstemp(prefix=f".{name}.", dir=directory)
        try:
            os.write(descriptor, b"%d\n" % (self._pid,))
            os.fchmod(descriptor, 0o644)
            _lock(descriptor)
        except BaseException:
            os.close(descriptor)
            _unlink(draft)
            raise
        return draft, descriptor

    def _publish(self, draft: str) -> bool:
        """
        Put the draft in place.

        @return: L{False} when the place changed meanwhile: try again.
        """
        try:
            os.link(draft, self.path)
        except FileExistsError:
            pass
        else:
            return True
        try:
            present = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            if os.path.islink(self.path):
                _unlink(self.path)
            return False
        try:
            if not stat.S_ISREG(os.fstat(present).st_mode):
                raise PIDFileError(self.path, "it is not a regular file")
            locked = _lock(present)
            if not _isAt(present, self.path):
                return False
            pid = _readPID(present)
            if not locked or (pid not in (None, self._pid) and _lives(pid)):
                raise PIDFileInUse(self.path, pid)
            os.rename(draft, self.path)
            return True
        finally:
            os.close(present)


def _lock(descriptor: int) -> bool:
    """
    Take the lock of the file.

    @return: L{False} when another process has it.  A file system without locks
        counts as unlocked.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _isAt(descriptor: int, path: str) -> bool:
    try:
        there = os.stat(path)
    except OSError:
        return False
    here = os.fstat(descriptor)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def _readPID(descriptor: int) -> Optional[int]:
    try:
        pid = int(os.pread(descriptor, 32, 0))
    except ValueError:
        return None
    return pid if pid > 0 else None


def _lives(pid: Optional[int]) -> bool:
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
    except OSError as error:
        return error.errno == errno.EPERM
    except OverflowError:
        return False
    return True


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass
