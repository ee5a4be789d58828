"""
The options that C{twistd cluster} and C{twisted-cluster run} share, and the
rest of their help.
"""

from __future__ import annotations

import socket
from typing import Final

from twisted.logger import LogLevel

from twisted_cluster.supervisor import coercions
from twisted_cluster.supervisor.commandline import Group, Option, table
from twisted_cluster.supervisor.units import parseDuration, parseFraction, parseSize

WORKERS: Final = Group(
    "Workers",
    [
        Option(
            "workers",
            "How many. auto, the default, is one for each processor that may be used "
            "(affinity and control group); WEB_CONCURRENCY changes that default.",
            "N|auto",
            coercions.workers,
            short="w",
        ),
        Option(
            "reactor",
            "The reactor that Twisted installs in the workers, unless the program "
            "installs one: epoll, poll, select, asyncio, ... (default: Twisted's "
            "choice).",
            "NAME",
            coercions.reactor,
        ),
        Option(
            "uid",
            "The user that workers become, a name or a number.",
            "USER",
            coercions.user,
        ),
        Option(
            "gid",
            "The group that workers become (default: that of --uid).",
            "GROUP",
            coercions.group,
        ),
        Option(
            "name",
            "Name the processes in ps and top; needs setproctitle.",
            "NAME",
            coercions.something,
        ),
        Option(
            "wait-ready",
            "A worker is ready when it calls cluster.ready(), not before.",
        ),
        Option(
            "exit-on-crash-loop",
            "Give up when workers keep dying early, rather than to try on.",
        ),
    ],
)

SOCKETS: Final = Group(
    "Sockets",
    [
        Option(
            "bind",
            "Open this address before the workers start and before privileges are "
            "shed, such as tcp:80 or unix:/run/app.sock. Repeatable.",
            "ENDPOINT",
            coercions.something,
            short="b",
            repeat=True,
        ),
        Option(
            "balance",
            "Who gets the next connection: kernel (whichever idle worker it wakes; "
            "the default), round-robin, least-connections, sticky (by the "
            "client's address), or your own, as package.module:Name.",
            "NAME",
            coercions.balance,
            default="kernel",
        ),
        Option(
            "backlog",
            "Connections that may wait to be accepted, at least (default: as many as "
            "the system allows).",
            "N",
            coercions.positive,
            default=socket.SOMAXCONN,
        ),
    ],
)

RECYCLING: Final = Group(
    "Replacing workers (durations: 30, 500ms, 1h30m; sizes: 64K, 256M, 1.5G)",
    [
        Option(
            "restart-batch",
            "How many workers a restart replaces at a time, when the first new one "
            "serves (default: 1).",
            "N",
            coercions.positive,
            default=1,
        ),
        Option(
            "recycle-connections",
            "Replace a worker that has had so many connections.",
            "N",
            coercions.positive,
        ),
        Option(
            "recycle-age",
            "Replace a worker that has served for so long.",
            "TIME",
            coercions.timeout,
        ),
        Option(
            "recycle-memory",
            "Replace a worker that takes so much memory, several looks in a row.",
            "SIZE",
            parseSize,
        ),
        Option(
            "recycle-jitter",
            "Lower each worker's age and number of connections by up to so much, so "
            "that not all fall due together (default: 10%).",
            "PART",
            parseFraction,
            default=0.1,
        ),
    ],
)

LIMITS: Final = Group(
    "Limits (durations: 30, 500ms, 1h30m; sizes: 4096, 64K, 256M)",
    [
        Option(
            "start-timeout",
            "A worker must be ready within this time (default: 60s).",
            "TIME",
            coercions.timeout,
            default=60.0,
        ),
        Option(
            "heartbeat-timeout",
            "A worker whose reactor stands still for this long is replaced "
            "(default: 30s).",
            "TIME",
            coercions.timeout,
            default=30.0,
        ),
        Option(
            "shutdown-timeout",
            "A worker that was told to stop is killed after this time; its connections "
            "have nine tenths of it (default: 30s).",
            "TIME",
            parseDuration,
            default=30.0,
        ),
        Option(
            "drain-idle",
            "An idle connection that cannot move to another worker (TLS, HTTP/2) is "
            "closed after this time (default: 5s).",
            "TIME",
            parseDuration,
            default=5.0,
        ),
        Option(
            "drain-delay",
            "When the cluster is told to stop, serve on for this time, having told the "
            "program: for load balancers (default: 0).",
            "TIME",
            parseDuration,
            default=0.0,
        ),
        Option(
            "max-message-size",
            "A longer message fails at its sender (default: 256M).",
            "SIZE",
            parseSize,
            default=256 * 1024 * 1024,
        ),
    ],
)

LOG_LEVEL: Final = Option(
    "log-level",
    "debug, info, warn, error or critical: what is below is not logged "
    "(default: info).",
    "LEVEL",
    coercions.logLevel,
    default=LogLevel.info,
)

INTRODUCTION: Final = """\
Run one Twisted program in many processes, on the same listening sockets.

TARGET is what each worker runs, with the arguments that follow it:
""" + table(
    [
        ("web, dns, ftp, ...", "a twistd plugin (twistd --help lists them)"),
        ("-m MODULE", 'a module, as "python -m MODULE" would'),
        ("server.py", "a script"),
        ("app.tac", "a Twisted application"),
        (
            "package.module:callable",
            "a callable that takes the reactor, or returns an IService or a Deferred",
        ),
    ]
)

OTHERS: Final = "Others:\n" + table(
    [
        ("-h, --help", "Show this and exit."),
        ("    --version", "Show the versions and exit."),
    ]
)

SIGNALS: Final = "Signals:\n" + table(
    [
        ("TERM, INT", "stop gracefully; a second one: stop now"),
        ("QUIT", "stop now"),
        ("HUP, USR1", "replace all workers, while others serve"),
        ("TTIN, TTOU", "one worker more, one fewer"),
    ]
)
