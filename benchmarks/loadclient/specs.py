"""
What can be asked of the load client.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Optional

import attrs

KINDS: Final = ("new", "kept", "http2", "websocket")
LONGEST: Final = 3600.0


def _positive(_: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if not value > 0:
        raise ValueError(f"{attribute.name} must be more than 0, not {value!r}")


@attrs.frozen(kw_only=True)
class Offer:
    """
    One kind of load.

    @ivar kind: "new": a connection for each request; "kept": connections that
        are used again and again; "http2": streams on a few connections;
        "websocket": messages that are to come back.
    @ivar port: where, on 127.0.0.1.
    @ivar rate: requests a second.
    @ivar count: the most requests; None for as many as there is time for.
    @ivar path: what is asked for.
    @ivar connections: how many are held open, but for kind "new".  "kept"
        opens more while all are in use.
    @ivar most: how many requests may be unanswered; more are not sent, but
        counted as withheld.
    @ivar timeout: seconds until an answer must be complete, connecting
        included.
    @ivar tls: whether the connection is encrypted; certificates are not
        checked.  HTTP/2 without it begins by prior knowledge.
    @ivar echo: whether the number of the request is added to the path, as
        C{n=…}, and must be the answer's first word; the second then tells who
        answered.  WebSockets' messages are C{"17"}, and their answers may have
        the same second word.
    @ivar expect: what the answer must begin with.
    """

    kind: str = attrs.field(validator=attrs.validators.in_(KINDS))
    port: int = attrs.field(validator=_positive)
    rate: float = attrs.field(validator=_positive)
    count: Optional[int] = None
    path: str = "/"
    connections: int = attrs.field(default=20, validator=_positive)
    most: int = attrs.field(default=4_000, validator=_positive)
    timeout: float = attrs.field(default=20.0, validator=_positive)
    tls: bool = False
    echo: bool = False
    expect: str = ""


@attrs.frozen(kw_only=True)
class Plan:
    """
    A run.

    @ivar seconds: for how long requests are sent.  Those that are under way then
        are waited for.
    """

    offers: Sequence[Offer]
    seconds: float = attrs.field(default=10.0)

    @seconds.validator
    def _bounded(self, _: object, value: float) -> None:
        if not 0 < value <= LONGEST:
            raise ValueError(f"seconds must be from 0 to {LONGEST}, not {value!r}")


def readPlan(data: Mapping[str, Any]) -> Plan:
    """
    Read what L{attrs.asdict} made of a plan.

    @raise ValueError: a value cannot be.
    @raise TypeError: there is no such setting.
    """
    settings = dict(data)
    offers = [Offer(**each) for each in settings.pop("offers")]
    if not offers:
        raise ValueError("there is nothing to offer")
    return Plan(offers=offers, **settings)
