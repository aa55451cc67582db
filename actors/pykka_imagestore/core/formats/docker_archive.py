"""Find the images of a ``docker save`` archive of any generation. Pure: members come from a ``MemberReader``.

Spec:
    Docker image spec v1.2, "Combined Image JSON + Filesystem Changeset Format"; v1, "Image JSON Description".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

from pykka_imagestore.core.archive_index import ArchivedImage, count_image, count_names
from pykka_imagestore.core.digest import DiffID, sha256
from pykka_imagestore.core.format_error import FormatError, UnsupportedFormatError, WrongDigestError, inside
from pykka_imagestore.core.formats.image_config import parse_diff_ids
from pykka_imagestore.core.formats.json_fields import describe, expect_object, get_text, get_texts, parse_json
from pykka_imagestore.core.member_reader import MemberReader
from pykka_imagestore.core.totals import Totals
from pykka_imagestore.text import shown

MANIFEST = "manifest.json"
REPOSITORIES = "repositories"

_HEX = re.compile(r"[a-f0-9]{64}")
_CONFIG_NAME = re.compile(r"(?:.*/|sha256:)?([a-f0-9]{64})(?:\.json)?")
_LEGACY_JSON = re.compile(r"([a-f0-9]{64})/json")
# Jib writes the fields of a manifest in lower case.
_MANIFEST_FIELDS = {name.lower(): name for name in ("Config", "RepoTags", "Layers")}
# The fields of the old form that describe a layer and not the image; the others are the config.
_LEGACY_FIELDS = frozenset({"id", "parent", "layer_id", "parent_id", "Size", "throwaway"})


def read_images(members: MemberReader, totals: Totals) -> tuple[ArchivedImage, ...]:
    """Return the images of an archive, in its order.

    Raises:
        FormatError: The JSON is malformed, names what is not there, or contradicts itself.
        UnsupportedFormatError: Nothing in it would name images.
    """
    if members.has(MANIFEST):
        return _read_manifest(members, totals)
    legacy_ids = {match[1] for name in members.names() if (match := _LEGACY_JSON.fullmatch(name))}
    if members.has(REPOSITORIES) or legacy_ids:
        return _read_legacy(members, totals, legacy_ids)
    msg = (
        "is no image archive: it has none of manifest.json, index.json and repositories; save the image with "
        "docker save, podman save or skopeo copy"
    )
    raise UnsupportedFormatError(msg)


def is_manifest(data: bytes) -> bool:
    """Tell whether a file is the ``manifest.json`` of an archive, and not one of the many others of that name."""
    try:
        fields = {key.lower() for entry in parse_json(data) for key in expect_object(entry)}
    except (FormatError, TypeError):  # a number, say, has no entries
        return False
    return {"config", "layers"} <= fields


def legacy_config(unsafe_json: bytes, diff_ids: Sequence[DiffID]) -> bytes:
    """Return the image config of a legacy image, made of the JSON of its leaf layer and its DiffIDs.

    Spec:
        moby, image/v1, "MakeConfigFromV1Config": the same fields are left out.
    """
    leaf = json.loads(unsafe_json)
    config = {key: value for key, value in leaf.items() if key not in _LEGACY_FIELDS}
    config["rootfs"] = {"type": "layers", "diff_ids": list(diff_ids)}
    config["history"] = [{"created": leaf.get("created", "0001-01-01T00:00:00Z")} for _ in diff_ids]
    return json.dumps(config, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


# -- manifest.json


def _read_manifest(members: MemberReader, totals: Totals) -> tuple[ArchivedImage, ...]:
    data = members.read_json(MANIFEST)
    with inside(shown(MANIFEST)):
        entries = parse_json(data)
        if not isinstance(entries, list) or not entries:
            msg = f"should be a list of images, but is {describe(entries)}"
            raise FormatError(msg)
    totals.add("images", len(entries), "images")
    return tuple(_read_image(members, totals, entry, number) for number, entry in enumerate(entries))


def _read_image(members: MemberReader, totals: Totals, entry: object, number: int) -> ArchivedImage:
    where = shown(MANIFEST), f"image {number}"
    with inside(*where):
        fields = {_MANIFEST_FIELDS.get(key.lower(), key): value for key, value in expect_object(entry).items()}
        config_name = get_text(fields, "Config")
        names, layer_names = get_texts(fields, "RepoTags"), get_texts(fields, "Layers")
        totals.check("layers", len(layer_names), f"has {len(layer_names)} layers")
    count_names(totals, names)
    config = members.read_json(config_name)
    _check_config_name(config_name, config)
    with inside(shown(config_name)):
        diff_ids = parse_diff_ids(config)
    if len(diff_ids) != len(layer_names):
        msg = f"has {len(layer_names)} layers, but its config {shown(config_name)} lists {len(diff_ids)}"
        raise FormatError(msg, where)
    image = ArchivedImage(names, config, tuple(map(members.blob, layer_names)), diff_ids)
    count_image(totals, image)
    return image


def _check_config_name(name: str, config: bytes) -> None:
    claimed = _CONFIG_NAME.fullmatch(name)
    if claimed and sha256(config) != f"sha256:{claimed[1]}":
        raise WrongDigestError(f"sha256:{claimed[1]}", sha256(config), (f"config {shown(name)}",))


# -- the form before Docker 1.10


def _read_legacy(members: MemberReader, totals: Totals, ids: set[str]) -> tuple[ArchivedImage, ...]:
    names: dict[str, list[str]] = {}
    parents = _Parents(members)
    if members.has(REPOSITORIES):
        for name, leaf in _read_repositories(members):
            count_names(totals, (name,))
            names.setdefault(leaf, []).append(name)
    else:
        names = {leaf: [] for leaf in sorted(ids - {parents.find(layer) for layer in ids})}
    if not names:
        msg = "names no image"
        raise FormatError(msg, (shown(REPOSITORIES),))
    totals.add("images", len(names), "images")
    return tuple(_read_legacy_image(members, totals, parents, leaf, names[leaf]) for leaf in names)


def _read_repositories(members: MemberReader) -> Iterable[tuple[str, str]]:
    data = members.read_json(REPOSITORIES)
    with inside(shown(REPOSITORIES)):
        for repository, tags in expect_object(parse_json(data)).items():
            for tag, leaf in expect_object(tags, shown(repository)).items():
                yield f"{repository}:{tag}", _expect_layer_id(leaf, shown(repository), shown(tag))


def _read_legacy_image(
    members: MemberReader, totals: Totals, parents: _Parents, leaf: str, names: list[str]
) -> ArchivedImage:
    chain: dict[str, None] = {}
    layer: str | None = leaf
    while layer is not None:
        if layer in chain:
            msg = "is its own ancestor"
            raise FormatError(msg, (f"layer {layer}",))
        chain[layer] = None
        totals.check("layers", len(chain), f"layer {leaf} has {len(chain)} layers with its ancestors")
        layer = parents.find(layer)
    layers = tuple(members.blob(f"{layer}/layer.tar") for layer in reversed(chain))
    image = ArchivedImage(tuple(names), members.read_json(f"{leaf}/json"), layers, None)
    count_image(totals, image)
    return image


class _Parents:
    """The parents of layers in the form before Docker 1.10. Images share layers, so the JSON of each is parsed once."""

    def __init__(self, members: MemberReader) -> None:
        self._members = members
        self._known: dict[str, str | None] = {}

    def find(self, layer: str) -> str | None:
        """Return the id of a layer's parent, None if it has none."""
        if layer not in self._known:
            name = f"{layer}/json"
            data = self._members.read_json(name)
            with inside(shown(name)):
                parent = expect_object(parse_json(data, is_written_again=True)).get("parent") or None
                self._known[layer] = None if parent is None else _expect_layer_id(parent, "parent")
        return self._known[layer]


def _expect_layer_id(value: object, *where: str) -> str:
    if not (isinstance(value, str) and _HEX.fullmatch(value)):
        msg = "should be a layer's id of 64 hex digits"
        raise FormatError(msg, where)
    return value
