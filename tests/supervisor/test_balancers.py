"""
What users name as their balancer.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.errors import InvalidBalance
from twisted_cluster.policy.balance import LeastConnections, RoundRobin, Sticky
from twisted_cluster.supervisor.balancers import MOST_FIRST_BYTES, loadBalancer

MODULE = """
from zope.interface import implementer
from twisted_cluster.interfaces import IBalancer

@implementer(IBalancer)
class First:
    firstBytes = 100
    patience = 1
    def choose(self, connection, candidates):
        return candidates[0]

class Holder:
    First = First

def make():
    return First()

def optional(firstBytes=4096, *rest, **more):
    balancer = First()
    balancer.firstBytes = firstBytes
    return balancer

def needs(table, *, weights):
    return First()

def fails():
    raise RuntimeError("no\\ntable")

class Undeclared:
    firstBytes = 0
    patience = 0.0
    def choose(self, connection, candidates):
        return None

@implementer(IBalancer)
class NoPatience:
    firstBytes = 0
    def choose(self, connection, candidates):
        return None

@implementer(IBalancer)
class OldChoose:
    firstBytes = 0
    patience = 0.0
    def choose(self, connection):
        return None

class RaisingBytes(First):
    @property
    def firstBytes(self):
        raise RuntimeError("which table?")

async def later():
    return First()

instance = First()
number = 3

def withValues(firstBytes, patience):
    balancer = First()
    balancer.firstBytes, balancer.patience = firstBytes, patience
    return balancer

