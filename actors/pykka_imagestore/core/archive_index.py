"""What an image archive holds, as found by reading its headers and its JSON. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pykka_imagestore.core.digest import DiffID, Digest
from pykka_imagestore.core.format_error import FormatError
from pykka_imagestore.core.layer_blob import LayerBlob
from pykka_imagestore.core.totals import Totals

_LAYER_BYTES = 300  # of one layer in an index, beside its name and what else has the length of a name or path
_BRACKET_BYTES = 64  # more, since the reader of an index counts brackets, also those in texts
_ESCAPE_BYTES = 5  # more, for each character that is not ASCII
_PLAIN = bytes(range(0x20, 0x7F)) + b"\t\n\r"


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


@dataclass(frozen=True, slots=True)
class RefusedImage:
    """Something in an archive that cannot be put; it fails a put only if it is what would be put.

    Attributes:
        unsafe_names: The names the archive gives it.
        unsafe_tags: What else the archive calls it.
        digests: What it may be selected by.
        error: Why it cannot be put.
        is_artifact: Whether it is no image at all, but a signature, a list of contents or the like.
    """

    unsafe_names: tuple[str, ...]
    unsafe_tags: tuple[str, ...]
    digests: tuple[Digest, ...]
    error: FormatError
    is_artifact: bool


@dataclass(frozen=True, slots=True)
class ArchiveIndex:
    """The images of one archive, in its order.

    Attributes:
        path: The archive.
        images: Those that can be put.
        refused: Those that cannot.
    """

    path: str
    images: tuple[ArchivedImage, ...]
    refused: tuple[RefusedImage, ...] = ()


def count_image(totals: Totals, image: ArchivedImage) -> None:
    """Count an image, without its names, as bytes of the index that a worker sends.

    Raises:
        LimitExceededError: All images of the archive together take too many.
    """
    config = image.config
    texts = *image.digests, *(image.diff_ids or ())
    layers = sum(_LAYER_BYTES + sum(map(_sent_bytes, (layer.name, *layer.location.texts))) for layer in image.layers)
    escaped = config.count(b'"') + config.count(b"\\") + _ESCAPE_BYTES * len(config.translate(None, _PLAIN))
    total = len(config) + escaped + _BRACKET_BYTES * config.count(b"[") + layers + sum(map(_sent_bytes, texts))
    totals.add("index_bytes", total, "bytes of configs, names and layers")


def count_names(totals: Totals, unsafe_names: Sequence[str]) -> None:
    """Count names and tags that an archive gives its images, those that are refused too.

    Raises:
        LimitExceededError: They are too many, or too long.
    """
    totals.add("names", len(unsafe_names), "names and tags")
    totals.add("index_bytes", sum(map(_sent_bytes, unsafe_names)), "bytes of configs, names and layers")


def _sent_bytes(text: str) -> int:
    length = len(text) if text.isascii() else len(text) * (1 + _ESCAPE_BYTES)
    return length + _BRACKET_BYTES * text.count("[")
