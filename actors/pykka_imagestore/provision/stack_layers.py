"""Of which directories a stack of layers is merged, as its record has it."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Generator, Sequence
from dataclasses import dataclass

from pykka_imagestore.core.digest import DiffID
from pykka_imagestore.core.paths import STACK_RECORD, StorePaths
from pykka_imagestore.core.rootfs import Reads, StackLayer, stack_id
from pykka_imagestore.durable.stacks import find_stack, stack_layers


@dataclass(frozen=True, slots=True)
class StackWanted:
    """What a stack of layers needs on top is to be made, by whoever comes first."""

    layer_ids: tuple[DiffID, ...]
    reads: Reads


_REMEMBERED = 256

_Known = tuple[tuple[int, ...], tuple[StackLayer, ...]]


class StackLayers:
    """Finds them; a record that has not changed is read once. Thread-safe."""

    def __init__(self, paths: StorePaths) -> None:
        self._paths = paths
        self._known: OrderedDict[str, _Known] = OrderedDict()  # each use of it is atomic in Python

    def find(self, layer_ids: Sequence[DiffID], reads: Reads) -> tuple[StackLayer, ...] | None:
        """Return them, the lowest first; None if what the stack needs on top is to be made first.

        They stay while somebody needs the layers.
        """
        stack = stack_id(layer_ids, reads)
        try:
            status = os.lstat(self._paths.stack(stack) / STACK_RECORD)
        except FileNotFoundError:
            return None
        identity = status.st_dev, status.st_ino, status.st_ctime_ns
        known = self._known.get(stack)
        if known is None or known[0] != identity:
            record = find_stack(self._paths, layer_ids, reads)
            if record is None:
                return None
            known = self._known[stack] = identity, stack_layers(self._paths, record)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return known[1]

    def need(
        self, layer_ids: Sequence[DiffID], reads: Reads
    ) -> Generator[StackWanted, None, tuple[StackLayer, ...] | None]:
        """Return what ``find`` does, and yield what is to be made first; None if that is gone again, or damaged."""
        layers = self.find(layer_ids, reads)
        if layers is None:
            yield StackWanted(tuple(layer_ids), reads)
            layers = self.find(layer_ids, reads)
        return layers
