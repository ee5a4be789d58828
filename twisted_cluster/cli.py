"""
The command C{twisted-cluster}: runs a watcher, and tells by its exit status how
that ended.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Final, Optional, TextIO

from twisted.internet.defer import Deferred
from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
)
from twisted.python import usage
from twisted.python.failure import Failure

from twisted_cluster import tap
from twisted_cluster.errors import PIDFileError
from twisted_cluster.supervisor import coercions, options
from twisted_cluster.supervisor.actions import Watcher, summary
from twisted_cluster.supervisor.commandline import Group, Option
from twisted_cluster.supervisor.inherited import (
    InheritedDescriptors,
    inheritedDescriptors,
)
from twisted_cluster.supervisor.logfile import LogFile
from twisted_cluster.supervisor.pidfile import PIDFile
from twisted_cluster.supervisor.running import (
    CONFIGURATION,
    INTERNAL,
    STATUSES,
    STOPPED,
    USAGE,
    ClusterRun,
)

USAGE_TEXT: Final = """\
Usage: twisted-cluster COMMAND [options] ...

Run one Twisted program in many processes, on the same listening sockets.

Commands:
  run [options] TARGET [argument ...]    run TARGET in a cluster

"twisted-cluster run --help" tells the options; --version, the versions.

Examples:
  twisted-cluster run -w 4 web --listen=tcp:8080 --path=/srv/www
  twisted-cluster run server.py --port 8080"""


class RunOptions(tap.BaseOptions):
    """
    The options of C{twisted-cluster run}.
    """

    synopsis = "Usage: twisted-cluster run [options] TARGET [argument ...]"
    introduction = options.INTRODUCTION
    groups = (
        options.WORKERS,
        options.SOCKETS,
        options.LIMITS,
        options.RECYCLING,
        Group(
            "Log and process",
            [
                options.LOG_LEVEL,
                Option(
                    "log-file",
                    "Append the log to this file rather than to write it to the "
                    "standard output; * becomes the watcher's pid. It may be rotated "
                    "by moving it away.",
                    "FILE",
                    coercions.something,
                ),
                Option(
                    "log-format",
                    "text, json (an object a line), or auto: coloured text on a "
                    "terminal, else plain (default: auto).",
                    "FORMAT",
                    coercions.oneOf("auto", "text", "json"),
                    default="auto",
                ),
                Option(
                    "pid-file",
                    "Write the watcher's pid to this file while it runs.",
                    "FILE",
                    coercions.something,
                ),
                Option(
                    "check",
                    "Load the target in a worker, say whether that worked, and exit. "
                    "Nothing is bound.",
                ),
            ],
        ),
    )
    conclusion = f"""\
{options.OTHERS}

{options.SIGNALS}

{STATUSES}

