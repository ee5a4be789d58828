"""
What balancers of your own are made of.

Name one as C{--balance package.module:Name}, or as
C{ClusterWatcher(..., balance="package.module:Name")}.
"""

from __future__ import annotations

from twisted_cluster.interfaces import Candidate, Connection, IBalancer
from twisted_cluster.policy.balance import (
    LeastConnections,
    RoundRobin,
    Sticky,
    rendezvous,
)
from twisted_cluster.policy.firstbytes import hostOf, serverNameOf

__all__ = [
    "Candidate",
    "Connection",
    "IBalancer",
    "LeastConnections",
    "RoundRobin",
    "Sticky",
    "hostOf",
    "rendezvous",
    "serverNameOf",
]
