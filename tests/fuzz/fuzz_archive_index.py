"""Fuzz target: any bytes as an image archive. It is refused in one sentence, or what it names lies within it."""

from __future__ import annotations

import atexit
import json
import os
import pickle
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

from fuzz_extractor import inflated
from mutations import mutate_archive
from plain import cleaned, is_whole, plain_members

from pykka_imagestore.core.archive_index import ArchivedImage, ArchiveIndex
from pykka_imagestore.core.digest import DiffID, is_sha256
from pykka_imagestore.core.formats.docker_archive import legacy_config
from pykka_imagestore.core.identity import FileIdentity
from pykka_imagestore.core.layer_blob import CopyRange, FileRange, LayerBlob
from pykka_imagestore.core.limits import DEFAULT_LIMITS
from pykka_imagestore.core.plan_put import plan_put
from pykka_imagestore.errors import AmbiguousImageError, ArchiveError, StoreError
from pykka_imagestore.fs.remove_tree import remove_tree
from pykka_imagestore.jobs.untar_image import UntarImage, untar_image

mutate = mutate_archive


def check(data: bytes) -> None:
    """Index the same bytes twice."""
    tar = inflated(data)
    if tar is None:
        return
    place = playground()
    (place / "image.tar").write_bytes(data)
    (place / "inflated.tar").unlink(missing_ok=True)
    open_before = set(os.listdir("/proc/self/fd"))

    first, second = index(place), index(place)

    assert whichever_copy(first) == whichever_copy(second)
    assert not set(os.listdir("/proc/self/fd")) - open_before
    assert set(os.listdir(place)) <= {"image.tar", "inflated.tar"}
    assert (place / "image.tar").read_bytes() == data
    if isinstance(first, ArchiveIndex):
        for image in first.images:
            see_that_it_is_sound(image, place)
        see_that_it_can_be_planned(first)
        see_that_tarfile_agrees(first, tar)


def index(place: Path) -> ArchiveIndex | str:
    try:
        return untar_image(UntarImage(str(place / "image.tar"), str(place / "inflated.tar")))
    except ArchiveError as error:
        see_that_it_can_be_shown(error)
        return str(error)


def whichever_copy(found: ArchiveIndex | str) -> ArchiveIndex | str:
    """Return an index without what tells one inflated copy of the archive from the next."""
    if isinstance(found, str):
        return found
    images = (replace(image, layers=tuple(map(without_identity, image.layers))) for image in found.images)
    return replace(found, images=tuple(images))


def without_identity(layer: LayerBlob) -> LayerBlob:
    assert isinstance(layer.location, FileRange | CopyRange)
    return replace(layer, location=replace(layer.location, identity=FileIdentity(0, 0)))


def see_that_it_can_be_shown(error: StoreError) -> None:
    assert str(error).isprintable()
    assert len(str(error)) < 1000
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def see_that_it_is_sound(image: ArchivedImage, place: Path) -> None:
    for layer in image.layers:
        assert isinstance(layer.location, FileRange | CopyRange)
        assert layer.origin == str(place / "image.tar")
        assert layer.location.path in (layer.origin, str(place / "inflated.tar"))
        assert layer.location.offset >= 0
        assert layer.size >= 0
        assert layer.location.offset + layer.size <= os.path.getsize(layer.location.path)
        assert 0 <= layer.estimate.entries <= max(layer.size, layer.estimate.inflated_bytes) // 512
        assert layer.cost >= layer.size
    config = json.loads(image.config)
    if image.diff_ids is None:
        assert 0 < len(image.layers) <= DEFAULT_LIMITS.layers
        json.loads(legacy_config(image.config, [DiffID(f"sha256:{'0' * 64}") for _ in image.layers]))
    else:
        assert len(image.diff_ids) == len(image.layers) <= DEFAULT_LIMITS.layers
        assert all(map(is_sha256, image.diff_ids))
        assert list(image.diff_ids) == (config["rootfs"].get("diff_ids") or [])


def see_that_it_can_be_planned(found: ArchiveIndex) -> None:
    pickle.loads(pickle.dumps(found))
    try:
        planned = plan_put(found, None)
    except AmbiguousImageError as error:
        assert str(error).isprintable()
    else:
        assert len(planned) == len(found.images)
        assert all(one.names for one in planned)


def see_that_tarfile_agrees(found: ArchiveIndex, tar: bytes) -> None:
    """See that each layer is where tarfile finds it, if all of the archive is plain."""
    members = plain_members(tar)
    if not is_whole(members, tar):
        return
    places = {cleaned(member.name): member for member in members if member.body is not None}
    for image in found.images:
        for layer in image.layers:
            member = places[cleaned(layer.name.encode("utf-8", "surrogateescape"))]
            assert isinstance(layer.location, FileRange | CopyRange)
            assert (layer.location.offset, layer.size) == (member.start, len(member.body or b""))


@cache
def playground() -> Path:
    place = Path(tempfile.mkdtemp(prefix="fuzz-"))
    atexit.register(remove_tree, str(place))
    return place
