from __future__ import annotations

import os
import stat
from dataclasses import dataclass, fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pykka_imagestore.core.identity import FileIdentity, kind_of

counts = st.integers(0, (1 << 64) - 1)
times = st.integers(-(1 << 94), 1 << 94)  # nanoseconds: a file system's seconds may have 64 bits
identities = st.builds(FileIdentity, counts, counts, counts, times, times)


@dataclass
class Status:
    st_mode: int
    st_dev: int = 1
    st_ino: int = 2
    st_size: int = 3
    st_mtime_ns: int = 4
    st_ctime_ns: int = 5


def test_a_file_is_known_by_all_that_changes_with_its_bytes():
    assert FileIdentity.of(Status(stat.S_IFREG | 0o644)) == FileIdentity(1, 2, 3, 4, 5)


@pytest.mark.parametrize("kind", [stat.S_IFDIR, stat.S_IFIFO, stat.S_IFSOCK])
def test_what_lies_in_a_directory_or_comes_through_a_pipe_makes_no_other_of_it(kind):
    assert FileIdentity.of(Status(kind)) == FileIdentity.of(Status(kind, st_size=9, st_mtime_ns=9, st_ctime_ns=9))


@given(identities, st.sampled_from(fields(FileIdentity)), counts)
def test_a_difference_in_anything_but_the_ctime_means_other_bytes(identity, field, value):
    other = replace(identity, **{field.name: value})

    assert other.has_same_bytes(identity) == (field.name == "ctime_ns" or other == identity)
    assert identity.has_same_bytes(other) == other.has_same_bytes(identity)


@given(identities)
def test_any_identity_can_be_told_in_one_line(identity):
    assert str(identity).isprintable()


@given(identities, identities)
def test_two_that_differ_are_told_differently(one, other):
    assert (str(one) == str(other)) == (one == other)


def test_every_kind_of_file_has_a_name(tmp_path):
    assert kind_of(os.stat(tmp_path).st_mode) == "a directory"
    assert kind_of(os.stat("/dev/null").st_mode) == "a device"
    assert kind_of(0o10600) == "a fifo"
    assert kind_of(0) == "no file"
