"""Who an image's user is, by the accounts that its tree lists. Pure.

Spec:
    OCI image-spec v1.1 config.md, "User"; passwd(5), group(5). Where these are silent, as Docker has it: a number is an
    id, though an account were called so; the first line that fits counts; a user without a group has the groups that
    list that user, and a user with one has that one alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pykka_imagestore.core.format_error import FormatError
from pykka_imagestore.text import shown

MAX_ID = (1 << 32) - 2  # the one above means "leave it"
MAX_LINE_BYTES = 64 << 10  # Docker reads no longer ones either
MAX_GROUPS = 1 << 16  # Linux, include/uapi/linux/limits.h, NGROUPS_MAX
PASSWD, GROUP = "/etc/passwd", "/etc/group"

_NUMBER = re.compile(r"0*([0-9]{1,10})")
_DIGITS = re.compile(r"[0-9]+")
_CONTROL = re.compile(rb"[\0-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class User:
    """Whom to run a program as.

    Attributes:
        uid: The user's id.
        gid: The id of the group that owns what the program makes.
        groups: All groups, ``gid`` first: it belongs among those that setgroups(2) gets, or what is closed to that
            group would be open (moby, CVE-2022-36109).
        home: An absolute path in the tree; ``/`` if no account says one.
        name: The account's; empty if the id has none.
    """

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str = "/"
    name: str = ""


@dataclass(frozen=True, slots=True)
class _Account:
    name: bytes
    uid: int
    gid: int
    home: bytes


def find_user(unsafe_user: str, passwd: bytes, group: bytes) -> User:
    """Return whom a config means.

    Args:
        unsafe_user: ``name``, ``uid``, ``name:group``, ``uid:gid`` or a mixture; without a user it is root.
        passwd: What the tree's /etc/passwd says; empty if there is none.
        group: What its /etc/group says. A line of either that is malformed is none.

    Raises:
        FormatError: There is no such user or group, or it has an id that is out of range.
    """
    user, _, group_name = unsafe_user.partition(":")
    if ":" in group_name or not unsafe_user.isprintable():
        msg = "a user is a name or an id, and so is its group after a colon, if any"
        raise FormatError(msg)
    uid = _parse_id(user or "0", "user")
    account = next((each for each in _accounts(passwd) if _fits(each, user, uid)), None)
    if account is None and uid is None:
        msg = f"has no user {shown(user)}"
        raise FormatError(msg, (PASSWD,))
    found = account or _Account(b"", uid or 0, 0, b"/")
    groups = (_find_group(group_name, group),) if group_name else _groups_of(found, group)
    home = found.home if found.home.startswith(b"/") else b"/"
    return User(found.uid, groups[0], groups, _text(home), _text(found.name))


def _fits(account: _Account, user: str, uid: int | None) -> bool:
    return account.name == user.encode() if uid is None else account.uid == uid


def _find_group(name: str, group: bytes) -> int:
    gid = _parse_id(name, "group")
    if gid is None:
        gid = next((gid for each, gid, _ in _groups(group) if each == name.encode()), None)
    if gid is None:
        msg = f"has no group {shown(name)}"
        raise FormatError(msg, (GROUP,))
    return gid


def _groups_of(account: _Account, group: bytes) -> tuple[int, ...]:
    listed = (gid for _, gid, members in _groups(group) if account.name in members.split(b",")) if account.name else ()
    groups = tuple(dict.fromkeys((account.gid, *listed)))
    if len(groups) > MAX_GROUPS:
        msg = f"has the user in {len(groups)} groups, and a program can be in {MAX_GROUPS}"
        raise FormatError(msg, (GROUP,))
    return groups


def _accounts(passwd: bytes) -> Iterator[_Account]:
    for fields in _lines(passwd):
        name, _, unsafe_uid, unsafe_gid, _, home = (*fields, *(b"",) * 6)[:6]
        uid, gid = _id_of(unsafe_uid), _id_of(unsafe_gid)
        if name and uid is not None and gid is not None:
            yield _Account(name, uid, gid, home)


def _groups(group: bytes) -> Iterator[tuple[bytes, int, bytes]]:
    for fields in _lines(group):
        name, _, unsafe_gid, members = (*fields, *(b"",) * 4)[:4]
        gid = _id_of(unsafe_gid)
        if name and gid is not None:
            yield name, gid, members


def _lines(data: bytes) -> Iterator[list[bytes]]:
    for line in data.split(b"\n"):
        stripped = line.strip()
        if len(line) <= MAX_LINE_BYTES and not _CONTROL.search(stripped):
            yield stripped.split(b":")


def _id_of(field: bytes) -> int | None:
    """Return the id in a field of a file; None if it has none that the kernel takes."""
    number = _NUMBER.fullmatch(field.decode("ascii", "replace"))
    return int(number[1]) if number and int(number[1]) <= MAX_ID else None


def _parse_id(text: str, what: str) -> int | None:
    """Return the id that a text is; None if it is a name.

    Raises:
        FormatError: It is out of range.
    """
    if not _DIGITS.fullmatch(text):
        return None
    number = _id_of(text.encode())
    if number is None:
        msg = f"ids end at {MAX_ID}, and its {what} is {shown(text)}"
        raise FormatError(msg)
    return number


def _text(field: bytes) -> str:
    return field.decode("utf-8", "surrogateescape")