def boolBytes(): return withValues(True, 0)
def floatBytes(): return withValues(1.5, 0)
def negativeBytes(): return withValues(-1, 0)
def manyBytes(): return withValues(65537, 0)
def textPatience(): return withValues(1, "1s")
def nanPatience(): return withValues(1, float("nan"))
def endlessPatience(): return withValues(1, float("inf"))
def negativePatience(): return withValues(1, -0.1)
"""


class LoadBalancerTests(SynchronousTestCase):
    """
    L{loadBalancer}.
    """

    def setUp(self) -> None:
        self.patch(sys, "path", list(sys.path))
        self.patch(sys, "dont_write_bytecode", True)
        self.directory = Path(self.mktemp()).absolute()
        self.module("usersbalancers", MODULE)

    def module(self, name: str, source: str) -> None:
        """
        Write a module, or a module in packages, that is unloaded again.
        """
        path = self.directory.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        importlib.invalidate_caches()
        while name:
            self.addCleanup(sys.modules.pop, name, None)
            name = name.rpartition(".")[0]

    def load(self, name: str) -> object:
        """
        Load something, and have it make a balancer.
        """
        return loadBalancer(name, str(self.directory))()

    def assertRefused(
        self, name: str, *said: str, cause: type[BaseException] | None = None
    ) -> None:
        """
        Fail unless a name is refused in one line that quotes it and says this.
        """
        error = self.assertRaises(InvalidBalance, self.load, name)
        for text in (repr(name), *said):
            self.assertIn(text, str(error))
        self.assertNotIn("\n", str(error))
        found = error.__cause__
        self.assertIs(cause, None if found is None else type(found))

    def test_ours(self) -> None:
        """
        Those that come along are known by their names.
        """
        for name, balancer in {
            "round-robin": RoundRobin,
            "least-connections": LeastConnections,
            "sticky": Sticky,
        }.items():
            self.assertIs(balancer, loadBalancer(name))

    def test_theirs(self) -> None:
        """
        A class or a function is found by its dotted name, in a package, in a
        class, with a colon or without.
        """
        self.module("userspackage.inner", MODULE)
        for name in (
            "usersbalancers:First",
            "usersbalancers.First",
            "usersbalancers:Holder.First",
            "usersbalancers:make",
            "usersbalancers:optional",
            "userspackage.inner:First",
            "userspackage.inner.First",
        ):
            self.assertEqual("First", type(self.load(name)).__name__, name)

    def test_byItsFullName(self) -> None:
        """
        Ours have dotted names, too.
        """
        made = self.load("twisted_cluster.policy.balance:Sticky")
        self.assertIsInstance(made, Sticky)

    def test_directoryLast(self) -> None:
        """
        The directory is searched after the module search path, and only when
        there is something to search for.
        """
        self.load("sticky")
        self.assertNotIn(str(self.directory), sys.path)
        self.load("usersbalancers:First")
        self.load("usersbalancers:make")
        self.assertEqual(
            [len(sys.path) - 1],
            [n for n, each in enumerate(sys.path) if each == str(self.directory)],
        )
        self.assertNotIn("usersbalancers", os.listdir("."))

    def test_unknown(self) -> None:
        """
        A wrong word is answered by the right one, and by all that there are.
        """
        ways = "it can be kernel, round-robin, least-connections, sticky, or "
        for word, meant in {
            "round-robbin": "round-robin",
            "roundrobin": "round-robin",
            "ROUND_ROBIN": "round-robin",
            "least-conns": "least-connections",
            "Sticky": "sticky",
            "kernal": "kernel",
        }.items():
            self.assertRefused(word, f"did you mean {meant}?", ways)
        for word in ("", "x", ":", "a:", ":A", "a b", ".A", "a..B", "a:b:C", "3.a"):
            self.assertRefused(word, ways, "package.module:Name")

    def test_kernel(self) -> None:
        """
        The kernel's way has no balancer to be loaded.
        """
        self.assertRefused("kernel", "without a balancer")

    def test_noModule(self) -> None:
        """
        A module that is not there is named, whichever part of the name it is.
        """
        self.assertRefused(
            "nosuchthing.inner:A",
            f"no module named nosuchthing in {self.directory} or on the module search",
            cause=ModuleNotFoundError,
        )
        self.module("userspackage.inner", "")
        self.assertRefused(
            "userspackage.other:A",
            "there is no module named userspackage.other in ",
            cause=ModuleNotFoundError,
        )
        error = self.assertRaises(InvalidBalance, loadBalancer, "nosuchthing:A")
        self.assertIn("no module named nosuchthing on the module search", str(error))

    def test_doesNotImport(self) -> None:
        """
        What a module's import raises is told in one line and kept as the cause.
        """
        for number, (source, kind, said) in enumerate(
            [
                ("1/0", ZeroDivisionError, "ZeroDivisionError: division by zero"),
                ("import nosuchthing", ModuleNotFoundError, "named 'nosuchthing'"),
                ("raise ValueError('a\\nb')", ValueError, "ValueError: a b"),
                ("raise ValueError", ValueError, "raised ValueError"),
                ("def", SyntaxError, "SyntaxError: "),
                ("raise SystemExit(3)", SystemExit, "SystemExit: 3"),
            ]
        ):
            name = f"usersbroken{number}"
            self.module(name, source)
            self.assertRefused(
                f"{name}:A", f"importing {name} raised ", said, cause=kind
            )

    def test_noAttribute(self) -> None:
        """
        What is missing in a module is named, with what resembles it.
        """
        self.assertRefused(
            "usersbalancers:Frist",
            "there is no 'Frist' in usersbalancers; did you mean First?",
            cause=AttributeError,
        )
        self.assertRefused(
            "usersbalancers:Holder.qqq",
            "there is no 'qqq' in usersbalancers.Holder",
            cause=AttributeError,
        )

    def test_arguments(self) -> None:
        """
        What needs arguments cannot be used; they are named, and the way out.
        """
        self.assertRefused(
            "usersbalancers:needs",
            "needs arguments (table, weights)",
            "a function without arguments that calls it",
        )

    def test_raises(self) -> None:
        """
        What raises when it is called is refused before any connection comes.
        """
        self.assertRefused(
            "usersbalancers:fails",
            "calling it raised RuntimeError: no table",
            cause=RuntimeError,
        )

    def test_noBalancer(self) -> None:
        """
        What is made has to be a balancer, to say so, and to be whole.
        """
        self.assertRefused("usersbalancers:number", "of type int")
        self.assertRefused("usersbalancers:dict", "no 'dict'", cause=AttributeError)
        self.assertRefused("usersbalancers:instance", "is a balancer already")
        self.assertRefused("builtins:dict", "made an object of type dict")
        self.assertRefused("usersbalancers:later", "made an object of type coroutine")
        gc.collect()
        self.assertEqual([], self.flushWarnings())
        self.assertRefused(
            "usersbalancers:Undeclared", "put @implementer(IBalancer) above its class"
        )
        for name, said in {"NoPatience": "patience", "OldChoose": "choose"}.items():
            error = self.assertRaises(
                InvalidBalance, self.load, f"usersbalancers:{name}"
            )
            self.assertIn("what it made is no balancer: ", str(error))
            self.assertIn(said, str(error))
            self.assertNotIn("\n", str(error))

    def test_raisingAttribute(self) -> None:
        """
        An attribute that raises is told as what it is.
        """
        self.assertRefused(
            "usersbalancers:RaisingBytes",
            "raised RuntimeError: which table?",
            cause=RuntimeError,
        )

    def test_values(self) -> None:
        """
        C{firstBytes} is a whole number that fits, C{patience} a number of
        seconds that end.
        """
        for name, value in {
            "boolBytes": "True",
            "floatBytes": "1.5",
            "negativeBytes": "-1",
            "manyBytes": "65537",
        }.items():
            self.assertRefused(
                f"usersbalancers:{name}",
                f"firstBytes is {value}; a whole number from 0 to {MOST_FIRST_BYTES}",
            )
        for name, value in {
            "textPatience": "'1s'",
            "nanPatience": "nan",
            "endlessPatience": "inf",
            "negativePatience": "-0.1",
        }.items():
            self.assertRefused(
                f"usersbalancers:{name}", f"patience is {value}; seconds are needed"
            )
