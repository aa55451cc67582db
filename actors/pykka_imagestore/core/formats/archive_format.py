"""Detect the form of an archive, and find its images. Pure.

Where an archive is of two forms, as ``docker save`` writes them since version 25, ``manifest.json`` is used: the OCI
index may name images for other platforms, whose blobs the archive does not hold.
"""

from __future__ import annotations

from pykka_imagestore.core.archive_index import ArchivedImage, RefusedImage
from pykka_imagestore.core.digest import sha256
from pykka_imagestore.core.format_error import UnsupportedFormatError, inside
from pykka_imagestore.core.formats.docker_archive import MANIFEST, read_images
from pykka_imagestore.core.formats.image_config import parse_platform
from pykka_imagestore.core.formats.oci_layout import INDEX, read_layout
from pykka_imagestore.core.member_reader import MemberReader
from pykka_imagestore.core.platform import WantedPlatform
from pykka_imagestore.core.totals import Totals
from pykka_imagestore.text import shown


def read_archive(
    members: MemberReader, totals: Totals, wanted: WantedPlatform
) -> tuple[tuple[ArchivedImage, ...], tuple[RefusedImage, ...]]:
    """Return the images of an archive of any form, and what in it cannot be put.

    Args:
        totals: Counts what the archive asks for.

    Raises:
        FormatError: What the archive says is malformed, names what is not there, or contradicts itself.
        UnsupportedFormatError: Nothing in it would name images.
    """
    if members.has(INDEX) and not members.has(MANIFEST):
        return read_layout(members, totals, wanted)
    fit: list[ArchivedImage] = []
    refused: list[RefusedImage] = []
    for image in read_images(members, totals):
        what = f"its image {shown(image.unsafe_names[0]) if image.unsafe_names else sha256(image.config)}"
        with inside(what, "config"):
            platform = parse_platform(image.config) if wanted.is_asked else None
        if wanted.allows(platform):
            fit.append(image)
        else:
            error = UnsupportedFormatError(f"is for {platform}, not for {wanted.platform}", (what,))
            refused.append(RefusedImage(image.unsafe_names, (), (), error, is_artifact=False))
    return tuple(fit), tuple(refused)
