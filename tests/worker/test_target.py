"""
Tests of L{twisted_cluster.worker.target}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.errors import TargetLoadError, UsageError
from twisted_cluster.worker.target import Target, parseTarget


class ParseTargetTests(SynchronousTestCase):
    """
    L{parseTarget} tells the five kinds of target apart.
    """

    def parse(self, *words: str, files: tuple[str, ...] = ()) -> Target:
        return parseTarget(
            words, exists=lambda path: path in files, isFile=lambda path: path in files
        )

    def test_plugin(self) -> None:
        """
        A plain word is a plugin, and all that follows is the plugin's.
        """
        self.assertEqual(
            self.parse("web", "--listen=tcp:8080", "-m", "x.py"),
            Target("plugin", "web", ("--listen=tcp:8080", "-m", "x.py")),
        )

    def test_module(self) -> None:
        """
        C{-m} makes the next word a module, also when it is joined to it.
        """
        expected = Target("module", "daphne", ("-b", "::1", "site:app"))
        words = ("-b", "::1", "site:app")
        self.assertEqual(self.parse("-m", "daphne", *words), expected)
        self.assertEqual(self.parse("-mdaphne", *words), expected)

    def test_script(self) -> None:
        """
        A name that ends in C{.py}, holds a slash, or is a file, is a script.
        """
        for name in ("server.py", "bin/server", "server"):
            self.assertEqual(
                self.parse(name, "--port", "80", files=(name,)),
                Target("script", name, ("--port", "80")),
            )

    def test_tac(self) -> None:
        """
        A name that ends in C{.tac} is a C{.tac} file, wherever it lies.
        """
        for name in ("app.tac", "etc/app.tac"):
            self.assertEqual(self.parse(name, files=(name,)), Target("tac", name))

    def test_callable(self) -> None:
        """
        A name that holds a colon is a callable.
        """
        self.assertEqual(
            self.parse("package.server:makeService", "--fast"),
            Target("callable", "package.server:makeService", ("--fast",)),
        )

    def test_missingFiles(self) -> None:
        """
        A file that does not exist is refused with its name, and with what it was
        taken for.
        """
        for name, kind in (("server.py", "a script"), ("app.tac", "a .tac file")):
            error = self.assertRaises(TargetLoadError, self.parse, name)
            self.assertIn(repr(name), error.reason)
            self.assertIn(kind, error.reason)

    def test_callableByPath(self) -> None:
        """
        Whoever writes a callable with a path is told how it is written.
        """
        error = self.assertRaises(
            TargetLoadError,
            self.parse,
            "./pkg/server.py:make",
            files=("./pkg/server.py",),
        )
        self.assertIn("pkg.server:make", error.reason)

    def test_nothing(self) -> None:
        """
        No target, an empty one, C{-m} alone and a stray option are refused.
        """
        for words in ((), ("",), ("-m",), ("--workers", "web")):
            self.assertRaises(UsageError, self.parse, *words)
