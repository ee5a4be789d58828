"""
Carries a C{Failure} to another process as text.

Neither the exception nor its frames cross; what crosses is what an operator
reads and what C{Failure.check} compares: the traceback, the message, and the
names of the exception's class and of its bases.
"""

from __future__ import annotations

from functools import lru_cache
from typing import IO, Any, Optional

import msgspec
from twisted.python.failure import Failure
from twisted.python.reflect import qual

from twisted_cluster.ipc.plain import cut, safeText, scrub

_MESSAGE = 16 * 1024
_BASES = 32


class FailureText(msgspec.Struct, array_like=True):
    """
    What is known of a failure in another process.

    @ivar classes: the qualified names of the exception's class and of its
        bases, in the order of their resolution; never empty.
    @ivar message: the exception's message.
    @ivar traceback: the traceback, as the process formatted it.
    """

    classes: list[str]
    message: str
    traceback: str


class RemoteError(Exception):
    """
    An exception that was raised in a worker.  Its subclasses bear the names of
    the originals.
    """


class RemoteTraceback(Exception):
    """
    The cause of each L{RemoteError}: its text is the traceback in the worker,
    so that whatever prints a chain of exceptions shows it.
    """

    def __str__(self) -> str:
        return "\n" + str(self.args[0]).rstrip()


class RemoteFailure(Failure):
    """
    A failure of another process: formatted, compared and trapped by name as
    the original, without its frames.
    """

    def __init__(self, text: FailureText) -> None:
        error = _remoteType(text.classes[0])(text.message)
        error.__cause__ = RemoteTraceback(text.traceback)
        super().__init__(error)
        self.parents = list(text.classes)
        self._text = text.traceback

    def printTraceback(
        self,
        file: Optional[IO[str]] = None,
        elideFrameworkCode: Any = False,
        detail: str = "default",
    ) -> None:
        """
        Write the traceback as the worker formatted it.
        """
        if file is None or detail == "brief":
            super().printTraceback(file, elideFrameworkCode, detail)
        else:
            file.write(self._text)


@lru_cache(256)
def _remoteType(qualified: str) -> type[RemoteError]:
    module, _, name = qualified.rpartition(".")
    name = name.replace("\0", "") or "Exception"
    return type(name, (RemoteError,), {"__module__": module or "builtins"})


def describeFailure(failure: Failure) -> FailureText:
    """
    Describe a failure of this process.  Never raises.
    """
    try:
        traceback = scrub(failure.getTraceback())
    except BaseException as error:
        traceback = f"(no traceback: {safeText(error)})\n"
    try:
        message = scrub(failure.getErrorMessage())
    except BaseException as error:
        message = f"(no message: {safeText(error)})"
    return FailureText(_classNames(failure.type), cut(message, _MESSAGE), traceback)


def describeException(error: BaseException, traceback: str) -> FailureText:
    """
    Describe an exception whose traceback was formatted already.  Never raises.
    """
    message = cut(safeText(error, str), _MESSAGE)
    return FailureText(_classNames(type(error)), message, scrub(traceback))


def _classNames(kind: object) -> list[str]:
    try:
        if isinstance(kind, type):
            return [scrub(qual(each)) for each in kind.__mro__[:_BASES]]
        return [cut(safeText(kind, str), 256)]
    except BaseException:
        return ["builtins.Exception"]
