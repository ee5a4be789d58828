"""
Decides how an exception of the target is told: whose fault it is, and which
frames of its traceback are the application's.
"""

from __future__ import annotations

import errno
import os
import runpy
import traceback
from types import CodeType, TracebackType
from typing import Final, Optional

import twisted
from twisted.internet.error import CannotListenError
from twisted.python.failure import Failure
from twisted.python.usage import UsageError

import twisted_cluster
from twisted_cluster.errors import (
    TargetError,
    TargetLoadError,
    TargetStartError,
    TargetUsageError,
)

_HERE: Final = os.path.join(os.path.dirname(twisted_cluster.__file__), "")
_TWISTED: Final = os.path.dirname(twisted.__file__)
_LAUNCHERS: Final = (
    "<frozen runpy>",
    "<frozen importlib",
    os.path.join(os.path.dirname(runpy.__file__), "runpy.py"),
    os.path.join(os.path.dirname(runpy.__file__), "importlib", ""),
    *(
        os.path.join(_TWISTED, *part)
        for part in (
            ("application", ""),
            ("scripts", ""),
            ("persisted", ""),
            ("plugin.py",),
            ("python", "usage.py"),
            ("python", "reflect.py"),
            ("python", "modules.py"),
            ("python", "failure.py"),
            ("internet", "defer.py"),
        )
    ),
)
"""
What stands above the application's own frames when it is started.
"""


def describeFailure(exc: BaseException) -> str:
    """
    Write an exception as Python does, without the frames of whatever started
    the application: this library's anywhere, C{runpy}'s, C{importlib}'s and
    twistd's above the application's first.

    The exceptions that it was raised from are written likewise.
    """
    description = traceback.TracebackException.from_exception(exc)
    chain: list[Optional[traceback.TracebackException]] = [description]
    seen = set()
    while chain:
        one = chain.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        one.stack[:] = _ownFrames(one.stack)
        chain += [one.__cause__, one.__context__]
    return "".join(description.format())


def userTraceback(exc: BaseException) -> Optional[TracebackType]:
    """
    Find the traceback from the application's first frame on, for those who
    hand an exception to C{sys.excepthook}.
    """
    found = exc.__traceback__
    while found is not None and _isLauncher(found.tb_frame.f_code):
        found = found.tb_next
    return found


def targetError(what: str, exc: BaseException) -> TargetError:
    """
    Judge what went wrong while the target was being loaded.

    @param what: the target, in words, to begin the reason with.
    @return: L{TargetUsageError} for options that the target refused,
        L{TargetStartError} for an address that it could not have, and
        L{TargetLoadError} for everything else.  A L{TargetError} is returned as
        it is.
    """
    if isinstance(exc, TargetError):
        return exc
    if isinstance(exc, UsageError):
        return TargetUsageError(f"{what}: {exc}")
    if _isTaken(exc):
        return startError(what, exc)
    return TargetLoadError(f"{what}: {_oneLine(exc)}", describeFailure(exc))


def startError(what: str, exc: BaseException) -> TargetError:
    """
    Tell what went wrong while the loaded target was being started.

    @param what: the target, in words, to begin the reason with.
    """
    if isinstance(exc, TargetError):
        return exc
    return TargetStartError(f"{what}: {_oneLine(exc)}", describeFailure(exc))


def failureError(what: str, failure: Failure) -> TargetError:
    """
    As L{startError}, for what a Deferred failed with.
    """
    exc = failure.value
    assert exc is not None
    if isinstance(exc, TargetError) or exc.__traceback__ is not None:
        return startError(what, exc)
    return TargetStartError(f"{what}: {_oneLine(exc)}", _describeCleaned(failure))


def _describeCleaned(failure: Failure) -> str:
    """
    As L{describeFailure}, for a failure the exception of which has lost its
    traceback: older versions of Twisted take it away.
    """
    assert failure.value is not None
    frames = _ownFrames(
        [
            traceback.FrameSummary(filename, line, name)
            for name, filename, line, *_ in failure.frames
        ]
    )
    return "".join(
        [
            "Traceback (most recent call last):\n",
            *traceback.StackSummary.from_list(frames).format(),
            *traceback.format_exception_only(type(failure.value), failure.value),
        ]
    )


def _oneLine(exc: BaseException) -> str:
    text = next(iter(str(exc).strip().splitlines()), "")
    if isinstance(exc, CannotListenError):
        return text
    name = type(exc).__name__
    return f"{name}: {text}" if text else name


def _isTaken(exc: BaseException) -> bool:
    return isinstance(exc, CannotListenError) or (
        isinstance(exc, OSError) and exc.errno == errno.EADDRINUSE
    )


def _isLauncher(code: CodeType) -> bool:
    return code.co_filename.startswith((_HERE, *_LAUNCHERS))


def _ownFrames(frames: list[traceback.FrameSummary]) -> list[traceback.FrameSummary]:
    others = [frame for frame in frames if not frame.filename.startswith(_HERE)]
    first = 0
    while first < len(others) and others[first].filename.startswith(_LAUNCHERS):
        first += 1
    return others[first:]
