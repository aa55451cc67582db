"""Archives as users of skopeo and podman name them: with a transport before the path, and a reference behind it."""

from __future__ import annotations

import os
import re

_OF_FILES = re.compile(r"(docker-archive|oci-archive|oci):([^:]+):?(.*)", re.DOTALL)
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
    return None
