"""What containers take on disk, as they were last measured: a worker does that, since it takes a walk of each."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pykka_imagestore.core.budget import NOTHING, Size
from pykka_imagestore.core.container import Container
from pykka_imagestore.core.paths import ROOTFS, StorePaths
from pykka_imagestore.durable.containers import ContainerTable

if TYPE_CHECKING:
    from pykka_imagestore.core.usage import ContainerUsage


@dataclass(frozen=True, slots=True)
class ContainerTree:
    """What to measure of a container.

    Attributes:
        container: It, as it is recorded now.
        directory: Its directory.
        without: Names in there that are left out.
    """

    container: Container
    directory: str
    without: tuple[str, ...]


class ContainerSizes:
    """Remembers what was measured, and when. Thread-safe.

    A container that was not measured yet takes nothing.
    """

    def __init__(self, paths: StorePaths) -> None:
        self._paths = paths
        self._table = ContainerTable(paths)
        self._lock = threading.Lock()
        self._measured: dict[tuple[str, str, int], tuple[Size, float]] = {}

    def find_unmeasured(self, max_age: float) -> tuple[ContainerTree, ...]:
        """Return what is to be measured, since that was never done, or longer ago than so many seconds."""
        since = time.monotonic() - max_age
        with self._lock:
            containers = self._table.read(all_readable=False)
            known = {_key(container) for container in containers.values()}
            self._measured = {key: found for key, found in self._measured.items() if key in known}
            return tuple(
                self._tree(container)
                for container in containers.values()
                if self._measured.get(_key(container), (NOTHING, since))[1] <= since
            )

    def note(self, trees: Iterable[ContainerTree], sizes: Iterable[tuple[int, int]]) -> None:
        """Remember what they take, bytes and inodes, as of now."""
        now = time.monotonic()
        with self._lock:
            for tree, size in zip(trees, sizes, strict=True):
                self._measured[_key(tree.container)] = Size(*size), now

    def sizes(self) -> Mapping[str, Size]:
        """Return what each container takes that is there now."""
        return {usage.container_id: Size(usage.bytes, usage.inodes) for usage in self.usages()}

    def usages(self) -> tuple[ContainerUsage, ...]:
        """Return what each container takes that is there now, by id."""
        with self._lock:
            return tuple(map(self._usage, self._table.read(all_readable=False).values()))

    def _usage(self, container: Container) -> ContainerUsage:
        from pykka_imagestore.core.usage import ContainerUsage  # noqa: PLC0415 - puts need none of it

        size, _ = self._measured.get(_key(container), (NOTHING, 0.0))
        return ContainerUsage(container.container_id, container.image, container.backend, size.bytes, size.inodes)

    def _tree(self, container: Container) -> ContainerTree:
        without = () if container.has_own_files else (ROOTFS,)  # what was written to a mount lies beside it
        return ContainerTree(container, str(self._paths.container(container.container_id)), without)


def _key(container: Container) -> tuple[str, str, int]:
    return container.container_id, container.holder, container.created
