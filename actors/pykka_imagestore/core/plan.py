"""Decide what a put does: which of an archive's images, and under which names. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pykka_imagestore.core.archive import ArchivedImage, ArchiveIndex
from pykka_imagestore.core.digest import sha256
from pykka_imagestore.core.image_name import ImageName
from pykka_imagestore.errors import AmbiguousImageError, InvalidNameError


@dataclass(frozen=True, slots=True)
class PlannedImage:
    """An image to put, and the names to put it under, as they are stored."""

    names: tuple[str, ...]
    image: ArchivedImage


def plan_put(index: ArchiveIndex, name: ImageName | None, select: str | None = None) -> tuple[PlannedImage, ...]:
    """Choose images and names.

    Args:
        index: What the archive holds.
        name: The name to put one image under; None puts each image under every name that it has.
        select: Which image, where there are several: one of its names, its config digest, or the first 12 or more
            hex digits of that.

    Returns:
        At least one image, each with at least one name.

    Raises:
        AmbiguousImageError: No image, or more than one, can be meant; or one has no name to be put under.
    """
    images = index.images if select is None else _select(index, select)
    if name is None:
        return tuple(PlannedImage(_own_names(index, image), image) for image in images)
    if len(images) > 1:
        images = tuple(image for image in images if name.key in _keys(image)) or images
    if len(images) > 1:
        reason = f"it is not clear which of its {len(images)} images {name.stored} is; select one"
        raise AmbiguousImageError(index.path, reason, _choices(index.images))
    return (PlannedImage((name.stored,), images[0]),)


def _select(index: ArchiveIndex, select: str) -> tuple[ArchivedImage, ...]:
    images = tuple(image for image in index.images if _is_meant(image, select))
    if not images:
        raise AmbiguousImageError(index.path, f"no image in it is {select!r}", _choices(index.images))
    return images


def _is_meant(image: ArchivedImage, select: str) -> bool:
    digest = sha256(image.config)
    if select == digest or (len(select) >= 12 and digest.removeprefix("sha256:").startswith(select)):
        return True
    try:
        return ImageName.parse(select).key in _keys(image)
    except InvalidNameError:
        return False


def _own_names(index: ArchiveIndex, image: ArchivedImage) -> tuple[str, ...]:
    names = []
    for unsafe_name in image.unsafe_names:
        try:
            names.append(ImageName.parse(unsafe_name).stored)
        except InvalidNameError as error:
            reason = f"{error}; name the image yourself"
            raise AmbiguousImageError(index.path, reason, _choices(index.images)) from error
    if not names:
        reason = f"image {sha256(image.config)} has no name; name it yourself"
        raise AmbiguousImageError(index.path, reason, _choices(index.images))
    return tuple(dict.fromkeys(names))


def _keys(image: ArchivedImage) -> set[str]:
    keys = set()
    for unsafe_name in image.unsafe_names:
        try:
            keys.add(ImageName.parse(unsafe_name).key)
        except InvalidNameError:
            continue
    return keys


def _choices(images: Sequence[ArchivedImage]) -> tuple[str, ...]:
    return tuple(", ".join(image.unsafe_names) or str(sha256(image.config)) for image in images)
