"""
What signals to the watcher mean, and that they arrive.
"""

from __future__ import annotations

import os
import signal
from typing import Any, cast

from twisted.internet.testing import MemoryReactorClock
from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    formatEvent,
    globalLogPublisher,
)
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.supervisor.signals import (
    SIGNALS,
    Action,
    SignalHandlers,
    SignalPolicy,
)


class SignalPolicyTests(SynchronousTestCase):
    """
    L{SignalPolicy}.
    """

    def decide(self, *numbers: int) -> list[Action]:
        """
        Give signals to a new policy.
        """
        policy = SignalPolicy()
        return [policy.signalled(number) for number in numbers]

    def test_meanings(self) -> None:
        """
        Each signal has its meaning.
        """
        for number, action in {
            signal.SIGTERM: Action.STOP,
            signal.SIGINT: Action.STOP,
            signal.SIGQUIT: Action.STOP_NOW,
            signal.SIGHUP: Action.RESTART,
            signal.SIGUSR1: Action.RESTART,
            signal.SIGTTIN: Action.MORE,
            signal.SIGTTOU: Action.FEWER,
            signal.SIGUSR2: Action.UNAVAILABLE,
        }.items():
            self.assertEqual(self.decide(number), [action])

    def test_twice(self) -> None:
        """
        The second TERM or INT, in whatever combination, stops now.
        """
        for first in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            for second in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
                self.assertEqual(self.decide(first, second)[1], Action.STOP_NOW)

    def test_restartTwice(self) -> None:
        """
        Restarts and sizes may be asked for again and again.
        """
        self.assertEqual(
            self.decide(signal.SIGHUP, signal.SIGHUP, signal.SIGTTIN, signal.SIGTERM),
            [Action.RESTART, Action.RESTART, Action.MORE, Action.STOP],
        )

    def test_stopping(self) -> None:
        """
        Once stopping, nothing is restarted or resized.
        """
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGTTIN, signal.SIGTTOU):
            self.assertEqual(
                self.decide(signal.SIGTERM, number, signal.SIGINT)[1:],
                [Action.NOTHING, Action.STOP_NOW],
            )

    def test_unknown(self) -> None:
        """
        Another signal means nothing.
        """
        self.assertEqual(self.decide(signal.SIGWINCH), [Action.NOTHING])


class Recorder:
    """
    Records what is to be done.
    """

    def __init__(self) -> None:
        self.done: list[str] = []

    def stop(self) -> None:
        """
        Record it.
        """
        self.done.append("stop")

    def stopNow(self) -> None:
        """
        Record it.
        """
        self.done.append("stopNow")

    def restart(self) -> None:
        """
        Record it.
        """
        self.done.append("restart")

    def more(self) -> None:
        """
        Record it.
        """
        self.done.append("more")

    def fewer(self) -> None:
        """
        Record it.
        """
        self.done.append("fewer")


