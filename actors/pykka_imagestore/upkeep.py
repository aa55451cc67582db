"""What keeps a store small and sound: removals, prunes, checks, repairs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pykka_imagestore.checker import CheckListener
from pykka_imagestore.core.check_report import CheckReport
from pykka_imagestore.core.image import ImageInfo
from pykka_imagestore.core.parameters import require_flag, require_function
from pykka_imagestore.core.plan_prune import Pruned, PruneOptions
from pykka_imagestore.handle import Handle, in_future, or_closed
from pykka_imagestore.runtime import Future, undiscardable
from pykka_imagestore.store_parts import StoreParts

if TYPE_CHECKING:
    from pykka_imagestore.core.events import StoreStats
    from pykka_imagestore.core.usage import Usage


class Upkeep(Handle):
    """The part of a LocalStore that looks after what is stored."""

    def __init__(self, parts: StoreParts) -> None:
        self._parts = parts

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {str(self._parts.paths.root)!r}>"

    @property
    def parts(self) -> StoreParts:
        """What the store is composed of, for what is built upon it, as a Provisioner is."""
        return self._parts

    def remove(self, name: str) -> Future[ImageInfo]:
        """Forget an image; delete in the background the layers that no other image has and no lease keeps.

        Args:
            name: Its name. The digest of its config is one only for an image that has no other.

        Returns:
            What was forgotten; its layers may be gone. Durable like ``put``.

        Raises:
            InvalidNameError: ``name`` is no image name.
            NotFoundError: It is not there.
        """
        # Once the name is gone, its layers must go too, even if the caller discards the future.
        return undiscardable(or_closed(self._parts.collector.remove(name).then(self._parts.paths.locate)))

    @in_future
    def prune(
        self,
        *,
        keep: Iterable[str] = (),
        unused_for: float | None = None,
        budget_bytes: int | None = None,
        budget_inodes: int | None = None,
        dry_run: bool = False,
    ) -> Future[Pruned]:
        """Forget images, and delete in the background the layers that no image has and no lease keeps.

        Puts and gets go on meanwhile. Without ``unused_for`` and a budget no image is forgotten: what goes was left
        over by puts that failed or replaced an image.

        Args:
            keep: Images that stay, by their names or by the digests of their configs.
            unused_for: Forget images that were neither put nor got for so many seconds.
            budget_bytes: Forget the least recently used images until what is kept takes no more on disk than this; an
                image whose layers stay anyway is forgotten only if nothing else suffices. 0 forgets all that may go.
            budget_inodes: The same for files, directories and the like.
            dry_run: Change nothing; only report what would go.

        Returns:
            What was forgotten and taken out. The names are gone; the bytes are being deleted. What is leased, being
            put, needed by a container or to be kept stays; if that alone exceeds the budget, no image is forgotten for
            the budget, and ``is_out_of_reach`` is set.

        Raises:
            InvalidInputError: A name in ``keep`` is no image name, or a number is negative.
        """
        options = PruneOptions.of(keep, unused_for, budget_bytes, budget_inodes, dry_run=dry_run)
        return undiscardable(or_closed(self._parts.collector.prune(options)))

    def usage(self) -> Future[Usage]:
        """Return what each image, layer and container costs on disk, shared and alone; and who has leases.

        What was written to containers is measured now, which takes a walk of each. A budget goes by what was measured
        within the last minute, or within twenty times as long as that took; of a new container, by what it takes now.
        """
        return or_closed(self._parts.collector.usage())

    def stats(self) -> StoreStats:
        """Return what this store has done since it was started; at once, also after ``close``."""
        return self._parts.monitor.stats()

    @in_future
    def check(self, *, deep: bool = False, progress: CheckListener | None = None) -> Future[CheckReport]:
        """Check whether what is stored is intact; nothing is changed.

        Args:
            deep: Whether to read every byte: each layer's tar is reassembled, and its DiffID computed again. If not,
                only the configs are read, and each layer's parts looked for.
            progress: Told how far it has come, in a thread of the store; it must not block.
        """
        require_flag("deep", deep)
        require_function("progress", progress)
        return or_closed(self._parts.checker.check(deep=deep, listener=progress))

    @in_future
    def repair(self, *, deep: bool = False, progress: CheckListener | None = None) -> Future[CheckReport]:
        """Check, and take out the layers and configs that are damaged; the next put of their images brings them back.

        Damaged ones that are leased stay, and are not in the report's ``taken_out``. Arguments are those of ``check``.
        """
        require_flag("deep", deep)
        require_function("progress", progress)
        return or_closed(self._parts.checker.repair(deep=deep, listener=progress))

    def swept(self) -> Future[None]:
        """Return once the files of everything that this store removed are deleted."""
        return or_closed(self._parts.collector.swept())
