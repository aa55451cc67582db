"""Parse the documents of an OCI image layout: descriptors, manifests and indexes. Pure.

A document that one program could read as a manifest and another as an index is refused, whatever its digest.

Spec:
    OCI image-spec v1.1: descriptor.md, manifest.md, image-index.md, media-types.md; the advice on CVE-2021-41190.
    Docker Image Manifest Version 2, Schema 2, "Media Types".
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pykka_imagestore.core.digest import Digest, is_blob_digest
from pykka_imagestore.core.format_error import FormatError, UnsupportedFormatError, inside
from pykka_imagestore.core.formats.json_fields import (
    describe,
    expect_object,
    get_list,
    get_optional_text,
    get_text,
    parse_json,
)
from pykka_imagestore.core.platform import Platform
from pykka_imagestore.text import shown

INDEX_TYPES = frozenset(
    {"application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"}
)
MANIFEST_TYPES = frozenset(
    {"application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"}
)
CONFIG_TYPES = frozenset({"application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"})
LAYER_TYPES = frozenset(
    f"application/vnd.{kind}"
    for kind in (
        "oci.image.layer.v1.tar",
        "oci.image.layer.v1.tar+gzip",
        "oci.image.layer.v1.tar+zstd",
        "oci.image.layer.nondistributable.v1.tar",
        "oci.image.layer.nondistributable.v1.tar+gzip",
        "oci.image.layer.nondistributable.v1.tar+zstd",
        "docker.image.rootfs.diff.tar",
        "docker.image.rootfs.diff.tar.gzip",
        "docker.image.rootfs.diff.tar.zstd",
        "docker.image.rootfs.foreign.diff.tar",
        "docker.image.rootfs.foreign.diff.tar.gzip",
    )
)
REF_NAME = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"

_SCHEMA_1_TYPES = frozenset(
    {
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    }
)
_SCHEMA_1 = (
    "is a manifest of Docker's schema 1, which is not supported; push or save the image anew with a newer Docker"
)
_REFERENCE_TYPE = "vnd.docker.reference.type"  # BuildKit's attestations have it
_NOTHING: dict[str, str] = {}  # one for all, since most layers of an image have none
_ANNOTATIONS = (REF_NAME, CONTAINERD_NAME, _REFERENCE_TYPE)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A reference to a blob.

    Attributes:
        platform: None if it names none.
        artifact_type: Empty if it names none.
        annotations: Those that are used here.
    """

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None
    artifact_type: str
    annotations: Mapping[str, str]

    @property
    def path(self) -> str:
        """Where its blob lies in a layout."""
        algorithm, _, encoded = self.digest.partition(":")
        return f"blobs/{algorithm}/{encoded}"

    @property
    def is_index(self) -> bool:
        """Whether it points to an index."""
        return self.media_type in INDEX_TYPES

    @property
    def is_foreign(self) -> bool:
        """Whether it points to a layer that may not be redistributed, and so is often left out."""
        return ".nondistributable." in self.media_type or ".foreign." in self.media_type

    def annotation(self, key: str) -> str:
        """Return an annotation, empty if it is not there."""
        return self.annotations.get(key, "")

    def fault(self) -> str | None:
        """Return why it does not point to an image, as the rest of a sentence; None if it may."""
        if self.media_type in _SCHEMA_1_TYPES:
            return _SCHEMA_1
        if self.media_type not in MANIFEST_TYPES:
            return f"has the media type {shown(self.media_type)}, which is not an image's"
        if self.annotation(_REFERENCE_TYPE) or (self.platform is not None and self.platform.is_unknown):
            return "is an attestation, which describes an image and is none"
        return _artifact_fault(self.artifact_type)


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image, or an artifact that is none."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    artifact_type: str

    def fault(self) -> str | None:
        """Return why it is no image, as the rest of a sentence; None if it is one."""
        if self.config.media_type not in CONFIG_TYPES:
            return f"is an artifact, no image: its config has the media type {shown(self.config.media_type)}"
        for number, layer in enumerate(self.layers):
            if layer.media_type not in LAYER_TYPES:
                return f"is no image: its layer {number} has the media type {shown(layer.media_type)}"
        return _artifact_fault(self.artifact_type)


