"""Room for a put: on the disk, and within the store's budget."""

from __future__ import annotations

from functools import partial

from pykka_imagestore import tasks
from pykka_imagestore.collector import Collector
from pykka_imagestore.core.budget import Budget, Size
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.errors import NoSpaceError, OverBudgetError
from pykka_imagestore.runtime import SerialExecutor


class Room:
    """Used by an actor's async methods.

    Attributes:
        is_bounded: Whether there is a budget.
    """

    def __init__(self, paths: StorePaths, budget: Budget, collector: Collector, executor: SerialExecutor) -> None:
        self.is_bounded = bool(budget)
        self._paths = paths
        self._budget = budget
        self._collector = collector
        self._executor = executor

    async def require(self, needed_bytes: int) -> None:
        """See that the layers that are missing fit, before any is unpacked.

        No image is forgotten for the budget yet: nobody has verified what the archive says of itself. One is forgotten
        only if the disk has no room for both.
        """
        self.refuse_over_budget(Size(needed_bytes))
        require = partial(tasks.require_space, str(self._paths.root))
        try:
            await self._executor.run(require, needed_bytes)
        except NoSpaceError:
            await self._collector.make_room(needed_bytes)
            await self._executor.run(require, needed_bytes)

    def refuse_over_budget(self, size: Size) -> None:
        """Raise OverBudgetError if an image of that size exceeds the budget alone."""
        if not self._budget.holds(size):
            raise OverBudgetError(
                str(self._paths.root), size.bytes, self._budget.bytes, size.inodes, self._budget.inodes
            )

    async def keep_to_budget(self) -> None:
        """Forget the least recently used images until the store is within its budget."""
        if self.is_bounded:
            await self._collector.keep_to_budget()
