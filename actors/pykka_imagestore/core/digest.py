"""Digests: ``algorithm:hex``, and what they name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NewType

if TYPE_CHECKING:
    import hashlib

Digest = NewType("Digest", str)
DiffID = NewType("DiffID", str)
"""sha256 of a layer's uncompressed tar: a layer's only identity, computed and never believed."""

_BLOB = re.compile(r"sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}")
_SHA256 = re.compile(r"sha256:[a-f0-9]{64}")


def sha256(data: bytes) -> Digest:
    """Return the digest of ``data``."""
    import hashlib  # noqa: PLC0415 - OpenSSL is slow to load, and a list of images needs no digest

    return Digest(f"sha256:{hashlib.sha256(data).hexdigest()}")


def is_sha256(unsafe_text: object) -> bool:
    """Tell whether a value is a well-formed sha256 digest."""
    return isinstance(unsafe_text, str) and _SHA256.fullmatch(unsafe_text) is not None


def is_blob_digest(unsafe_text: object) -> bool:
    """Tell whether a value is a well-formed digest that a blob may have: sha256 or sha512.

    Spec:
        OCI image-spec v1.1 descriptor.md, "Registered Algorithms".
    """
    return isinstance(unsafe_text, str) and _BLOB.fullmatch(unsafe_text) is not None


def hasher(digest: Digest) -> hashlib._Hash:
    """Return a hash object of a digest's algorithm."""
    import hashlib  # noqa: PLC0415

    return hashlib.new(digest.partition(":")[0])


def digest_like(digest: Digest, data: bytes) -> Digest:
    """Return the digest of ``data``, of the same algorithm as another one."""
    computed = hasher(digest)
    computed.update(data)
    return digest_of(computed)


def digest_of(computed: hashlib._Hash) -> Digest:
    """Return the digest of all that a hash object was given."""
    return Digest(f"{computed.name}:{computed.hexdigest()}")


def directory_name(digest: str) -> str:
    """Return the name of the directory or file that a digest has: ``:`` made ``-``."""
    return digest.replace(":", "-")
