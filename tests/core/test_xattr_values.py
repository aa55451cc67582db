from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.attributes import NOBODYS, acl

from pykka_imagestore.core.xattr_values import (
    acl_with_mode,
    hides_somebody,
    parse_acl,
    parse_capability,
    without_ids,
)

OWNER, USER, GROUP, NAMED_GROUP, MASK, OTHERS = 1, 2, 4, 8, 0x10, 0x20


def parsed(value):
    entries = parse_acl(value)
    assert entries is not None
    return entries


def test_order_of_an_acl_and_whose_a_plain_entry_is_do_not_matter():
    one = acl((OWNER, 7, NOBODYS), (USER, 4, 5), (MASK, 4, NOBODYS), (GROUP, 0, 3), (OTHERS, 0, 0))
    other = acl((USER, 4, 5), (OTHERS, 0, NOBODYS), (GROUP, 0, NOBODYS), (OWNER, 7, 0), (MASK, 4, 1))

    assert parse_acl(one) == parse_acl(other)
    assert parse_acl(one) != parse_acl(acl((USER, 4, 6)))


@pytest.mark.parametrize("value", [b"", b"\2", b"\1\0\0\0", acl((OWNER, 7, 0))[:-1], b"text, and no ACL"])
def test_what_is_no_acl_is_none(value):
    assert parse_acl(value) is None


def test_mode_that_is_set_later_changes_an_acl():
    value = parsed(acl((OWNER, 0, 0), (USER, 6, 5), (GROUP, 7, 0), (MASK, 7, 0), (OTHERS, 7, 0)))

    assert acl_with_mode(value, 0o640) == parse_acl(
        acl((OWNER, 6, 0), (USER, 6, 5), (GROUP, 7, 0), (MASK, 4, 0), (OTHERS, 0, 0))
    )


@given(st.integers(0, 0o777), st.integers(0, 0o777))
def test_acl_that_says_what_a_mode_does_is_none(given_mode, mode):
    value = parsed(acl((OWNER, given_mode >> 6, 0), (GROUP, given_mode >> 3 & 7, 0), (OTHERS, given_mode & 7, 0)))

    assert acl_with_mode(value, mode) == []


def test_users_without_a_number_are_told_and_left_out():
    hidden = parsed(acl((OWNER, 7, 0), (USER, 6, NOBODYS), (NAMED_GROUP, 5, 4)))

    assert hides_somebody(hidden)
    assert not hides_somebody(parsed(acl((OWNER, 7, NOBODYS), (USER, 6, 7))))
    assert without_ids(hidden) == [(OWNER, 7), (USER, 6), (NAMED_GROUP, 5)]


def test_revisions_of_capabilities_say_the_same():
    sets = struct.pack("<4I", 1024, 0, 2, 0)
    second, third = struct.pack("<I", 0x02000001) + sets, struct.pack("<I", 0x03000001) + sets

    assert parse_capability(second) == parse_capability(third + bytes(4)) == ((1, 1024, 0, 2, 0), 0)
    assert parse_capability(third + struct.pack("<I", 7)) == ((1, 1024, 0, 2, 0), 7)
    assert parse_capability(second[:-1]) is None
