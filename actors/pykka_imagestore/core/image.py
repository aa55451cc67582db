"""Images and layers, as the store knows them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

from pykka_imagestore.core.digest import DiffID, Digest


@dataclass(frozen=True, slots=True)
class DockerImage:
    """Which layers make an image.

    Attributes:
        name: The familiar form with its tag, ``ubuntu:latest``; a tag beside a digest is a label. The digest
            of the config, ``sha256:<hex>``, if the image has no name.
        layer_ids: DiffIDs, root layer first, leaf last; one may appear twice.
        config_digest: Digest of the image config's bytes; None if the store does not have it.
        missing: Those of ``layer_ids`` that are not in the store; an image with any is listed, but not served.
    """

    name: str
    layer_ids: tuple[DiffID, ...]
    config_digest: Digest | None = None
    missing: tuple[DiffID, ...] = ()

    def without(self, absent: Collection[DiffID]) -> DockerImage:
        """Return this image with those of its layers as missing that are absent."""
        missing = tuple(layer for layer in self.layer_ids if layer in absent)
        return self if missing == self.missing else replace(self, missing=missing)


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer in the store.

    Attributes:
        diff_id: Its identity.
        path: The directory of its unpacked files; read it, never write to it.
        whiteouts: How it keeps what it deletes of the layers below: ``none`` if it deletes nothing; ``trusted`` as an
            overlay of root's reads it, ``user`` as one that is mounted with ``userxattr`` does, both with devices 0/0;
            ``files`` with files ``.wh.<name>``, which no overlay reads. None where it was not looked up, as in a list,
            or cannot be read; layers are equal all the same.
    """

    diff_id: DiffID
    path: Path
    whiteouts: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """An image in the store.

    Attributes:
        name: The familiar form with its tag, ``ubuntu:latest``.
        layers: Root layer first, leaf last.
        config_digest: Digest of the image config; None if the store does not have it.
        missing: DiffIDs of layers that are not there; an image with any is listed, but not served.
    """

    name: str
    layers: tuple[Layer, ...]
    config_digest: Digest | None
    missing: tuple[DiffID, ...] = ()


@dataclass(frozen=True, slots=True)
class Recovery:
    """What a store found when it was opened.

    Attributes:
        images: How many there are.
        incomplete: Names of those with missing layers: they are listed, but not served.
        orphans: How many directories in staging/ and gc/ processes that ended have left; they are being deleted.
    """

    images: int
    incomplete: tuple[str, ...]
    orphans: int
