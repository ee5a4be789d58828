"""
The words in which a worker's life is told: what happens to it, and what is to be
done about that.
"""

from __future__ import annotations

from typing import Union

import attrs


@attrs.frozen
class SaidReady:
    """
    The worker said that it serves.
    """


@attrs.frozen
class SaidFailed:
    """
    The worker said that it cannot serve.  It ends by itself, or in no more time
    than it has for its start.
    """


@attrs.frozen
class SaidStopping:
    """
    The worker said that it ends by itself; or, having drained, that its reactor has
    stopped, so that it answers no more.
    """


@attrs.frozen
class AskedForRecycling:
    """
    The worker wants to be replaced.
    """

    why: str


@attrs.frozen
class ToldToStop:
    """
    The plan has no use for the worker any more.

    @ivar delay: for how many seconds it is to serve on.
    @ivar others: whether other workers serve on.
    """

    delay: float
    others: bool


@attrs.frozen
class ToldToDie:
    """
    The worker is to end now.
    """

    why: str


@attrs.frozen
class ChannelLost:
    """
    The worker's control channel has ended.  Its process is about to, as a rule.
    """


@attrs.frozen
class BrokeRules:
    """
    What the worker sent is nonsense: its channel is closed, at which it drains.
    """


@attrs.frozen
class LivesOn:
    """
    A worker whose channel has ended is still there.
    """

    why: str


@attrs.frozen
class NotReadyInTime:
    """
    The limit for the start is passed.

    @ivar what: happened, for the log.
    @ivar why: it was killed, for the log.
    @ivar stopped: whether the process is stopped (SIGSTOP).
    """

    what: str
    why: str
    stopped: bool = False


@attrs.frozen
class AnswersLate:
    """
    The worker has not answered for a worrying time.
    """

    seconds: float


@attrs.frozen
class Hangs:
    """
    The worker has not answered for too long.

    @ivar what: happened, for the log.
    @ivar why: it was killed, for the log.
    @ivar stopped: whether the process is stopped (SIGSTOP).
    """

    what: str
    why: str
    stopped: bool


@attrs.frozen
class TimeOver:
    """
    The limit for draining and stopping is passed.
    """

    why: str


@attrs.frozen
class Exited:
    """
    The worker's process has ended, or could not be spawned.
    """


Input = Union[
    SaidReady,
    SaidFailed,
    SaidStopping,
    AskedForRecycling,
    ToldToStop,
    ToldToDie,
    ChannelLost,
    BrokeRules,
    LivesOn,
    NotReadyInTime,
    AnswersLate,
    Hangs,
    TimeOver,
    Exited,
]


@attrs.frozen
class Watch:
    """
    Ask from time to time whether the worker lives.
    """


@attrs.frozen
class Unwatch:
    """
    Wait neither for its being ready nor for its answers any more.
    """


@attrs.frozen
class SayTerminate:
    """
    Tell it on its channel to leave.
    """

    delay: float
    others: bool


@attrs.frozen
class SendTerm:
    """
    Send SIGTERM.
    """


@attrs.frozen
class AllowDrain:
    """
    Start the limit, beyond the seconds that it serves on.
    """

    delay: float


@attrs.frozen
class AllowTime:
    """
    Start the limit.
    """


@attrs.frozen
class AwaitExit:
    """
    Look soon whether it L{LivesOn}.
    """


@attrs.frozen
class Warn:
    """
    Say that it answers late.
    """

    seconds: float


@attrs.frozen
class ShowStacks:
    """
    Say so, and have it write its Python stacks, unless it is stopped; then it is
    L{ToldToDie}.
    """

    what: str
    why: str
    stopped: bool


@attrs.frozen
class Kill:
    """
    Send SIGKILL.
    """

    why: str


@attrs.frozen
class TellReady:
    """
    Tell the plan that it serves.
    """


@attrs.frozen
class TellLeaving:
    """
    Tell the plan that it ends by itself.
    """


@attrs.frozen
class TellRecycling:
    """
    Tell the plan that it wants to be replaced.
    """

    why: str


@attrs.frozen
class Forget:
    """
    Look and wait for nothing any more.
    """


Decision = Union[
    Watch,
    Unwatch,
    SayTerminate,
    SendTerm,
    AllowDrain,
    AllowTime,
    AwaitExit,
    Warn,
    ShowStacks,
    Kill,
    TellReady,
    TellLeaving,
    TellRecycling,
    Forget,
]
