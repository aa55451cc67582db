"""Plan what a put does: which of an archive's images are put, and under which names. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from pykka_imagestore.core.archive_index import ArchivedImage, ArchiveIndex, RefusedImage
from pykka_imagestore.core.digest import sha256
from pykka_imagestore.core.format_error import UnsupportedFormatError, WrongDigestError, about_archive
from pykka_imagestore.core.image_name import ImageName
from pykka_imagestore.core.limits import DEFAULT_LIMITS, Limits
from pykka_imagestore.core.planned_image import PlannedImage
from pykka_imagestore.core.totals import Totals
from pykka_imagestore.errors import AmbiguousImageError, InvalidNameError


def plan_put(
    index: ArchiveIndex, name: ImageName | None, select: str | None = None, limits: Limits = DEFAULT_LIMITS
) -> tuple[PlannedImage, ...]:
    """Choose the images to put, and their names.

    Args:
        index: What the archive holds.
        name: The name to put one image under; None puts each image under every name that it has. A digest in it must
            be that of the image's manifest, or of an index that led there.
        select: Which image, where there are several: one of its names or tags, the digest of its config or manifest,
            or the first 12 or more hex digits of that.
        limits: How much an archive may ask for.

    Returns:
        At least one image, each with at least one name; that of one that has none is the digest of its config.

    Raises:
        AmbiguousImageError: No image, or more than one, may be meant; or one has a name that is none.
        ArchiveError: The image that is meant cannot be put.
        LimitError: The images have more names and layers than the store may record.
    """
    with about_archive(index.path):
        planned = _choose(index, name, select)
        # The journal records the layers of each name, also those that other names share.
        references = sum(len(each.names) * max(1, len(each.layers)) for each in planned)
        found = f"it names {references} layers, those of each image for each of its names"
        Totals(limits).check("references", references, found)
        return planned


def _choose(index: ArchiveIndex, name: ImageName | None, select: str | None) -> tuple[PlannedImage, ...]:
    images = index.images if select is None else _select(index, select)
    named = () if name is None else tuple(image for image in images if _has_name(image, name))
    if select is None and len(named) != 1:
        _require_none_refused(index)
    if name is None:
        return tuple(_planned(image, _own_names(index, image)) for image in images)
    if name.digest is not None and not named:
        raise _wrong_digest(index, images, name)
    images = named or images
    if len(images) > 1:
        reason = f"it is not clear which of its {len(images)} images {name.stored} is; select one"
        raise AmbiguousImageError(index.path, reason, _choices(index))
    return (_planned(images[0], (name.labelled,)),)


def _planned(image: ArchivedImage, names: tuple[str, ...]) -> PlannedImage:
    return PlannedImage(names, image.config, image.layers, image.diff_ids)


def _require_none_refused(index: ArchiveIndex) -> None:
    """Fail for what cannot be put, where all of the archive is meant; artifacts beside images are skipped."""
    for refused in index.refused:
        if not refused.is_artifact or not index.images:
            raise refused.error


def _select(index: ArchiveIndex, select: str) -> tuple[ArchivedImage, ...]:
    images = tuple(image for image in index.images if _is_meant(image, select))
    if images:
        return images
    for refused in index.refused:
        if _is_named(refused, select):
            raise refused.error
    raise AmbiguousImageError(index.path, f"no image in it is {select!r}", _choices(index))


def _is_meant(image: ArchivedImage, select: str) -> bool:
    return _is_named(image, select) or any(
        select == digest or (len(select) >= 12 and digest.partition(":")[2].startswith(select))
        for digest in (sha256(image.config), *image.digests)
    )


def _is_named(image: ArchivedImage | RefusedImage, select: str) -> bool:
    if select in image.unsafe_tags or select in image.digests:
        return True
    try:
        return ImageName.parse(select).key in _keys(image.unsafe_names)
    except InvalidNameError:
        return False


def _has_name(image: ArchivedImage, name: ImageName) -> bool:
    """Tell whether an image is the one of a name: by its manifest, if the name has the digest of one."""
    return name.key in _keys(image.unsafe_names) if name.digest is None else name.digest in image.digests


def _wrong_digest(index: ArchiveIndex, images: Sequence[ArchivedImage], name: ImageName) -> Exception:
    """Return the refusal of a name with a digest that none of these images has."""
    found = [digest for image in images for digest in image.digests]
    if not found:
        msg = (
            f"has no manifest to compare with {name.labelled}, as docker save writes it; put it under a name with a "
            "tag, or save it with its manifest: skopeo copy to oci-archive:, or podman save --format oci-archive"
        )
        return UnsupportedFormatError(msg)
    if len(images) > 1:
        return AmbiguousImageError(index.path, f"no image in it is {name.labelled}", found)
    return WrongDigestError(str(name.digest), found[-1], ("its manifest",))


def _own_names(index: ArchiveIndex, image: ArchivedImage) -> tuple[str, ...]:
    names: dict[str, str] = {}
    for unsafe_name in image.unsafe_names:
        try:
            name = ImageName.parse(unsafe_name)
        except InvalidNameError as error:
            reason = f"{error}; name the image yourself"
            raise AmbiguousImageError(index.path, reason, _choices(index)) from error
        if name.digest is not None and not _has_name(image, name):
            raise _wrong_digest(index, (image,), name)
        names[name.key] = name.labelled
    if not names and image.diff_ids is None:
        reason = "an image of the form before Docker 1.10 has no name, and no config by whose digest it could be found"
        raise AmbiguousImageError(index.path, f"{reason}; name it yourself", _choices(index))
    return tuple(names.values()) or (str(sha256(image.config)),)


def _keys(unsafe_names: Sequence[str]) -> set[str]:
    keys = set()
    for unsafe_name in unsafe_names:
        try:
            keys.add(ImageName.parse(unsafe_name).key)
        except InvalidNameError:
            continue
    return keys


def _choices(index: ArchiveIndex) -> tuple[str, ...]:
    return tuple(
        ", ".join(image.unsafe_names or image.unsafe_tags) or str(sha256(image.config)) for image in index.images
    )
