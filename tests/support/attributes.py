"""Values of extended attributes that the kernel reads."""

from __future__ import annotations

import struct

NOBODYS = 2**32 - 1  # as the user or group of an entry that is about nobody by number
MAY_BIND_LOW_PORTS = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)  # cap_net_bind_service, effective


def acl(*entries: tuple[int, int, int]) -> bytes:
    """Return an ACL of entries of a tag, permissions, and a user or group."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
