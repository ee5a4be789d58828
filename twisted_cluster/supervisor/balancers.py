"""
Finds what makes the balancer that a user names.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import math
import re
import sys
from collections.abc import Callable
from typing import Any, Final, NoReturn, Optional

from zope.interface import Invalid
from zope.interface.verify import verifyObject

from twisted_cluster.errors import InvalidBalance
from twisted_cluster.interfaces import IBalancer
from twisted_cluster.policy.balance import BALANCERS, KERNEL

MOST_FIRST_BYTES: Final = 65536
"""
How many first bytes a balancer may ask for: as many as surely fit into a socket's
receive buffer, since they have to stay there.
"""

_NAME: Final = re.compile(r"(?:[^\W\d]\w*\.)*[^\W\d]\w*")


def loadBalancer(name: str, directory: Optional[str] = None) -> Callable[[], IBalancer]:
    """
    Find what makes a balancer, and have it make one, to see whether that is one.

    The user's module is imported, and its code is run.

    @param name: one of L{BALANCERS}, or a class or a function without arguments as
        C{package.module:Name} or C{package.module.Name}.
    @param directory: where modules are searched as well, after C{sys.path}, to
        which it is added for good.
    @raise InvalidBalance: when there is no such thing, it does not import, or it
        does not make balancers.  The text quotes the name; what the user's code
        raised is the cause.
    """
    if name in BALANCERS:
        return BALANCERS[name]
    module, attribute = _parse(name)
    if directory is not None and directory not in sys.path:
        sys.path.append(directory)
    where = "" if directory is None else f"in {directory} or "
    make = _find(name, module, attribute, where)
    _requireNoArguments(name, make)
    try:
        made = make()
    except Exception as exc:
        _refuse(name, f"calling it raised {_line(exc)}", exc)
    verifyBalancer(name, made)
    return make


def _refuse(name: str, why: str, cause: Optional[BaseException] = None) -> NoReturn:
    raise InvalidBalance(f"cannot balance by {name!r}: {why}") from cause


def _parse(name: str) -> tuple[str, str]:
    """
    Take a dotted name apart.

    @return: the module and the attribute.
    """
    if name == KERNEL:
        _refuse(name, "that is what happens without a balancer")
    module, separator, attribute = name.partition(":")
    if not separator:
        module, separator, attribute = name.rpartition(".")
    if separator and _NAME.fullmatch(module) and _NAME.fullmatch(attribute):
        return module, attribute
    known = [KERNEL, *BALANCERS]
    near = difflib.get_close_matches(name.lower().replace("_", "-"), known, 1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    _refuse(
        name,
        f"there is no such way{hint}; it can be {', '.join(known)}, or "
        "package.module:Name of what makes an IBalancer",
    )


def _find(name: str, module: str, attribute: str, where: str) -> Callable[[], Any]:
    try:
        found: Any = importlib.import_module(module)
    except (Exception, SystemExit) as exc:
        missing = exc.name if isinstance(exc, ModuleNotFoundError) else None
        if missing is not None and f"{module}.".startswith(f"{missing}."):
            why = f"there is no module named {missing} {where}on the module search path"
        else:
            why = f"importing {module} raised {_line(exc)}"
        _refuse(name, why, exc)
    where = module
    for word in attribute.split("."):
        try:
            found = getattr(found, word)
        except AttributeError as exc:
            near = difflib.get_close_matches(word, dir(found), 3)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            _refuse(name, f"there is no {word!r} in {where}{hint}", exc)
        where = f"{where}.{word}"
    if IBalancer.providedBy(found):
        _refuse(
            name,
            "it is a balancer already; name the class or the function that makes it, "
            "as every address gets its own",
        )
    if not callable(found):
        _refuse(
            name,
            f"it is of type {type(found).__name__}; name a class or a function "
            "without arguments that makes an IBalancer",
        )
    make: Callable[[], Any] = found
    return make


def _requireNoArguments(name: str, make: Callable[[], Any]) -> None:
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):
        return
    required = [
        each.name
        for each in parameters
        if each.default is each.empty
        and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    ]
    if required:
        _refuse(
            name,
            f"it needs arguments ({', '.join(required)}) and is called without; name "
            "a function without arguments that calls it",
        )


def verifyBalancer(name: str, made: Any) -> None:
    """
    Check that what a user's code made is a balancer.

    @raise InvalidBalance: when it is none.
    """
    if inspect.iscoroutine(made):
        made.close()
    kind = type(made).__name__
    if not IBalancer.providedBy(made):
        _refuse(
            name,
            f"it made an object of type {kind}, which does not say that it is a "
            "balancer; put @implementer(IBalancer) above its class",
        )
    try:
        verifyObject(IBalancer, made)
        firstBytes, patience = made.firstBytes, made.patience
    except Invalid as exc:
        _refuse(name, f"what it made is no balancer: {_flat(str(exc))}", exc)
    except Exception as exc:
        _refuse(name, f"looking at what it made raised {_line(exc)}", exc)
    if not _isNumber(firstBytes, int) or not 0 <= firstBytes <= MOST_FIRST_BYTES:
        _refuse(
            name,
            f"its firstBytes is {firstBytes!r}; a whole number from 0 to "
            f"{MOST_FIRST_BYTES} is needed",
        )
    if not _isNumber(patience, (int, float)) or not 0 <= patience < math.inf:
        _refuse(name, f"its patience is {patience!r}; seconds are needed, 0.0 or more")


def _isNumber(value: object, types: type | tuple[type, ...]) -> bool:
    return isinstance(value, types) and not isinstance(value, bool)


def _line(exc: BaseException) -> str:
    """
    Write an exception in one line.
    """
    return _flat(f"{type(exc).__name__}: {exc}").removesuffix(":")


def _flat(text: str) -> str:
    return " ".join(text.split())
