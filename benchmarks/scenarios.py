"""
What operators do to a server, and what befalls one, while it is under load.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, Optional

import attrs
from twisted.internet.task import deferLater

from benchmarks.load import Load, Offer
from benchmarks.serving import WORKERS, Server, isAlive

RATE: Final = 250
"""
Requests a second of each kind, where handlers answer at once.
"""

SLOW_RATE: Final = 100
"""
As much, where they take 100 ms.
"""

PATIENCE: Final = 60.0
_GIVEN_UP: Final = 12.0
MANY: Final = 8
SLOW_IMPORT: Final = "import time\ntime.sleep(1)\n"


@attrs.define
class Stage:
    """
    What a scenario acts on.

    @ivar workers: the processes that answer at present.
    """

    reactor: Any
    server: Server
    load: Load
    app: Path
    workers: set[int]

    async def until(
        self, condition: Callable[[set[int]], bool], seconds: float = PATIENCE
    ) -> Optional[float]:
        """
        Ask who answers, again and again.

        @param condition: whether these processes are those that are waited for.
        @return: the seconds until then, or None if the time, or the server, ended
            before.
        """
        begun = self.reactor.seconds()
        while self.server.status is None:
            found = await self.server.ask()
            passed: float = self.reactor.seconds() - begun
            if condition(found):
                return passed
            if passed > seconds:
                return None
        return None

    async def replaced(self) -> Optional[float]:
        """
        Wait until no worker of before is left, and as many new ones answer.
        """
        old, new = self.workers, set[int]()

        def done(found: set[int]) -> bool:
            new.update(found - old)
            return len(new) >= WORKERS and not any(map(isAlive, old))

        taken = await self.until(done)
        if taken is not None:
            self.workers = new
        return taken

    def died(self) -> Optional[str]:
        """
        Say that the server has died, if so.
        """
        status = self.server.status
        return None if status is None else f"the server died, status {status}"


@attrs.frozen
class Result:
    """
    What an act led to.

    @ivar seconds: until what was waited for; None if that never came.
    @ivar over: whether the server is no longer what it was.
    """

    seconds: Optional[float]
    outcome: str
    over: bool = False


Act = Callable[[Stage], Awaitable[Result]]


@attrs.frozen
class Scenario:
    """
    @ivar path: what is asked for.
    @ivar app: the application's changing part at first.
    @ivar act: done once a round.
    @ivar ends: whether each round needs a server of its own.
    @ivar needs: the signals that a server must have for this.
    @ivar timeout: seconds that the clients wait for an answer.
    """

    name: str
    act: Act
    path: str = "/"
    rate: float = RATE
    app: str = ""
    ends: bool = False
    needs: frozenset[int] = frozenset()
    timeout: float = 20.0

    def offers(self, port: int) -> Sequence[Offer]:
        """
        The load.
        """
        return [
            Offer(
                kind=kind,
                port=port,
                rate=self.rate,
                path=self.path,
                timeout=self.timeout,
                echo=True,
            )
            for kind in ("new", "kept")
        ]


async def reload(stage: Stage) -> Result:
    """
    Reload code that is right.
    """
    stage.server.signal(signal.SIGHUP)
    taken = await stage.replaced()
    if taken is None:
        return Result(None, stage.died() or "not all were replaced", True)
    return Result(taken, "replaced")


def broken(code: str, seconds: float, shows: str) -> Act:
    """
    Reload code that is wrong, and then the right one.

    @param seconds: for how long the first is watched.
    @param shows: what must be printed for an operator to see the reason.
    """

    async def act(stage: Stage) -> Result:
        good = stage.app.read_text()
        stage.server.lines.clear()
        stage.app.write_text(code)
        stage.server.signal(signal.SIGHUP)
        seen: set[int] = set()

        def watch(found: set[int]) -> bool:
            nonlocal seen
            seen = found or seen
            return False

        await stage.until(watch, seconds)
        stage.app.write_text(good)
        died = stage.died()
        if died is not None:
            return Result(None, died, True)
        left = sum(map(isAlive, stage.workers))
        outcome = f"{left} of {WORKERS} old workers are left"
        outcome += "" if any(shows in each for each in stage.server.lines) else ", mute"
        stage.server.signal(signal.SIGHUP)
        taken = await stage.replaced()
        if taken is None:
            outcome += f", repaired: {stage.died() or 'not all were replaced'}"
            return Result(None, outcome, True)
        return Result(taken, f"{outcome}, repaired: replaced")

    return act


async def _oneReplaced(stage: Stage, seconds: float) -> Result:
    old = stage.workers
    new: set[int] = set()

    def done(found: set[int]) -> bool:
        new.update(found - old)
        return bool(new)

    taken = await stage.until(done, seconds)
    if taken is None:
        return Result(None, stage.died() or f"not within {seconds:.0f} s", True)
    stage.workers = {each for each in old if isAlive(each)} | new
    return Result(taken, "replaced")


async def kill(stage: Stage) -> Result:
    """
    Kill a worker.
    """
    os.kill(min(stage.workers), signal.SIGKILL)
    result = await _oneReplaced(stage, PATIENCE)
    if result.seconds is None:
        return result
    ratio = result.seconds / stage.server.coldStart
    return attrs.evolve(result, outcome=f"replaced in {ratio:.1f} cold starts")


async def freeze(stage: Stage) -> Result:
    """
    Stop a worker as a debugger would.
    """
    victim = min(stage.workers)
    os.kill(victim, signal.SIGSTOP)
    result = await _oneReplaced(stage, _GIVEN_UP)
    return attrs.evolve(result, over=True)


async def block(stage: Stage) -> Result:
    """
    Have a handler stand still for ever.
    """
    stage.server.lines.clear()
    stage.server.askFor(b"/?block=1")
    result = await _oneReplaced(stage, _GIVEN_UP)
    # The stack may come a little later than the replacement.
    await deferLater(stage.reactor, 0.2)
    where = any(
        "load" in each and ".py" in each and "line" in each
        for each in stage.server.lines
    )
    outcome = f"{result.outcome}, {'says where' if where else 'mute'}"
    return attrs.evolve(result, outcome=outcome, over=True)


async def terminate(stage: Stage) -> Result:
    """
    Stop the server when the last request has been sent.
    """
    stopped = stage.load.stop()
    # Until the client has sent its last.
    await deferLater(stage.reactor, 0.03)
    result = await _terminated(stage)
    report = await stopped
    inHand = sum(each.inHand for each in report.offers)
    return attrs.evolve(result, outcome=f"{result.outcome}, {inHand} in hand")


async def terminateUnderLoad(stage: Stage) -> Result:
    """
    Stop the server while requests keep coming.
    """
    return await _terminated(stage)


async def _terminated(stage: Stage) -> Result:
    begun = stage.reactor.seconds()
    stage.server.signal(signal.SIGTERM)
    while stage.server.status is None:
        if stage.reactor.seconds() > begun + PATIENCE:
            return Result(None, f"not within {PATIENCE:.0f} s", True)
        await deferLater(stage.reactor, 0.01)
    taken = stage.reactor.seconds() - begun
    return Result(taken, f"status {stage.server.status}", True)


async def scale(stage: Stage) -> Result:
    """
    Go from 2 workers to 8 and back.
    """
    seen = set(stage.workers)

    async def send(number: int) -> None:
        for _ in range(MANY - WORKERS):
            stage.server.signal(number)
            await deferLater(stage.reactor, 0.05)

    def grown(found: set[int]) -> bool:
        seen.update(found)
        return len(seen) >= MANY

    def shrunk(found: set[int]) -> bool:
        return sum(map(isAlive, seen)) <= WORKERS

    begun = stage.reactor.seconds()
    await send(signal.SIGTTIN)
    if await stage.until(grown) is None:
        outcome = stage.died() or f"only {len(seen)} answered"
        return Result(None, outcome, True)
    await send(signal.SIGTTOU)
    if await stage.until(shrunk) is None:
        outcome = stage.died() or f"{sum(map(isAlive, seen))} are left"
        return Result(None, outcome, True)
    stage.workers = {each for each in seen if isAlive(each)}
    return Result(stage.reactor.seconds() - begun, f"{WORKERS}, {MANY}, {WORKERS}")


SCENARIOS: Final[Sequence[Scenario]] = (
    Scenario("restart", reload),
    Scenario("restart, 100 ms handlers", reload, "/?delay=100", SLOW_RATE),
    Scenario("restart, 1 s import", reload, app=SLOW_IMPORT),
    Scenario("syntax error", broken("def (\n", 3, "SyntaxError")),
    Scenario("code that exits", broken("import os\nos._exit(7)\n", 3, "7")),
    Scenario("import that hangs", broken("import time\ntime.sleep(99)\n", 7, "ready")),
    Scenario("scale 2, 8, 2", scale, needs=frozenset({signal.SIGTTIN})),
    Scenario("kill -9 of a worker", kill, "/?delay=20"),
    Scenario("SIGSTOP of a worker", freeze, ends=True, timeout=4.0),
    Scenario("blocked handler", block, ends=True, timeout=4.0),
    Scenario("TERM, then silence", terminate, "/?delay=100", SLOW_RATE, ends=True),
    Scenario(
        "TERM under load", terminateUnderLoad, "/?delay=100", SLOW_RATE, ends=True
    ),
)
