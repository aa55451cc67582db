"""The worker processes of an engine, and which of them may be given a task."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

from pykka_imagestore.runtime.tasks import Task
from pykka_imagestore.runtime.worker_handle import WorkerHandle

MAX_FAILED_STARTS = 3  # in a row, after which none is started while others live


class WorkerTable:
    """The workers that were started and have not been reaped.

    While any has a task, one more is kept than have, so that the next task after a kill waits for no start.

    Args:
        limit: How many may have a task at a time.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._workers: list[WorkerHandle] = []
        self._idle: list[WorkerHandle] = []
        self._failed_starts = 0

    def __iter__(self) -> Iterator[WorkerHandle]:
        return iter(list(self._workers))

    def __contains__(self, worker: object) -> bool:
        return worker in self._workers

    def add(self, worker: WorkerHandle) -> None:
        """Add a worker whose process was just started."""
        self._workers.append(worker)

    def remove(self, worker: WorkerHandle) -> None:
        """Remove a worker whose process has ended."""
        self._workers.remove(worker)
        self.set_busy(worker)

    def running(self, task: Task) -> WorkerHandle | None:
        """Return the worker that has this task, or None."""
        return next((worker for worker in self._workers if worker.task is task), None)

    # -- idle workers

    def may_begin(self) -> bool:
        """Tell whether a task may be given to an idle worker."""
        return bool(self._idle) and self._count_busy() < self._limit

    def take_idle(self) -> WorkerHandle:
        """Return the idle worker that has run most tasks, as busy.

        It has imported most. And since it is the same one each time, those that are not needed stay idle, and end.
        """
        worker = max(self._idle, key=_experience)
        self._idle.remove(worker)
        return worker

    def set_idle(self, worker: WorkerHandle) -> None:
        """Have a worker be given the next task."""
        self._idle.append(worker)

    def set_busy(self, worker: WorkerHandle) -> None:
        """Have a worker be given no task."""
        with contextlib.suppress(ValueError):
            self._idle.remove(worker)

    def is_spare(self, worker: WorkerHandle) -> bool:
        """Tell whether this is the only idle worker while others have tasks."""
        return self._idle == [worker] and self._count_busy() > 0

    # -- starts

    def may_start(self, waiting: int) -> bool:
        """Tell whether a process may be started, where so many tasks wait."""
        if len(self._idle) > waiting or (self._workers and self._failed_starts >= MAX_FAILED_STARTS):
            return False
        spare = int(self._count_busy() > 0)
        free = len(self._idle) + sum(not worker.is_ready for worker in self._workers)
        alive = sum(not worker.is_doomed for worker in self._workers)
        return free < waiting + spare and alive < self._limit + spare

    def note_success(self) -> None:
        """Note that a worker does its work: whatever kept others from starting may be over."""
        self._failed_starts = 0

    def note_failed_start(self, *, is_final: bool) -> bool:
        """Note that a process could not be started; return whether the waiting tasks have to be given up."""
        self._failed_starts += 1
        if self._workers or not (is_final or self._failed_starts >= MAX_FAILED_STARTS):
            return False
        self._failed_starts = 0
        return True

    # -- deadlines

    def due(self, deadline: float) -> list[WorkerHandle]:
        """Return the workers that have this deadline, or an earlier one."""
        return [worker for worker in self._workers if worker.deadline <= deadline]

    def next_deadline(self) -> float:
        """Return the earliest deadline, on the monotonic clock."""
        return min((worker.deadline for worker in self._workers), default=math.inf)

    # -- inside

    def _count_busy(self) -> int:
        return sum(worker.task is not None and not worker.is_doomed for worker in self._workers)


def _experience(worker: WorkerHandle) -> int:
    return worker.tasks_begun
