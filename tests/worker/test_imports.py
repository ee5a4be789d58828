"""
What is done to a module when it is imported.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.worker.imports import whenImported

NAME = "twisted_cluster_imported_by_a_test"


class WhenImportedTests(SynchronousTestCase):
    """
    C{whenImported}.
    """

    def setUp(self) -> None:
        directory = Path(self.mktemp())
        directory.mkdir()
        (directory / f"{NAME}.py").write_text("value = 1\n")
        self.patch(sys, "path", [str(directory), *sys.path])
        self.patch(sys, "meta_path", list(sys.meta_path))
        self.addCleanup(sys.modules.pop, NAME, None)
        self.seen: list[ModuleType] = []

    def test_later(self) -> None:
        """
        The action runs once, when the module's code has run; the module is
        none the wiser.
        """
        before = list(sys.meta_path)
        whenImported(NAME, self.seen.append)
        import json.decoder  # noqa: F401

        self.assertEqual([], self.seen)
        module = __import__(NAME)
        self.assertEqual([module], self.seen)
        self.assertEqual(1, self.seen[0].__dict__["value"])
        self.assertEqual(before, sys.meta_path)
        self.assertIs(module.__loader__, module.__spec__.loader)  # type: ignore[union-attr]
        self.assertNotIn("worker.imports", type(module.__loader__).__module__)

    def test_now(self) -> None:
        """
        For a module that is loaded already it runs at once.
        """
        module = __import__(NAME)
        whenImported(NAME, self.seen.append)
        self.assertEqual([module], self.seen)

    def test_missing(self) -> None:
        """
        A module that is not there fails to import as ever.
        """
        whenImported(NAME + "_not", self.seen.append)
        self.assertRaises(ModuleNotFoundError, __import__, NAME + "_not")
        self.assertEqual([], self.seen)

    def test_calledOff(self) -> None:
        """
        What was called off does not happen.
        """
        whenImported(NAME, self.seen.append)()
        __import__(NAME)
        self.assertEqual([], self.seen)
