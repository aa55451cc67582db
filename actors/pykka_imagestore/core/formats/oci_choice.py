"""Choose the manifests of an OCI image layout that are put: those of the platform, of one image each. Pure.

Spec:
    OCI image-spec v1.1: image-index.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pykka_imagestore.core.digest import Digest
from pykka_imagestore.core.format_error import FormatError, UnsupportedFormatError
from pykka_imagestore.core.formats.oci_blobs import LayoutBlobs
from pykka_imagestore.core.formats.oci_documents import Descriptor
from pykka_imagestore.core.formats.oci_names import NameGroup
from pykka_imagestore.core.platform import Platform, WantedPlatform
from pykka_imagestore.text import listed, shown

MAX_INDEX_DEPTH = 8


class NoImageError(Exception):
    """A name leads to something, but to no image."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A manifest that may be chosen.

    Attributes:
        named_by: What ``index.json`` names: the manifest, or an index that leads to it.
        platform: None if neither a descriptor nor the config names it.
        fault: Why it is no image; None if it is one, or may be one that was not read.
    """

    descriptor: Descriptor
    named_by: Digest
    platform: Platform | None
    fault: str | None = None


def choose_manifests(blobs: LayoutBlobs, wanted: WantedPlatform, group: NameGroup) -> list[Candidate]:
    """Return the manifests of a group that are put; several only where no name tells which of them is meant.

    Raises:
        UnsupportedFormatError: No image in it is for the platform.
        FormatError: A document that must be read to choose is malformed or missing.
        NoImageError: Nothing in it is an image.
    """
    return _Chooser(blobs, wanted, group).choose()


class _Chooser:
    """Chooses among the entries of one group."""

    def __init__(self, blobs: LayoutBlobs, wanted: WantedPlatform, group: NameGroup) -> None:
        self._blobs = blobs
        self._wanted = wanted
        self._group = group

    def choose(self) -> list[Candidate]:
        known: list[Candidate] = []
        pool: list[Candidate] = []
        for descriptor in {descriptor.digest: descriptor for descriptor in self._group.descriptors}.values():
            candidates = self._candidates(descriptor, descriptor.digest)
            known += candidates
            pool += self._best(candidates)[:1] if descriptor.is_index else candidates
        best = self._best(pool)
        if not best:
            raise self._refusal(known)
        return best[:1] if self._group.is_named else best

    def _candidates(self, descriptor: Descriptor, named_by: Digest, depth: int = 0) -> list[Candidate]:
        if not descriptor.is_index:
            return [self._candidate(descriptor, named_by)]
        if depth == MAX_INDEX_DEPTH:
            msg = f"its indexes are nested more than {MAX_INDEX_DEPTH} deep"
            raise FormatError(msg)
        below = self._blobs.index(descriptor)
        return [candidate for each in below for candidate in self._candidates(each, named_by, depth + 1)]

    def _candidate(self, descriptor: Descriptor, named_by: Digest) -> Candidate:
        fault = descriptor.fault()
        if fault is not None or descriptor.platform is not None:
            return Candidate(descriptor, named_by, descriptor.platform, fault)
        manifest = self._blobs.manifest(descriptor)
        fault = manifest.fault()
        platform = self._blobs.platform(manifest.config) if fault is None else None
        return Candidate(descriptor, named_by, platform, fault)

    def _best(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Return the images that suit the platform best, in their order."""
        images = [candidate for candidate in candidates if candidate.fault is None]
        if len(images) == 1 and self._wanted.allows(images[0].platform):
            return images
        suitable = [image for image in images if image.platform and image.platform.suits(self._wanted.platform)]
        if not suitable:
            return [image for image in images if image.platform is None]
        # An index that is made for two runtimes may name an artifact first, for the same platform as the image.
        real = [image for image in suitable if not self._is_artifact(image)]
        best = max(image.platform.age for image in real or suitable if image.platform)
        return [image for image in real or suitable if image.platform and image.platform.age == best]

    def _is_artifact(self, candidate: Candidate) -> bool:
        """Tell whether the manifest says that it is no image; what is wrong with it otherwise, its put tells."""
        try:
            return self._blobs.manifest(candidate.descriptor).fault() is not None
        except FormatError:
            return False

    def _refusal(self, candidates: Sequence[Candidate]) -> Exception:
        what = self._what()
        platforms = dict.fromkeys(str(candidate.platform) for candidate in candidates if candidate.fault is None)
        if platforms:
            msg = f"holds no image for {self._wanted.platform}, but for {listed([*platforms])}; ask for one"
            return UnsupportedFormatError(msg, (what,))
        faults = [candidate.fault for candidate in candidates if candidate.fault is not None]
        if len(candidates) == len(self._group.descriptors) == 1:
            return NoImageError(f"{what} {faults[0]}")
        return NoImageError(
            f"{what} holds no image: " + (f"its first manifest {faults[0]}" if faults else "it is empty")
        )

    def _what(self) -> str:
        texts = (*self._group.unsafe_names, *self._group.unsafe_tags)
        return f"what it names {shown(texts[0])}" if texts else f"its manifest {self._group.digests[0]}"
