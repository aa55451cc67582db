from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from pykka_imagestore.core.journal import (
    HEADER_BYTES,
    Frame,
    find_attested,
    pack_frame,
    pack_header,
    parse_frame,
    parse_header,
)

FRAME_HEAD_BYTES = 28
uint64s = st.integers(0, 2**64 - 1)
frames = st.builds(Frame, uint64s, uint64s, st.binary(max_size=200))
SOUND = pack_frame(Frame(5, 300, b"payload"))


def test_header_is_as_the_layout_says():
    expected = b"IMGJRNL1" + bytes.fromhex("0807060504030201")

    assert pack_header(0x0102030405060708) == expected + zlib.crc32(expected).to_bytes(4, "little")
    assert HEADER_BYTES == 20


def test_frame_is_as_the_layout_says():
    head = bytes.fromhex("F5494D47") + bytes.fromhex("03000000") + struct.pack("<QQ", 7, 300)

    packed = pack_frame(Frame(7, 300, b"abc"))

    assert packed == head + zlib.crc32(head + b"abc").to_bytes(4, "little") + b"abc"


@given(uint64s)
def test_header_round_trip(sequence):
    assert parse_header(pack_header(sequence)) == sequence


@given(frames, st.binary(max_size=50), st.binary(max_size=50))
def test_frame_round_trip_wherever_it_lies(frame, before, after):
    packed = pack_frame(frame)

    assert parse_frame(before + packed + after, len(before)) == frame
    assert len(packed) == frame.size_bytes == FRAME_HEAD_BYTES + len(frame.payload)


@given(st.binary(max_size=60) | st.binary(max_size=40).map(b"IMGJRNL1".__add__))
def test_any_bytes_are_a_header_or_none(data):
    sequence = parse_header(data)

    assert sequence is None or data.startswith(pack_header(sequence))


@given(st.binary(max_size=80) | st.binary(max_size=60).map(b"\xf5IMG".__add__), st.integers(0, 100))
def test_any_bytes_are_a_frame_or_none(data, at):
    frame = parse_frame(data, at)

    assert frame is None or data[at:].startswith(pack_frame(frame))


@given(uint64s, st.integers(0, HEADER_BYTES - 1), st.integers(1, 255))
def test_header_with_a_byte_changed_is_none(sequence, position, change):
    assert parse_header(changed(pack_header(sequence), position, change)) is None


@given(uint64s, st.integers(0, HEADER_BYTES - 1))
def test_header_cut_off_is_none(sequence, length):
    assert parse_header(pack_header(sequence)[:length]) is None


@given(frames, st.data())
def test_frame_with_a_byte_changed_is_none(frame, data):
    packed = pack_frame(frame)
    position = data.draw(st.integers(0, len(packed) - 1))

    assert parse_frame(changed(packed, position, data.draw(st.integers(1, 255))) + bytes(300)) is None


@given(frames, st.data(), st.sampled_from([b"", bytes(300), SOUND * 8]))
def test_frame_cut_off_is_none_whatever_follows(frame, data, following):
    packed = pack_frame(frame)
    torn = packed[: data.draw(st.integers(0, len(packed) - 1))] + following
    assume(not torn.startswith(packed))  # what was cut off is what follows

    assert parse_frame(torn) != frame


@given(st.lists(frames, max_size=5), st.lists(st.binary(max_size=40), min_size=6, max_size=6))
@example([Frame(1, 0, b""), Frame(2, 48, b"")], [b"\xf5IMG" * 3] * 6)
def test_attested_is_the_most_that_a_sound_frame_says_wherever_they_lie(found, garbage):
    assume(not any(b"\xf5IMG" in each[4:] or b"\xf5IMG" in frame.payload for each in garbage for frame in found))
    data = garbage[0] + b"".join(pack_frame(frame) + each for frame, each in zip(found, garbage[1:], strict=False))

    assert find_attested(data) == max([frame.attested_bytes for frame in found], default=0)


@pytest.mark.parametrize("data", [b"", b"\xf5IMG", b"\xf5IM", b"\xf5" * 100, SOUND[:-1], SOUND[1:], b"\xf5IMG" * 100])
def test_nothing_is_attested_by_what_is_no_sound_frame(data):
    assert find_attested(data) == 0


@pytest.mark.parametrize("torn", [b"\xf5IMG", b"\xf5", b"\xf5IM", pack_frame(Frame(1, 999, bytes(100)))[:30]])
def test_frame_in_the_torn_part_of_another_is_found(torn):
    assert find_attested(torn + SOUND) == 300


def test_frame_in_the_payload_of_a_sound_one_does_not_count():
    assert find_attested(pack_frame(Frame(1, 20, pack_frame(Frame(2, 999, b""))))) == 20


@given(st.binary(max_size=200) | st.lists(st.sampled_from([SOUND, SOUND[:9], b"\xf5IMG"])).map(b"".join))
def test_any_bytes_attest_something_or_nothing(data):
    assert find_attested(data) in ({0, 300} if b"\xf5IMG" in data else {0})


def changed(data: bytes, position: int, change: int) -> bytes:
    damaged = bytearray(data)
    damaged[position] = (damaged[position] + change) % 256
    return bytes(damaged)
