"""What an image archive holds, as found by reading its headers: where each layer lies, and what it claims to be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pykka_imagestore.core.digest import DiffID, Digest
from pykka_imagestore.core.layer_blob import LayerBlob
from pykka_imagestore.core.totals import Totals
from pykka_imagestore.errors import ArchiveError

_LAYER_BYTES = 300  # beside its name and what else has the length of a name or path
_BRACKET_BYTES = 64  # more, since whoever is sent an index counts brackets, also those in texts
_ESCAPE_BYTES = 5  # more, for what is no ASCII
_PLAIN = bytes(range(0x20, 0x7F)) + b"\t\n\r"


class MemberReader(Protocol):
    """An archive's members, by name.

    Attributes:
        archive: Its path.
        totals: What counts all that it asks for.
    """

    archive: str
    totals: Totals

    def has(self, name: str) -> bool:
        """Tell whether there is a member of that name."""

    def names(self) -> list[str]:
        """Return the names of all members."""

    def blob(self, unsafe_name: str) -> LayerBlob:
        """Return a member as a blob; ArchiveError if it is not there."""

    def read_json(self, unsafe_name: str) -> bytes:
        """Return a member's bytes, bounded; ArchiveError if it is not there."""


@dataclass(frozen=True, slots=True)
class ArchivedImage:
    """One image in an archive. All that it says of itself is a claim.

    Attributes:
        unsafe_names: The names the archive gives it.
        config: The image config as the archive has it; for a legacy archive, the JSON of the leaf layer.
        layers: Root layer first.
        diff_ids: The config's claim, one for each layer; None in a legacy archive, which makes none.
        unsafe_tags: What the archive calls it that is no name by itself, such as ``latest``.
        digests: Of its manifest, and of the indexes that led there.
    """

    unsafe_names: tuple[str, ...]
    config: bytes
    layers: tuple[LayerBlob, ...]
    diff_ids: tuple[DiffID, ...] | None
    unsafe_tags: tuple[str, ...] = ()
    digests: tuple[Digest, ...] = ()


def counted(totals: Totals, image: ArchivedImage) -> ArchivedImage:
    """Return an image, once what there is to know of it but its names is counted as bytes that a worker hands on.

    Raises:
        LimitError: All images of the archive together take too many.
    """
    config = image.config
    texts = *image.digests, *(image.diff_ids or ())
    layers = sum(_LAYER_BYTES + sum(map(_sent_bytes, (layer.name, *layer.location.texts))) for layer in image.layers)
    escaped = config.count(b'"') + config.count(b"\\") + _ESCAPE_BYTES * len(config.translate(None, _PLAIN))
    total = len(config) + escaped + _BRACKET_BYTES * config.count(b"[") + layers + sum(map(_sent_bytes, texts))
    totals.add("index_bytes", total, "bytes of configs, names and layers")
    return image


def count_names(totals: Totals, unsafe_names: Sequence[str]) -> None:
    """Count names and tags that an archive gives its images, those that are refused too.

    Raises:
        LimitError: They are too many, or too long.
    """
    totals.add("names", len(unsafe_names), "names and tags")
    totals.add("index_bytes", sum(map(_sent_bytes, unsafe_names)), "bytes of configs, names and layers")


def _sent_bytes(text: str) -> int:
    length = len(text) if text.isascii() else len(text) * (1 + _ESCAPE_BYTES)
    return length + _BRACKET_BYTES * text.count("[")


@dataclass(frozen=True, slots=True)
class RefusedImage:
    """Something in an archive that cannot be put; that matters only if it is what would be put.

    Attributes:
        unsafe_names: The names the archive gives it.
        unsafe_tags: What else it calls it.
        digests: What it may be selected by.
        error: Why it cannot be put.
        is_artifact: Whether it is no image at all, but a signature, a list of contents or the like.
    """

    unsafe_names: tuple[str, ...]
    unsafe_tags: tuple[str, ...]
    digests: tuple[Digest, ...]
    error: ArchiveError
    is_artifact: bool


@dataclass(frozen=True, slots=True)
class ArchiveIndex:
    """The images of one archive, in its order."""

    path: str
    images: tuple[ArchivedImage, ...]
    refused: tuple[RefusedImage, ...] = ()