Examples:
  twisted-cluster run -w 4 web --listen=tcp:8080 --path=/srv/www
  twisted-cluster run -w 4 -m daphne -p 8000 mysite.asgi:application
  twisted-cluster run --bind tcp:80 --uid www-data server.py
  twisted-cluster run --check app.tac"""


def complain(text: str) -> None:
    """
    Tell the user what went wrong.
    """
    print(f"twisted-cluster: {text}", file=sys.stderr, flush=True)


def startLogging(config: RunOptions) -> Optional[LogFile]:
    """
    Send the log where the options say.

    @return: the file that was opened, which the caller is to close.
    @raise OSError: when it cannot be opened.
    """
    from twisted_cluster.supervisor.console import observerFor

    file: Optional[LogFile] = None
    stream: Any = sys.stdout
    level = config["log-level"]
    if config["check"]:
        stream = sys.stderr
        level = max(level, LogLevel.warn)
    elif config["log-file"] is not None:
        path = config["log-file"].replace("*", str(os.getpid()))
        stream = file = LogFile.open(path)
    observer: ILogObserver = observerFor(stream, config["log-format"])
    predicate = LogLevelFilterPredicate(defaultLogLevel=level)
    globalLogBeginner.beginLoggingTo(
        [FilteringLogObserver(observer, [predicate])], redirectStandardIO=False
    )
    return file


def run(
    argv: Sequence[str],
    factory: Optional[Callable[..., Watcher]] = None,
    checkTarget: Optional[Callable[..., Deferred[None]]] = None,
) -> int:
    """
    Carry out C{twisted-cluster run}: run the reactor until the cluster ends.

    @param argv: the words after C{run}.
    @param factory: makes the watcher; L{ClusterWatcher
        <twisted_cluster.watcher.ClusterWatcher>} unless given.
    @param checkTarget: checks the target; that of L{twisted_cluster.check}
        unless given.
    @return: the exit status.
    """
    inherited = inheritedDescriptors(os.environ, os.getpid())
    config = RunOptions()
    try:
        config.parseOptions(argv)
    except usage.UsageError as error:
        complain(str(error))
        return USAGE
    with ExitStack() as atEnd:
        try:
            file = startLogging(config)
        except OSError as error:
            complain(f"--log-file: cannot open {error.filename!r}: {error.strerror}")
            return CONFIGURATION

        def tell(text: str) -> None:
            if file is not None:
                Logger("twisted_cluster").critical("{text}", text=text)
            complain(text)

        if file is not None:
            atEnd.callback(file.close)
        if config["pid-file"] is not None and not config["check"]:
            pidFile = PIDFile(config["pid-file"])
            try:
                pidFile.acquire()
            except PIDFileError as error:
                tell(f"--pid-file: {error}")
                return CONFIGURATION
            atEnd.callback(pidFile.release)
        return _runReactor(config, inherited, factory, checkTarget, tell)


def _runReactor(
    config: RunOptions,
    inherited: InheritedDescriptors,
    factory: Optional[Callable[..., Watcher]],
    checkTarget: Optional[Callable[..., Deferred[None]]],
    tell: Callable[[str], None],
) -> int:
    from twisted.internet import reactor as _reactor

    from twisted_cluster import check, watcher

    reactor: Any = _reactor
    arguments = config.watcherArguments() | {"inherited": inherited}
    target = config["target"]
    tracebackIsLogged = config["log-level"] <= LogLevel.error
    this = ClusterRun(reactor, tell, summary if tracebackIsLogged else str)
    if config["check"]:
        reactor.callWhenRunning(
            this.check,
            partial(checkTarget or check.checkTarget, reactor, target, **arguments),
            lambda: f"ok: {shlex.join(target)} {check.shown(target)}",
        )
    else:
        tap.setTitle(config["name"])
        make = partial(
            factory or watcher.ClusterWatcher,
            reactor,
            target,
            config.workers,
            **arguments,
        )
        reactor.callWhenRunning(this.start, make)
    reactor.run()
    return this.status


def main(argv: Optional[Sequence[str]] = None) -> None:
    """
    Carry out the command line.

    @param argv: its words, without the program's name.
    @raise SystemExit: always, with the exit status.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    command = words[0] if words else None
    try:
        status = _dispatch(command, words[1:])
    except BrokenPipeError:
        # Nobody reads on: twisted-cluster run --help | head.
        status = STOPPED
    except Exception:
        complain(f"internal error\n{Failure().getTraceback().rstrip()}")
        status = INTERNAL
    except KeyboardInterrupt:
        status = STOPPED
    _flush(sys.stdout)
    sys.exit(status)


def _dispatch(command: Optional[str], words: Sequence[str]) -> int:
    if command == "run":
        return run(words)
    if command in ("-h", "--help", "help"):
        print(USAGE_TEXT)
        return STOPPED
    if command == "--version":
        print(tap.versions())
        return STOPPED
    if command is None:
        print(USAGE_TEXT, file=sys.stderr)
        return USAGE
    advice = "try twisted-cluster --help"
    if not command.startswith("-"):
        words = [command, *words]
        advice = f"did you mean: twisted-cluster run {shlex.join(words)}"
    complain(f"unknown command {command!r}; {advice}")
    return USAGE


def _flush(stream: TextIO) -> None:
    """
    Write what is left.  Where nobody reads any more, the exit status is still
    to be ours.
    """
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    main()
