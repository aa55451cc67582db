"""What the JSON of a ``docker save`` archive says, checked field by field. Pure: members come from a ``MemberReader``.

Spec:
    Docker image spec v1.2, "Combined Image JSON + Filesystem Changeset Format"; v1, "Image JSON Description".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from pykka_imagestore.core.archive import ArchivedImage, Extent
from pykka_imagestore.core.digest import DiffID, is_sha256, sha256
from pykka_imagestore.errors import ArchiveError, DigestMismatchError, UnsupportedArchiveError, shown

MANIFEST = "manifest.json"
REPOSITORIES = "repositories"
MAX_LAYERS = 1000  # overlayfs takes 500
MAX_NESTING = 100

_HEX = re.compile(r"[a-f0-9]{64}")
_CONFIG_NAME = re.compile(r"(?:.*/|sha256:)?([a-f0-9]{64})(?:\.json)?")
_LEGACY_JSON = re.compile(r"([a-f0-9]{64})/json")
# What the old form says of a layer rather than of the image; the rest is the config.
_LEGACY_FIELDS = frozenset({"id", "parent", "layer_id", "parent_id", "Size", "throwaway"})


class MemberReader(Protocol):
    """An archive's members, by name."""

    archive: str

    def has(self, name: str) -> bool:
        """Tell whether there is a member of that name."""

    def names(self) -> list[str]:
        """Return the names of all members."""

    def extent(self, unsafe_name: str) -> Extent:
        """Return where a member lies; ArchiveError if it is not there."""

    def read_json(self, unsafe_name: str) -> bytes:
        """Return a member's bytes, bounded; ArchiveError if it is not there."""


def read_images(members: MemberReader) -> tuple[ArchivedImage, ...]:
    """Return the images of an archive, in its order.

    Raises:
        ArchiveError: The JSON is malformed, names what is not there, or contradicts itself.
        UnsupportedArchiveError: There is nothing that would name images.
    """
    if members.has(MANIFEST):
        return _read_manifest(members)
    legacy_ids = {match[1] for name in members.names() if (match := _LEGACY_JSON.fullmatch(name))}
    if members.has(REPOSITORIES) or legacy_ids:
        return _read_legacy(members, legacy_ids)
    raise UnsupportedArchiveError(
        members.archive,
        "is no image archive: docker save writes manifest.json or repositories; it has neither",
    )


def legacy_config(unsafe_json: bytes, diff_ids: Sequence[DiffID]) -> bytes:
    """Return the image config of a legacy image: what its leaf says, and its layers' DiffIDs.

    Spec:
        moby, image/v1, "MakeConfigFromV1Config": the same fields are left out.
    """
    leaf = json.loads(unsafe_json)
    config = {key: value for key, value in leaf.items() if key not in _LEGACY_FIELDS}
    config["rootfs"] = {"type": "layers", "diff_ids": list(diff_ids)}
    config["history"] = [{"created": leaf.get("created", "0001-01-01T00:00:00Z")} for _ in diff_ids]
    return json.dumps(config, sort_keys=True, separators=(",", ":")).encode()


# -- manifest.json


def _read_manifest(members: MemberReader) -> tuple[ArchivedImage, ...]:
    entries = _parse(members, MANIFEST)
    if not isinstance(entries, list) or not entries:
        raise ArchiveError(members.archive, f"manifest.json should be a list of images, but is {_shape(entries)}")
    return tuple(_read_image(members, entry, f"manifest.json, image {number}") for number, entry in enumerate(entries))


def _read_image(members: MemberReader, entry: object, where: str) -> ArchivedImage:
    if not isinstance(entry, dict):
        raise ArchiveError(members.archive, f"{where} should be an object, but is {_shape(entry)}")
    fields = {key.lower(): value for key, value in entry.items()}  # Jib writes them in lower case
    config_name = _text(members, fields.get("config"), f"{where}, Config")
    names = _texts(members, fields.get("repotags"), f"{where}, RepoTags")
    layer_names = _texts(members, fields.get("layers"), f"{where}, Layers")
    config = members.read_json(config_name)
    _check_config_name(members, config_name, config)
    diff_ids = _diff_ids(members, config, config_name)
    if len(diff_ids) != len(layer_names):
        reason = f"{where} has {len(layer_names)} layers, but its config {shown(config_name)} lists {len(diff_ids)}"
        raise ArchiveError(members.archive, reason)
    return ArchivedImage(names, config, tuple(map(members.extent, layer_names)), diff_ids)


def _check_config_name(members: MemberReader, name: str, config: bytes) -> None:
    claimed = _CONFIG_NAME.fullmatch(name)
    if claimed and sha256(config) != f"sha256:{claimed[1]}":
        raise DigestMismatchError(members.archive, f"config {shown(name)}", f"sha256:{claimed[1]}", sha256(config))


