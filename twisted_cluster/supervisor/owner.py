"""
Whom a worker's handle tells of what happens to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional
from typing import Protocol as Shape

from twisted_cluster.supervisor.death import Death

if TYPE_CHECKING:
    from twisted_cluster.supervisor.handle import WorkerHandle


class Owner(Shape):
    """
    Who is told of the life of workers.
    """

    def workerReady(self, worker: WorkerHandle) -> None: ...

    def workerLeaving(self, worker: WorkerHandle) -> None: ...

    def workerDrains(self, worker: WorkerHandle) -> None: ...

    def workerWantsRecycling(self, worker: WorkerHandle, why: str) -> None: ...

    def workerDied(self, worker: WorkerHandle, death: Death) -> None: ...

    def whoKilled(self) -> str: ...

    def forward(
        self, sender: int, to: int, encoded: bytes
    ) -> Optional[BaseException]: ...
