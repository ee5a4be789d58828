"""
A program in a cluster meets what it meets when it runs alone.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.logger import LogLevel, globalLogPublisher

from tests.integration.support import DEADLINE, ClusterTestCase, LogOfTest, reactor
from tests.integration.workers import environment

FACTS = '''
"""The program's own docstring."""
import atexit, json, logging, os, pickle, sys
from twisted.internet import reactor

class Here:
    pass

def note(**facts):
    with open("facts.txt", "a") as file:
        file.write(json.dumps(facts, sort_keys=True) + "\\n")

main = sys.modules["__main__"]
note(
    argv=sys.argv,
    path=sys.path,
    name=__name__,
    doc=__doc__,
    file=__file__,
    package=__package__,
    spec=getattr(__spec__, "name", None),
    annotations=sorted(key for key in vars(main) if key.startswith("__")),
    cwd=os.getcwd(),
    isMain=vars(main) is globals(),
    pickled=type(pickle.loads(pickle.dumps(Here()))) is Here,
    flags=[sys.flags.optimize, sys.flags.dev_mode, sys.warnoptions],
    xoptions=sys._xoptions,
    asserts=__debug__,
    umask=os.umask(0o022),
    threads=[thread.name for thread in __import__("threading").enumerate()],
    handlers=len(logging.getLogger().handlers),
    level=logging.getLogger().level,
    environment=sorted(
        name for name in os.environ if name.startswith(("TWISTED", "CLUSTER"))
    ),
)
atexit.register(note, end="atexit")
handler = logging.FileHandler("logged.txt")
handler.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
logging.getLogger("app").addHandler(handler)
logging.getLogger("app").warning("%s of %d", "one", 2)
logging.getLogger("app.part").error("broken")
logging.getLogger("app").info("below the level")
from twisted.internet.protocol import Factory
reactor.listenTCP(0, Factory(), interface="127.0.0.1")
reactor.callLater(0, print, "serving", flush=True)
reactor.run()
note(end="after the reactor")
'''

ENDING = """
import sys, logging
from twisted.internet import reactor
from twisted.internet.protocol import Factory

reactor.listenTCP(0, Factory(), interface="127.0.0.1")
reactor.callLater(0.4, reactor.stop)
reactor.run()
print("last words")
if sys.argv[1] == "raise":
    raise RuntimeError("the end")
if sys.argv[1] != "return":
    sys.exit(eval(sys.argv[1]))
"""

LOGGING = """
import logging, sys
from twisted.internet import reactor
from twisted.internet.protocol import Factory

reactor.listenTCP(0, Factory(), interface="127.0.0.1")
logging.warning("careful, %s", "you")
logging.getLogger("app").error("broken")
logging.getLogger("app").info("below the level")
reactor.run()
"""


class Surroundings(ClusterTestCase):
    """
    What a program can see of how it was started.
    """

    async def same(self, words: Sequence[str], flags: Sequence[str] = ()) -> None:
        """
        Run a program alone, then on two workers, and compare what it saw.
        """
        changes = environment()
        files = [self.directory / name for name in ("facts.txt", "logged.txt")]
        alone = self.execute([sys.executable, *flags, *words], environment=changes)
        await alone.waitFor("serving")
        alone.signal(signal.SIGTERM)
        await alone.whenEnded()
        expected = [_taken(each) for each in files]
        self.assertEqual([len(lines) for lines in expected], [3, 2], alone.text)
        launcher = [*flags, "-m", "twisted_cluster.cli", "run", "-w", "2"]
        cluster = self.execute([sys.executable, *launcher, *words], environment=changes)
        await cluster.waitFor("2 workers serve")
        cluster.signal(signal.SIGTERM)
        self.assertEqual(await cluster.whenEnded(), 0, cluster.text)
        for lone, path in zip(expected, files, strict=True):
            lines = _taken(path)
            self.assertEqual(sorted(lines), sorted(lone * 2))

    async def test_script(self) -> None:
        """
        A script: the command line, the search path, C{__main__}, the working
        directory, handlers of C{logging}, what runs after the reactor and at
        exit.
        """
        self.program(FACTS, "facts.py")
        await self.same(["facts.py", "--port", "8080", "-w", "", "a b"])

    async def test_scriptElsewhere(self) -> None:
        """
        A script in another directory, with flags of the interpreter.
        """
        (self.directory / "sub").mkdir()
        self.program(FACTS, "sub/facts.py")
        await self.same(
            [str(self.directory / "sub" / "facts.py"), "x"],
            ["-O", "-W", "ignore::ResourceWarning", "-X", "utf8"],
        )

    async def test_module(self) -> None:
        """
        A module and a package, by C{-m}.
        """
        package = self.directory / "parent" / "facts"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        self.program(FACTS, "parent/facts/__main__.py")
        self.program(FACTS, "parent/module.py")
        await self.same(["-m", "parent.facts", "-m", "x"])
        await self.same(["-m", "parent.module", "--help"])


class Endings(ClusterTestCase):
    """
    How a program ends, and what it says when it does.
    """

    def setUp(self) -> Any:
        ready = super().setUp()
        self.said = LogOfTest()
        globalLogPublisher.addObserver(self.said)
        self.addCleanup(globalLogPublisher.removeObserver, self.said)
        return ready

    async def test_statuses(self) -> None:
        """
        However a program that served ends, its process has the exit status
        that it has alone, and its last words are the same.
        """
        program = self.program(ENDING)
        for ending in ("3", "0", "None", "'sorry'", "raise", "return"):
            words = [program, ending]
            alone = self.execute([sys.executable, *words])
            status = await alone.whenEnded()
            self.said.events.clear()
            self.logged.events.clear()
            watcher = self.cluster(words, 1)
            await self.said.waitFor(f"worker 1 exited with status {status}")
            await watcher.stopService().addTimeout(DEADLINE, reactor)
            for line in filter(None, alone.text.splitlines()):
                self.assertGreaterEqual(
                    self.logged.count(line), 1, f"{line!r} of {self.logged.texts}"
                )
            if ending == "raise":
                self.assertEqual(self.logged.texts[-1], "RuntimeError: the end")

    async def test_standardLogging(self) -> None:
        """
        What a program logs with C{logging} arrives once, with its level, and
        not what is below the level that C{logging} lets through.
        """
        await self.serving(self.program(LOGGING), 2)
        for text, level in (("careful, you", "warn"), ("broken", "error")):
            events = [
                event
                for event, each in zip(
                    self.logged.events, self.logged.texts, strict=True
                )
                if text in each
            ]
            self.assertEqual(len(events), 2, self.logged.texts)
            self.assertEqual(
                {event["log_level"] for event in events}, {LogLevel.lookupByName(level)}
            )
        self.assertEqual(self.logged.count("below the level"), 0)


def _taken(path: Path) -> list[str]:
    """
    The lines of a file, which is removed.
    """
    lines = path.read_text().splitlines()
    path.unlink()
    return lines
