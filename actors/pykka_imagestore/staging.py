"""Staging directories, lent to an actor's async methods and removed afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pykka_imagestore import tasks
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable.layout import remove_staging
from pykka_imagestore.durable.locked_directory import LockedDirectory
from pykka_imagestore.durable.log import logger_of
from pykka_imagestore.runtime import Actor, SerialExecutor, WorkerPool, undiscardable

logger = logger_of(__name__)


class Staging:
    """Lends one actor directories below staging/, each locked for as long as it is lent.

    Args:
        actor: Whose async methods use the directories.
        executor: Makes and removes them.
        pool: Removes those that hold directories: that takes long.
    """

    def __init__(self, actor: Actor, paths: StorePaths, executor: SerialExecutor, pool: WorkerPool) -> None:
        self._actor = actor
        self._paths = paths
        self._executor = executor
        self._pool = pool

    @asynccontextmanager
    async def lend(self) -> AsyncIterator[LockedDirectory]:
        """Lend a new directory. Leave the block only once the workers that write to it have ended."""
        staging = LockedDirectory.below(self._paths.staging, self._paths.guard(self._paths.staging))
        has_actor_ended = False
        try:
            await self._executor.run(LockedDirectory.make, staging)
            yield staging
        except GeneratorExit:
            has_actor_ended = True  # so nothing can be awaited: the next store on this directory sweeps
            raise
        finally:
            try:
                if not has_actor_ended:
                    await undiscardable(self._actor.spawn(self._remove(staging.path)))
            finally:
                staging.release()

    async def _remove(self, path: Path) -> None:
        try:
            if not await self._executor.run(remove_staging, path):
                await self._pool.run(tasks.remove_tree, str(path), retry=True)
        except Exception as error:  # noqa: BLE001 - it must not hide how the work ended; the next store sweeps
            logger.warning("%s could not be removed: %s", path, error)
