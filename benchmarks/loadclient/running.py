"""
A run from beginning to end.
"""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import sys
import time
from typing import Any, Final

import attrs

from benchmarks.loadclient.clock import NetClock, Pace
from benchmarks.loadclient.dialing import Dialer
from benchmarks.loadclient.http1 import KeptConnections, NewConnections
from benchmarks.loadclient.http2 import Streams
from benchmarks.loadclient.offering import Offering, now
from benchmarks.loadclient.specs import Plan, readPlan
from benchmarks.loadclient.websocket import Echoes

_KINDS: Final[dict[str, type[Offering]]] = {
    "new": NewConnections,
    "kept": KeptConnections,
    "http2": Streams,
    "websocket": Echoes,
}
_QUICKEST: Final = 0.002
_SLOWEST: Final = 0.01


class Run:
    """
    Offers what a plan says.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._stopping = False
        self._flowing = False

    def stop(self) -> None:
        """
        Send no more; wait for what is under way.
        """
        self._stopping = True

    async def run(self) -> dict[str, Any]:
        """
        Do it.

        @return: what was found, as JSON can tell it.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        begun = now()
        clock = NetClock(begun)
        dialer = Dialer(loop)
        offerings = [
            _KINDS[each.kind](each, dialer, clock, begun) for each in self._plan.offers
        ]
        paces = [Pace(each.rate, clock.net(begun)) for each in self._plan.offers]
        fastest = max(each.rate for each in self._plan.offers)
        interval = min(max(1 / fastest, _QUICKEST), _SLOWEST)
        end = begun + self._plan.seconds
        offered = 0.0
        while True:
            moment = now()
            clock.turn(moment, moment + interval)
            finished = self._turn(offerings, paces, clock.net(moment))
            if not offered and (finished or moment >= end):
                offered = moment
                self._stopping = True
                for each in offerings:
                    each.tally.endOffering(moment)
                    each.tally.inHand = each.underWay
            for each in offerings:
                each.sweep()
            if offered and not any(each.underWay for each in offerings):
                break
            await asyncio.sleep(interval)
        for each in offerings:
            each.close()
        await asyncio.sleep(0)
        return {
            "begun": begun,
            "seconds": offered - begun,
            "stoodStill": {"longest": clock.longest, "total": clock.total},
            "cpu": time.process_time(),
            "offers": [
                {**attrs.asdict(each.offer), **each.tally.report()}
                for each in offerings
            ],
        }

    def _turn(self, offerings: list[Offering], paces: list[Pace], net: float) -> bool:
        """
        Send what is due.

        @return: whether nothing will ever be due again.
        """
        if not self._flowing and all(each.tally.succeeded for each in offerings):
            self._flowing = True
            print(json.dumps({"flowing": now()}), flush=True)
        finished = True
        for offering, pace in zip(offerings, paces, strict=True):
            count = offering.offer.count
            due = 0 if self._stopping else pace.due(net)
            if count is not None:
                due = min(due, count - offering.tally.offered)
            for _ in range(due):
                offering.send()
            done = count is not None and offering.tally.offered >= count
            finished = finished and (self._stopping or done)
        return finished


def main() -> None:
    """
    Run the plan that the command line holds.
    """
    try:
        plan = readPlan(json.loads(sys.argv[1]))
    except (IndexError, KeyError, TypeError, ValueError) as error:
        sys.exit(f"loadclient: {error!r}: a plan in JSON is needed, see its docstring")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    print(json.dumps(asyncio.run(Run(plan).run())), flush=True)
