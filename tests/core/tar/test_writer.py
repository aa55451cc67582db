"""What is written, read back by our own reader and by Python's."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pykka_imagestore.core.limits import DEFAULT_LIMITS
from pykka_imagestore.core.tar.format import (
    BLOCK,
    BLOCK_DEVICE,
    CHARACTER_DEVICE,
    DIRECTORY,
    FIFO,
    FILE,
    HARD_LINK,
    SYMLINK,
    Entry,
    SparseMap,
)
from pykka_imagestore.core.tar.reader import read_entries
from pykka_imagestore.core.tar.writer import END, pack_entry

parts = st.binary(min_size=1, max_size=120).map(lambda part: part.translate(None, b"\0/") or b"x")
names = st.lists(parts.filter(lambda part: part not in (b".", b"..")), min_size=1, max_size=5).map(b"/".join)
ids = st.integers(0, (1 << 32) - 2)
keys = st.binary(min_size=1, max_size=30).map(lambda key: b"user." + key.translate(None, b"\0="))
LONG = b"/".join([b"d" * 60] * 4)


@st.composite
def entries(draw):
    kind = draw(st.sampled_from([FILE, HARD_LINK, SYMLINK, CHARACTER_DEVICE, BLOCK_DEVICE, DIRECTORY, FIFO]))
    is_device = kind in (CHARACTER_DEVICE, BLOCK_DEVICE)
    return Entry(
        index=0,
        kind=kind,
        name=draw(names),
        link=draw(names) if kind in (HARD_LINK, SYMLINK) else b"",
        mode=draw(st.integers(0, 0o7777)),
        uid=draw(ids),
        gid=draw(ids),
        size=draw(st.integers(0, 1 << 40)) if kind == FILE else 0,
        mtime_ns=draw(st.integers(-(1 << 62), 1 << 62)),
        major=draw(st.integers(0, (1 << 12) - 1)) if is_device else 0,
        minor=draw(st.integers(0, (1 << 20) - 1)) if is_device else 0,
        xattrs=draw(st.dictionaries(keys, st.binary(max_size=50), max_size=3)),
    )


def file(**fields):
    values = {
        "index": 0,
        "kind": FILE,
        "name": b"f",
        "link": b"",
        "mode": 0o644,
        "uid": 0,
        "gid": 0,
        "size": 0,
        "mtime_ns": 0,
        "major": 0,
        "minor": 0,
        "xattrs": {},
    }
    return Entry(**{**values, **fields})


class Bytes:
    """A source whose bodies are not there."""

    def __init__(self, data):
        self._data = io.BytesIO(data)

    def take(self, size):
        return self._data.read(size)

    def skip(self, size):
        pass


def first_read(data):
    return next(read_entries(Bytes(data), DEFAULT_LIMITS))


@given(entries())
@example(file(name=LONG[:100]))
@example(file(name=LONG[:101]))
@example(file(name=b"a" * 155 + b"/" + b"b" * 100))
@example(file(name=b"a" * 156 + b"/" + b"b" * 100))
@example(file(name=b"a" * 155 + b"/" + b"b" * 101))
@example(file(uid=8**7 - 1, gid=8**7, size=8**11 - 1, mtime_ns=(8**11 - 1) * 10**9))
@example(file(uid=8**7, gid=8**7 - 1, size=8**11, mtime_ns=8**11 * 10**9))
@example(file(mtime_ns=-1))
@example(file(mtime_ns=1))
@example(file(kind=HARD_LINK, link=b"l" * 100))
@example(file(kind=SYMLINK, link=b"l" * 101))
@example(file(xattrs={b"user.a": b"x" * 80, b"user.b": b"x" * 79, b"user.c": b"x" * 980, b"user.d": b"\0\n="}))
def test_an_entry_is_read_back_as_it_was(entry):
    data = pack_entry(entry)

    found = first_read(data + END)

    if entry.kind == DIRECTORY:
        found.name = found.name.removesuffix(b"/")
    assert found == entry
    assert len(data) % BLOCK == 0


@given(entries())
def test_python_reads_it_back_as_well(entry):
    with tarfile.open(fileobj=io.BytesIO(pack_entry(entry) + END), encoding="utf-8", errors="surrogateescape") as tar:
        found = tar.next()
    assert found is not None

    def encoded(text):
        return text.encode("utf-8", "surrogateescape")

    assert (encoded(found.name), encoded(found.linkname)) == (entry.name.rstrip(b"/"), entry.link)
    assert (found.mode, found.uid, found.gid, found.size) == (entry.mode, entry.uid, entry.gid, entry.size)
    assert found.type == bytes([entry.kind])
    assert found.mtime == pytest.approx(entry.mtime_ns / 10**9)
    assert (found.devmajor, found.devminor) == (entry.major, entry.minor)


def test_what_ustar_holds_takes_one_block():
    assert len(pack_entry(file(name=b"a" * 155 + b"/" + b"b" * 100, uid=8**7 - 1, mtime_ns=10**18))) == BLOCK


def test_the_root_is_a_dot():
    assert first_read(pack_entry(file(kind=DIRECTORY, name=b"")) + END).name == b"./"


@given(
    st.lists(st.tuples(st.integers(1, 9999), st.integers(1, 9999)), max_size=200),
    names,
    st.integers(0, 1 << 40),
)
def test_a_sparse_file_is_read_back_with_its_map(gaps, name, hole):
    segments, end = [], 0
    for gap, size in gaps:
        segments.append((end + gap, size))
        end += gap + size
    entry = file(name=name, size=sum(size for _, size in segments), sparse=SparseMap(end + hole, tuple(segments)))

    assert first_read(pack_entry(entry) + END) == entry


def test_a_name_that_is_no_text_is_told_to_be_bytes():
    assert b"hdrcharset=BINARY\n" in pack_entry(file(name=b"\xff" * 200))
    assert b"hdrcharset" not in pack_entry(file(name="ä".encode() * 100))


def test_an_attribute_that_no_record_can_name_is_left_out():
    found = first_read(pack_entry(file(xattrs={b"user.a=b": b"c", b"user.d": b"e"})) + END)

    assert found.xattrs == {b"user.d": b"e"}
