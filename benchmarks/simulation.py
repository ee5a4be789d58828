"""
How evenly each way of balancing spreads connections over many workers, computed
with the cluster's own balancers, without sockets and without a clock:
C{python -m benchmarks.simulation [--plot FILE] [--json FILE]}

The connections come at random times; how long they last is heavy-tailed, and so
is how many each client makes.  All ways get the same ones.  The kernel's way has no
balancer: a random choice stands for it, which is a model, and a kind one.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import random
import sys
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs

from twisted_cluster.interfaces import Candidate, Connection
from twisted_cluster.policy.balance import BALANCERS, rendezvous

MODEL: Final = "kernel (model)"
ADDRESS: Final = "tcp:0.0.0.0:80"
SAMPLES: Final = 200

TAIL: Final = 1.5
"""
The exponent of the durations' Pareto distribution.  Its variance is infinite.
"""

SHORTEST: Final = 10.0
"""
Seconds that a connection lasts at least; the mean is three times that.
"""

SKEW: Final = 0.8
"""
The exponent of Zipf's law that the clients follow.
"""

Progress = Callable[[str], None]


@attrs.frozen
class Traffic:
    """
    What comes.

    @ivar arrivals: when, in seconds from the start; one a connection.
    @ivar durations: how long each connection lasts, in seconds.
    @ivar clients: whose each is, as a place in C{addresses}.
    @ivar addresses: of all clients, the busiest first.
    """

    arrivals: array[float]
    durations: array[float]
    clients: array[int]
    addresses: Sequence[str]


@attrs.frozen
class Sample:
    """
    How uneven it was once.

    @ivar time: in seconds from the start.
    @ivar open: of the open connections, the most and the fewest that a worker
        has, as multiples of the mean.
    @ivar accepted: likewise of all connections so far.
    """

    time: float
    open: tuple[float, float]
    accepted: tuple[float, float]


@attrs.frozen
class Moves:
    """
    What happens to the clients of C{sticky} when a worker comes or goes.

    @ivar keys: how many clients were looked at.
    @ivar died: how many of them move when one worker dies.
    @ivar added: how many move when one is added.
    @ivar strays: how many of either had no need to.
    @ivar modulo: how many would have moved by a checksum modulo the number of
        workers when one dies.
    @ivar spread: the most and the fewest clients of one worker, as multiples of
        the mean.
    @ivar chance: likewise, if the clients were thrown at random.
    """

    keys: int
    died: int
    added: int
    strays: int
    modulo: int
    spread: tuple[float, float]
    chance: tuple[float, float]


def makeAddresses(count: int, rng: random.Random) -> list[str]:
    """
    Make addresses of clients, of which many are neighbours, as in life: four of
    five IPv4, in networks of 256.
    """
    found: set[str] = set()
    while len(found) < count:
        if rng.random() < 0.2:
            network = f"2001:db8:{rng.randrange(65536):x}:{rng.randrange(65536):x}"
            found.add(f"{network}::{rng.randrange(1, 65536):x}")
        else:
            a, b, c = (rng.randrange(1, 224), rng.randrange(256), rng.randrange(256))
            size = min(count - len(found), rng.randint(1, 40))
            found.update(f"{a}.{b}.{c}.{rng.randrange(256)}" for _ in range(size))
    addresses = sorted(found)
    rng.shuffle(addresses)
    return addresses


def makeTraffic(
    workers: int, connections: int, clients: int, load: float, seed: int
) -> Traffic:
    """
    Make connections that come at such a rate that each worker has so many open
    on average, as soon as as many end as begin.

    @param load: how many.
    """
    rng = random.Random(seed)
    rate = workers * load / (SHORTEST * TAIL / (TAIL - 1))
    gaps = (rng.expovariate(rate) for _ in range(connections))
    weights = itertools.accumulate((rank + 1) ** -SKEW for rank in range(clients))
    return Traffic(
        array("d", itertools.accumulate(gaps)),
        array("d", (SHORTEST * rng.paretovariate(TAIL) for _ in range(connections))),
        array(
            "L",
            rng.choices(range(clients), cum_weights=list(weights), k=connections),
        ),
        makeAddresses(clients, rng),
    )


Chooser = Callable[[int], Candidate]
"""
Takes a client, as a place in the addresses, and returns who gets its connection.
"""


def chooser(
    name: str, traffic: Traffic, candidates: Sequence[Candidate], seed: int
) -> Chooser:
    """
    Make what chooses in one of the ways.

    What C{sticky} answers depends on the client alone, as long as the candidates
    are the same: it is asked once about each.
    """
    if name == MODEL:
        rng = random.Random(seed)
        return lambda client: rng.choice(candidates)
    balancer = BALANCERS[name]()

    def choose(client: int) -> Candidate:
        connection = Connection(ADDRESS, traffic.addresses[client])
        chosen = balancer.choose(connection, candidates)
        assert chosen is not None
        return chosen

    if name != "sticky":
        return choose
    known: dict[int, Candidate] = {}

    def remember(client: int) -> Candidate:
        chosen = known.get(client)
        if chosen is None:
            chosen = known[client] = choose(client)
        return chosen

    return remember


def makeCandidates(count: int) -> list[Candidate]:
    """
    Make workers in the first slots.
    """
    return [Candidate(slot + 1, slot) for slot in range(count)]


def extremes(counts: Sequence[int]) -> tuple[float, float]:
    """
    Find the highest and the lowest of some counts, as multiples of their mean.
    """
    mean = sum(counts) / len(counts)
    return max(counts) / mean, min(counts) / mean


def simulate(
    name: str, traffic: Traffic, workers: int, seed: int, progress: Progress
) -> list[Sample]:
    """
    Give out all connections in one of the ways.
    """
    candidates = makeCandidates(workers)
    choose = chooser(name, traffic, candidates, seed)
    accepted = [0] * workers
    ends: list[tuple[float, int]] = []
    samples: list[Sample] = []
    count = len(traffic.arrivals)
    due = {count * number // SAMPLES for number in range(1, SAMPLES + 1)}
    for number, (now, duration, client) in enumerate(
        zip(traffic.arrivals, traffic.durations, traffic.clients, strict=True), 1
    ):
        while ends and ends[0][0] <= now:
            candidates[heapq.heappop(ends)[1]].connections -= 1
        chosen = choose(client)
        chosen.connections += 1
        accepted[chosen.slot] += 1
        heapq.heappush(ends, (now + duration, chosen.slot))
        if number in due:
            counts = [each.connections for each in candidates]
            samples.append(Sample(now, extremes(counts), extremes(accepted)))
            progress(f"{name}: {100 * number // count} %")
    return samples


def moves(
    addresses: Sequence[str], workers: int, seed: int, progress: Progress
) -> Moves:
    """
    Have a worker die, and one be added, and see which clients move.
    """
    candidates = makeCandidates(workers)
    dead = candidates[workers // 2]
    left = [each for each in candidates if each is not dead]
    new = Candidate(workers + 1, workers)
    more = [*candidates, new]
    clients = [0] * workers
    thrown = [0] * workers
    rng = random.Random(seed)
    died = added = strays = modulo = 0
    for number, key in enumerate(addresses):
        before = rendezvous(key, candidates)
        without, with_ = rendezvous(key, left), rendezvous(key, more)
        died += without is not before
        added += with_ is not before
        strays += without is not before and before is not dead
        strays += with_ is not before and with_ is not new
        checksum = zlib.crc32(key.encode())
        modulo += checksum % workers != checksum % (workers - 1)
        clients[before.slot] += 1
        thrown[rng.randrange(workers)] += 1
        if not number % 1000:
            progress(f"clients that move: {100 * number // len(addresses)} %")
    spread, chance = extremes(clients), extremes(thrown)
    return Moves(len(addresses), died, added, strays, modulo, spread, chance)


def stickyShares(traffic: Traffic, workers: int) -> tuple[float, float]:
    """
    Find how uneven C{sticky} is for these clients with so many workers: the most
    and the fewest connections that one of them gets, as multiples of the mean.
    """
    candidates = makeCandidates(workers)
    accepted = [0] * workers
    for client, count in Counter(traffic.clients).items():
        accepted[rendezvous(traffic.addresses[client], candidates).slot] += count
    return extremes(accepted)


@attrs.frozen
class Summary:
    """
    What is said of one way in short, as multiples of the mean, the most before the
    fewest.

    @ivar open: the mean over the second half, in which about as many connections
        end as begin.
    @ivar accepted: at the end.
    """

    open: tuple[float, float]
    accepted: tuple[float, float]


def summarize(samples: Sequence[Sample]) -> Summary:
    """
    Say it in short.
    """
    later = samples[len(samples) // 2 :]
    most, fewest = (sum(each.open[n] for each in later) / len(later) for n in (0, 1))
    return Summary((most, fewest), samples[-1].accepted)


def showProgress(text: str) -> None:
    """
    Say what is done at the moment, on a terminal.
    """
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def run(arguments: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """
    Run all of it, and print what was found.

    @return: the same, for programs.
    """
    workers, seed = arguments.workers, arguments.seed
    progress("making the connections")
    traffic = makeTraffic(
        workers, arguments.connections, arguments.clients, arguments.load, seed
    )
    print(
        f"{arguments.connections:,} connections, {workers:,} workers, "
        f"{traffic.arrivals[-1]:,.0f} s; the busiest of {arguments.clients:,} clients "
        f"makes {traffic.clients.count(0) / arguments.connections:.2%}\n\n"
        f"{'':18}{'open / mean':>24}{'accepted / mean':>24}\n"
        f"{'':18}{'most':>12}{'fewest':>12}{'most':>12}{'fewest':>12}"
    )
    courses = {}
    for name in (MODEL, *BALANCERS):
        courses[name] = simulate(name, traffic, workers, seed, progress)
        progress("")
        short = summarize(courses[name])
        cells = (*short.open, *short.accepted)
        print(f"{name:18}" + "".join(f"{cell:12.3f}" for cell in cells), flush=True)
    shares = {count: stickyShares(traffic, count) for count in (2, 4, 8, 64)}
    print("\nsticky, accepted / mean, with fewer workers")
    for count, (most, fewest) in shares.items():
        print(f"{f'{count} workers':18}{most:12.3f}{fewest:12.3f}")
    found = moves(traffic.addresses[: arguments.keys], workers, seed, progress)
    progress("")
    print(
        f"\nsticky, {found.keys:,} clients on {workers:,} workers\n"
        f"move when one dies: {found.died / found.keys:.3%}, "
        f"when one is added: {found.added / found.keys:.3%}, "
        f"without need: {found.strays}; by modulo: {found.modulo / found.keys:.1%}\n"
        f"clients of a worker / mean: most {found.spread[0]:.3f}, "
        f"fewest {found.spread[1]:.3f}; "
        f"by chance: {found.chance[0]:.3f}, {found.chance[1]:.3f}"
    )
    if arguments.plot is not None:
        from benchmarks.simulationplot import draw

        draw(
            f"{arguments.connections:,} connections on {workers:,} workers: "
            "the most and the least loaded worker",
            {name: (each, summarize(each)) for name, each in courses.items()},
            arguments.plot,
        )
    return {
        "arguments": {**vars(arguments), "plot": None, "json": None},
        "courses": {
            name: [attrs.asdict(sample) for sample in samples]
            for name, samples in courses.items()
        },
        "shares": shares,
        "moves": attrs.asdict(found),
    }


def main(words: Sequence[str] | None = None) -> None:
    """
    Read the command line.
    """
    parser = argparse.ArgumentParser("benchmarks.simulation", description=__doc__)
    for name, default, text in (
        ("workers", 1000, "how many workers"),
        ("connections", 1_000_000, "how many connections come"),
        ("clients", 250_000, "how many clients there are"),
        ("keys", 100_000, "of how many clients to see whether they move"),
        ("load", 60, "how many open connections a worker has on average"),
        ("seed", 1, "what chance begins with"),
    ):
        parser.add_argument(
            f"--{name}", type=int, default=default, help=f"{text}; default: {default}"
        )
    parser.add_argument("--json", metavar="FILE", help="write the figures to a file")
    parser.add_argument("--plot", metavar="FILE", help="draw them, by matplotlib")
    arguments = parser.parse_args(words)
    found = run(arguments, showProgress)
    if arguments.json is not None:
        with open(arguments.json, "w") as file:
            json.dump(found, file, indent=1)


if __name__ == "__main__":
    main()
