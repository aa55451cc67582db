"""Find the images of an OCI image layout: follow its indexes, choose for a platform, check digests and sizes.

Pure: blobs come from a ``MemberReader``. No blob of a layer is read here.

Spec:
    OCI image-spec v1.1: image-layout.md, image-index.md, annotations.md "Pre-Defined Annotation Keys".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, TypeVar

from pykka_imagestore.core.archive import ArchivedImage, MemberReader, RefusedImage, count_names, counted
from pykka_imagestore.core.digest import DiffID, Digest, digest_like
from pykka_imagestore.core.formats.image_config import parse_diff_ids, parse_platform
from pykka_imagestore.core.formats.json_fields import expect_object, expect_text, parse_json
from pykka_imagestore.core.formats.oci_documents import (
    CONTAINERD_NAME,
    REF_NAME,
    Descriptor,
    Manifest,
    parse_index,
    parse_manifest,
)
from pykka_imagestore.core.image_name import ImageName
from pykka_imagestore.core.layer_blob import Absent, LayerBlob
from pykka_imagestore.core.platform import Platform, WantedPlatform
from pykka_imagestore.errors import ArchiveError, DigestMismatchError, InvalidNameError, UnsupportedArchiveError
from pykka_imagestore.text import listed, shown

INDEX = "index.json"
LAYOUT = "oci-layout"
MAX_INDEX_DEPTH = 8
_KEPT_BYTES = 4 << 20

T = TypeVar("T")
_Parsed: TypeAlias = dict[Digest, T | ArchiveError]


def read_layout(
    members: MemberReader, wanted: WantedPlatform
) -> tuple[tuple[ArchivedImage, ...], tuple[RefusedImage, ...]]:
    """Return the images of a layout, and what in it cannot be put, in its order.

    What has the same names is one image for several platforms, of which one is chosen; a manifest under several
    names is one image.

    Raises:
        UnsupportedArchiveError: The layout is of a later version, or names nothing.
        ArchiveError: Its ``oci-layout`` or ``index.json`` is malformed.
    """
    _check_version(members)
    top = parse_index(members.archive, members.read_json(INDEX), INDEX)
    if not top:
        raise UnsupportedArchiveError(members.archive, "holds no image: its index.json names none")
    blobs = _Blobs(members)
    blobs.count(top)
    images: dict[Digest, _Image] = {}
    refused = []
    groups = _grouped(top)
    for group in groups:
        count_names(members.totals, group.unsafe_names + group.unsafe_tags)
    for group in groups:
        try:
            for candidate in _Chooser(blobs, wanted, group).choose():
                manifest = candidate.descriptor.digest
                if manifest not in images:
                    images[manifest] = _Image(_read_image(blobs, candidate))
                images[manifest].call(group, candidate)
        except _NoImageError as error:
            refused.append(_refused(group, UnsupportedArchiveError(members.archive, str(error)), is_artifact=True))
        except ArchiveError as error:
            refused.append(_refused(group, error, is_artifact=False))
    return tuple(counted(members.totals, image.complete()) for image in images.values()), tuple(refused)


class _NoImageError(Exception):
    """There is something, but no image."""


@dataclass(frozen=True, slots=True)
class _Group:
    """What ``index.json`` has under the same names."""

    unsafe_names: tuple[str, ...]
    unsafe_tags: tuple[str, ...]
    descriptors: tuple[Descriptor, ...]

    @property
    def is_named(self) -> bool:
        return bool(self.unsafe_names or self.unsafe_tags)

    @property
    def digests(self) -> tuple[Digest, ...]:
        return tuple(dict.fromkeys(descriptor.digest for descriptor in self.descriptors))


def _check_version(members: MemberReader) -> None:
    if not members.has(LAYOUT):
        return
    document = expect_object(members.archive, parse_json(members.archive, members.read_json(LAYOUT), LAYOUT), LAYOUT)
    version = expect_text(members.archive, document.get("imageLayoutVersion"), f"{LAYOUT}, imageLayoutVersion")
    if version.partition(".")[0] != "1":
        reason = f"is an OCI image layout of version {shown(version)}; 1 is supported"
        raise UnsupportedArchiveError(members.archive, reason)


# -- names


def _grouped(descriptors: Iterable[Descriptor]) -> list[_Group]:
    groups: dict[tuple[str, str], list[Descriptor]] = {}
    for descriptor in descriptors:
        key = descriptor.annotation(CONTAINERD_NAME), descriptor.annotation(REF_NAME)
        groups.setdefault(key, []).append(descriptor)
    return [_Group(*_names(*key), tuple(members)) for key, members in groups.items()]


def _names(unsafe_full_name: str, unsafe_ref_name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what is a name, and what is a tag alone: the annotation for names may hold either."""
    if _is_name(unsafe_full_name):
        name = unsafe_full_name
    elif "/" in unsafe_ref_name or ":" in unsafe_ref_name:
        name = unsafe_ref_name
    else:
        name = ""
    tags = (text for text in (unsafe_ref_name, unsafe_full_name) if text and text != name)
    return ((name,) if name else ()), tuple(dict.fromkeys(tags))


