"""
How a command line is divided between our options and the target, and how our
options explain themselves.

The target begins at the first word that is no option of ours, at C{-m}, or
after C{--}; from there on, nothing is ours.  So that this is certain, options
are not abbreviated: C{--work} is an error, never C{--workers}.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final, Optional

import attrs
from twisted.python import usage

WIDTH: Final = 80
"""
Columns of a help text.
"""

_ADVICE: Final = "see --help; options of the target's own come after the target"


@attrs.frozen
class Option:
    """
    One option, as it is parsed and as its help tells.

    @ivar name: the long name, without dashes.
    @ivar doc: what it does, in a line or two.
    @ivar value: what its value is called in the help, or L{None} for a flag.
    @ivar coerce: makes the value from text; its L{ValueError}s are told to the
        user after the option's name.
    @ivar default: the value when the option is not given.
    @ivar short: a one-letter name, or an empty string.
    @ivar repeat: whether it may be given several times, its values becoming a
        list.
    """

    name: str
    doc: str
    value: Optional[str] = None
    coerce: Callable[[str], Any] = str
    default: Any = None
    short: str = ""
    repeat: bool = False


@attrs.frozen
class Group:
    """
    Options that the help shows together.
    """

    title: str
    options: Sequence[Option]


def splitCommandLine(
    argv: Sequence[str], options: usage.Options
) -> tuple[list[str], list[str]]:
    """
    Divide a command line.

    @param options: knows which options are ours, and which take a value.
    @return: our own words, and the target's.  The C{--} between them is in
        neither, and C{-mNAME} has become two words.
    @raise usage.UsageError: for an option that is none of ours, or that lacks
        its value.
    """
    longs = {name.rstrip("="): name.endswith("=") for name in options.longOpt}
    shorts = {
        letter: options.shortOpt[index + 1 : index + 2] == ":"
        for index, letter in enumerate(options.shortOpt)
        if letter != ":"
    }
    position = 0
    while position < len(argv):
        word = argv[position]
        if word == "--":
            return list(argv[:position]), list(argv[position + 1 :])
        if word == "-" or not word.startswith("-") or word.startswith("-m"):
            break
        if word.startswith("--"):
            name, wanting = _long(word, longs, getattr(options, "elsewhere", {}))
        else:
            name, wanting = _short(word, shorts)
        position += 1
        if wanting:
            if position == len(argv):
                raise usage.UsageError(f"{name} needs a value")
            position += 1
    target = list(argv[position:])
    if target and target[0].startswith("-m") and len(target[0]) > 2:
        target[:1] = ["-m", target[0][2:]]
    return list(argv[:position]), target


def _long(
    word: str, longs: Mapping[str, bool], elsewhere: Mapping[str, str]
) -> tuple[str, bool]:
    name, given, _ = word[2:].partition("=")
    if name not in longs:
        if name in elsewhere:
            raise usage.UsageError(f"no option --{name} here: {elsewhere[name]}")
        close = get_close_matches(name, longs, n=1)
        advice = f"did you mean --{close[0]}?" if close else _ADVICE
        raise usage.UsageError(f"unknown option --{name}; {advice}")
    if given and not longs[name]:
        raise usage.UsageError(f"--{name} takes no value")
    return f"--{name}", longs[name] and not given


def _short(word: str, shorts: Mapping[str, bool]) -> tuple[str, bool]:
    for index, letter in enumerate(word[1:], start=1):
        if letter not in shorts:
            raise usage.UsageError(f"unknown option -{letter}; {_ADVICE}")
        if shorts[letter]:
            return f"-{letter}", index == len(word) - 1
    return word, False


class GroupedOptions(usage.Options):
    """
    Options in groups, followed by a target.

    The dict holds each option's value under its long name, and the target's
    words under C{target}.

    @cvar groups: all options of this class.
    @cvar introduction: what the help says before the options.
    @cvar conclusion: what it says after them.
    @cvar elsewhere: options that one may expect here, and where to find what
        they do.
    """

    groups: Sequence[Group] = ()
    optFlags: list[list[Any]] = []
    optParameters: list[list[Any]] = []
    introduction = ""
    conclusion = ""
    elsewhere: Mapping[str, str] = {}

    def __init_subclass__(cls) -> None:
        every = [option for group in cls.groups for option in group.options]
        cls.optFlags = [
            [each.name, each.short, each.doc] for each in every if each.value is None
        ]
        cls.optParameters = [
            [each.name, each.short, each.default, each.doc]
            for each in every
            if each.value is not None
        ]

    def __init__(self) -> None:
        super().__init__()
        for group in self.groups:
            for each in group.options:
                if each.value is not None:
                    self._dispatch[each.name] = self._setter(each)
                    self[each.name] = [] if each.repeat else each.default
        self["target"] = []

    def _setter(self, option: Option) -> Callable[[str, str], None]:
        def set(name: str, text: str) -> None:
            try:
                value = option.coerce(text)
            except ValueError as error:
                raise usage.UsageError(f"--{option.name}: {error}") from None
            if option.repeat:
                self[option.name].append(value)
            else:
                self[option.name] = value

        return set

    def opt_help(self) -> None:
        """
        Display this help and exit.
        """
        print(self)
        raise SystemExit(0)

    opt_h = opt_help

    def parseOptions(self, options: Optional[Sequence[str]] = None) -> None:
        """
        Parse a command line.

        @raise usage.UsageError: when it makes no sense; the text names the
            option.
        """
        words = list(options or ())
        if "--_shell-completion" not in words[-2:-1]:
            words, self["target"] = splitCommandLine(words, self)
        super().parseOptions(words)

    def getUsage(self, width: Optional[int] = None) -> str:
        """
        Write the help, without its first line.
        """
        width = width or WIDTH
        blocks = [self.introduction.strip("\n")]
        for group in self.groups:
            rows = [(_heading(each), each.doc) for each in group.options]
            blocks.append(f"{group.title}:\n{table(rows, width)}")
        blocks.append(self.conclusion.strip("\n"))
        return "\n" + "\n\n".join(filter(None, blocks)) + "\n"


def _heading(option: Option) -> str:
    names = f"-{option.short}, " if option.short else "    "
    return f"{names}--{option.name}" + (f" {option.value}" if option.value else "")


def table(rows: Iterable[tuple[str, str]], width: int = WIDTH, column: int = 32) -> str:
    """
    Lay out names and their explanations in two columns.
    """
    lines = []
    for heading, doc in rows:
        filled = textwrap.wrap(doc, max(width - column, 20))
        if len(heading) > column - 4:
            lines.append(f"  {heading}")
            heading = ""
        first, *rest = filled or [""]
        lines.append(f"  {heading:<{column - 2}}{first}".rstrip())
        lines.extend(" " * column + line for line in rest)
    return "\n".join(lines)