class LateReactor(MemoryReactorClock):
    """
    Runs what other threads ask for when it is told to.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Any] = []

    def callFromThread(self, function: Any, *args: Any, **kwargs: Any) -> None:
        """
        Keep it for later.
        """
        self.asked.append((function, args, kwargs))

    def turn(self) -> None:
        """
        Run what was asked for.
        """
        asked, self.asked = self.asked, []
        for function, args, kwargs in asked:
            function(*args, **kwargs)


class SignalHandlersTests(SynchronousTestCase):
    """
    L{SignalHandlers}, with real signals to this process.
    """

    def setUp(self) -> None:
        self.before = {number: signal.getsignal(number) for number in SIGNALS}
        for number, handler in self.before.items():
            self.addCleanup(signal.signal, number, handler)
        self.reactor: Any = LateReactor()
        self.recorder = Recorder()

    def installed(self, chain: bool = False) -> SignalHandlers:
        """
        Install handlers.
        """
        handlers = SignalHandlers(self.reactor, self.recorder, chain)
        handlers.install()
        return handlers

    def test_carriedOut(self) -> None:
        """
        Each signal is carried out, by the reactor and not before.
        """
        self.installed()
        for number in (
            signal.SIGHUP,
            signal.SIGUSR1,
            signal.SIGTTIN,
            signal.SIGTTOU,
            signal.SIGTERM,
            signal.SIGINT,
        ):
            os.kill(os.getpid(), number)
        self.assertEqual(self.recorder.done, [])
        self.reactor.turn()
        self.assertEqual(
            self.recorder.done,
            ["restart", "restart", "more", "fewer", "stop", "stopNow"],
        )

    def test_unavailable(self) -> None:
        """
        USR2 ends nothing and does nothing, and the log says so, as a warning.
        """
        events: list[LogEvent] = []
        observer = cast("ILogObserver", events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.installed()
        os.kill(os.getpid(), signal.SIGUSR2)
        self.reactor.turn()
        self.assertEqual(self.recorder.done, [])
        [event] = events
        self.assertEqual(event["log_level"], LogLevel.warn)
        self.assertIn("SIGUSR2: not available", formatEvent(event))

    def test_uninstalled(self) -> None:
        """
        Afterwards, the handlers are those of before.
        """
        self.installed().uninstall()
        self.assertEqual(
            {number: signal.getsignal(number) for number in SIGNALS}, self.before
        )

    def test_beforeTheReactorRuns(self) -> None:
        """
        Before the reactor runs, TERM and INT are left to it, the others are
        taken already.
        """
        handlers = SignalHandlers(self.reactor, self.recorder, True)
        handlers.install(running=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            self.assertEqual(signal.getsignal(number), self.before[number])
        os.kill(os.getpid(), signal.SIGHUP)
        self.reactor.turn()
        self.assertEqual(self.recorder.done, ["restart"])
        handlers.install()
        self.assertNotEqual(
            signal.getsignal(signal.SIGTERM), self.before[signal.SIGTERM]
        )
        handlers.uninstall()
        self.assertEqual(
            {number: signal.getsignal(number) for number in SIGNALS}, self.before
        )

    def test_takenSince(self) -> None:
        """
        A handler that somebody else has installed since stays.
        """
        handlers = self.installed()
        taken: list[int] = []

        def take(number: int, frame: object) -> None:
            taken.append(number)

        signal.signal(signal.SIGHUP, take)
        handlers.uninstall()
        self.assertIs(signal.getsignal(signal.SIGHUP), take)

    def test_installedTwice(self) -> None:
        """
        To install twice is to install once.
        """
        handlers = self.installed()
        handlers.install()
        handlers.uninstall()
        self.assertEqual(
            {number: signal.getsignal(number) for number in SIGNALS}, self.before
        )

    def test_chained(self) -> None:
        """
        When chained, the first TERM goes to the handler of before alone, and
        the second stops now.
        """
        heard: list[int] = []

        def hear(number: int, frame: object) -> None:
            heard.append(number)

        signal.signal(signal.SIGTERM, hear)
        self.installed(chain=True)
        os.kill(os.getpid(), signal.SIGTERM)
        self.reactor.turn()
        self.assertEqual((heard, self.recorder.done), ([signal.SIGTERM], []))
        os.kill(os.getpid(), signal.SIGTERM)
        self.reactor.turn()
        self.assertEqual((heard, self.recorder.done), ([signal.SIGTERM], ["stopNow"]))

    def test_chainedToNobody(self) -> None:
        """
        Where nobody, or nothing but Python, handled a signal before, a chained
        stop is carried out like any other; also where it was ignored, as a
        shell does for a job in the background.
        """
        for handler in (signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler):
            signal.signal(signal.SIGINT, handler)
            handlers = self.installed(chain=True)
            os.kill(os.getpid(), signal.SIGINT)
            self.reactor.turn()
            handlers.uninstall()
        self.assertEqual(self.recorder.done, ["stop"] * 3)

    def test_chainedRestart(self) -> None:
        """
        Only a stop is chained: twistd's USR1, which rotates its log, is not.
        """
        heard: list[int] = []
        signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
        self.installed(chain=True)
        os.kill(os.getpid(), signal.SIGUSR1)
        self.reactor.turn()
        self.assertEqual((heard, self.recorder.done), ([], ["restart"]))
