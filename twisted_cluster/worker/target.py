"""
Decides which of the five kinds of target a command line names.

  - C{-m NAME}: a I{module}, as C{python -m NAME} runs it.
  - a name that ends in C{.tac}: a I{tac}, as C{twistd -y} runs it.
  - a name that ends in C{.py}, holds a path separator or is an existing file:
    a I{script}, as C{python NAME} runs it.
  - a name that holds a colon, C{package.module:callable}: a I{callable} that
    makes a service, or starts one.
  - anything else: a twistd I{plugin}.

Nothing is imported and nothing is run here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Literal

import attrs

from twisted_cluster.errors import TargetLoadError, UsageError

Kind = Literal["plugin", "module", "script", "tac", "callable"]


@attrs.frozen
class Target:
    """
    What a worker is to run.

    @ivar kind: how it is run.
    @ivar name: the plugin's, module's, file's or callable's name, as typed.
    @ivar args: the words that belong to the target.
    """

    kind: Kind
    name: str
    args: tuple[str, ...] = ()


def parseTarget(
    words: Sequence[str],
    exists: Callable[[str], bool] = os.path.exists,
    isFile: Callable[[str], bool] = os.path.isfile,
) -> Target:
    """
    Tell the kind of a target.

    @param words: the target and its own words, as typed.
    @raise UsageError: when there is no target among the words.
    @raise TargetLoadError: when the target is a file that does not exist.
    """
    if not words or not words[0]:
        raise UsageError("no target was given")
    name, args = words[0], tuple(words[1:])
    if name == "-m":
        if not args:
            raise UsageError("-m needs the name of a module")
        return Target("module", args[0], args[1:])
    if name.startswith("-m"):
        return Target("module", name[2:], args)
    if name.startswith("-"):
        raise UsageError(f"a target was expected where {name!r} stands")
    if name.endswith(".tac"):
        return _file("tac", name, args, exists)
    if name.endswith(".py") or os.sep in name or isFile(name):
        return _file("script", name, args, exists)
    if ":" in name:
        return Target("callable", name, args)
    return Target("plugin", name, args)


def _file(
    kind: Literal["script", "tac"],
    name: str,
    args: tuple[str, ...],
    exists: Callable[[str], bool],
) -> Target:
    if exists(name):
        return Target(kind, name, args)
    what = "a .tac file" if kind == "tac" else "a script"
    hint = ""
    path, colon, attribute = name.partition(":")
    if colon and exists(path):
        dotted = path[:-3] if path.endswith(".py") else path
        dotted = os.path.normpath(dotted).replace(os.sep, ".")
        hint = f"; for a callable, name its module: {dotted}:{attribute}"
    raise TargetLoadError(
        f"{name!r} was taken for {what}, and there is no such file{hint}"
    )
