"""Layers that lie, or are damaged: each ends in one sentence, and leaves nothing."""

from __future__ import annotations

import hashlib
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import tars
from support.compressions import COMPRESS
from support.layers import unpack_layer

from pykka_imagestore.core.digest import DiffID
from pykka_imagestore.core.limits import DEFAULT_LIMITS
from pykka_imagestore.errors import ArchiveError, LayerError, LimitError

SMALL = tars.tar(
    tars.directory(b"d", mode=0o700),
    tars.file(b"d/empty"),
    tars.file(b"d/f", b"x" * 1500),
    tars.pax({b"path": b"d/long", b"mtime": b"1.5", b"SCHILY.xattr.user.a": b"1"}),
    tars.file(b"short", b"y" * 100),
    tars.long_name(b"d/" + b"n" * 150),
    tars.symlink(b"s", b"f"),
    tars.hard_link(b"d/l", b"d/f"),
    tars.whiteout(b"d/gone"),
    tars.file(b"last", b"z" * 512),
)
DIFF_ID = DiffID(f"sha256:{hashlib.sha256(SMALL).hexdigest()}")


# -- sizes


@pytest.mark.parametrize("size", [2**62, 2**33, 10_000, 1537])
def test_size_beyond_the_end(victim, size):
    victim.refuse(tars.header(b"f", size=tars.base_256(size, 12)), b"x" * 512, match=r"entry 0 'f' is cut off")


def test_negative_size(victim):
    victim.refuse(tars.header(b"f", size=tars.base_256(-512, 12)), match=r"entry 0 'f' has a negative size")


def test_size_that_pax_makes_larger(victim):
    victim.refuse(tars.pax({b"size": b"9" * 19}), tars.file(b"f", b"x"), match=r"entry 0 'f' is cut off")


def test_size_of_a_whiteout_beyond_the_end(victim):
    victim.unpack(tars.header(b".wh.gone", size=tars.base_256(2**62, 12)))


def test_size_of_an_old_directory_beyond_the_end(victim):
    victim.unpack(tars.header(b"d/", size=tars.base_256(2**62, 12)))


def test_sizes_that_hide_entries_in_a_body_are_read_as_others_read_them(victim):
    hidden = tars.file(b"hidden", b"x")

    unpacked = victim.unpack(tars.pax({b"size": b"%d" % len(hidden)}), tars.header(b"f"), hidden, tars.file(b"seen"))

    assert set(unpacked.nodes) == {b"", b"f", b"seen"}


def test_body_of_an_entry_that_has_none_is_no_body(victim):
    unpacked = victim.unpack(tars.symlink(b"s", b"x", size=512), tars.file(b"seen"))

    assert set(unpacked.nodes) == {b"", b"s", b"seen"}


# -- extension headers


@pytest.mark.parametrize("kind", [tars.PAX, tars.PAX_GLOBAL, tars.GNU_LONG_NAME, tars.GNU_LONG_LINK])
def test_huge_extension_header(victim, kind):
    body = tars.pax_record(b"path", b"x" * (DEFAULT_LIMITS.extension_bytes + 1))

    victim.refuse(tars.raw_pax(body, kind), tars.file(b"f"), match=rf"{DEFAULT_LIMITS.extension_bytes} is the limit")


@pytest.mark.parametrize("data", [b"path=a\n", b"=\n", b"\n", b"a=b\nc=d\n", b"10 path=a\npath=b\n", b"0 a=b\n"])
def test_pax_record_without_a_length_does_not_hang(victim, data):
    victim.refuse(tars.raw_pax(data), tars.file(b"f"), match=r"entry 0 has a malformed pax record")


@pytest.mark.parametrize(
    "header", [tars.pax({b"comment": b"x" * 1000}), tars.raw_pax(b""), tars.pax({b"comment": b"x"}, tars.PAX_GLOBAL)]
)
def test_extension_headers_of_one_entry_are_bounded_together(victim, header):
    victim.refuse(header * 3000, tars.file(b"f"), match=r"1048576 is the limit", error=LimitError)


@pytest.mark.parametrize(
    ("name", "match"),
    [(b"n" * 100_000, r"cannot be made: File name too long"), (b"d/" + b"n" * 99_998, r"has a path of 100000 bytes")],
)
def test_name_longer_than_any_path(victim, name, match):
    victim.refuse(tars.long_name(name), tars.file(b"f"), match=match)


def test_refusal_is_one_line_of_bounded_length_whatever_the_name(victim):
    with pytest.raises(LayerError) as caught:
        victim.unpack(tars.long_name(b"\n\x1b[2J\xff" * 500), tars.file(b"f"))

    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


# -- damage


