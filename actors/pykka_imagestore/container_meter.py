"""Has what was written to containers measured, for the usage of a store and for its budget."""

from __future__ import annotations

import math
import time

import pykka

from pykka_imagestore import tasks
from pykka_imagestore.durable.container_sizes import ContainerSizes
from pykka_imagestore.durable.log import logger_of
from pykka_imagestore.runtime import Actor, Future, PoolClosedError, SerialExecutor, WorkerPool, undiscardable

logger = logger_of(__name__)

MAX_AGE_SECONDS = 60.0  # of what a budget goes by
_PAUSE = 20  # times as long as the last measuring took, at least: no more than a twentieth of a worker's time


class ContainerMeter:
    """Measures containers in a worker process, for one actor's async methods.

    Args:
        actor: Whose methods these are.
        executor: Looks which containers there are.
    """

    def __init__(self, actor: Actor, sizes: ContainerSizes, pool: WorkerPool, executor: SerialExecutor) -> None:
        self._actor = actor
        self._sizes = sizes
        self._pool = pool
        self._executor = executor
        self._seconds = 0.0
        self._behind: Future[None] | None = None

    async def measure_all(self) -> None:
        """Measure all of them now."""
        await self._measure(0)

    async def refresh(self) -> None:
        """Measure those that never were, and begin to measure those anew that were measured long ago.

        Whoever asks often, as a budget does at each put, causes little work, and waits for new containers only.
        """
        await self._measure(math.inf)
        if self._behind is None or self._behind.done():
            self._behind = self._actor.spawn(self._measure(max(MAX_AGE_SECONDS, _PAUSE * self._seconds)))
            self._behind.on_failed(_tell)

    async def _measure(self, max_age: float) -> None:
        trees = await self._executor.run(self._sizes.find_unmeasured, max_age)
        if trees:
            begun = time.monotonic()
            request = tasks.MeasureContainers(tuple((tree.directory, tree.without) for tree in trees))
            sizes = await undiscardable(self._pool.run(tasks.measure_containers, request, retry=True))
            self._sizes.note(trees, sizes)
            self._seconds = time.monotonic() - begun


def _tell(error: BaseException) -> None:
    if not isinstance(error, pykka.ActorDeadError | PoolClosedError):  # the store was closed meanwhile
        logger.warning("what containers take could not be measured: %s", error)
