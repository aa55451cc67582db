"""Find out whether the layers of an image fit together. Runs in a worker process."""

from __future__ import annotations

from dataclasses import dataclass

from pykka_imagestore.core.plan_rootfs import plan_rootfs
from pykka_imagestore.core.rootfs import Reads
from pykka_imagestore.rootfs.stored_layer import opened_layers


@dataclass(frozen=True, slots=True)
class CheckStack:
    """Which layers.

    Attributes:
        layers: Their directories in layers/, the root layer first.
    """

    layers: tuple[str, ...]


def check_stack(request: CheckStack) -> None:
    """Raise if the layers do not fit together; writes nothing.

    Raises:
        StackError: A hard link leads to nothing that a layer below has.
        RecordError, StateError, OSError: As ``make_stack``.
    """
    with opened_layers(request.layers) as layers:
        plan_rootfs(layers, Reads.ANY)
