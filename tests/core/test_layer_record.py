from __future__ import annotations

import zlib

from hypothesis import given
from hypothesis import strategies as st

from pykka_imagestore._proto import layer_pb2
from pykka_imagestore._proto.layer_pb2 import LayerRecord
from pykka_imagestore.core.layer_record import WhiteoutFormat, pack_layer_record
from pykka_imagestore.core.time_range import TimeRange

uint32s = st.integers(0, (1 << 32) - 1)
int64s = st.integers(-(1 << 63), (1 << 63) - 1)
uint64s = st.integers(0, (1 << 64) - 1)
records = st.fixed_dictionaries(
    {
        "diff_id": st.text(),
        "size_bytes": uint64s,
        "entries": uint64s,
        "whiteouts": st.sampled_from(WhiteoutFormat),
        "implicit_directories": st.lists(st.binary(max_size=300)),
        "unset": st.lists(st.tuples(st.binary(), st.text())),
        "unset_count": uint64s,
        "stored_bytes": uint64s,
        "inodes": uint64s,
        "replaced_lost": st.booleans(),
        "implicit_root": st.booleans(),
        "lower_links": st.lists(st.tuples(st.binary(), st.binary())),
        "opaque_directories": st.lists(st.binary()),
        "hiding_directories": st.lists(st.binary()),
        "owner": st.tuples(uint32s, uint32s),
        "times": st.none() | st.builds(TimeRange, int64s, int64s, uint32s),
        "split": st.tuples(uint64s, uint32s),
        "replaced_checksum": uint32s,
    }
)


@given(records)
def test_records_are_byte_for_byte_what_protobuf_writes(record):
    packed = pack_layer_record(**record)

    uid, gid = record.pop("owner")
    rest = LayerRecord(**as_fields(record), checksum=zlib.crc32(packed[:-6])).SerializePartialToString()
    assert packed == LayerRecord(uid=uid, gid=gid).SerializePartialToString() + rest


def as_fields(record):
    times, (split_bytes, split_checksum) = (record.pop(key) for key in ("times", "split"))
    fields = {"split_bytes": split_bytes, "split_checksum": split_checksum}
    if times is not None:
        fields |= {"earliest": times.earliest, "latest": times.latest, "time_step_ns": times.step_ns}
    unset = [LayerRecord.Unset(path=path, what=what) for path, what in record.pop("unset")]
    links = [LayerRecord.LowerLink(path=path, target=target) for path, target in record.pop("lower_links")]
    return record | fields | {"unset": unset, "lower_links": links}


def test_every_field_is_written():
    record = LayerRecord.FromString(
        pack_layer_record(
            diff_id="sha256:00",
            size_bytes=1 << 40,
            entries=128,
            whiteouts=WhiteoutFormat.FILES,
            implicit_directories=[b"\xff"],
            unset=[(b"f", "owner")],
            unset_count=1,
            stored_bytes=4096,
            inodes=3,
            replaced_lost=False,
            implicit_root=True,
            lower_links=[(b"n", b"t")],
            opaque_directories=[b"d"],
            hiding_directories=[b"e"],
            owner=(0, 0),
            times=TimeRange(-1, 0, 1),
            split=(0, 0),
            replaced_checksum=0,
        )
    )

    assert {field.name for field, _ in record.ListFields()} == set(LayerRecord.DESCRIPTOR.fields_by_name)


def test_forms_of_whiteouts_are_those_of_the_record():
    assert {form.name: form.value for form in WhiteoutFormat} == dict(layer_pb2.WhiteoutFormat.items())
