"""Hard links of a layer to files of the layers below, which a layer on its own cannot hold: they go into its record."""

from __future__ import annotations

from pykka_imagestore.fs.attributes import join
from pykka_imagestore.jobs.unpack.memory_limit import MemoryLimit

UNMADE = b""
"""Where a link would lead that stands for a device which could not be made: nothing lies at its path, either."""

_LINK_BYTES = 400  # of memory, beside the paths
_PATH_COPIES = 3  # a path goes into the layer's record too, as it is and serialized


class LowerLinks:
    """The links of one layer, by their path; one that a later entry replaces is dropped.

    Args:
        memory: They count there.
    """

    def __init__(self, memory: MemoryLimit) -> None:
        self._memory = memory
        self._targets: dict[bytes, dict[bytes, bytes]] = {}  # by directory and name: a directory is removed at once

    def __bool__(self) -> bool:
        """Tell whether there are any."""
        return bool(self._targets)

    def add(self, parent: bytes, name: bytes, target: bytes) -> None:
        """Add a link.

        Raises:
            OverLimitError: It is one too many.
        """
        self.drop(parent, name)
        self._targets.setdefault(parent, {})[name] = target
        self._memory.take(_memory_of(parent, name, target), "hard link to a lower layer")

    def find(self, path: bytes) -> bytes | None:
        """Return where the link at a path leads to; None if there is none."""
        parent, _, name = path.rpartition(b"/")
        return self._targets.get(parent, {}).get(name)

    def drop(self, parent: bytes, name: bytes) -> bool:
        """Forget a link, because something else takes its name; tell whether there was one, and no device."""
        links = self._targets.get(parent, {})
        target = links.pop(name, None)
        if target is None:
            return False
        self._memory.give_back(_memory_of(parent, name, target))
        if not links:
            del self._targets[parent]
        return target != UNMADE

    def drop_all_in(self, parent: bytes) -> bool:
        """Forget the links in a directory that is removed; tell whether there were any, not counting devices."""
        links = self._targets.pop(parent, {})
        self._memory.give_back(sum(_memory_of(parent, *link) for link in links.items()))
        return any(target != UNMADE for target in links.values())

    def all(self) -> tuple[tuple[bytes, bytes], ...]:
        """Return all links with where they lead to, sorted."""
        links = ((join(parent, name), each[name]) for parent, each in self._targets.items() for name in each)
        return tuple(sorted(link for link in links if link[1] != UNMADE))


def _memory_of(parent: bytes, name: bytes, target: bytes) -> int:
    return _LINK_BYTES + _PATH_COPIES * (len(parent) + len(name) + len(target))
