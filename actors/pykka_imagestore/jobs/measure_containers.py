"""Measure what was written to containers. Runs in a worker process: what runs in them may have left any tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pykka_imagestore.core.budget import Size
from pykka_imagestore.fs.tree_size import measure_tree


@dataclass(frozen=True, slots=True)
class MeasureContainers:
    """What to measure.

    Attributes:
        directories: Those of the containers, and which names in each are left out: where the layers are mounted.
    """

    directories: tuple[tuple[str, tuple[str, ...]], ...]


def measure_containers(request: MeasureContainers) -> Sequence[tuple[int, int]]:
    """Return bytes and inodes of each, in their order; of what is not there, none."""
    sizes: list[Size] = [measure_tree(*each) for each in request.directories]
    return [(size.bytes, size.inodes) for size in sizes]
