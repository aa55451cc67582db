"""Parse what an image config claims: the DiffIDs of its layers, and its platform. Pure.

Spec:
    OCI image-spec v1.1 config.md, "Properties"; Docker image spec v1.2, "Image JSON Field Descriptions".
"""

from __future__ import annotations

from pykka_imagestore.core.digest import DiffID, is_sha256
from pykka_imagestore.core.format_error import FormatError, inside
from pykka_imagestore.core.formats.json_fields import get_texts, parse_json
from pykka_imagestore.core.platform import Platform
from pykka_imagestore.text import shown


def parse_diff_ids(config: bytes) -> tuple[DiffID, ...]:
    """Return the DiffIDs that a config lists, root layer first.

    Raises:
        FormatError: It is no image config.
    """
    document = parse_json(config)
    rootfs = document.get("rootfs") if isinstance(document, dict) else None
    if not isinstance(rootfs, dict):
        msg = "is no image config: it has no rootfs"
        raise FormatError(msg)
    with inside("rootfs"):
        diff_ids = get_texts(rootfs, "diff_ids")
        for number, diff_id in enumerate(diff_ids):
            if not is_sha256(diff_id):
                msg = f"should be a sha256 digest, but is {shown(diff_id)}"
                raise FormatError(msg, (f"diff_ids {number}",))
    return tuple(map(DiffID, diff_ids))


def parse_platform(config: bytes) -> Platform | None:
    """Return the platform that a config names; None if it names none, as some tools leave it.

    Raises:
        FormatError: It is no JSON.
    """
    return Platform.from_fields(parse_json(config))
