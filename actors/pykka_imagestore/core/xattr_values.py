"""What the kernel makes of the values of some extended attributes. Pure.

Spec:
    Linux, include/uapi/linux/posix_acl_xattr.h and include/uapi/linux/capability.h.
"""

from __future__ import annotations

import struct

_ACL_VERSION = b"\x02\0\0\0"
_ACL_ENTRY = struct.Struct("<HHI")
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_NAMED = (_USER, _GROUP)
_NOBODY = (1 << 32) - 1
_CAPABILITIES = struct.Struct("<I4I")
_ROOT = struct.Struct("<I")
_CAPABILITY_REVISION = 0xFF000000

Acl = list[tuple[int, int, int]]


def parse_acl(value: bytes) -> Acl | None:
    """Return the entries of an ACL, sorted: tag, permissions, and the user or group, 0 if the tag implies it.

    None if the value is no ACL, which the kernel never sets.
    """
    body = value[len(_ACL_VERSION) :]
    if not value.startswith(_ACL_VERSION) or len(body) % _ACL_ENTRY.size:
        return None
    return sorted((tag, perms, whose if tag in _NAMED else 0) for tag, perms, whose in _ACL_ENTRY.iter_unpack(body))


def acl_with_mode(acl: Acl, mode: int) -> Acl:
    """Return what an ACL is after a mode was set; empty if it says no more than a mode does."""
    tags = {tag for tag, _, _ in acl}
    if tags <= {_USER_OBJ, _GROUP_OBJ, _OTHER}:
        return []
    given = {_USER_OBJ: mode >> 6 & 7, _MASK if _MASK in tags else _GROUP_OBJ: mode >> 3 & 7, _OTHER: mode & 7}
    return [(tag, given.get(tag, perms), whose) for tag, perms, whose in acl]


def hides_somebody(acl: Acl) -> bool:
    """Tell whether an ACL names users or groups who have no number in this process' user namespace."""
    return any(whose == _NOBODY for _, _, whose in acl)


def without_ids(acl: Acl) -> list[tuple[int, int]]:
    """Return an ACL without the users and groups that it names."""
    return sorted((tag, perms) for tag, perms, _ in acl)


def parse_capability(value: bytes) -> tuple[tuple[int, ...], int] | None:
    """Return a file's capabilities without the revision, and the user who is root in the namespace that they are for.

    None if the value is no such thing, which the kernel never sets.
    """
    if len(value) not in (_CAPABILITIES.size, _CAPABILITIES.size + _ROOT.size):
        return None
    magic, *sets = _CAPABILITIES.unpack_from(value)
    root = _ROOT.unpack_from(value, _CAPABILITIES.size)[0] if len(value) > _CAPABILITIES.size else 0
    return (magic & ~_CAPABILITY_REVISION, *sets), root
