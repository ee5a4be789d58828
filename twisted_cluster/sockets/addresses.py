"""
What a listening socket is bound to, how one asks for it, and what the answer
is.

An L{Address} is written in one way only, so that equal addresses are equal
values: numeric hosts, the wildcards spelled out, an IPv6 scope as its number.
"""

from __future__ import annotations

import os
import socket
from typing import Any, Final, Literal, Union

import attrs

from twisted_cluster.errors import InvalidEndpoint

Kind = Literal["tcp", "udp", "unix"]

DEFAULT_BACKLOG: Final = 50
DEFAULT_MODE: Final = 0o666
LEAVE_MODE: Final = -1
"""
The mode of a L{BindRequest} whose path keeps what the umask gave it.
"""


def canonicalHost(host: str) -> str:
    """
    Write a numeric address the one way: C{::0} as C{::}, the empty string as
    C{0.0.0.0}, C{fe80::1%eth0} as C{fe80::1%2}.

    @raise OSError: when it is no numeric address.
    """
    if not host:
        return "0.0.0.0"
    if ":" not in host:
        return socket.inet_ntop(socket.AF_INET, socket.inet_pton(socket.AF_INET, host))
    bare, _, zone = host.partition("%")
    text = socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, bare))
    if not zone:
        return text
    scope = int(zone) if zone.isdigit() else socket.if_nametoindex(zone)
    return f"{text}%{scope}" if scope else text


def resolveHost(host: str, family: int) -> str:
    """
    Find the numeric address that C{bind} would use for a host's name.

    @raise socket.gaierror: as C{bind} does, for a name that does not resolve.
    """
    try:
        return canonicalHost(host)
    except OSError:
        found = socket.getaddrinfo(host, None, family, socket.SOCK_DGRAM)
        return _hostOf(found[0][4])


def _hostOf(name: tuple[Any, ...]) -> str:
    host = str(name[0]).partition("%")[0]
    return canonicalHost(f"{host}%{name[3]}" if len(name) > 3 and name[3] else host)


@attrs.frozen
class Address:
    """
    What a socket is, or is to be, bound to.

    @ivar kind: C{tcp}, C{udp}, or C{unix} for a UNIX stream socket.
    @ivar host: a numeric address; empty for C{unix}.
    @ivar port: the port; 0 asks for a free one, and for C{unix} says nothing.
    @ivar path: an absolute path, or a zero byte and a name in the abstract
        namespace; empty but for C{unix}.
    """

    kind: Kind
    host: str = ""
    port: int = 0
    path: bytes = b""

    @classmethod
    def internet(cls, kind: Kind, host: str, port: int) -> Address:
        """
        Name an address of TCP or UDP.

        @param host: a numeric address; the empty string is C{0.0.0.0}.
        @raise OSError: when the host is no numeric address.
        """
        return cls(kind, canonicalHost(host), port)

    @classmethod
    def unix(cls, path: bytes) -> Address:
        """
        Name an address of a UNIX stream socket.  A relative path is taken from
        this process's working directory.
        """
        return cls("unix", path=path if path[:1] == b"\0" else os.path.abspath(path))

    @classmethod
    def ofSocket(cls, skt: socket.socket) -> Address:
        """
        Name what a bound socket is bound to.

        @raise OSError: when the socket cannot tell.
        @raise ValueError: when it is of a family that nobody listens on here.
        """
        name = skt.getsockname()
        if skt.family == socket.AF_UNIX:
            return cls.unix(os.fsencode(name))
        if skt.family not in (socket.AF_INET, socket.AF_INET6):
            raise ValueError(f"no address of family {skt.family!r} can be shared")
        kind: Kind = "udp" if skt.type == socket.SOCK_DGRAM else "tcp"
        return cls(kind, _hostOf(name), name[1])

    @property
    def family(self) -> socket.AddressFamily:
        """
        The family of a socket that can be bound to this.
        """
        if self.kind == "unix":
            return socket.AF_UNIX
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET

    @property
    def type(self) -> socket.SocketKind:
        """
        The type of a socket that can be bound to this.
        """
        return socket.SOCK_DGRAM if self.kind == "udp" else socket.SOCK_STREAM

    @property
    def sockaddr(self) -> Any:
        """
        What C{socket.bind} takes.
        """
        if self.kind == "unix":
            return self.path
        if self.family == socket.AF_INET:
            return self.host, self.port
        host, _, scope = self.host.partition("%")
        return host, self.port, 0, int(scope or 0)

    @property
    def inFilesystem(self) -> bool:
        """
        Whether a file stands for this address.
        """
        return self.kind == "unix" and self.path[:1] != b"\0"

    @property
    def ephemeral(self) -> bool:
        """
        Whether this asks for any free port.
        """
        return self.kind != "unix" and self.port == 0

    def __str__(self) -> str:
        if self.kind == "unix":
            text = os.fsdecode(self.path)
            return "unix:@" + text[1:] if text[:1] == "\0" else "unix:" + text
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.kind}:{host}:{self.port}"


@attrs.frozen
class BindRequest:
    """
    An address, and how it is to be bound.

    @ivar address: what to bind.
    @ivar backlog: how many connections may wait to be accepted, at least.
    @ivar mode: the permissions of a UNIX socket's path, or L{LEAVE_MODE}.
    @ivar lock: whether a UNIX socket's path is guarded by a lock file, see
        C{wantPID} of C{listenUNIX}.
    """

    address: Address
    backlog: int = DEFAULT_BACKLOG
    mode: int = DEFAULT_MODE
    lock: bool = False


