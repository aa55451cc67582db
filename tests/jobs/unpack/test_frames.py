from __future__ import annotations

import io
import lzma

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.compressions import COMPRESS

from pykka_imagestore.core.limits import Limits
from pykka_imagestore.core.tar.format import OverLimitError
from pykka_imagestore.jobs.unpack.frames import FrameReader
from pykka_imagestore.jobs.unpack.inflate import inflate

DATA = bytes(range(256)) * 3000
FEW = Limits(frames=100)


def read_all(reader, size=256 * 1024):
    parts = []
    while part := reader.read(size):
        assert len(part) <= size
        parts.append(part)
    return b"".join(parts)


@given(
    compression=st.sampled_from(["zstd", "xz"]),
    pieces=st.lists(
        st.binary(max_size=50) | st.integers(0, len(DATA)).map(lambda size: DATA[:size]), min_size=1, max_size=8
    ),
    size=st.integers(1, 700_000),
)
def test_frames_in_a_row_are_read_as_one(compression, pieces, size):
    stored = b"".join(map(COMPRESS[compression], pieces))

    assert read_all(inflate(io.BytesIO(stored), stored[:10], FEW), size) == b"".join(pieces)


@given(zeros=st.lists(st.integers(0, 300_000), min_size=3, max_size=3))
def test_streams_of_xz_are_read_with_what_pads_them(zeros):
    streams = [lzma.compress(text) for text in (b"one", b"two", b"three")]
    stored = b"".join(stream + bytes(count) for stream, count in zip(streams, zeros, strict=True))

    assert read_all(inflate(io.BytesIO(stored), stored[:10], FEW)) == b"onetwothree"


@pytest.mark.parametrize("compression", ["zstd", "xz"])
def test_frame_that_is_cut_off(compression):
    stored = COMPRESS[compression](b"whole") + COMPRESS[compression](DATA)[:-5]

    with pytest.raises(EOFError, match="end too early"):
        read_all(inflate(io.BytesIO(stored), stored[:10], FEW))


class Decoder:
    """Inflates frames of eight bytes to nothing."""

    needs_input = True

    def __init__(self, given):
        self._given = given
        self.eof = False
        self.unused_data = b""

    def decompress(self, data, _):
        self._given.append(len(data))
        self.eof, self.unused_data = True, bytes(data[8:])
        return b""


def test_short_frames_are_given_little_that_they_give_back():
    given, count = [], 50_000
    reader = FrameReader(io.BytesIO(bytes(8 * count)), lambda: Decoder(given), Limits(frames=count))

    assert reader.read(1000) == b""

    assert len(given) == count
    assert sum(given) <= count * 1024


def test_frames_are_bounded_by_what_they_become():
    stored = COMPRESS["zstd"](b"x" * 256) * 100 + COMPRESS["zstd"](b"") * 100
    reader = inflate(io.BytesIO(stored), stored[:10], Limits(frames=50))

    with pytest.raises(OverLimitError, match=r"is one of 151 frames that become 25600 bytes; 50 and one for each 256"):
        read_all(reader)
