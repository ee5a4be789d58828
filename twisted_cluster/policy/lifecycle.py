"""
One worker's life: starting -> ready -> draining -> stopping -> dead.

  - I{starting}: it has been spawned, and does not serve yet.
  - I{ready}: it serves.
  - I{draining}: it takes nothing new, and finishes what it has.
  - I{stopping}: there is nothing to finish, or no more time for it.
  - I{dead}: its process has ended.

What happens to a worker is an input; what is to be done about that are
decisions, which somebody else carries out in their order.  What L{LIFE} does not
name changes nothing.

Whoever comes to drain or to stop has a limit, at which it is killed.  One that
drains goes on to be asked whether it lives, as long as there is a channel to ask
on.
"""

from __future__ import annotations

from typing import Any, Final

import attrs

from twisted_cluster.policy.lifewords import (
    AllowDrain,
    AllowTime,
    AnswersLate,
    AskedForRecycling,
    AwaitExit,
    BrokeRules,
    ChannelLost,
    Decision,
    Exited,
    Forget,
    Hangs,
    Input,
    Kill,
    LivesOn,
    NotReadyInTime,
    SaidReady,
    SaidStopping,
    SayTerminate,
    SendTerm,
    ShowStacks,
    TellLeaving,
    TellReady,
    TellRecycling,
    TimeOver,
    ToldToDie,
    ToldToStop,
    Unwatch,
    Warn,
    Watch,
)

STARTING: Final = "starting"
READY: Final = "ready"
DRAINING: Final = "draining"
STOPPING: Final = "stopping"
DEAD: Final = "dead"

Kinds = list[type[Decision]]

LIFE: Final[dict[tuple[str, type[Input]], tuple[str, Kinds]]] = {
    (STARTING, SaidReady): (READY, [Unwatch, Watch, TellReady]),
    (STARTING, NotReadyInTime): (STOPPING, [Unwatch, ShowStacks]),
    (STARTING, ToldToStop): (STOPPING, [Unwatch, AllowTime, SendTerm]),
    (STARTING, SaidStopping): (STOPPING, [Unwatch, AllowTime, TellLeaving]),
    (STARTING, ChannelLost): (STOPPING, [Unwatch, AllowTime, AwaitExit]),
    (STARTING, BrokeRules): (DRAINING, [Unwatch, AllowTime, AwaitExit]),
    (STARTING, ToldToDie): (STOPPING, [Unwatch, Kill]),
    (STARTING, Exited): (DEAD, [Unwatch, Forget]),
    #
    (READY, AnswersLate): (READY, [Warn]),
    (READY, AskedForRecycling): (READY, [TellRecycling]),
    (READY, Hangs): (STOPPING, [Unwatch, ShowStacks]),
    (READY, ToldToStop): (DRAINING, [AllowDrain, SayTerminate]),
    (READY, SaidStopping): (DRAINING, [AllowTime, TellLeaving]),
    (READY, ChannelLost): (STOPPING, [Unwatch, AllowTime, AwaitExit]),
    (READY, BrokeRules): (DRAINING, [Unwatch, AllowTime, AwaitExit]),
    (READY, ToldToDie): (STOPPING, [Unwatch, Kill]),
    (READY, Exited): (DEAD, [Unwatch, Forget]),
    #
    (DRAINING, AnswersLate): (DRAINING, [Warn]),
    (DRAINING, Hangs): (STOPPING, [Unwatch, ShowStacks]),
    (DRAINING, SaidStopping): (STOPPING, [Unwatch]),
    (DRAINING, ChannelLost): (DRAINING, [Unwatch]),
    (DRAINING, LivesOn): (DRAINING, [TellLeaving]),
    (DRAINING, TimeOver): (STOPPING, [Unwatch, Kill]),
    (DRAINING, ToldToDie): (STOPPING, [Unwatch, Kill]),
    (DRAINING, Exited): (DEAD, [Unwatch, Forget]),
    #
    (STOPPING, LivesOn): (STOPPING, [TellLeaving, Kill]),
    (STOPPING, TimeOver): (STOPPING, [Kill]),
    (STOPPING, ToldToDie): (STOPPING, [Kill]),
    (STOPPING, Exited): (DEAD, [Forget]),
}
"""
For a state and an input, the next state and the decisions.  A decision takes its
values from the input, by their names.
"""


@attrs.define
class Life:
    """
    Where one worker is in its life.

    @ivar state: one of the five.
    @ivar wasReady: whether it has served.
    @ivar told: whether it was told to stop while it could still do so.
    @ivar announced: whether it said that it stops.
    """

    state: str = attrs.field(default=STARTING, init=False)
    wasReady: bool = attrs.field(default=False, init=False)
    told: bool = attrs.field(default=False, init=False)
    announced: bool = attrs.field(default=False, init=False)

    def hear(self, happened: Input) -> list[Decision]:
        """
        Decide what to do about something that happened.
        """
        self.announced = self.announced or isinstance(happened, SaidStopping)
        found = LIFE.get((self.state, type(happened)))
        if found is None:
            return []
        self.state, kinds = found
        self.wasReady = self.wasReady or self.state == READY
        self.told = self.told or isinstance(happened, ToldToStop)
        return [_made(kind, happened) for kind in kinds]

    @property
    def asked(self) -> bool:
        """
        Whether its end is no surprise: it was told, or it had served and said so.
        """
        return self.told or (self.announced and self.wasReady)


def _made(kind: Any, happened: Input) -> Decision:
    names = [field.name for field in attrs.fields(kind)]
    made: Decision = kind(**{name: getattr(happened, name) for name in names})
    return made