def _is_name(unsafe_text: str) -> bool:
    try:
        ImageName.parse(unsafe_text)
    except InvalidNameError:
        return False
    return True


def _refused(group: _Group, error: ArchiveError, *, is_artifact: bool) -> RefusedImage:
    return RefusedImage(group.unsafe_names, group.unsafe_tags, group.digests, _bare(error), is_artifact)


def _bare(error: ArchiveError) -> ArchiveError:
    """Return an error without what it holds: all that was at hand where it was raised, manifests and JSON."""
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error


class _Image:
    """An image and all that the layout calls it, in the layout's order."""

    def __init__(self, image: ArchivedImage) -> None:
        self._image = image
        self._unsafe_names: dict[str, None] = {}
        self._unsafe_tags: dict[str, None] = {}
        self._digests: dict[Digest, None] = {}

    def call(self, group: _Group, candidate: _Candidate) -> None:
        self._unsafe_names.update(dict.fromkeys(group.unsafe_names))
        self._unsafe_tags.update(dict.fromkeys(group.unsafe_tags))
        self._digests.update(dict.fromkeys((candidate.named_by, candidate.descriptor.digest)))

    def complete(self) -> ArchivedImage:
        names = tuple(self._unsafe_names), tuple(self._unsafe_tags), tuple(self._digests)
        return replace(self._image, unsafe_names=names[0], unsafe_tags=names[1], digests=names[2])


# -- blobs


