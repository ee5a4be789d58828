"""
How requests end, told from what became of their connection.
"""

from __future__ import annotations

import enum
import errno
import os
import ssl
from typing import Final, Optional

import attrs


class Verdict(enum.Enum):
    """
    What became of a request that was not answered as it should have been.
    """

    REFUSED = "refused"
    RESET = "reset"
    CLOSED = "closed without an answer"
    TRUNCATED = "truncated"
    TIMED_OUT = "timed out"
    WRONG = "wrong answer"
    UNABLE = "not sent"
    """
    This process could not: no port, no descriptor, no memory.  Nobody else's
    fault, and not counted as a failure.
    """


_RESETS: Final = {errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED, errno.ENOTCONN}
_LATE: Final = {errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH}
_OWN: Final = {
    errno.EADDRNOTAVAIL,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOBUFS,
    errno.ENOMEM,
}


@attrs.frozen
class Outcome:
    """
    A verdict, and what it was told from.
    """

    verdict: Verdict
    detail: str


def judge(error: Optional[BaseException], received: int) -> Outcome:
    """
    Say how a request ended whose connection ended first.

    @param error: what the connection ended with; None when the other side closed
        it in order.
    @param received: how many bytes of the answer had come.
    """
    where = f"after {received} bytes" if received else "before any byte"
    if error is None or isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        verdict = Verdict.TRUNCATED if received else Verdict.CLOSED
        return Outcome(verdict, f"end of file {where}")
    number = error.errno if isinstance(error, OSError) else None
    if number is None or isinstance(error, ssl.SSLError):
        return Outcome(Verdict.WRONG, f"{error!r} {where}")
    detail = f"{errno.errorcode.get(number, number)} {where}"
    if number in _OWN:
        return Outcome(Verdict.UNABLE, os.strerror(number))
    if number == errno.ECONNREFUSED:
        return Outcome(Verdict.REFUSED, detail)
    if number in _RESETS:
        return Outcome(Verdict.RESET, detail)
    if number in _LATE:
        return Outcome(Verdict.TIMED_OUT, detail)
    return Outcome(Verdict.WRONG, detail)


def idleEnd(error: Optional[BaseException]) -> str:
    """
    Name the end of a connection on which nothing was asked: "closed" when it
    came in order, else "reset".
    """
    return "closed" if judge(error, 0).verdict is Verdict.CLOSED else "reset"
