"""What an image's config claims: its layers' DiffIDs, and what it runs on.

Spec:
    OCI image-spec v1.1 config.md, "Properties"; Docker image spec v1.2, "Image JSON Field Descriptions".
"""

from __future__ import annotations

from pykka_imagestore.core.digest import DiffID, is_sha256
from pykka_imagestore.core.formats.json_fields import expect_texts, parse_json
from pykka_imagestore.core.platform import Platform
from pykka_imagestore.errors import ArchiveError
from pykka_imagestore.text import shown


def parse_diff_ids(archive: str, config: bytes, name: str) -> tuple[DiffID, ...]:
    """Return the DiffIDs that a config lists, root layer first.

    Args:
        archive: Path of the archive, for sentences.
        name: What the archive calls the config.

    Raises:
        ArchiveError: It is no image config.
    """
    document = parse_json(archive, config, name)
    rootfs = document.get("rootfs") if isinstance(document, dict) else None
    if not isinstance(rootfs, dict):
        raise ArchiveError(archive, f"{shown(name)} is no image config: it has no rootfs")
    diff_ids = expect_texts(archive, rootfs.get("diff_ids"), f"{shown(name)}, rootfs.diff_ids")
    for diff_id in diff_ids:
        if not is_sha256(diff_id):
            raise ArchiveError(archive, f"{shown(name)}, rootfs.diff_ids: {shown(diff_id)} is no sha256 digest")
    return tuple(map(DiffID, diff_ids))


def parse_platform(archive: str, config: bytes, name: str) -> Platform | None:
    """Return the platform that a config names; None if it names none, as some tools leave it.

    Raises:
        ArchiveError: It is no JSON.
    """
    return Platform.from_fields(parse_json(archive, config, name))
