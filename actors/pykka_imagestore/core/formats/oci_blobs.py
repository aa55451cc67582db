"""The blobs of an OCI image layout, verified: their digests, their sizes and their documents. Pure.

Spec:
    OCI image-spec v1.1: image-layout.md, descriptor.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias, TypeVar

from pykka_imagestore.core.digest import DiffID, Digest, digest_like
from pykka_imagestore.core.format_error import FormatError, WrongDigestError
from pykka_imagestore.core.formats.image_config import parse_diff_ids, parse_platform
from pykka_imagestore.core.formats.oci_documents import Descriptor, Manifest, parse_index, parse_manifest
from pykka_imagestore.core.layer_blob import LayerBlob
from pykka_imagestore.core.member_reader import MemberReader
from pykka_imagestore.core.platform import Platform
from pykka_imagestore.core.totals import Totals
from pykka_imagestore.text import shown

_KEPT_BYTES = 4 << 20

T = TypeVar("T")
_Parsed: TypeAlias = dict[Digest, T | FormatError]


class LayoutBlobs:
    """The blobs of one layout, by descriptor.

    A document is read, verified and parsed once, as long as all that are kept are not large together: ten thousand
    descriptors may name one document of four megabytes.

    Args:
        members: The layout.
        totals: Counts what it asks for.
    """

    def __init__(self, members: MemberReader, totals: Totals) -> None:
        self._members = members
        self._totals = totals
        self._kept_bytes = 0
        self._bytes: dict[Digest, bytes] = {}
        self._indexes: _Parsed[tuple[Descriptor, ...]] = {}
        self._manifests: _Parsed[Manifest] = {}
        self._platforms: _Parsed[Platform | None] = {}
        self._diff_ids: _Parsed[tuple[DiffID, ...]] = {}

    def count(self, descriptors: Sequence[Descriptor]) -> None:
        """Count what indexes point to, over all of them, since many may point to the same.

        Raises:
            LimitExceededError: They point to too much.
        """
        self._totals.add("images", len(descriptors), "manifests, counted each time that an index names them")

    def index(self, descriptor: Descriptor) -> tuple[Descriptor, ...]:
        """Return what an index points to."""
        descriptors = self._parse_once(self._indexes, descriptor, parse_index)
        self.count(descriptors)
        return descriptors

    def manifest(self, descriptor: Descriptor) -> Manifest:
        """Return a manifest."""
        manifest = self._parse_once(self._manifests, descriptor, parse_manifest)
        count = len(manifest.layers)
        self._totals.check("layers", count, f"its manifest {descriptor.digest} has {count} layers")
        return manifest

    def platform(self, config: Descriptor) -> Platform | None:
        """Return the platform that a config names; None if it names none."""
        return self._parse_once(self._platforms, config, parse_platform)

    def diff_ids(self, config: Descriptor) -> tuple[DiffID, ...]:
        """Return the DiffIDs that a config lists, root layer first."""
        return self._parse_once(self._diff_ids, config, parse_diff_ids)

    def read(self, descriptor: Descriptor) -> bytes:
        """Return the bytes of a document.

        Raises:
            FormatError: It is missing, or its size is not the descriptor's.
            WrongDigestError: Its digest is not the descriptor's.
        """
        digest = descriptor.digest
        if digest not in self._bytes:
            data = self._members.read_json(self._blob(descriptor).name)
            found = digest_like(digest, data)
            if found != digest:
                raise WrongDigestError(digest, found, (f"blob {descriptor.path}",))
            self._forget_if_much(len(data))
            self._bytes[digest] = data
        data = self._bytes[digest]
        self._check_size(descriptor, len(data))
        return data

    def layer(self, descriptor: Descriptor) -> LayerBlob:
        """Return a layer. One that is missing is absent: no fault, if the store has it."""
        if self._members.has(descriptor.path):
            return self._blob(descriptor)
        reason = "is missing: it is a layer that is kept elsewhere" if descriptor.is_foreign else "is missing"
        return LayerBlob(descriptor.path, descriptor.size, self._members.absent(reason), descriptor.digest)

    def _parse_once(self, parsed: _Parsed[T], descriptor: Descriptor, parse: Callable[[bytes], T]) -> T:
        data = self.read(descriptor)
        if descriptor.digest not in parsed:
            try:
                parsed[descriptor.digest] = parse(data)
            except FormatError as error:
                parsed[descriptor.digest] = error.inside(shown(descriptor.path))
        result = parsed[descriptor.digest]
        if isinstance(result, FormatError):
            raise result.with_traceback(None)
        return result

    def _blob(self, descriptor: Descriptor) -> LayerBlob:
        if not self._members.has(descriptor.path):
            msg = "is missing"
            raise FormatError(msg, (f"its blob {descriptor.path}",))
        blob = self._members.blob(descriptor.path)
        self._check_size(descriptor, blob.size)
        return replace(blob, digest=descriptor.digest)

    def _check_size(self, descriptor: Descriptor, size: int) -> None:
        if size != descriptor.size:
            msg = f"has {size} bytes, but should have {descriptor.size}"
            raise FormatError(msg, (f"its blob {descriptor.path}",))

    def _forget_if_much(self, more_bytes: int) -> None:
        """Forget what was read and parsed once it is much; reading it again counts again."""
        self._kept_bytes += more_bytes
        if self._kept_bytes > _KEPT_BYTES:
            self._kept_bytes = more_bytes
            for kept in (self._bytes, self._indexes, self._manifests, self._platforms, self._diff_ids):
                kept.clear()
