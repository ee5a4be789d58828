"""
Tests of L{twisted_cluster.worker.programs}: a script or a module cannot tell
that it was not started by C{python} itself.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from textwrap import dedent

from twisted.trial.unittest import SynchronousTestCase

from tests.worker.driver import Result, runAlone, runInWorker

LOOK_AROUND = """
'''Documented.'''
import atexit, json, os, pickle, sys, warnings

class Value:
    pass

def last(word):
    print("atexit", word)

atexit.register(last, "first")
atexit.register(last, "second")
spec = __spec__ and (__spec__.name, __spec__.origin, type(__spec__.loader).__name__)
print(json.dumps({
    "argv": sys.argv, "path": sys.path, "name": __name__, "file": __file__,
    "spec": spec, "package": __package__, "cached": __cached__, "doc": __doc__,
    "loader": type(__loader__).__name__,
    "loaderName": __loader__.name if hasattr(__loader__, "name") else None,
    "cwd": os.getcwd(), "main": sys.modules["__main__"].__dict__ is globals(),
    "pickled": type(pickle.loads(pickle.dumps(Value()))) is Value,
    "where": Value.__module__, "names": sorted(globals()),
    "reactor": "twisted.internet.reactor" in sys.modules,
    "code": last.__code__.co_filename,
}))
warnings.warn("careful")
"""


class AsAloneTests(SynchronousTestCase):
    """
    Output, errors and exit status are those of a lone run.
    """

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir(parents=True)

    def write(self, name: str, source: str) -> str:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(source))
        return name

    def assertAsAlone(self, *words: str) -> Result:
        alone = runAlone(*words, cwd=self.directory)
        worker = runInWorker(*words, cwd=self.directory)
        self.assertEqual(
            (worker.out, worker.err, worker.status),
            (alone.out, alone.err, alone.status),
        )
        return worker

    def test_script(self) -> None:
        """
        A script finds the command line, path, names and directory that it
        always finds, runs in the real C{__main__}, and ends as always.
        """
        name = self.write("look.py", LOOK_AROUND)
        result = self.assertAsAlone(name, "--port", "80", "-m", "x")
        self.assertIn('"pickled": true', result.out)
        self.assertIn("atexit second\natexit first\n", result.out)
        self.assertIn("UserWarning: careful", result.err)

    def test_scriptElsewhere(self) -> None:
        """
        A script in another directory, and one behind a symbolic link, have
        their own directory as first of the path.
        """
        self.write("sub/look.py", LOOK_AROUND)
        os.symlink("sub/look.py", self.directory / "link.py")
        self.assertAsAlone("sub/look.py")
        self.assertAsAlone("link.py")
        self.assertAsAlone("./sub/../link.py")

    def test_directoryAndArchive(self) -> None:
        """
        A directory, and a zip archive, that hold a C{__main__.py} run.
        """
        self.write("dir/__main__.py", LOOK_AROUND)
        with zipfile.ZipFile(self.directory / "app.zip", "w") as archive:
            archive.writestr("__main__.py", dedent(LOOK_AROUND))
        self.assertAsAlone("dir/")
        self.assertAsAlone("./dir")
        self.assertAsAlone("app.zip")

    def test_module(self) -> None:
        """
        A module, one in a package, and a package with a C{__main__} run as by
        C{python -m}.
        """
        self.write("look.py", LOOK_AROUND)
        self.write("pack/__init__.py", "import sys; print('in package', sys.argv)")
        self.write("pack/__main__.py", LOOK_AROUND)
        self.write("pack/inner.py", LOOK_AROUND)
        for name in ("look", "pack", "pack.inner"):
            self.assertAsAlone("-m", name, "word")

    def test_exits(self) -> None:
        """
        C{sys.exit} with a number, a text or nothing ends the process as ever.
        """
        for code in ("3", "'sorry'", ""):
            name = self.write("leave.py", f"import sys; print('out'); sys.exit({code})")
            self.assertAsAlone(name)

    def test_multiprocessing(self) -> None:
        """
        A process that C{multiprocessing} spawns finds the functions of the
        script.
        """
        name = self.write(
            "spawn.py",
            """
            import multiprocessing

            def work(number):
                return number * 2

            if __name__ == "__main__":
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    print(pool.map(work, [1, 2]))
            """,
        )
        self.assertIn("[2, 4]", self.assertAsAlone(name).out)

    def test_reactorRuns(self) -> None:
        """
        A script runs its reactor, and what it raises once the reactor has run
        is not called a failure to load.
        """
        name = self.write(
            "serve.py",
            """
            from twisted.internet import reactor
            reactor.callWhenRunning(reactor.stop)
            reactor.run()
            print("over")
            raise RuntimeError("late")
            """,
        )
        result = runInWorker(name, cwd=self.directory)
        self.assertEqual((result.out, result.status, result.told), ("over\n", 1, []))
        self.assertIn("RuntimeError: late", result.err)


class FailingProgramTests(SynchronousTestCase):
    """
    What does not load is told once, with the traceback of the user's code.
    """

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir(parents=True)

    def fail(  # type: ignore[override]
        self, *words: str, check: bool = False, **files: str
    ) -> list[str]:
        for name, source in files.items():
            (self.directory / f"{name}.py").write_text(dedent(source))
        result = runInWorker(*words, cwd=self.directory, check=check)
        self.assertEqual(result.status, 1, result)
        self.assertEqual(len(result.told), 1, result)
        return result.told[0]

    def test_importError(self) -> None:
        """
        A script's failed import, also one further down, shows the user's frames
        and no others.
        """
        kind, reason, traceback = self.fail(
            "app.py", app="import helper\n", helper="\nimport nosuch_thing\n"
        )
        self.assertEqual(kind, "TargetLoadError")
        self.assertIn("No module named 'nosuch_thing'", reason)
        lines = [line for line in traceback.splitlines() if "File" in line]
        self.assertEqual(len(lines), 2, traceback)
        self.assertIn("app.py", lines[0])
        self.assertIn("helper.py", lines[1])

    def test_moduleImportError(self) -> None:
        """
        So does a module's, which is not mistaken for a missing module.
        """
        kind, reason, traceback = self.fail("-m", "app", app="import nosuch_thing\n")
        self.assertEqual(kind, "TargetLoadError")
        self.assertIn("No module named 'nosuch_thing'", reason)
        self.assertEqual(traceback.count("File"), 1, traceback)

    def test_syntaxError(self) -> None:
        """
        A syntax error shows its line, also to C{--check}, which runs nothing.
        """
        for check in (False, True):
            kind, reason, traceback = self.fail(
                "app.py", app="print('x')\nif True print\n", check=check
            )
            self.assertEqual(kind, "TargetLoadError")
            self.assertIn("SyntaxError", reason)
            self.assertIn("if True print", traceback)
            self.assertNotIn("twisted_cluster", traceback)

    def test_missingModule(self) -> None:
        """
        A missing module, also one in a package that exists, is named.
        """
        for name in ("nosuch", "nosuch.deeper", "app.nosuch", "app.nosuch.deeper"):
            kind, reason, traceback = self.fail("-m", name, app="")
            self.assertEqual(kind, "TargetLoadError")
            self.assertIn(f"no module named {name}", reason)
            self.assertEqual(traceback, "")

    def test_packageWithoutMain(self) -> None:
        """
        A package that cannot be run is told apart from a missing one.
        """
        (self.directory / "pack").mkdir()
        (self.directory / "pack" / "__init__.py").write_text("")
        _, reason, _ = self.fail("-m", "pack")
        self.assertIn("without a __main__", reason)

    def test_portTaken(self) -> None:
        """
        A port that cannot be had is a failed start, not a failure to load.
        """
        kind, reason, traceback = self.fail(
            "app.py",
            app="""
            from twisted.internet import reactor, protocol
            port = reactor.listenTCP(0, protocol.Factory(), interface="127.0.0.1")
            taken = port.getHost().port
            reactor.listenTCP(taken, protocol.Factory(), interface="127.0.0.1")
            """,
        )
        self.assertEqual(kind, "TargetStartError")
        self.assertIn("Address already in use", reason)
        self.assertIn("app.py", traceback)

    def test_check(self) -> None:
        """
        C{--check} compiles a script and finds a module, and runs neither.
        """
        (self.directory / "app.py").write_text("print('ran')")
        for words in (("app.py",), ("-m", "app")):
            result = runInWorker(*words, cwd=self.directory, check=True)
            self.assertEqual((result.status, result.out, result.told), (0, "", []))
