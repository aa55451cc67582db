from __future__ import annotations

import gzip
import hashlib
import itertools
import os
import tracemalloc
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.compressions import COMPRESS
from support.layers import blob_of, unpack_layer
from support.tars import file, tar

from pykka_imagestore.core.byte_source import BLOCK_BYTES
from pykka_imagestore.core.tar.format import TarError
from pykka_imagestore.fs.write import write_all
from pykka_imagestore.jobs.archive.file_source import FileSource
from pykka_imagestore.jobs.archive.open_blob import open_blob
from pykka_imagestore.jobs.unpack.inflate import is_compressed
from pykka_imagestore.jobs.unpack.layer_stream import LayerStream

BODY = bytes(range(256)) * 3000  # three blocks, nearly


@pytest.fixture
def opened(tmp_path):
    """Return a function that opens bytes as a layer."""
    with ExitStack() as stack:

        def open_layer(data, on_block=lambda _: None):
            source = stack.enter_context(open_blob(blob_of(data, tmp_path), is_verified=True))
            return LayerStream(source, None, on_block)

        yield open_layer


@given(st.data())
def test_pieces_of_any_size_are_the_whole(tmp_path_factory, data):
    descriptor = os.open(blob_of(BODY, tmp_path_factory.mktemp("layer")).origin, os.O_RDONLY)
    stream, position = LayerStream(FileSource(descriptor, "layer.tar", 0, len(BODY)), None, lambda _: None), 0
    for size in data.draw(st.lists(st.integers(0, 2 * BLOCK_BYTES), max_size=6)):
        if data.draw(st.booleans()):
            assert stream.take(size) == BODY[position : position + size]
        else:
            stream.skip(size)
        position += size
    stream.drain()

    assert stream.diff_id() == f"sha256:{hashlib.sha256(BODY).hexdigest()}"
    assert stream.size_bytes == stream.bytes_read == len(BODY)
    os.close(descriptor)


@pytest.mark.parametrize("size", [0, 1, 512, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, len(BODY) - 3])
def test_bytes_are_written_to_a_file_as_they_are(opened, tmp_path, size):
    stream = opened(BODY)
    stream.take(3)
    target = os.open(tmp_path / "target", os.O_RDWR | os.O_CREAT)

    stream.write_to(target, size)

    os.close(target)
    assert (tmp_path / "target").read_bytes() == BODY[3 : 3 + size]
    assert stream.take(5) == BODY[3 + size : 8 + size]


def test_large_body_is_written_in_whole_blocks_of_its_file(opened, tmp_path, monkeypatch):
    sizes = []

    def recorded(written):
        sizes.append(written)
        return written

    write, writev = os.write, os.writev
    monkeypatch.setattr(os, "write", lambda *arguments: recorded(write(*arguments)))
    monkeypatch.setattr(os, "writev", lambda *arguments: recorded(writev(*arguments)))
    stream = opened(BODY)
    stream.take(3000)
    target = os.open(tmp_path / "target", os.O_RDWR | os.O_CREAT)

    stream.write_to(target, 2 * BLOCK_BYTES + 5)

    os.close(target)
    assert sizes == [BLOCK_BYTES, BLOCK_BYTES, 5]


@given(st.lists(st.integers(1, 7), min_size=1), st.binary(max_size=40), st.binary(max_size=40))
def test_what_the_disk_does_not_take_at_once_is_written_later(tmp_path_factory, steps, data, more):
    """A nearly full disk, a signal, or a quota makes a write a short one."""
    target = os.open(tmp_path_factory.mktemp("short") / "target", os.O_RDWR | os.O_CREAT)
    short = itertools.cycle(steps)
    write = os.write

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", lambda file, piece: write(file, piece[: next(short)]))
        patch.setattr(os, "writev", lambda file, pieces: write(file, b"".join(pieces)[: next(short)]))
        write_all(target, data, more)

    assert os.pread(target, 100, 0) == data + more
    os.close(target)


def test_taking_more_than_there_is_gives_what_there_is(opened):
    stream = opened(b"abc")

    assert stream.take(10) == b"abc"
    assert stream.take(10) == b""


