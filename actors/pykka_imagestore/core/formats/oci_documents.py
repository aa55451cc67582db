"""The documents of an OCI image layout: descriptors, manifests and indexes, their shape checked. Pure.

A document that could be read as a manifest by one program and as an index by another is refused, whatever its digest.

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
from pykka_imagestore.core.formats.json_fields import expect_list, expect_object, expect_text, parse_json, shape
from pykka_imagestore.core.platform import Platform
from pykka_imagestore.errors import ArchiveError, UnsupportedArchiveError
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
    """What points to a blob.

    Attributes:
        platform: None if it names none.
        artifact_type: Empty if it names none.
        annotations: Those that mean something here.
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
        """Whether it points to a layer that may not be given away, and so is often left out."""
        return ".nondistributable." in self.media_type or ".foreign." in self.media_type

    def annotation(self, key: str) -> str:
        """Return an annotation, empty if it is not there."""
        return self.annotations.get(key, "")

    def fault(self) -> str | None:
        """Return why it does not point to an image, as the rest of a sentence; None if it may do."""
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


def parse_index(archive: str, data: bytes, name: str) -> tuple[Descriptor, ...]:
    """Return what an index points to.

    Args:
        archive: Path of the archive, for sentences.
        name: What the archive calls the index.

    Raises:
        ArchiveError: It is malformed, or could be read as a manifest too.
    """
    document = _parse(archive, data, name, INDEX_TYPES, "an index", ("layers", "config", "fsLayers"))
    if "manifests" not in document:
        raise ArchiveError(archive, f"{shown(name)} is no index: it has no manifests")
    manifests = expect_list(archive, document["manifests"], f"{shown(name)}, manifests")
    return _descriptors(archive, manifests, f"{shown(name)}, manifest")


def parse_manifest(archive: str, data: bytes, name: str) -> Manifest:
    """Return what a manifest says.

    Raises:
        UnsupportedArchiveError: It is one of Docker's schema 1.
        ArchiveError: It is malformed, or could be read as an index too.
    """
    document = _parse(archive, data, name, MANIFEST_TYPES, "a manifest", ("manifests", "fsLayers"))
    config = _descriptor(archive, document.get("config"), f"{shown(name)}, config")
    layers = expect_list(archive, document.get("layers"), f"{shown(name)}, layers")
    artifact_type = _optional_text(archive, document.get("artifactType"), f"{shown(name)}, artifactType")
    return Manifest(config, _descriptors(archive, layers, f"{shown(name)}, layer"), artifact_type)


def _parse(
    archive: str, data: bytes, name: str, media_types: Collection[str], kind: str, unfit: Iterable[str]
) -> dict[str, Any]:
    document = expect_object(archive, parse_json(archive, data, name), shown(name))
    media_type = _optional_text(archive, document.get("mediaType"), f"{shown(name)}, mediaType")
    version = document.get("schemaVersion")
    if media_type in _SCHEMA_1_TYPES or (version == 1 and version is not True):
        raise UnsupportedArchiveError(archive, f"{shown(name)} {_SCHEMA_1}")
    if version != 2:
        found = repr(version) if type(version) in (int, float) else shape(version)
        raise ArchiveError(archive, f"{shown(name)}, schemaVersion should be 2, but is {found}")
    if media_type and media_type not in media_types:
        reason = f"{shown(name)} is named as {kind}, but says that it is of the media type {shown(media_type)}"
        raise ArchiveError(archive, reason)
    for field in unfit:
        if field in document:
            reason = f"{shown(name)} is ambiguous: it is named as {kind}, but has {field} too"
            raise ArchiveError(archive, reason)
    return document


def _descriptors(archive: str, values: Iterable[object], where: str) -> tuple[Descriptor, ...]:
    return tuple(_descriptor(archive, value, f"{where} {number}") for number, value in enumerate(values))


def _descriptor(archive: str, value: object, where: str) -> Descriptor:
    fields = expect_object(archive, value, where)
    media_type = expect_text(archive, fields.get("mediaType"), f"{where}, mediaType")
    digest = expect_text(archive, fields.get("digest"), f"{where}, digest")
    if not is_blob_digest(digest):
        raise ArchiveError(archive, f"{where}, digest: {shown(digest)} is no sha256 or sha512 digest")
    size = fields.get("size")
    if type(size) is not int or size < 0:
        found = size if type(size) is int and size > -(2**63) else shape(size)
        raise ArchiveError(archive, f"{where}, size should be a number of bytes, but is {found}")
    return Descriptor(
        sys.intern(media_type),
        Digest(digest),
        size,
        Platform.from_fields(fields.get("platform")),
        _optional_text(archive, fields.get("artifactType"), f"{where}, artifactType"),
        _annotations(expect_object(archive, fields.get("annotations") or _NOTHING, f"{where}, annotations")),
    )


def _annotations(fields: dict[str, Any]) -> Mapping[str, str]:
    return {key: value for key in _ANNOTATIONS if isinstance(value := fields.get(key), str)} or _NOTHING


def _optional_text(archive: str, value: object, where: str) -> str:
    return "" if value is None else expect_text(archive, value, where)


def _artifact_fault(artifact_type: str) -> str | None:
    if not artifact_type or artifact_type in CONFIG_TYPES:
        return None
    return f"is an artifact of the type {shown(artifact_type)}, no image"
