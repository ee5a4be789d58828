"""
What is said of listening sockets: the commands of the server-socket channel,
on which one side asks and the other answers.
"""

from __future__ import annotations

from typing import Any

from twisted.protocols import amp

from twisted_cluster.sockets.addresses import Address, SocketRequest


class RequestSocket(amp.Command):
    """
    Worker to watcher, on the server-socket channel: give me the listening
    socket of this address.

    C{kind} is C{tcp}, C{udp} or C{unix}.  C{host} is a numeric address (for
    C{unix}: empty), C{path} the absolute path in the file system's encoding (a
    leading zero byte: the abstract namespace).  C{socket} is an unbound socket
    that carries the family and the options which the program wants; the
    watcher binds it when the address is not open yet, and discards it when it
    is.  C{index} says that this is the n-th request for port 0 on this host.
    C{explicit} says that the program named the address as the cluster's;
    C{starting}, that the worker was not ready yet, or that this is its first
    listen.  C{mode} and C{lock} are Twisted's C{mode} and C{wantPID} of
    C{listenUNIX}.  C{balance} names how connections are to be balanced; empty: as
    the watcher thinks best.

    C{verdict} of the answer is C{shared} (C{socket} is the bound, listening
    socket), C{own} (the address is none of the cluster's: open it yourself)
    or C{refused} (C{errno} and C{message} are what C{bind} said).  C{port} is that of
    the bound socket, which who lost it on its way needs to release it.  C{listener} is
    the number with which connections come over the client-socket channel, 0 when
    none do.  Where C{accepts} is false, all come that way, and the worker must not
    accept by itself.
    """

    arguments = [
        (b"kind", amp.String()),
        (b"host", amp.Unicode()),
        (b"port", amp.Integer()),
        (b"path", amp.String()),
        (b"index", amp.Integer()),
        (b"backlog", amp.Integer()),
        (b"mode", amp.Integer()),
        (b"lock", amp.Boolean()),
        (b"explicit", amp.Boolean()),
        (b"starting", amp.Boolean()),
        (b"balance", amp.Unicode(optional=True)),
        (b"socket", amp.Descriptor()),
    ]
    response = [
        (b"verdict", amp.String()),
        (b"socket", amp.Descriptor(optional=True)),
        (b"errno", amp.Integer()),
        (b"message", amp.Unicode()),
        (b"listener", amp.Integer()),
        (b"accepts", amp.Boolean()),
        (b"port", amp.Integer(optional=True)),
    ]


class ReleaseSocket(amp.Command):
    """
    Worker to watcher, on the server-socket channel: I no longer use the socket
    bound to this address (the actual port, never 0).
    """

    arguments = [
        (b"kind", amp.String()),
        (b"host", amp.Unicode()),
        (b"port", amp.Integer()),
        (b"path", amp.String()),
    ]
    requiresAnswer = False


def questionValues(request: SocketRequest, descriptor: int) -> dict[str, Any]:
    """
    What the arguments of L{RequestSocket} are for a request.

    @param descriptor: an unbound socket, which stays the caller's.
    """
    return {
        **addressValues(request.wanted.address),
        "index": request.index,
        "backlog": request.wanted.backlog,
        "mode": request.wanted.mode,
        "lock": request.wanted.lock,
        "explicit": request.explicit,
        "starting": request.starting,
        "balance": request.balance,
        "socket": descriptor,
    }


def addressValues(address: Address) -> dict[str, Any]:
    """
    What the arguments are that name an address, of either command.
    """
    return {
        "kind": address.kind.encode("ascii"),
        "host": address.host,
        "port": address.port,
        "path": address.path,
    }