@attrs.frozen
class SocketRequest:
    """
    What is asked, see L{twisted_cluster.sockets.servers.commands.RequestSocket}.

    @ivar wanted: the address and how to bind it.
    @ivar index: of an ephemeral address: this is the n-th request for port 0
        on this host, from 0.
    @ivar explicit: the program named the address as the cluster's.
    @ivar starting: the worker is not ready, or listens for the first time.
    @ivar balance: how connections are to be balanced; empty for the default.
    """

    wanted: BindRequest
    index: int = 0
    explicit: bool = False
    starting: bool = False
    balance: str = ""


@attrs.frozen(eq=False)
class Shared:
    """
    The answer: here is the cluster's socket, bound and listening.

    @ivar socket: the socket.  In the watcher it stays the watcher's; in a
        worker it is the asker's own duplicate, to be closed by the asker.
    @ivar address: what it is bound to; the port is never 0.
    @ivar listener: the number of the address, with which connections are handed
        over; 0 where none ever is.
    @ivar accepts: whether the asker is to accept; otherwise all its connections
        are handed over.
    """

    socket: socket.socket
    address: Address
    listener: int = 0
    accepts: bool = True


@attrs.frozen
class Own:
    """
    The answer: the address is none of the cluster's, open it yourself.
    """


@attrs.frozen
class Refused:
    """
    The answer: it cannot be bound.

    @ivar errno: the error number, or 0 where there is none: the lock file of
        a UNIX socket is held by another process.
    @ivar message: the text that goes with it.
    """

    errno: int
    message: str


Verdict = Union[Shared, Own, Refused]


def _split(description: str) -> tuple[list[str], dict[str, str]]:
    """
    Take an endpoint description apart, with Twisted's quoting: a backslash
    takes the special meaning from what follows.
    """
    words: list[str] = []
    options: dict[str, str] = {}
    key: str | None = None
    text = ""
    characters = iter(description)
    for character in characters:
        if character == "\\":
            text += next(characters, "")
        elif character == "=" and key is None:
            key, text = text, ""
        elif character == ":":
            _keep(words, options, key, text)
            key, text = None, ""
        else:
            text += character
    _keep(words, options, key, text)
    return words, options


def _keep(
    words: list[str], options: dict[str, str], key: str | None, text: str
) -> None:
    if key is None:
        words.append(text)
    else:
        options[key] = text


_POSITIONAL: Final = {"tcp": "port", "tcp6": "port", "udp": "port", "unix": "address"}
_OPTIONS: Final = {
    "tcp": {"port", "interface", "backlog"},
    "tcp6": {"port", "interface", "backlog"},
    "udp": {"port", "interface"},
    "unix": {"address", "mode", "backlog", "lockfile"},
}


def parseBind(description: str) -> BindRequest:
    """
    Read the argument of C{--bind}: C{tcp:8080}, C{tcp:8080:interface=::1},
    C{tcp6:8080}, C{udp:53}, C{unix:/run/app.sock:mode=660}, in the syntax and
    with the defaults of Twisted's endpoint descriptions.

    @raise InvalidEndpoint: naming the description, what is wrong with it, and
        what would be right.
    """

    def wrong(why: str) -> InvalidEndpoint:
        return InvalidEndpoint(f"cannot bind {description!r}: {why}")

    (name, *words), options = _split(description)
    if name in ("ssl", "tls"):
        raise wrong(
            "bind the plain port (tcp:443), and let the program speak TLS on it"
        )
    if name not in _POSITIONAL:
        raise wrong(
            "it does not begin with tcp:, tcp6:, udp: or unix:; "
            "try tcp:8080 or unix:/run/app.sock"
        )
    if len(words) > 1:
        raise wrong(
            f"{':'.join(words[1:])!r} is out of place; write options as "
            "name=value, and a colon within a value as \\:"
        )
    for word in words:
        options.setdefault(_POSITIONAL[name], word)
    unknown = sorted(options.keys() - _OPTIONS[name])
    if unknown:
        raise wrong(
            f"there is no option {unknown[0]!r}; "
            f"{name}: knows {', '.join(sorted(_OPTIONS[name]))}"
        )

    def number(option: str, default: int, base: int, least: int, most: int) -> int:
        try:
            value = int(options[option], base) if option in options else default
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            what = (
                f"an octal number up to {most:o}"
                if base == 8
                else (f"a whole number from {least} to {most}")
            )
            raise wrong(f"{option} must be {what}, not {options[option]!r}")
        return value

    backlog = number("backlog", DEFAULT_BACKLOG, 10, 0, 2**31 - 1)
    if name == "unix":
        path = options.get("address", "")
        if not path:
            raise wrong("the path is missing; try unix:/run/app.sock")
        return BindRequest(
            Address.unix(os.fsencode(path)),
            backlog,
            number("mode", DEFAULT_MODE, 8, 0, 0o7777),
            bool(number("lockfile", 1, 10, 0, 1)),
        )
    if "port" not in options:
        raise wrong(f"the port is missing; try {name}:8080")
    port = number("port", 0, 10, 0, 65535)
    host = options.get("interface", "::" if name == "tcp6" else "")
    family = socket.AF_INET6 if name == "tcp6" else socket.AF_INET
    try:
        host = resolveHost(host, family)
    except OSError as error:
        raise wrong(
            f"interface={host} is no address of this machine ({error}); "
            "write a numeric one, with its colons as \\:"
        ) from None
    if name == "tcp6" and ":" not in host:
        raise wrong(f"{host} is no IPv6 address; use tcp:{port}:interface={host}")
    kind: Kind = "udp" if name == "udp" else "tcp"
    return BindRequest(Address(kind, host, port), backlog)
