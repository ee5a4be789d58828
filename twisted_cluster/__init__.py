"""
Run one Twisted program in many processes on the same sockets.

  - C{watcher}, C{cluster}: what you call, in the watcher's process and in the
    program that the workers run; C{tap} and C{cli} are the commands.
  - C{interfaces}, C{errors}: what the calls promise and how they fail;
    C{balancing}: what balancers of your own are made of.
  - C{supervisor}: the watcher's side; C{worker}: the worker's side; they meet
    only in C{ipc}, what the two sides say to each other.
  - C{policy}: decisions without I/O; C{sockets}: sockets between processes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted_cluster import cluster
    from twisted_cluster.ipc.codec import registerMessage
    from twisted_cluster.policy.recycling import RecycleLimits
    from twisted_cluster.watcher import ClusterWatcher

__all__ = ["ClusterWatcher", "RecycleLimits", "cluster", "registerMessage"]
__version__ = "0.1.0"

_HOMES = {
    "ClusterWatcher": "twisted_cluster.watcher",
    "RecycleLimits": "twisted_cluster.policy.recycling",
    "registerMessage": "twisted_cluster.ipc.codec",
}
"""
Where the public names are found once they are asked for: a worker's program
that wants C{cluster} need not pay for the watcher.
"""


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