def test_writing_more_than_there_is_fails(opened, tmp_path):
    target = os.open(tmp_path / "target", os.O_RDWR | os.O_CREAT)

    with pytest.raises(TarError, match=r"is cut off: the layer ends inside its body"):
        opened(b"abc").write_to(target, 4)

    os.close(target)


def test_range_ends_where_it_says_whatever_follows(tmp_path):
    (tmp_path / "archive").write_bytes(b"before" + b"layer" + b"after" * 1000)
    descriptor = os.open(tmp_path / "archive", os.O_RDONLY)

    stream = LayerStream(FileSource(descriptor, "archive", 6, 5), None, lambda _: None)

    assert stream.take(100) == b"layer"
    os.close(descriptor)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    descriptor = os.open(tmp_path, os.O_RDONLY)  # no file, so that reading it fails as on a bad disk
    file = FileSource(descriptor, "image.tar", 0, 5)

    with pytest.raises(IsADirectoryError, match=r"image\.tar"):
        file.read(5)

    os.close(descriptor)


def test_range_beyond_the_end_of_its_file_gives_what_there_is(tmp_path):
    (tmp_path / "archive").write_bytes(b"layer")
    descriptor = os.open(tmp_path / "archive", os.O_RDONLY)

    stream = LayerStream(FileSource(descriptor, "archive", 2, 1000), None, lambda _: None)

    assert stream.take(100) == b"yer"
    os.close(descriptor)


@pytest.mark.parametrize("compression", COMPRESS)
def test_compressed_bytes_are_counted_as_they_are_stored_and_hashed_as_they_are(opened, compression):
    compressed = COMPRESS[compression](BODY)
    stream = opened(compressed)

    stream.drain()

    assert is_compressed(compressed[:10])
    assert (stream.bytes_read, stream.size_bytes) == (len(compressed), len(BODY))
    assert stream.diff_id() == f"sha256:{hashlib.sha256(BODY).hexdigest()}"


@pytest.mark.parametrize("name", [b"BZh", b"BZh9", b"BZhello", b"\x1f"])
def test_tar_whose_first_name_looks_like_a_compression_is_a_tar(tmp_path, name):
    unpacked = unpack_layer(tar(file(name, b"x")), tmp_path)

    assert unpacked.kinds == {name: "f"}


def test_each_block_is_told(opened):
    told = []
    stream = opened(BODY, lambda _: told.append(1))

    stream.drain()

    assert len(told) >= len(BODY) // BLOCK_BYTES


def test_error_of_the_disk_is_no_fault_of_the_layer(tmp_path):
    blob = blob_of(gzip.compress(BODY), tmp_path)
    descriptor = os.open(blob.origin, os.O_RDONLY)
    stream = LayerStream(FileSource(descriptor, blob.origin, 0, blob.size), None, lambda _: None)
    os.close(descriptor)

    with pytest.raises(OSError, match="Bad file descriptor"):
        stream.drain()


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_memory_does_not_grow_with_the_layer(tmp_path, compression):
    layer = tar(file(b"big", bytes(32 << 20)), *(file(b"%d" % number) for number in range(100)))
    data = COMPRESS[compression](layer) if compression != "none" else layer
    blob_of(data, tmp_path)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]

    unpack_layer(data, tmp_path)

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - before < 4 << 20


SKIPPED = b"\x52\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"hello"
FRAMES = [COMPRESS["zstd"](BODY[:1000]), COMPRESS["zstd"](BODY[1000:])]


@pytest.mark.parametrize(
    "frames",
    [FRAMES, [SKIPPED, *FRAMES], [FRAMES[0], SKIPPED, FRAMES[1]], [*FRAMES, SKIPPED], [SKIPPED, SKIPPED, *FRAMES]],
)
def test_zstd_of_several_frames_and_frames_to_skip_is_the_whole(opened, frames):
    stream = opened(b"".join(frames))

    stream.drain()

    assert stream.diff_id() == f"sha256:{hashlib.sha256(BODY).hexdigest()}"
