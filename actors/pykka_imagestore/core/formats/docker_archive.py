"""What the JSON of a ``docker save`` archive says, checked field by field. Pure: members come from a ``MemberReader``.

Spec:
    Docker image spec v1.2, "Combined Image JSON + Filesystem Changeset Format"; v1, "Image JSON Description".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from pykka_imagestore.core.archive import ArchivedImage, MemberReader, count_names, counted
from pykka_imagestore.core.digest import DiffID, sha256
from pykka_imagestore.core.formats.image_config import parse_diff_ids
from pykka_imagestore.core.formats.json_fields import expect_object, expect_text, expect_texts, parse_json, shape
from pykka_imagestore.errors import ArchiveError, DigestMismatchError, UnsupportedArchiveError
from pykka_imagestore.text import shown

MANIFEST = "manifest.json"
REPOSITORIES = "repositories"

_HEX = re.compile(r"[a-f0-9]{64}")
_CONFIG_NAME = re.compile(r"(?:.*/|sha256:)?([a-f0-9]{64})(?:\.json)?")
_LEGACY_JSON = re.compile(r"([a-f0-9]{64})/json")
# What the old form says of a layer rather than of the image; the rest is the config.
_LEGACY_FIELDS = frozenset({"id", "parent", "layer_id", "parent_id", "Size", "throwaway"})


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
        "is no image archive: it has none of manifest.json, index.json and repositories",
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
    return json.dumps(config, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


# -- manifest.json


def _read_manifest(members: MemberReader) -> tuple[ArchivedImage, ...]:
    entries = _parse(members, MANIFEST)
    if not isinstance(entries, list) or not entries:
        raise ArchiveError(members.archive, f"manifest.json should be a list of images, but is {shape(entries)}")
    members.totals.add("images", len(entries), "images")
    return tuple(_read_image(members, entry, f"manifest.json, image {number}") for number, entry in enumerate(entries))


def _read_image(members: MemberReader, entry: object, where: str) -> ArchivedImage:
    entries = expect_object(members.archive, entry, where).items()
    fields = {key.lower(): value for key, value in entries}  # Jib writes them in lower case
    config_name = expect_text(members.archive, fields.get("config"), f"{where}, Config")
    names = expect_texts(members.archive, fields.get("repotags"), f"{where}, RepoTags")
    layer_names = expect_texts(members.archive, fields.get("layers"), f"{where}, Layers")
    count_names(members.totals, names)
    members.totals.check("layers", len(layer_names), f"{where} has {len(layer_names)} layers")
    config = members.read_json(config_name)
    _check_config_name(members, config_name, config)
    diff_ids = parse_diff_ids(members.archive, config, config_name)
    if len(diff_ids) != len(layer_names):
        reason = f"{where} has {len(layer_names)} layers, but its config {shown(config_name)} lists {len(diff_ids)}"
        raise ArchiveError(members.archive, reason)
    layers = tuple(members.blob(name) for name in layer_names)
    return counted(members.totals, ArchivedImage(names, config, layers, diff_ids))


def _check_config_name(members: MemberReader, name: str, config: bytes) -> None:
    claimed = _CONFIG_NAME.fullmatch(name)
    if claimed and sha256(config) != f"sha256:{claimed[1]}":
        raise DigestMismatchError(members.archive, f"config {shown(name)}", f"sha256:{claimed[1]}", sha256(config))


# -- the form before Docker 1.10


def _read_legacy(members: MemberReader, ids: set[str]) -> tuple[ArchivedImage, ...]:
    names: dict[str, list[str]] = {}
    documents = _Documents(members)
    if members.has(REPOSITORIES):
        for name, leaf in _read_repositories(members):
            count_names(members.totals, (name,))
            names.setdefault(leaf, []).append(name)
    else:
        names = {leaf: [] for leaf in sorted(ids - {documents.parent(layer) for layer in ids})}
    if not names:
        raise ArchiveError(members.archive, "repositories names no image")
    members.totals.add("images", len(names), "images")
    return tuple(_legacy_image(members, documents, leaf, names[leaf]) for leaf in names)


def _read_repositories(members: MemberReader) -> Iterable[tuple[str, str]]:
    repositories = expect_object(members.archive, _parse(members, REPOSITORIES), "repositories")
    for repository, tags in repositories.items():
        where = f"repositories, {shown(repository)}"
        for tag, leaf in expect_object(members.archive, tags, where).items():
            if not (isinstance(leaf, str) and _HEX.fullmatch(leaf)):
                reason = f"{where}, {shown(tag)} should be a layer's id of 64 hex digits"
                raise ArchiveError(members.archive, reason)
            yield f"{repository}:{tag}", leaf


def _legacy_image(members: MemberReader, documents: _Documents, leaf: str, names: list[str]) -> ArchivedImage:
    chain: dict[str, None] = {}
    layer: str | None = leaf
    while layer is not None:
        if layer in chain:
            raise ArchiveError(members.archive, f"layer {layer} is its own ancestor")
        chain[layer] = None
        members.totals.check("layers", len(chain), f"layer {leaf} has {len(chain)} layers with its ancestors")
        layer = documents.parent(layer)
    layers = tuple(members.blob(f"{layer}/layer.tar") for layer in reversed(chain))
    config = members.read_json(f"{leaf}/json")
    return counted(members.totals, ArchivedImage(tuple(names), config, layers, None))


class _Documents:
    """The JSON of layers in the form before Docker 1.10, each parsed once: many images may have one chain of them."""

    def __init__(self, members: MemberReader) -> None:
        self._members = members
        self._parents: dict[str, str | None] = {}

    def parent(self, layer: str) -> str | None:
        """Return the id of a layer's parent, None if it has none."""
        if layer not in self._parents:
            name = f"{layer}/json"
            data = self._members.read_json(name)
            document = parse_json(self._members.archive, data, name, is_written_again=True)
            parent = expect_object(self._members.archive, document, name).get("parent") or None
            if parent is not None and not (isinstance(parent, str) and _HEX.fullmatch(parent)):
                raise ArchiveError(self._members.archive, f"{name}, parent should be a layer's id of 64 hex digits")
            self._parents[layer] = parent
        return self._parents[layer]


def _parse(members: MemberReader, name: str) -> Any:
    return parse_json(members.archive, members.read_json(name), name)
