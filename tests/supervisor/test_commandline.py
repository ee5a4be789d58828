"""
Where our options end and the target begins.
"""

from __future__ import annotations

from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from twisted_cluster.supervisor.commandline import (
    Group,
    GroupedOptions,
    Option,
    splitCommandLine,
    table,
)


def even(text: str) -> int:
    """
    Read an even number.
    """
    if int(text) % 2:
        raise ValueError(f"{text!r} is odd")
    return int(text)


class Sample(GroupedOptions):
    """
    Some options.
    """

    synopsis = "Usage: sample [options] TARGET"
    introduction = "What it is."
    conclusion = "What else."
    elsewhere = {"moved": "it is over there"}
    groups = (
        Group("Numbers", [Option("number", "An even one.", "N", even, 2, short="n")]),
        Group(
            "Others",
            [
                Option("verbose", "More words.", short="v"),
                Option("item", "One of many.", "ITEM", short="i", repeat=True),
            ],
        ),
    )


class SplitTests(SynchronousTestCase):
    """
    L{splitCommandLine}.
    """

    def assertSplit(self, line: str, own: str, target: str) -> None:
        """
        Fail unless the line is divided like this.
        """
        self.assertEqual(
            splitCommandLine(line.split(), Sample()), (own.split(), target.split())
        )

    def assertRefused(self, line: str, *parts: str) -> None:
        """
        Fail unless the line is refused, and the error names all of these.
        """
        error = self.assertRaises(UsageError, splitCommandLine, line.split(), Sample())
        for part in parts:
            self.assertIn(part, str(error))

    def test_firstWord(self) -> None:
        """
        The first word that is no option begins the target, and all that
        follows is the target's, even if it looks like ours.
        """
        self.assertSplit("web --number=4 -v", "", "web --number=4 -v")
        self.assertSplit("-v web -v -- x", "-v", "web -v -- x")

    def test_values(self) -> None:
        """
        A value in a word of its own is not the target.
        """
        self.assertSplit("--number 4 web", "--number 4", "web")
        self.assertSplit("--number=4 web", "--number=4", "web")
        self.assertSplit("--item= web", "--item=", "web")
        self.assertSplit("-n 4 web", "-n 4", "web")
        self.assertSplit("-n4 web", "-n4", "web")
        self.assertSplit("-vn4 web", "-vn4", "web")
        self.assertSplit("-vn 4 web", "-vn 4", "web")
        self.assertSplit("-n -v web", "-n -v", "web")

    def test_module(self) -> None:
        """
        C{-m} begins the target.
        """
        self.assertSplit("-n 4 -m daphne -v app", "-n 4", "-m daphne -v app")
        self.assertSplit("-mdaphne -v", "", "-m daphne -v")
        self.assertSplit("-i -m -m daphne", "-i -m", "-m daphne")

    def test_dashes(self) -> None:
        """
        C{--} ends our options, and belongs to nobody.
        """
        self.assertSplit("-v -- web", "-v", "web")
        self.assertSplit("-- -m daphne -- x", "", "-m daphne -- x")
        self.assertSplit("--", "", "")

    def test_nothing(self) -> None:
        """
        There may be no target, or a dash.
        """
        self.assertSplit("", "", "")
        self.assertSplit("-v", "-v", "")
        self.assertSplit("-v -", "-v", "-")

    def test_unknown(self) -> None:
        """
        An unknown option is named, with the one that may have been meant.
        """
        self.assertRefused("--numbr=3 web", "--numbr", "--number?")
        self.assertRefused("--zzz web", "--zzz", "--help")
        self.assertRefused("-x web", "-x", "--help")
        self.assertRefused("-vx web", "-x")

    def test_abbreviation(self) -> None:
        """
        Options are not abbreviated.
        """
        self.assertRefused("--verb web", "--verb", "--verbose?")

    def test_elsewhere(self) -> None:
        """
        For an option that exists elsewhere, the error says where.
        """
        self.assertRefused("--moved=1 web", "--moved", "it is over there")

    def test_value(self) -> None:
        """
        A missing value, and one too many, are told.
        """
        self.assertRefused("--number", "--number needs a value")
        self.assertRefused("-v -n", "-n needs a value")
        self.assertRefused("--verbose=yes web", "--verbose takes no value")


class GroupedOptionsTests(SynchronousTestCase):
    """
    L{GroupedOptions}.
    """

    def parsed(self, line: str) -> Sample:
        """
        Parse a line.
        """
        options = Sample()
        options.parseOptions(line.split())
        return options

    def test_parsed(self) -> None:
        """
        Values are found under their long names; a repeated option makes a
        list.
        """
        options = self.parsed("-v -i a --item=b -n 4 web -n 5")
        self.assertEqual(options["verbose"], 1)
        self.assertEqual(options["item"], ["a", "b"])
        self.assertEqual(options["number"], 4)
        self.assertEqual(options["target"], ["web", "-n", "5"])

    def test_defaults(self) -> None:
        """
        What is not given has its default, and lists are not shared.
        """
        options = self.parsed("web")
        self.assertEqual(
            (options["verbose"], options["item"], options["number"]), (0, [], 2)
        )
        options["item"].append("x")
        self.assertEqual(self.parsed("web")["item"], [])

    def test_refused(self) -> None:
        """
        A value that makes no sense is told with the option's name.
        """
        error = self.assertRaises(UsageError, self.parsed, "-n 3 web")
        self.assertEqual(str(error), "--number: '3' is odd")

    def test_help(self) -> None:
        """
        The help shows each option once, with its group, short name, value and
        explanation, within the width of a terminal.
        """
        text = str(Sample())
        self.assertTrue(text.startswith("Usage: sample [options] TARGET\n"))
        for part in (
            "What it is.",
            "Numbers:\n  -n, --number N ",
            "An even one.",
            "Others:\n  -v, --verbose  ",
            "What else.",
        ):
            self.assertEqual(text.count(part), 1, part)
        self.assertLessEqual(max(len(line) for line in text.splitlines()), 80)

    def test_table(self) -> None:
        """
        A long name has a line of its own; explanations are wrapped.
        """
        rows = [("short", "a " * 30), ("a name that is too long", "b")]
        self.assertEqual(
            table(rows, 40, 14),
            "  short       a a a a a a a a a a a a a\n"
            "              a a a a a a a a a a a a a\n"
            "              a a a a\n"
            "  a name that is too long\n"
            "              b",
        )
