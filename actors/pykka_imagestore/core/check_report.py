"""What a check of a store found, as plain values."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from pykka_imagestore.core.digest import DiffID, Digest
from pykka_imagestore.core.image import DockerImage
from pykka_imagestore.text import escaped


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a check found.

    Attributes:
        kind: ``layer``, ``config``, ``image`` or ``journal``; ``store`` for a file that is not the store's own.
        name: Its DiffID, digest or name; for anything else its path in the store.
        reason: What was found, as the rest of a sentence.
    """

    kind: str
    name: str
    reason: str

    def __str__(self) -> str:
        return escaped(f"{self.kind} {self.name} {self.reason}")


@dataclass(frozen=True, slots=True)
class Evicted:
    """What an eviction did with what a check found damaged.

    Attributes:
        evicted: DiffIDs and digests of what is gone.
        put_anew: DiffIDs and digests of what was replaced since the check saw it, and so was left.
    """

    evicted: tuple[str, ...]
    put_anew: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check or a repair found.

    Attributes:
        images: How many images were looked at; likewise layers and configs.
        faults: What is wrong.
        unchecked: What could not be checked. Nothing is known to be wrong with it.
        taken_out: DiffIDs and digests of what a repair took out; the next put brings it back.
        put_anew: DiffIDs and digests of what was replaced since it was checked, and so was left; another check tells.
    """

    images: int
    layers: int
    configs: int
    faults: tuple[Finding, ...]
    unchecked: tuple[Finding, ...] = ()
    taken_out: tuple[str, ...] = ()
    put_anew: tuple[str, ...] = ()

    @property
    def left_in(self) -> tuple[str, ...]:
        """DiffIDs and digests of what is damaged and was left, since a lease needs it."""
        damaged = dict.fromkeys(fault.name for fault in self.faults if fault.kind in ("layer", "config"))
        return tuple(name for name in damaged if name not in (*self.taken_out, *self.put_anew))


@dataclass(frozen=True, slots=True)
class CheckProgress:
    """How far a check has come.

    Attributes:
        layers_done: Layers checked.
        layers_expected: Layers there are.
        bytes_done: Bytes of their tars that were checked, in a deep check.
    """

    layers_done: int
    layers_expected: int
    bytes_done: int = 0


def stacks_by_config(images: Iterable[DockerImage]) -> dict[Digest, tuple[tuple[DiffID, ...], ...]]:
    """Return, for each config, the stacks of layers of the images that have it, each stack once."""
    stacks: dict[Digest, dict[tuple[DiffID, ...], None]] = {}
    for image in images:
        if image.config_digest is not None:
            stacks.setdefault(image.config_digest, {})[image.layer_ids] = None
    return {config: tuple(found) for config, found in stacks.items()}


def find_image_faults(
    images: tuple[DockerImage, ...],
    configs: frozenset[Digest],
    bad: Collection[DiffID],
    others: Collection[tuple[Digest, tuple[DiffID, ...]]],
) -> Iterator[Finding]:
    """Tell which images lack layers or their config, have damaged layers, or a config that lists other layers.

    Args:
        configs: Configs that are stored.
        bad: Layers that are stored, and damaged.
        others: Configs, each with layers that it does not list, or not in this order.
    """
    for image in images:
        if image.missing:
            yield Finding("image", image.name, f"lacks {_count(image.missing)}; put it again")
        damaged = [layer for layer in dict.fromkeys(image.layer_ids) if layer in bad]
        if damaged:
            yield Finding("image", image.name, f"has damage in {_count(damaged)}")
        if image.config_digest is not None and image.config_digest not in configs:
            yield Finding("image", image.name, f"lacks its config {image.config_digest}; put it again")
        if (image.config_digest, image.layer_ids) in others:
            what = f"has other layers than its config {image.config_digest} lists; put it again"
            yield Finding("image", image.name, what)


def find_torn_journal(torn_bytes: int) -> Iterator[Finding]:
    """Report the bytes at the end of the journal that are no whole change, if there are any."""
    if torn_bytes:
        what = f"ends in {torn_bytes} bytes that are no whole change: one that a crash cut off, or that is damaged"
        yield Finding("journal", "storedImages.journal", what)


def _count(layers: tuple[DiffID, ...] | list[DiffID]) -> str:
    return f"layer {layers[0]}" + (f" and {len(layers) - 1} more" if len(layers) > 1 else "")