def parse_index(data: bytes) -> tuple[Descriptor, ...]:
    """Return what an index points to.

    Raises:
        UnsupportedFormatError: It is a manifest of Docker's schema 1.
        FormatError: It is malformed, or could be read as a manifest too.
    """
    document = _parse(data, INDEX_TYPES, "an index", ("layers", "config", "fsLayers"))
    if "manifests" not in document:
        msg = "is no index: it has no manifests"
        raise FormatError(msg)
    return _descriptors(get_list(document, "manifests"), "manifest")


def parse_manifest(data: bytes) -> Manifest:
    """Return what a manifest says.

    Raises:
        UnsupportedFormatError: It is one of Docker's schema 1.
        FormatError: It is malformed, or could be read as an index too.
    """
    document = _parse(data, MANIFEST_TYPES, "a manifest", ("manifests", "fsLayers"))
    config = _descriptor(document.get("config"), "config")
    layers = _descriptors(get_list(document, "layers"), "layer")
    return Manifest(config, layers, get_optional_text(document, "artifactType"))


def _parse(data: bytes, media_types: Collection[str], kind: str, unfit: Iterable[str]) -> dict[str, Any]:
    document = expect_object(parse_json(data))
    media_type = get_optional_text(document, "mediaType")
    version = document.get("schemaVersion")
    if media_type in _SCHEMA_1_TYPES or (version == 1 and version is not True):
        raise UnsupportedFormatError(_SCHEMA_1)
    if version != 2:
        found = repr(version) if type(version) in (int, float) else describe(version)
        msg = f"should be 2, but is {found}"
        raise FormatError(msg, ("schemaVersion",))
    if media_type and media_type not in media_types:
        msg = f"is named as {kind}, but says that it is of the media type {shown(media_type)}"
        raise FormatError(msg)
    for field in unfit:
        if field in document:
            msg = f"is ambiguous: it is named as {kind}, but has {field} too"
            raise FormatError(msg)
    return document


def _descriptors(values: Iterable[object], what: str) -> tuple[Descriptor, ...]:
    return tuple(_descriptor(value, f"{what} {number}") for number, value in enumerate(values))


def _descriptor(value: object, what: str) -> Descriptor:
    with inside(what):
        fields = expect_object(value)
        return Descriptor(
            sys.intern(get_text(fields, "mediaType")),
            _get_digest(fields),
            _get_size(fields),
            Platform.from_fields(fields.get("platform")),
            get_optional_text(fields, "artifactType"),
            _annotations(expect_object(fields.get("annotations") or _NOTHING, "annotations")),
        )


def _get_digest(fields: Mapping[str, Any]) -> Digest:
    digest = get_text(fields, "digest")
    if not is_blob_digest(digest):
        msg = f"should be a sha256 or sha512 digest, but is {shown(digest)}"
        raise FormatError(msg, ("digest",))
    return Digest(digest)


def _get_size(fields: Mapping[str, Any]) -> int:
    size = fields.get("size")
    if type(size) is not int or size < 0:
        found = size if type(size) is int and size > -(2**63) else describe(size)
        msg = f"should be a number of bytes, but is {found}"
        raise FormatError(msg, ("size",))
    return size


def _annotations(fields: dict[str, Any]) -> Mapping[str, str]:
    return {key: value for key in _ANNOTATIONS if isinstance(value := fields.get(key), str)} or _NOTHING


def _artifact_fault(artifact_type: str) -> str | None:
    if not artifact_type or artifact_type in CONFIG_TYPES:
        return None
    return f"is an artifact of the type {shown(artifact_type)}, no image"
