"""Archives as users of skopeo and podman name them: with a transport before the path, and a reference behind it.

Or an image in place of an archive, as who pulls images names it.
"""

from __future__ import annotations

import os
import re

from pykka_imagestore.errors import InvalidNameError

_OF_FILES = re.compile(r"(docker-archive|oci-archive|oci):([^:]+):?(.*)", re.DOTALL)
_SUFFIX = re.compile(r"\.(tar|gz|tgz|bz2|xz|zst|oci)$")
_OF_OTHERS = re.compile(r"docker://|(docker-daemon|containers-storage|containerd|dir|ostree|sif):")


def advice_on(path: str) -> str | None:
    """Return what to write instead of a path, as a sentence, if nothing is there and it is a transport's; else None."""
    if os.path.lexists(path):
        return None
    if (named := _OF_FILES.fullmatch(path)) is not None:
        select = f" --select {named[3]}" if named[3] else ""
        return f"nothing is at {path!r}; which kind of archive it is, is found out: write {named[2]}{select}"
    if _OF_OTHERS.match(path) is not None:
        return f"{path!r} is no file here; have it copied into one, as skopeo copy {path} oci-archive:image.tar does"
    if _is_tagged_image(path):
        copied = f"skopeo copy docker://{path} oci-archive:image.tar"
        return f"nothing is at {path!r}; have it copied, as {copied} does, or, as a name, write --name {path}"
    return None


def _is_tagged_image(text: str) -> bool:
    from pykka_imagestore.core.image_name import ImageName  # noqa: PLC0415 - most archives are there

    try:
        name = ImageName.parse(text)
    except InvalidNameError:
        return False
    return (name.tag or name.digest) is not None and _SUFFIX.search(text) is None
