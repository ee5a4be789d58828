"""
What a signal to the watcher means.

  - TERM, INT: stop gracefully; a second one of either: stop now
  - QUIT: stop now
  - HUP, USR1: replace all workers
  - TTIN, TTOU: one worker more, one fewer
  - USR2: elsewhere it replaces the watcher itself; here it is only survived

Once stopping has begun, only what makes it faster is heard.  A library takes
no signals: only the commands install these handlers.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from enum import Enum
from types import FrameType
from typing import Any, Final, Optional, Protocol

from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger

_log = Logger("twisted_cluster")


class Action(Enum):
    """
    What a signal asks for.
    """

    STOP = "stop gracefully; a second signal: now"
    STOP_NOW = "stop now"
    RESTART = "restart"
    MORE = "one worker more"
    FEWER = "one worker fewer"
    UNAVAILABLE = (
        "not available in this version, nothing is done; HUP replaces the workers, "
        "and to replace the watcher, stop and start it"
    )
    NOTHING = "nothing"


class SignalActions(Protocol):
    """
    What can be done about signals.  All are called by the reactor, one at a
    time, and must not raise.
    """

    def stop(self) -> None:
        """
        Stop gracefully.
        """

    def stopNow(self) -> None:
        """
        Stop without waiting for anybody.
        """

    def restart(self) -> None:
        """
        Replace all workers.
        """

    def more(self) -> None:
        """
        Add one worker.
        """

    def fewer(self) -> None:
        """
        Take one worker away, unless it is the last.
        """


SIGNALS: Final[Mapping[signal.Signals, Action]] = {
    signal.SIGTERM: Action.STOP,
    signal.SIGINT: Action.STOP,
    signal.SIGQUIT: Action.STOP_NOW,
    signal.SIGHUP: Action.RESTART,
    signal.SIGUSR1: Action.RESTART,
    signal.SIGTTIN: Action.MORE,
    signal.SIGTTOU: Action.FEWER,
    signal.SIGUSR2: Action.UNAVAILABLE,
}


class SignalPolicy:
    """
    Decides what a signal means after those that came before it.
    """

    def __init__(self) -> None:
        self._stopping = False

    def signalled(self, number: int) -> Action:
        """
        Decide what follows a signal.
        """
        action = SIGNALS.get(signal.Signals(number), Action.NOTHING)
        if action is Action.STOP and self._stopping:
            return Action.STOP_NOW
        if action in (Action.STOP, Action.STOP_NOW):
            self._stopping = True
        elif self._stopping:
            return Action.NOTHING
        return action


_Handler = Any


class SignalHandlers:
    """
    Has the signals of this process carried out by the reactor.

    @param reactor: runs the actions.
    @param actions: what to do.
    @param chain: whether a graceful stop is left to the handler that was there
        before, where there is one: twistd's exit status then stays its own.
    """

    def __init__(
        self,
        reactor: IReactorFromThreads,
        actions: SignalActions,
        chain: bool = False,
    ) -> None:
        self._reactor = reactor
        self._chain = chain
        self._policy = SignalPolicy()
        self._previous: dict[signal.Signals, _Handler] = {}
        self._actions: Mapping[Action, Callable[[], None]] = {
            Action.STOP: actions.stop,
            Action.STOP_NOW: actions.stopNow,
            Action.RESTART: actions.restart,
            Action.MORE: actions.more,
            Action.FEWER: actions.fewer,
            Action.UNAVAILABLE: lambda: None,
            Action.NOTHING: lambda: None,
        }

    def install(self, running: bool = True) -> None:
        """
        Take the signals that are not taken yet.  To be called in the main
        thread.

        @param running: whether the reactor runs.  It installs handlers of its
            own for TERM and INT when it starts; before that, these two are
            left to it.
        """
        for number, action in SIGNALS.items():
            if number not in self._previous and (running or action is not Action.STOP):
                self._previous[number] = signal.signal(number, self._received)

    def uninstall(self) -> None:
        """
        Give back what L{install} took, except what others have taken since.
        """
        for number, handler in self._previous.items():
            if signal.getsignal(number) == self._received:
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous.clear()

    def _received(self, number: int, frame: Optional[FrameType]) -> None:
        action = self._policy.signalled(number)
        previous = self._previous.get(signal.Signals(number))
        if (
            action is Action.STOP
            and self._chain
            and callable(previous)
            and previous is not signal.default_int_handler
        ):
            previous(number, frame)
            return
        self._reactor.callFromThread(self._act, number, action)

    def _act(self, number: int, action: Action) -> None:
        log = _log.warn if action is Action.UNAVAILABLE else _log.info
        log(
            "Received {name}: {action}.",
            name=signal.Signals(number).name,
            action=action.value,
        )
        self._actions[action]()
