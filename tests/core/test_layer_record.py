from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pykka_imagestore._proto import layer_pb2
from pykka_imagestore._proto.layer_pb2 import LayerRecord
from pykka_imagestore.core.layer_record import WhiteoutFormat, pack_layer_record

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
    }
)


@given(records)
def test_records_are_byte_for_byte_what_protobuf_writes(record):
    unset = [LayerRecord.Unset(path=path, what=what) for path, what in record["unset"]]

    assert pack_layer_record(**record) == LayerRecord(**record | {"unset": unset}).SerializeToString()


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
        )
    )

    assert {field.name for field, _ in record.ListFields()} == set(LayerRecord.DESCRIPTOR.fields_by_name)


def test_forms_of_whiteouts_are_those_of_the_record():
    assert {form.name: form.value for form in WhiteoutFormat} == dict(layer_pb2.WhiteoutFormat.items())
