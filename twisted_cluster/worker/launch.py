"""
Runs a target, of whatever kind, as it would run alone.
"""

from __future__ import annotations

from typing import Optional

from twisted.python.util import switchUID

from twisted_cluster.errors import TargetStartError
from twisted_cluster.interfaces import IStartup
from twisted_cluster.ipc.settings import WorkerSettings
from twisted_cluster.worker.foreign import installForeign
from twisted_cluster.worker.programs import loadProgram, runProgram
from twisted_cluster.worker.target import Target


def runTarget(target: Target, settings: WorkerSettings, startup: IStartup) -> None:
    """
    Run a target to its end.

    C{startup} hears of a service's start, of a start that failed while the
    reactor ran already, and of a target that printed its help.

    @raise TargetLoadError: when it is missing or could not be loaded.
    @raise TargetUsageError: when it refused its options; the text of its usage
        is in C{traceback}.
    @raise TargetStartError: when it could not be started.
    @raise BaseException: what the target itself raises once its reactor has
        run; C{SystemExit} and C{KeyboardInterrupt} at any time.
    """
    undo = installForeign()
    try:
        if target.kind in ("script", "module"):
            _shedPrivileges(settings.uid, settings.gid)
            runProgram(target, startup)
        else:
            from twisted_cluster.worker.applications import runApplication

            runApplication(target, settings, startup)
    finally:
        undo()


def checkTarget(target: Target) -> None:
    """
    Load what can be loaded of a target without starting it: a script is
    compiled, a module found, a C{.tac} executed, a plugin's service made, a
    callable imported.

    @raise TargetError: as L{runTarget}.
    @raise SystemExit: when the target exits meanwhile.
    """
    if target.kind in ("script", "module"):
        loadProgram(target)
    else:
        from twisted_cluster.worker.applications import checkApplication

        checkApplication(target)


def _shedPrivileges(uid: Optional[int], gid: Optional[int]) -> None:
    """
    Become another user before a program starts, which gives no later moment.
    """
    if uid is None and gid is None:
        return
    try:
        if uid is not None and gid is None:
            import pwd

            gid = pwd.getpwuid(uid).pw_gid
        switchUID(uid, gid)
    except (OSError, KeyError) as exc:
        raise TargetStartError(
            f"the user and group cannot become {uid}/{gid}: {exc}"
        ) from exc
