"""Tell which form an archive is of, and find its images. Pure.

Where an archive is of two forms, as ``docker save`` writes them since version 25, ``manifest.json`` is believed: its
OCI index may name images for other platforms whose blobs it does not hold.
"""

from __future__ import annotations

from pykka_imagestore.core.archive import ArchivedImage, ArchiveIndex, MemberReader, RefusedImage
from pykka_imagestore.core.digest import sha256
from pykka_imagestore.core.formats.docker_archive import MANIFEST, read_images
from pykka_imagestore.core.formats.image_config import parse_platform
from pykka_imagestore.core.formats.oci_layout import INDEX, read_layout
from pykka_imagestore.core.platform import WantedPlatform
from pykka_imagestore.errors import UnsupportedArchiveError
from pykka_imagestore.text import shown


def read_archive(members: MemberReader, wanted: WantedPlatform) -> ArchiveIndex:
    """Return the images of an archive or a directory, of any form.

    Raises:
        ArchiveError: What it says is malformed, names what is not there, or contradicts itself.
        UnsupportedArchiveError: There is nothing that would name images.
    """
    if members.has(INDEX) and not members.has(MANIFEST):
        return ArchiveIndex(members.archive, *read_layout(members, wanted))
    fit: list[ArchivedImage] = []
    refused: list[RefusedImage] = []
    for image in read_images(members):
        platform = parse_platform(members.archive, image.config, "its config") if wanted.is_asked else None
        if wanted.allows(platform):
            fit.append(image)
        else:
            refused.append(_refused(members.archive, image, f"is for {platform}, not for {wanted.platform}"))
    return ArchiveIndex(members.archive, tuple(fit), tuple(refused))


def _refused(archive: str, image: ArchivedImage, reason: str) -> RefusedImage:
    what = shown(image.unsafe_names[0]) if image.unsafe_names else str(sha256(image.config))
    error = UnsupportedArchiveError(archive, f"its image {what} {reason}")
    return RefusedImage(image.unsafe_names, (), (), error, is_artifact=False)
