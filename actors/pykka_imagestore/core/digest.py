"""Digests: ``algorithm:hex``, and what they name."""

from __future__ import annotations

import hashlib
import re
from typing import NewType

Digest = NewType("Digest", str)
DiffID = NewType("DiffID", str)
"""sha256 of a layer's uncompressed tar: a layer's only identity, computed and never believed."""

_SHA256 = re.compile(r"sha256:[a-f0-9]{64}")


def sha256(data: bytes) -> Digest:
    """Return the digest of ``data``."""
    return Digest(f"sha256:{hashlib.sha256(data).hexdigest()}")


def is_sha256(unsafe_text: object) -> bool:
    """Tell whether a value is a well-formed sha256 digest."""
    return isinstance(unsafe_text, str) and _SHA256.fullmatch(unsafe_text) is not None


def directory_name(digest: str) -> str:
    """Return the name of the directory or file that a digest has: ``:`` made ``-``."""
    return digest.replace(":", "-")
