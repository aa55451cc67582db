"""The extended attributes in a layer's tree, compared with those that entries gave: none may be missing or added.

Attributes that the system sets by itself are not compared: labels of security modules (``security.*`` but
capabilities), and those of the file system (``system.*`` but ACLs, ``btrfs.*``). The kernel shows ``trusted.*`` only
with CAP_SYS_ADMIN.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from functools import cached_property

from pykka_imagestore.core.layer_record import WhiteoutFormat
from pykka_imagestore.core.xattr_values import acl_with_mode, hides_somebody, parse_acl, parse_capability, without_ids
from pykka_imagestore.fs.attributes import (
    ACL,
    ACLS,
    CAPABILITY,
    DEFAULT_ACL,
    OVERLAY_XATTRS,
    sees_trusted_xattrs,
    unset_xattr,
)
from pykka_imagestore.fs.whiteout_format import OPAQUE_XATTRS
from pykka_imagestore.jobs.check.expectations import Expectations
from pykka_imagestore.jobs.check.findings import Findings
from pykka_imagestore.jobs.check.layer_tree import Node
from pykka_imagestore.text import shown

_GIVEN_BY_ENTRIES = (b"user.", b"trusted.", *ACLS, CAPABILITY)
_TRUSTED = b"trusted."
_LABELS = b"security."
_XFS_ACLS = b"trusted.SGI_ACL_"  # XFS shows ACLs a second time
_UNSUPPORTED = (errno.ENOTSUP, errno.EOPNOTSUPP)
_NOT_SHOWN = (errno.EACCES, errno.EPERM, errno.EOVERFLOW)  # the last: capabilities of another user namespace


class XattrCheck:
    """Compares extended attributes.

    Attributes:
        opaque: Paths of the directories that an attribute marks as opaque, so far.
    """

    def __init__(self, whiteouts: WhiteoutFormat, expected: Expectations, findings: Findings) -> None:
        self._mark = OPAQUE_XATTRS.get(whiteouts)
        self._expected = expected
        self._findings = findings
        self.opaque: set[bytes] = set()

    def check(
        self,
        node: Node,
        place: int | bytes,
        wanted: Mapping[bytes, bytes],
        mode: int,
        *,
        is_directory: bool = False,
    ) -> None:
        """Compare those of one node.

        Args:
            node: The node.
            place: Its descriptor if it is open, else its place.
            wanted: What entries gave it.
            mode: The mode it should have, which ACLs show too.
            is_directory: Whether it may be marked as opaque, and have a default ACL.

        Raises:
            OSError: It is not there, or cannot be read.
        """
        try:
            found = os.listxattr(place, follow_symlinks=isinstance(place, int))
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            found = []
        if not (found or wanted):
            return
        for key in map(os.fsencode, found):
            if key == self._mark and is_directory:
                self._see_mark(node.path, place, key)
            elif key.startswith(OVERLAY_XATTRS) or (key not in wanted and key.startswith(_GIVEN_BY_ENTRIES)):
                self._judge_added(node.path, key)
        for key, value in wanted.items():
            if not key.startswith(OVERLAY_XATTRS) and (is_directory or key != DEFAULT_ACL):
                self._compare(node, place, key, value, mode)

    def _see_mark(self, path: bytes, place: int | bytes, mark: bytes) -> None:
        if self._value(place, mark) == b"y":
            self.opaque.add(path)
        else:
            self._add_other(path, mark)

    def _judge_added(self, path: bytes, key: bytes) -> None:
        if key.startswith(_XFS_ACLS):
            return
        if key in ACLS and not self._expected.is_complete:
            return  # older versions let what is made in a directory inherit its ACL
        self._findings.add_fault(f"has {shown(path)} with an extended attribute {shown(key)} that no entry gave it")

    def _compare(self, node: Node, place: int | bytes, key: bytes, value: bytes, mode: int) -> None:
        path, may_lack = node.path, self._expected.may_lack(node.made_at, unset_xattr(key))
        may_lack = may_lack or (key == CAPABILITY and not value)  # older versions set it, and nobody can read it
        try:
            found = self._value(place, key)
        except OSError as error:
            if not may_lack:  # the kernel refuses to read a name, too, that it refuses to set
                self._judge_error(path, key, error)
            return
        if found is None and (may_lack or self._is_hidden(key)):
            return
        if key in ACLS:
            self._compare_acl(path, key, value, found, mode)
        elif key == CAPABILITY:
            self._compare_capability(path, value, found)
        elif found != value:
            if key.startswith(_LABELS):
                self._findings.add_unchecked(f"has {shown(path)} with another {shown(key)}, which the system may set")
            else:
                self._add_other(path, key)

    def _compare_acl(self, path: bytes, key: bytes, value: bytes, found: bytes | None, mode: int) -> None:
        wanted = parse_acl(value) or []
        if key == ACL:
            if not self._expected.is_complete:
                return  # an ACL that came after the mode may have changed it
            wanted = acl_with_mode(wanted, mode)
        has = parse_acl(found) if found is not None else []
        if has == wanted or not self._expected.ids_compare:
            return
        if has is not None and hides_somebody(has) and without_ids(has) == without_ids(wanted):
            self._findings.add_unchecked("has ACLs for users who have no number in this user namespace")
        else:
            self._add_other(path, key)

    def _compare_capability(self, path: bytes, value: bytes, found: bytes | None) -> None:
        given, has = parse_capability(value), None if found is None else parse_capability(found)
        if given is None or has is None or given[0] != has[0] or (given[1] != has[1] and self._expected.ids_compare):
            self._add_other(path, CAPABILITY)

    def _value(self, place: int | bytes, key: bytes) -> bytes | None:
        try:
            return os.getxattr(place, key, follow_symlinks=isinstance(place, int))
        except OSError as error:
            if error.errno != errno.ENODATA:
                raise
            return None

    def _judge_error(self, path: bytes, key: bytes, error: OSError) -> None:
        if error.errno in _UNSUPPORTED:
            self._findings.add_unchecked("has extended attributes, and lies on a file system without any")
        elif error.errno in _NOT_SHOWN:
            self._findings.add_unchecked(f"has {shown(path)} with an extended attribute {shown(key)}, not shown here")
        else:
            raise error

    def _is_hidden(self, key: bytes) -> bool:
        if not key.startswith(_TRUSTED) or self.sees_trusted:
            return False
        self._findings.add_unchecked("has extended attributes trusted.*, which are shown with CAP_SYS_ADMIN only")
        return True

    @cached_property
    def sees_trusted(self) -> bool:
        """Whether attributes ``trusted.*`` are shown."""
        return sees_trusted_xattrs()

    def _add_other(self, path: bytes, key: bytes) -> None:
        self._findings.add_fault(f"has {shown(path)} with another extended attribute {shown(key)}")
