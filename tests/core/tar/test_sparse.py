from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import tars
from support.sources import Bytes

from pykka_imagestore.core.tar.format import FILE, SparseMap, TarError
from pykka_imagestore.core.tar.reader import read_entries
from pykka_imagestore.core.tar.sparse import MAX_SEGMENTS


def read(*parts):
    """Return entries with their bodies."""
    source = Bytes(tars.tar(*parts))
    return [(entry, source.take(entry.size)) for entry in read_entries(source)]


@st.composite
def sparse_files(draw):
    """Draw the size of a file and its segments; some are empty, some touch."""
    numbers = draw(st.lists(st.tuples(st.integers(0, 2**40), st.integers(0, 600)), max_size=60))
    segments, end = [], 0
    for gap, size in numbers:
        segments.append((end + gap, size))
        end += gap + size
    return end + draw(st.integers(0, 2**40)), segments


@pytest.mark.parametrize("form", tars.SPARSE)
@given(file=sparse_files())
def test_map_is_read_as_it_was_written(form, file):
    size, segments = file
    body = bytes(number % 251 for number in range(sum(length for _, length in segments)))

    (entry, found), (after, _) = read(tars.SPARSE[form](b"f", size, segments, body), tars.file(b"after"))

    assert (entry.kind, entry.name, found) == (FILE, b"f", body)
    assert entry.sparse == SparseMap(size, tuple(segments))
    assert (after.name, after.sparse) == (b"after", None)


def test_plain_file_has_no_map():
    [(entry, _)] = read(tars.file(b"f", b"x"))

    assert entry.sparse is None


def test_size_of_a_sparse_file_may_be_larger_than_octal_digits_hold():
    [(entry, _)] = read(tars.gnu_sparse(b"f", tars.base_256(2**40, 12), [(2**40 - 1, 1)], b"x"))

    assert entry.sparse == SparseMap(2**40, ((2**40 - 1, 1),))


def test_pax_map_without_a_size_is_of_the_bodys_size():
    [(entry, _)] = read(tars.pax({b"GNU.sparse.map": b"0,3"}), tars.file(b"f", b"abc"))

    assert entry.sparse == SparseMap(3, ((0, 3),))


def test_zeros_may_lead_the_numbers_of_a_map_in_a_record():
    records = {b"GNU.sparse.size": b"0" * 20 + b"9", b"GNU.sparse.map": b"0" * 30 + b"," + b"0" * 30 + b"3"}

    [(entry, _)] = read(tars.pax(records), tars.file(b"f", b"abc"))

    assert entry.sparse == SparseMap(9, ((0, 3),))


