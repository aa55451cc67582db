"""Writing to a file that is open."""

from __future__ import annotations

import os


def write_all(descriptor: int, data: bytes | memoryview, more: bytes | memoryview = b"") -> None:
    """Write bytes, and then some more, in one call if the disk takes all of them."""
    written = os.writev(descriptor, (data, more)) if more else os.write(descriptor, data)
    if written < len(data) + len(more):
        rest = memoryview(b"".join((data, more)))[written:]
        while rest:
            rest = rest[os.write(descriptor, rest) :]
