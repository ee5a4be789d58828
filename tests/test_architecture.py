"""
The lines that hold the parts of the package apart, drawn from its source.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import attrs
from twisted.trial.unittest import SynchronousTestCase

import twisted_cluster

PACKAGE: Final = "twisted_cluster"
ROOT: Final = Path(twisted_cluster.__file__).parent
LONGEST: Final = 400

BASE: Final = frozenset({"errors", "interfaces"})
IPC: Final = BASE | {"policy", "sockets", "ipc"}
SIDES: Final = IPC | {"supervisor", "worker"}
BELOW_WATCHER: Final = SIDES | {"ops"}
BESIDE_CLUSTER: Final = frozenset({"alone", "endpoints"})
LIBRARY: Final = BELOW_WATCHER | BESIDE_CLUSTER | {"watcher", "cluster", "check"}

MAY_IMPORT: Final[Mapping[str, frozenset[str]]] = {
    "errors": frozenset(),
    "interfaces": frozenset({"errors"}),
    "policy": BASE,
    "sockets": BASE,
    "ipc": BASE | {"policy", "sockets"},
    "supervisor": IPC,
    "worker": IPC,
    "ops": SIDES,
    "testing": BELOW_WATCHER,
    "watcher": BELOW_WATCHER,
    "check": BELOW_WATCHER | {"watcher"},
    "alone": BASE,
    "balancing": BASE | {"policy"},
    "endpoints": SIDES,
    "cluster": BELOW_WATCHER | BESIDE_CLUSTER,
    "": LIBRARY,
    "tap": LIBRARY | {"", "cli"},
    "cli": LIBRARY | {"", "tap"},
    "__main__": LIBRARY | {"", "cli"},
}
"""
For each part, the parts that it may import besides itself.  The empty name is
the package's own C{__init__}: everybody may C{import twisted_cluster}, to see
where it is, and read its C{__version__}; its public names are for users.
"""

FREE: Final = frozenset({PACKAGE, f"{PACKAGE}.__version__"})
"""
What everybody may import.
"""

FREE_WHEN_TYPE_CHECKING: Final = BASE
"""
Parts whose imports under C{if TYPE_CHECKING} are not held to the line.
"""

IMPURE: Final = frozenset({"select", "socket", "time", "twisted.internet"})
"""
What a policy, which only decides, has no use for.
"""

DISTRIBUTIONS: Final = frozenset({"attrs", "msgspec", "twisted", "zope"})
"""
The top-level packages that the distributions we require provide.
"""

OPTIONAL: Final = frozenset({"setproctitle"})
"""
Those that come with the extra C{all}.
"""


@attrs.frozen
class Import:
    """
    One name imported by one module.

    @ivar module: the importing module, C{worker.ports}; the package itself is
        the empty string.
    @ivar target: what is imported, in full: C{twisted_cluster.ipc.logs}.
    @ivar line: where.
    @ivar deferred: whether it happens when a function is called, rather than
        on import.
    @ivar typeChecking: whether it is there for the type checker alone.
    """

    module: str
    target: str
    line: int
    deferred: bool
    typeChecking: bool

    def __str__(self) -> str:
        file = self.module.replace(".", "/") or "__init__"
        return f"{PACKAGE}/{file}, line {self.line}: imports {self.target}"


def modules(root: Path) -> Mapping[str, Path]:
    """
    Find every module of the package in a directory, by its name without the
    package's.
    """
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        found[".".join(parts)] = path
    return found


def isTypeChecking(test: ast.expr) -> bool:
    """
    Tell whether an C{if} has C{TYPE_CHECKING} as its condition.
    """
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


class _Importer(ast.NodeVisitor):
    """
    Collects the imports of one module.
    """

    def __init__(self, module: str, isPackage: bool) -> None:
        self.found: list[Import] = []
        self._module = module
        names = [PACKAGE, *module.split(".")] if module else [PACKAGE]
        self._package = names if isPackage else names[:-1]
        self._deferred = False
        self._typeChecking = False

    def _add(self, target: str, line: int) -> None:
        self.found.append(
            Import(self._module, target, line, self._deferred, self._typeChecking)
        )

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._add(alias.name, node.lineno)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        origin = node.module.split(".") if node.module else []
        if node.level:
            origin = [*self._package[: len(self._package) + 1 - node.level], *origin]
        for alias in node.names:
            self._add(".".join([*origin, alias.name]), node.lineno)

    def visit_If(self, node: ast.If) -> None:
        outer = self._typeChecking
        self._typeChecking = outer or isTypeChecking(node.test)
        for child in node.body:
            self.visit(child)
        self._typeChecking = outer
        for child in node.orelse:
            self.visit(child)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._visitDeferred(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._visitDeferred(node)

    def _visitDeferred(self, node: ast.AST) -> None:
        outer, self._deferred = self._deferred, True
        self.generic_visit(node)
        self._deferred = outer


def imports(root: Path) -> Iterator[Import]:
    """
    Read every import in the package in a directory, wherever it stands.
    """
    for name, path in modules(root).items():
        importer = _Importer(name, isPackage=path.name == "__init__.py")
        importer.visit(ast.parse(path.read_text(), str(path)))
        yield from importer.found


def part(target: str, known: Mapping[str, Path]) -> str | None:
    """
    Name the part of the package that an import reaches: C{ipc} for
    C{twisted_cluster.ipc.logs}, the empty string for a name that the package
    itself defines, L{None} for everything outside of it.
    """
    names = target.split(".")
    if names[0] != PACKAGE:
        return None
    return names[1] if len(names) > 1 and names[1] in known else ""


def crossings(root: Path) -> list[str]:
    """
    List the imports that go against the line, each as text for a person.
    """
    known = modules(root)
    wrong = []
    for each in imports(root):
        source, target = each.module.partition(".")[0], part(each.target, known)
        if target is None or target == source or each.target in FREE:
            continue
        if each.typeChecking and source in FREE_WHEN_TYPE_CHECKING:
            continue
        if target not in MAY_IMPORT.get(source, frozenset()):
            wrong.append(str(each))
    return wrong


class LayersTests(SynchronousTestCase):
    """
    Imports point one way.
    """

    def test_oneDirection(self) -> None:
        """
        No part imports one that stands above or beside it: interfaces and
        errors, then policy and sockets, then ipc, then supervisor or worker,
        then ops, then watcher and cluster, then tap and cli.
        """
        self.assertEqual([], crossings(ROOT))

    def test_everyPartHasItsPlace(self) -> None:
        """
        A new part of the package is given its place in the order before
        anything may be imported from it.
        """
        parts = {name.partition(".")[0] for name in modules(ROOT)}
        self.assertEqual(set(), parts - MAY_IMPORT.keys())

    def test_crossingIsFound(self) -> None:
        """
        An import against the line is reported with its file and line, however
        it is written: absolute, relative, within a function, for the type
        checker.
        """
        root = Path(self.mktemp())
        for name, source in {
            "__init__": "__version__ = '1'",
            "errors": "",
            "interfaces": "if TYPE_CHECKING:\n    from twisted_cluster import watcher",
            "watcher": "from twisted_cluster.ipc import logs",
            "ipc/__init__": "",
            "ipc/logs": "from twisted_cluster import errors, __version__",
            "worker/__init__": "",
            "worker/a": "import twisted_cluster.watcher",
            "worker/b": "def f():\n    from ..supervisor import process",
            "worker/c": "if TYPE_CHECKING:\n    from twisted_cluster import watcher",
            "worker/d": "import twisted_cluster\nfrom . import a",
            "supervisor/__init__": "from .. import SomePublicName",
            "supervisor/process": "",
        }.items():
            file = root / f"{name}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(source)
        self.assertEqual(
            [
                "twisted_cluster/supervisor, line 1: "
                "imports twisted_cluster.SomePublicName",
                "twisted_cluster/worker/a, line 1: imports twisted_cluster.watcher",
                "twisted_cluster/worker/b, line 2: "
                "imports twisted_cluster.supervisor.process",
                "twisted_cluster/worker/c, line 2: imports twisted_cluster.watcher",
            ],
            crossings(root),
        )

    def test_policiesOnlyDecide(self) -> None:
        """
        A policy imports no reactor, no socket and no clock: what it needs of
        them is passed in.
        """
        self.assertEqual(
            [],
            [
                str(each)
                for each in imports(ROOT)
                if each.module.partition(".")[0] == "policy"
                and not each.typeChecking
                and any(f"{each.target}.".startswith(f"{name}.") for name in IMPURE)
            ],
        )

    def test_dependenciesAreDeclared(self) -> None:
        """
        What the package imports is the standard library, what it declares as
        its dependencies, or, within a function or a C{try}, an extra.
        """
        known = sys.stdlib_module_names | DISTRIBUTIONS | OPTIONAL | {PACKAGE}
        self.assertEqual(
            [],
            [
                str(each)
                for each in imports(ROOT)
                if each.target.partition(".")[0] not in known
            ],
        )


class ReactorTests(SynchronousTestCase):
    """
    Who installs the reactor is the program's business.
    """

    def test_noReactorAtModuleLevel(self) -> None:
        """
        No module but the two entry points, C{cli} and C{tap}, imports the
        reactor when it is itself imported.
        """
        self.assertEqual(
            [],
            [
                str(each)
                for each in imports(ROOT)
                if not each.deferred
                and each.module not in {"cli", "tap"}
                and each.target.startswith("twisted.internet.reactor")
            ],
        )

    def assertInstallsNoReactor(self, module: str) -> None:
        """
        Import a module in a fresh interpreter, and fail if that brought a
        reactor along.
        """
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                f"import sys, {module}; "
                "print('installed' if 'twisted.internet.reactor' in sys.modules "
                "else 'none')",
            ],
            cwd=ROOT.parent,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual((0, "none\n"), (done.returncode, done.stdout), done.stderr)

    def test_package(self) -> None:
        """
        Importing C{twisted_cluster} installs no reactor.
        """
        self.assertInstallsNoReactor("twisted_cluster")

    def test_bootstrap(self) -> None:
        """
        A worker's bootstrap is imported without a reactor, so that the
        program can still choose its own.
        """
        self.assertInstallsNoReactor("twisted_cluster.worker.bootstrap")

    def test_plugin(self) -> None:
        """
        Twisted imports the plugin to list plugins, in any program that parses
        an endpoint description: no reactor comes with it.
        """
        self.assertInstallsNoReactor("twisted.plugins.twisted_cluster_plugin")

    def test_cluster(self) -> None:
        """
        A program may import C{twisted_cluster.cluster} before it installs its
        reactor.
        """
        self.assertInstallsNoReactor("twisted_cluster.cluster")


class ModulesTests(SynchronousTestCase):
    """
    Every file holds one idea, and says which.
    """

    def test_docstrings(self) -> None:
        """
        Every module begins with a docstring.
        """
        self.assertEqual(
            [],
            [
                str(path.relative_to(ROOT))
                for path in modules(ROOT).values()
                if not ast.get_docstring(ast.parse(path.read_text()))
            ],
        )

    def test_length(self) -> None:
        """
        No module is longer than 400 lines.
        """
        lengths = {
            str(path.relative_to(ROOT)): len(path.read_text().splitlines())
            for path in modules(ROOT).values()
        }
        self.assertEqual(
            {}, {name: lines for name, lines in lengths.items() if lines > LONGEST}
        )
