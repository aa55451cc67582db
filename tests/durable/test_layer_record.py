from __future__ import annotations

import contextlib
import os

import pytest

from pykka_imagestore._proto.layer_pb2 import LayerRecord
from pykka_imagestore.core.checksum import with_checksum
from pykka_imagestore.durable.layer_record import read_record
from pykka_imagestore.errors import RecordError

DIFF_ID = "sha256:" + "1" * 64
RECORD = LayerRecord(diff_id=DIFF_ID, unset=[LayerRecord.Unset(path=b"\xff", what="owner")], stored_bytes=4096)


def test_record_is_read_as_it_was_written(tmp_path):
    (tmp_path / "layer.pb").write_bytes(RECORD.SerializeToString())

    assert read_record(tmp_path) == RECORD


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it names no DiffID"),
        (b"\xff" * 9, "it is no LayerRecord: "),
        (LayerRecord(diff_id="sha256:1").SerializeToString(), "it names no DiffID"),
        (RECORD.SerializeToString() + b"\x32\x00", "a field is missing or no text"),
        (RECORD.SerializeToString() + b"\x32\x06\x0a\x01a\x12\x01\xff", "it is no LayerRecord: "),
    ],
)
def test_record_that_is_none_is_an_error_that_says_so(tmp_path, data, reason):
    (tmp_path / "layer.pb").write_bytes(data)

    with pytest.raises(RecordError, match=rf"layer.pb: .*{reason}.*have this layer again$"):
        read_record(tmp_path)


def test_missing_record_is_an_error(tmp_path):
    with pytest.raises(RecordError, match="it cannot be read: No such file or directory"):
        read_record(tmp_path)


SEALED = with_checksum(LayerRecord(diff_id=DIFF_ID, entries=3, uid=0, gid=0).SerializeToString())


def test_record_with_a_checksum_is_read_and_one_without_may_not_have_what_came_with_it(tmp_path):
    (tmp_path / "layer.pb").write_bytes(SEALED)
    assert read_record(tmp_path).entries == 3
    (tmp_path / "layer.pb").write_bytes(SEALED[:-6])

    with pytest.raises(RecordError, match="its checksum is missing: it was changed, or is damaged"):
        read_record(tmp_path)


@pytest.mark.parametrize("position", range(len(SEALED)))
def test_a_bit_changed_anywhere_in_a_record_is_an_error(tmp_path, position):
    for bit in range(8):
        data = bytearray(SEALED)
        data[position] ^= 1 << bit
        (tmp_path / "layer.pb").write_bytes(data)

        with pytest.raises(RecordError):
            read_record(tmp_path)


@pytest.mark.parametrize("more", [b"\0", b"\x18\x05", SEALED])
def test_what_follows_a_record_is_an_error(tmp_path, more):
    (tmp_path / "layer.pb").write_bytes(SEALED + more)

    with pytest.raises(RecordError):
        read_record(tmp_path)


@pytest.mark.parametrize("make", [os.mkdir, lambda path: os.symlink("other", path), os.mkfifo])
def test_what_is_no_file_is_no_record(tmp_path, make):
    (tmp_path / "other").write_bytes(RECORD.SerializeToString())
    make(tmp_path / "layer.pb")

    with pytest.raises(RecordError):
        read_record(tmp_path)


@pytest.mark.parametrize("position", range(len(RECORD.SerializeToString())))
def test_damaged_record_is_an_error_or_another_record(tmp_path, position):
    data = bytearray(RECORD.SerializeToString())
    for byte in (0, 1, 0x7F, 0x80, 0xFF):
        data[position] = byte
        (tmp_path / "layer.pb").write_bytes(data)

        with contextlib.suppress(RecordError):
            assert read_record(tmp_path).IsInitialized()