def test_zeros_may_lead_the_numbers_of_a_map_in_a_body():
    records = {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.realsize": b"9"}
    lines = b"".join(b"0" * 300 + number + b"\n" for number in (b"1", b"4", b"3"))

    [(entry, _)] = read(tars.pax(records), tars.file(b"f", tars.padded(lines) + b"abc"))

    assert entry.sparse == SparseMap(9, ((4, 3),))


# -- lies


@pytest.mark.parametrize("form", tars.SPARSE)
@pytest.mark.parametrize(
    ("size", "segments", "reason"),
    [
        (100, [(0, 10), (9, 5)], "overlap or run backwards at 9"),
        (100, [(50, 5), (0, 10)], "overlap or run backwards at 0"),
        (100, [(0, 15), (0, 0)], "overlap or run backwards at 0"),
        (100, [(90, 15)], "does not fit its size of 100 bytes"),
        (14, [(0, 15)], "does not fit its size of 14 bytes"),
        (100, [(101, 0), (101, 15)], "does not fit its size of 100 bytes"),
        (100, [(0, 14)], "sparse map of 14 bytes and a body of 15"),
        (100, [(0, 16)], "sparse map of 16 bytes and a body of 15"),
        (100, [(0, 2**62), (2**62, 2**62)], "does not fit its size|malformed"),
    ],
)
def test_map_that_lies_is_refused(form, size, segments, reason):
    with pytest.raises(TarError, match=reason):
        read(tars.SPARSE[form](b"f", size, segments, b"x" * 15))


@pytest.mark.parametrize("segment", [(-1, 15), (20, -5)])
def test_negative_numbers_are_refused(segment):
    with pytest.raises(TarError, match="overlap or run backwards"):
        read(tars.gnu_sparse(b"f", 100, [segment], b"x" * 15))


@pytest.mark.parametrize("form", tars.SPARSE)
def test_segments_are_bounded(form):
    segments = [(2 * number, 1) for number in range(MAX_SEGMENTS + 50)]

    with pytest.raises(TarError, match=rf"{MAX_SEGMENTS} is the limit|extension headers of"):
        read(tars.SPARSE[form](b"f", 10**9, segments, b"x" * len(segments)))


@pytest.mark.parametrize(
    "lines", [b"", b"\n", b"x\n", b"1\n0\n", b"1\n0\n-1\n", b"9" * 600, b"1\n0\n" + b"9" * 30, b"-1\n"]
)
def test_map_in_a_body_that_is_malformed_is_refused(lines):
    records = {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.realsize": b"5"}

    with pytest.raises(TarError, match=r"malformed sparse map|map that does not end"):
        read(tars.pax(records), tars.file(b"f", tars.padded(lines)))


def test_map_longer_than_its_body_does_not_reach_into_the_next_entry():
    records = {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.realsize": b"5"}

    with pytest.raises(TarError, match="map that does not end"):
        read(tars.pax(records), tars.file(b"f", b"300\n" + b"0\n0\n" * 127), b"0\n" * 512)


@pytest.mark.parametrize("value", [b"0", b"0,", b"a,b", b"0,1,2", b"0,-1", b"0 1", b"0," + b"9" * 20])
def test_map_in_a_record_that_is_malformed_is_refused(value):
    with pytest.raises(TarError, match=r"malformed sparse map|does not fit"):
        read(tars.pax({b"GNU.sparse.size": b"5", b"GNU.sparse.map": value}), tars.file(b"f", b"x"))


@pytest.mark.parametrize("keys", [(b"numbytes", b"offset"), (b"offset", b"offset"), (b"offset",)])
def test_pairs_that_are_none_are_refused(keys):
    records = b"".join(tars.pax_record(b"GNU.sparse." + key, b"0") for key in keys)

    with pytest.raises(TarError, match=r"do not take turns|does not fit"):
        read(tars.raw_pax(records), tars.file(b"f"))


@pytest.mark.parametrize(
    "records",
    [{b"GNU.sparse.major": b"1"}, {b"GNU.sparse.major": b"2", b"GNU.sparse.minor": b"0"}, {b"GNU.sparse.minor": b"2"}],
)
def test_version_that_is_not_known_is_refused_rather_than_misread(records):
    with pytest.raises(TarError, match="of an unknown version"):
        read(tars.pax(records), tars.file(b"f"))


@pytest.mark.parametrize("kind", [tars.DIRECTORY, tars.SYMLINK, tars.HARD_LINK, tars.FIFO])
def test_map_of_what_is_no_file_is_refused(kind):
    with pytest.raises(TarError, match="is no file"):
        read(tars.pax({b"GNU.sparse.map": b"0,0"}), tars.header(b"f", kind))


def test_gnu_map_in_a_header_that_is_not_gnus_is_refused():
    with pytest.raises(TarError, match="not GNU tar's"):
        read(tars.gnu_sparse(b"f", 5, [(0, 1)], b"x", magic=b"ustar\x0000"))


@pytest.mark.parametrize("size", [0, 1, 511])
def test_gnu_map_that_is_cut_off_is_refused(size):
    whole = tars.gnu_sparse(b"f", 1000, [(number * 2, 1) for number in range(9)], b"x" * 9)

    with pytest.raises(TarError, match="ends inside its sparse map"):
        list(read_entries(Bytes(whole[: 512 + size])))