class _Blobs:
    """The blobs of a layout by descriptor, each read and verified once if they are not very many."""

    def __init__(self, members: MemberReader) -> None:
        self.archive = members.archive
        self.totals = members.totals
        self._members = members
        self._kept_bytes = 0
        self._bytes: dict[Digest, bytes] = {}
        self._indexes: _Parsed[tuple[Descriptor, ...]] = {}
        self._manifests: _Parsed[Manifest] = {}
        self._platforms: _Parsed[Platform | None] = {}
        self._diff_ids: _Parsed[tuple[DiffID, ...]] = {}

    def count(self, descriptors: Sequence[Descriptor]) -> None:
        """Count what indexes point to, over all of them: an index may be named by many others."""
        self.totals.add("images", len(descriptors), "manifests, counted each time that an index names them")

    def index(self, descriptor: Descriptor) -> tuple[Descriptor, ...]:
        descriptors = self._parse_once(self._indexes, descriptor, parse_index)
        self.count(descriptors)
        return descriptors

    def manifest(self, descriptor: Descriptor) -> Manifest:
        manifest = self._parse_once(self._manifests, descriptor, parse_manifest)
        count = len(manifest.layers)
        self.totals.check("layers", count, f"its manifest {descriptor.digest} has {count} layers")
        return manifest

    def platform(self, config: Descriptor) -> Platform | None:
        return self._parse_once(self._platforms, config, parse_platform)

    def diff_ids(self, config: Descriptor) -> tuple[DiffID, ...]:
        return self._parse_once(self._diff_ids, config, parse_diff_ids)

    def _parse_once(self, parsed: _Parsed[T], descriptor: Descriptor, parse: Callable[[str, bytes, str], T]) -> T:
        """Parse a blob, or say again what is wrong with it: ten thousand descriptors may name one of four megabytes."""
        data = self.read(descriptor)
        if descriptor.digest not in parsed:
            try:
                parsed[descriptor.digest] = parse(self.archive, data, descriptor.path)
            except ArchiveError as error:
                parsed[descriptor.digest] = _bare(error)
        result = parsed[descriptor.digest]
        if isinstance(result, ArchiveError):
            raise result.with_traceback(None)
        return result

    def read(self, descriptor: Descriptor) -> bytes:
        """Return a blob that holds JSON."""
        digest = descriptor.digest
        if digest not in self._bytes:
            data = self._members.read_json(self.blob(descriptor).name)
            found = digest_like(digest, data)
            if found != digest:
                raise DigestMismatchError(self.archive, f"blob {descriptor.path}", digest, found)
            self._forget_if_much(len(data))
            self._bytes[digest] = data
        data = self._bytes[digest]
        self._check_size(descriptor, len(data))
        return data

    def _forget_if_much(self, more_bytes: int) -> None:
        """Forget what was read and parsed, if that is much; to read it again counts again."""
        self._kept_bytes += more_bytes
        if self._kept_bytes > _KEPT_BYTES:
            self._kept_bytes = more_bytes
            for kept in (self._bytes, self._indexes, self._manifests, self._platforms, self._diff_ids):
                kept.clear()

    def blob(self, descriptor: Descriptor) -> LayerBlob:
        """Return a blob, with the descriptor's digest."""
        if not self.has(descriptor):
            raise ArchiveError(self.archive, f"its blob {descriptor.path} is missing")
        blob = self._members.blob(descriptor.path)
        self._check_size(descriptor, blob.size)
        return replace(blob, digest=descriptor.digest)

    def has(self, descriptor: Descriptor) -> bool:
        return self._members.has(descriptor.path)

    def _check_size(self, descriptor: Descriptor, size: int) -> None:
        if size != descriptor.size:
            reason = f"its blob {descriptor.path} has {size} bytes, but should have {descriptor.size}"
            raise ArchiveError(self.archive, reason)


