"""
Does something with the rights of another process.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Optional, TypeVar

from twisted.python.util import runAsEffectiveUser

from twisted_cluster.supervisor.procfs import Credentials

_T = TypeVar("_T")


def withRightsOf(credentials: Optional[Credentials], action: Callable[[], _T]) -> _T:
    """
    Do something with the rights of another process, where this one is
    privileged and that one is not.

    @raise OSError: also when this process may not take them on.
    """
    if credentials is None or os.geteuid() != 0:
        return action()
    groups = os.getgroups()
    if set(groups) == set(credentials.groups):
        return _withIds(credentials, action)
    os.setgroups(credentials.groups)
    try:
        return _withIds(credentials, action)
    finally:
        os.setgroups(groups)


def _withIds(credentials: Credentials, action: Callable[[], _T]) -> _T:
    result: _T = runAsEffectiveUser(credentials.uid, credentials.gid, action)
    return result