def _diff_ids(members: MemberReader, config: bytes, name: str) -> tuple[DiffID, ...]:
    document = _parse_bytes(members, config, name)
    rootfs = document.get("rootfs") if isinstance(document, dict) else None
    if not isinstance(rootfs, dict):
        raise ArchiveError(members.archive, f"{shown(name)} is no image config: it has no rootfs")
    diff_ids = _texts(members, rootfs.get("diff_ids"), f"{shown(name)}, rootfs.diff_ids")
    for diff_id in diff_ids:
        if not is_sha256(diff_id):
            raise ArchiveError(members.archive, f"{shown(name)}, rootfs.diff_ids: {shown(diff_id)} is no sha256 digest")
    return tuple(map(DiffID, diff_ids))


# -- the form before Docker 1.10


def _read_legacy(members: MemberReader, ids: set[str]) -> tuple[ArchivedImage, ...]:
    names: dict[str, list[str]] = {}
    if members.has(REPOSITORIES):
        for name, leaf in _read_repositories(members):
            names.setdefault(leaf, []).append(name)
    else:
        names = {leaf: [] for leaf in sorted(_leaves(members, ids))}
    if not names:
        raise ArchiveError(members.archive, "repositories names no image")
    return tuple(_legacy_image(members, leaf, names[leaf]) for leaf in names)


def _read_repositories(members: MemberReader) -> Iterable[tuple[str, str]]:
    repositories = _parse(members, REPOSITORIES)
    if not isinstance(repositories, dict):
        raise ArchiveError(members.archive, f"repositories should be an object, but is {_shape(repositories)}")
    for repository, tags in repositories.items():
        if not isinstance(tags, dict):
            reason = f"repositories, {shown(repository)} should be an object, but is {_shape(tags)}"
            raise ArchiveError(members.archive, reason)
        for tag, leaf in tags.items():
            if not (isinstance(leaf, str) and _HEX.fullmatch(leaf)):
                reason = f"repositories, {shown(repository)}, {shown(tag)} should be a layer's id of 64 hex digits"
                raise ArchiveError(members.archive, reason)
            yield f"{repository}:{tag}", leaf


def _leaves(members: MemberReader, ids: set[str]) -> set[str]:
    """Return the layers that are nobody's parent."""
    parents = {_legacy_layer(members, layer)[1] for layer in ids}
    return ids - parents


def _legacy_image(members: MemberReader, leaf: str, names: list[str]) -> ArchivedImage:
    config, parent = _legacy_layer(members, leaf)
    chain = [leaf]
    while parent is not None:
        if parent in chain:
            raise ArchiveError(members.archive, f"layer {parent} is its own ancestor")
        if len(chain) == MAX_LAYERS:
            raise ArchiveError(members.archive, f"layer {leaf} has more than {MAX_LAYERS} ancestors")
        chain.append(parent)
        _, parent = _legacy_layer(members, parent)
    layers = tuple(members.extent(f"{layer}/layer.tar") for layer in reversed(chain))
    return ArchivedImage(tuple(names), config, layers, None)


def _legacy_layer(members: MemberReader, layer: str) -> tuple[bytes, str | None]:
    """Return a layer's JSON and its parent."""
    name = f"{layer}/json"
    data = members.read_json(name)
    document = _parse_bytes(members, data, name)
    if not isinstance(document, dict):
        raise ArchiveError(members.archive, f"{name} should be an object, but is {_shape(document)}")
    parent = document.get("parent") or None
    if parent is not None and not (isinstance(parent, str) and _HEX.fullmatch(parent)):
        raise ArchiveError(members.archive, f"{name}, parent should be a layer's id of 64 hex digits")
    return data, parent


# -- JSON


def _parse(members: MemberReader, name: str) -> Any:
    return _parse_bytes(members, members.read_json(name), name)


def _parse_bytes(members: MemberReader, data: bytes, name: str) -> Any:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ArchiveError(members.archive, f"{shown(name)} is no JSON: {error}") from error
    if _is_nested(document, MAX_NESTING):
        raise ArchiveError(members.archive, f"{shown(name)} has JSON nested more than {MAX_NESTING} deep")
    return document


def _is_nested(document: object, levels: int) -> bool:
    """Tell whether values lie deeper than that; what is written again later must not exhaust the stack there."""
    values = [document]
    for _ in range(levels):
        values = [below for value in values for below in _parts(value)]
    return bool(values)


def _parts(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _text(members: MemberReader, value: object, where: str) -> str:
    if not isinstance(value, str):
        raise ArchiveError(members.archive, f"{where} should be a string, but is {_shape(value)}")
    return value


def _texts(members: MemberReader, value: object, where: str) -> tuple[str, ...]:
    """Return a list of strings; null, as Go writes an empty one, is empty."""
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ArchiveError(members.archive, f"{where} should be a list, but is {_shape(value)}")
    if len(value) > MAX_LAYERS:
        raise ArchiveError(members.archive, f"{where} has {len(value)} items; {MAX_LAYERS} is the limit")
    return tuple(_text(members, item, where) for item in value)


def _shape(value: object) -> str:
    """Return what a JSON value is, for a sentence."""
    if value is None:
        return "missing or null"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return {dict: "an object", str: "a string", bool: "true or false"}.get(type(value), "a number")