@pytest.mark.parametrize("blocks", range(len(SMALL) // 512))
def test_layer_cut_off_after_any_block(tmp_path, blocks):
    cut = SMALL[: blocks * 512]

    with pytest.raises(ArchiveError) as caught:
        unpack_layer(cut, tmp_path, DIFF_ID)

    assert str(caught.value).startswith(str(tmp_path / "layer.tar"))
    assert not (tmp_path / "layer").exists()


@pytest.mark.parametrize("offset", random.Random(1).sample(range(len(SMALL)), 40))
def test_layer_cut_off_anywhere_is_a_part_of_it_or_refused(tmp_path, offset):
    whole = unpack_layer(SMALL, tmp_path).kinds

    try:
        cut = unpack_layer(SMALL[:offset], tmp_path)
    except LayerError:
        assert not (tmp_path / "layer").exists()
    else:
        assert cut.kinds.items() <= whole.items()


EVERY_FORM = b"".join(
    [
        SMALL[:-1024],
        *(
            make(b"sparse " + form.encode(), 9000, [(0, 3), (8192, 800)], b"s" * 803)
            for form, make in tars.SPARSE.items()
        ),
        tars.gnu_sparse(b"sparse in many pieces", 90_000, [(number * 1024, 2) for number in range(60)], b"s" * 120),
        tars.pax({b"comment": b"x" * 600}, tars.PAX_GLOBAL),
        tars.file(b"end"),
    ]
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.integers(0, len(EVERY_FORM) // 512 - 1), st.sampled_from([0, 0, 1, 511]))
def test_layer_cut_off_at_any_byte_is_refused_or_ends_between_two_entries(tmp_path, block, rest):
    whole = unpack_layer(EVERY_FORM, tmp_path).nodes
    cut = EVERY_FORM[: block * 512 + rest]

    try:
        unpacked = unpack_layer(cut, tmp_path)
    except LayerError:
        assert not (tmp_path / "layer").exists()
    else:
        files = {path: node for path, node in unpacked.nodes.items() if node.kind == "f"}
        assert {path: node.content for path, node in files.items()}.items() <= {
            path: node.content for path, node in whole.items()
        }.items()
        assert unpacked.counts.diff_id == f"sha256:{hashlib.sha256(cut).hexdigest()}"


@pytest.mark.parametrize(
    "offset", [n for n in range(0, len(SMALL) - 1024, 512) if SMALL[n + 257 : n + 262] == b"ustar"]
)
def test_any_header_with_a_wrong_checksum(tmp_path, offset):
    damaged = bytearray(SMALL)
    damaged[offset + 148] ^= 1

    with pytest.raises(LayerError, match=r"the header's checksum is wrong"):
        unpack_layer(bytes(damaged), tmp_path)

    assert not (tmp_path / "layer").exists()


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.integers(0, len(SMALL) - 1), st.integers(1, 255))
def test_a_byte_changed_anywhere_is_noticed(tmp_path, position, change):
    damaged = bytearray(SMALL)
    damaged[position] = (damaged[position] + change) % 256

    with pytest.raises(ArchiveError):
        unpack_layer(bytes(damaged), tmp_path, DIFF_ID)

    assert not (tmp_path / "layer").exists()


@pytest.mark.parametrize(
    "data", [b"x", b"x" * 512, b"\x1f\x8b", b"BZh9", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"PK\3\4" * 200]
)
def test_layer_that_is_no_tar(tmp_path, data):
    with pytest.raises(LayerError):
        unpack_layer(data, tmp_path)

    assert not (tmp_path / "layer").exists()


# -- compressed and damaged


@pytest.mark.parametrize("compression", COMPRESS)
def test_compressed_layer_is_unpacked_and_its_digest_is_that_of_the_tar(tmp_path, compression):
    unpacked = unpack_layer(COMPRESS[compression](SMALL), tmp_path, DIFF_ID)

    assert unpacked.counts.diff_id == DIFF_ID
    assert unpacked.kinds[b"last"] == "f"


@pytest.mark.parametrize("compression", COMPRESS)
def test_compressed_layer_cut_off_anywhere(tmp_path, compression):
    compressed = COMPRESS[compression](SMALL)

    for size in sorted({*range(0, len(compressed), 23), len(compressed) - 1, len(compressed) - 5}):
        # The last bytes may be a checksum that the decoder does not wait for; the digest is right then.
        try:
            unpack_layer(compressed[:size], tmp_path, DIFF_ID)
        except ArchiveError:
            assert not (tmp_path / "layer").exists()
        else:
            assert size > len(compressed) - 32, size


@pytest.mark.parametrize("compression", COMPRESS)
def test_compressed_layer_cut_off_is_noticed_without_a_digest(tmp_path, compression):
    compressed = COMPRESS[compression](SMALL)

    for size in (3, 20, len(compressed) // 2, len(compressed) - 10):
        with pytest.raises(LayerError):
            unpack_layer(compressed[:size], tmp_path)


@pytest.mark.parametrize("compression", COMPRESS)
def test_compressed_layer_damaged_anywhere(tmp_path, compression):
    compressed = COMPRESS[compression](SMALL)

    for position in range(0, len(compressed), 7):
        damaged = bytearray(compressed)
        damaged[position] ^= 0x55
        try:
            unpack_layer(bytes(damaged), tmp_path, DIFF_ID)
        except ArchiveError:
            assert not (tmp_path / "layer").exists()


@pytest.mark.parametrize("compression", COMPRESS)
def test_compressed_layer_with_another_behind_it_is_both(tmp_path, compression):
    compress = COMPRESS[compression]
    parts = tars.file(b"a", b"x"), tars.tar(tars.file(b"b", b"y"))

    unpacked = unpack_layer(b"".join(map(compress, parts)), tmp_path)

    assert unpacked.kinds == {b"a": "f", b"b": "f"}
    assert unpacked.counts.diff_id == f"sha256:{hashlib.sha256(b''.join(parts)).hexdigest()}"


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("garbage", [b"\0" * 100, b"garbage", b"\1"])
def test_compressed_layer_with_garbage_behind_it_is_taken_by_its_digest_or_refused(tmp_path, compression, garbage):
    try:
        unpacked = unpack_layer(COMPRESS[compression](SMALL) + garbage, tmp_path, DIFF_ID)
    except ArchiveError:
        assert not (tmp_path / "layer").exists()
    else:
        assert unpacked.kinds[b"last"] == "f"


def test_zstd_window_that_would_take_all_memory(tmp_path):
    # A frame header that asks for a window of 2 GiB, and a raw block.
    frame = b"\x28\xb5\x2f\xfd" + bytes([0x00, (31 - 10) << 3]) + (len(SMALL) << 3 | 1).to_bytes(3, "little") + SMALL

    with pytest.raises(LimitError, match=r"asks for a window of more than 134217728 bytes"):
        unpack_layer(frame, tmp_path)