# -- choosing


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A manifest that may be chosen.

    Attributes:
        named_by: What ``index.json`` names: the manifest, or an index that leads to it.
        platform: None if nothing names it.
        fault: Why it is no image; None if it is one, as far as that is known without reading it.
    """

    descriptor: Descriptor
    named_by: Digest
    platform: Platform | None
    fault: str | None = None


class _Chooser:
    """Chooses among what has the same names."""

    def __init__(self, blobs: _Blobs, wanted: WantedPlatform, group: _Group) -> None:
        self._blobs = blobs
        self._wanted = wanted
        self._group = group

    def choose(self) -> list[_Candidate]:
        """Return what to put; several only where they have no names to tell which is meant.

        Raises:
            UnsupportedArchiveError: No image there is for the platform.
            ArchiveError: What must be read to choose is malformed or missing.
            _NoImageError: Nothing there is an image.
        """
        known: list[_Candidate] = []
        pool: list[_Candidate] = []
        for descriptor in {descriptor.digest: descriptor for descriptor in self._group.descriptors}.values():
            candidates = self._candidates(descriptor, descriptor.digest)
            known += candidates
            pool += self._best(candidates)[:1] if descriptor.is_index else candidates
        best = self._best(pool)
        if not best:
            raise self._refusal(known)
        return best[:1] if self._group.is_named else best

    def _candidates(self, descriptor: Descriptor, named_by: Digest, depth: int = 0) -> list[_Candidate]:
        if not descriptor.is_index:
            return [self._candidate(descriptor, named_by)]
        if depth == MAX_INDEX_DEPTH:
            raise ArchiveError(self._blobs.archive, f"its indexes are nested more than {MAX_INDEX_DEPTH} deep")
        below = self._blobs.index(descriptor)
        return [candidate for each in below for candidate in self._candidates(each, named_by, depth + 1)]

    def _candidate(self, descriptor: Descriptor, named_by: Digest) -> _Candidate:
        fault = descriptor.fault()
        if fault is not None or descriptor.platform is not None:
            return _Candidate(descriptor, named_by, descriptor.platform, fault)
        manifest = self._blobs.manifest(descriptor)
        fault = manifest.fault()
        platform = self._blobs.platform(manifest.config) if fault is None else None
        return _Candidate(descriptor, named_by, platform, fault)

    def _best(self, candidates: Sequence[_Candidate]) -> list[_Candidate]:
        """Return those images that suit the platform best, in their order."""
        images = [candidate for candidate in candidates if candidate.fault is None]
        if len(images) == 1 and self._wanted.allows(images[0].platform):
            return images
        suitable = [image for image in images if image.platform and image.platform.suits(self._wanted.platform)]
        if not suitable:
            return [image for image in images if image.platform is None]
        best = max(image.platform.age for image in suitable if image.platform)
        return [image for image in suitable if image.platform and image.platform.age == best]

    def _refusal(self, candidates: Sequence[_Candidate]) -> Exception:
        what = self._what()
        platforms = dict.fromkeys(str(candidate.platform) for candidate in candidates if candidate.fault is None)
        if platforms:
            reason = f"{what} holds no image for {self._wanted.platform}, but for {listed([*platforms])}; ask for one"
            return UnsupportedArchiveError(self._blobs.archive, reason)
        faults = [candidate.fault for candidate in candidates if candidate.fault is not None]
        if len(candidates) == len(self._group.descriptors) == 1:
            return _NoImageError(f"{what} {faults[0]}")
        return _NoImageError(
            f"{what} holds no image: " + (f"its first manifest {faults[0]}" if faults else "it is empty")
        )

    def _what(self) -> str:
        texts = (*self._group.unsafe_names, *self._group.unsafe_tags)
        return f"what it names {shown(texts[0])}" if texts else f"its manifest {self._group.digests[0]}"


# -- reading


def _read_image(blobs: _Blobs, candidate: _Candidate) -> ArchivedImage:
    descriptor = candidate.descriptor
    manifest = blobs.manifest(descriptor)
    fault = manifest.fault()
    if fault is not None:
        raise _NoImageError(f"its manifest {descriptor.digest} {fault}")
    diff_ids = blobs.diff_ids(manifest.config)
    if len(diff_ids) != len(manifest.layers):
        reason = (
            f"its manifest {descriptor.digest} has {len(manifest.layers)} layers, but its config "
            f"{manifest.config.digest} lists {len(diff_ids)}"
        )
        raise ArchiveError(blobs.archive, reason)
    layers = tuple(_layer(blobs, layer) for layer in manifest.layers)
    return ArchivedImage((), blobs.read(manifest.config), layers, diff_ids)


def _layer(blobs: _Blobs, descriptor: Descriptor) -> LayerBlob:
    """Return a layer; one that is missing is no matter if the store has it."""
    if blobs.has(descriptor):
        return blobs.blob(descriptor)
    reason = "is missing: it is a layer that is kept elsewhere" if descriptor.is_foreign else "is missing"
    location = Absent(blobs.archive, reason)
    return LayerBlob(descriptor.path, descriptor.size, location, descriptor.digest)
