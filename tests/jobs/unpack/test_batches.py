from __future__ import annotations

import errno
import os
import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pykka_imagestore.core.tar.format import TarError
from pykka_imagestore.jobs.unpack.batches import (
    ASIDE_TOKEN_BYTES,
    BATCH_BYTES,
    BATCH_FILES,
    BATCH_SLOTS,
    MAX_ACK_BYTES,
    MAX_NAME_BYTES,
    MAX_PARENT_BYTES,
    ORDER_BYTES,
    RECORD_BYTES,
    AckBuilder,
    MalformedMessageError,
    Order,
    aside_name,
    pack_paths,
    pack_record,
    parse_ack,
    parse_batch,
)

names = st.binary(min_size=1, max_size=40).filter(lambda name: not (set(b"/\0") & set(name) or name in (b".", b"..")))
parents = st.lists(names, max_size=4).map(b"/".join)
files = st.tuples(
    parents,
    names,
    st.integers(0, 0o7777),
    st.integers(0, (1 << 32) - 1),
    st.integers(0, (1 << 32) - 1),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.binary(max_size=100),
)


def record(*numbers):
    packed = pack_record(*numbers)
    assert packed is not None
    return packed


def packed(handed, slot=0, generation=0):
    """Return the order and the batch for files, as the leader makes them."""
    records = [record(*numbers, len(body)) for _, _, *numbers, body in handed]
    paths = pack_paths([parent + b"/" + name if parent else name for parent, name, *_ in handed])
    bodies = [body for *_, body in handed]
    data = b"".join([*records, paths, *bodies])
    return Order(slot, len(handed), len(paths), sum(map(len, bodies)), generation), data


def parse(order, data):
    return [(*rest, bytes(body)) for *rest, body in parse_batch(Order.parse(order.pack()), data)]


def a_batch(*, parent=b"d/e", name=b"f", mode=0o644, body=b"body"):
    return packed([(b"", b"g", 0o600, 1, 2, 3, b""), (parent, name, mode, 4, 5, 6, body)])


# -- what the leader says


@given(st.lists(files, min_size=1, max_size=20), st.integers(0, BATCH_SLOTS - 1), st.integers(0, (1 << 64) - 1))
def test_what_the_leader_packs_the_peer_reads(handed, slot, generation):
    order, data = packed(handed, slot, generation)

    assert Order.parse(order.pack()) == order
    assert order.size == len(data)
    assert parse(order, data) == handed


def test_names_that_are_no_text_travel():
    handed = [(b"\xff\xfe", b"\x80\n\xc3", 0, 0, 0, 0, b"\0\xff"), ("é".encode(), b"\xed\xb2\x80", 0, 0, 0, 0, b"")]

    assert parse(*packed(handed)) == handed


def test_the_largest_batch_travels():
    path = b"/".join([b"d" * 255] * 2), b"n" * MAX_NAME_BYTES
    assert len(path[0]) == MAX_PARENT_BYTES - 1
    room = BATCH_BYTES - BATCH_FILES * (RECORD_BYTES + len(path[0]) + 1 + len(path[1]) + 1) + 1
    handed = [(*path, 0o7777, 1, 1, 1, b"x" * (room // BATCH_FILES)) for _ in range(BATCH_FILES - 1)]
    handed.append((*path, 0o7777, 1, 1, 1, b"y" * (room - (BATCH_FILES - 1) * (room // BATCH_FILES))))

    order, data = packed(handed)

    assert len(data) == BATCH_BYTES
    assert parse(order, data) == handed


@pytest.mark.parametrize(
    "numbers",
    [
        (0, -1, 0, 0),
        (0, 0, 1 << 32, 0),
        (0, 0, 0, 1 << 63),
        (0, 0, 0, -(1 << 63) - 1),
        (1 << 16, 0, 0, 0),
    ],
)
def test_a_number_that_no_record_has_room_for_is_noticed(numbers):
    mode, uid, gid, mtime_ns = numbers
    assert pack_record(mode, uid, gid, mtime_ns, 0) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"slot": BATCH_SLOTS},
        {"files": 0},
        {"files": BATCH_FILES + 1},
        {"paths_bytes": BATCH_BYTES},
        {"bodies_bytes": BATCH_BYTES},
        {"bodies_bytes": (1 << 32) - 1, "paths_bytes": (1 << 32) - 1},
    ],
    ids=str,
)
def test_an_order_of_more_than_there_is_is_refused(fields):
    order = Order(**{"slot": 0, "files": 1, "paths_bytes": 1, "bodies_bytes": 0, "generation": 0} | fields)

    with pytest.raises(MalformedMessageError, match="an invalid order: Order"):
        Order.parse(order.pack())


@pytest.mark.parametrize("size", [0, 1, ORDER_BYTES - 1, ORDER_BYTES + 1])
def test_an_order_of_another_size_is_refused(size):
    with pytest.raises(MalformedMessageError, match=f"an order of {size} bytes"):
        Order.parse(bytes(size))


@pytest.mark.parametrize("name", [b"", b".", b"..", b"n" * (MAX_NAME_BYTES + 1)])
@pytest.mark.parametrize("parent", [b"", b"d/e"])
def test_a_name_that_is_none_is_refused(parent, name):
    with pytest.raises(MalformedMessageError, match="an invalid file"):
        parse(*a_batch(parent=parent, name=name))


@pytest.mark.parametrize(
    "parent", [b"..", b"a/..", b"../a", b"a/../b", b".", b"a/./b", b"/a", b"a//b", b"a/", b"/", b"d" * 513]
)
def test_a_parent_that_is_none_is_refused(parent):
    with pytest.raises(MalformedMessageError, match="a file in an invalid directory"):
        parse(*a_batch(parent=parent))


def test_a_mode_of_more_than_permissions_is_refused():
    with pytest.raises(MalformedMessageError, match="of mode 10000"):
        parse(*a_batch(mode=0o10000))


@pytest.mark.parametrize("cut", [0, 1, 3, RECORD_BYTES * 2, RECORD_BYTES * 2 + 3])
def test_a_batch_that_is_cut_off_is_refused(cut):
    order, data = a_batch()

    with pytest.raises(MalformedMessageError, match=f"a batch of {cut} bytes"):
        parse(order, data[:cut])


@pytest.mark.parametrize("paths", [b"abcdefg", b"a\0b\0c\0d", b"\0\0\0\0\0\0\0"])
def test_more_or_fewer_paths_than_files_are_refused(paths):
    order, data = a_batch()
    assert order.paths_bytes == len(paths)

    with pytest.raises(MalformedMessageError, match="paths for Order"):
        parse(order, data[: RECORD_BYTES * 2] + paths + b"body")


@pytest.mark.parametrize(("size", "match"), [(3, "1 bytes behind its files"), (5, "of mode 644 and 5 bytes")])
def test_bodies_of_another_size_than_the_records_say_are_refused(size, match):
    order, data = a_batch()
    records = record(0o600, 1, 2, 3, 0) + record(0o644, 4, 5, 6, size)

    with pytest.raises(MalformedMessageError, match=match):
        parse(order, records + data[len(records) :])


@given(st.binary(max_size=3 * ORDER_BYTES))
def test_random_bytes_are_an_order_or_a_clear_error(data):
    with suppress(MalformedMessageError):
        assert Order.parse(data).size <= BATCH_BYTES


@given(st.integers(1, 4), st.integers(0, 60), st.integers(0, 60), st.data())
def test_random_bytes_are_a_batch_below_the_root_or_a_clear_error(count, paths_bytes, bodies_bytes, data):
    order = Order(0, count, paths_bytes, bodies_bytes, 0)
    assert_sound_or_clear(order, data.draw(st.binary(min_size=order.size, max_size=order.size)))


@given(st.lists(files, min_size=1, max_size=4), st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=4))
def test_a_batch_with_other_bytes_here_and_there_is_one_below_the_root_or_a_clear_error(handed, changes):
    order, data = packed(handed)
    changed = bytearray(data)
    for where, byte in changes:
        changed[where % len(data)] = byte

    assert_sound_or_clear(order, bytes(changed))


def assert_sound_or_clear(order, data):
    try:
        handed = parse(order, data)
    except MalformedMessageError:
        return
    assert len(handed) == order.files
    for parent, name, mode, *_, body in handed:
        parts = [*parent.split(b"/"), name] if parent else [name]
        assert not {b"", b".", b".."} & set(parts)
        assert not set(b"/\0") & set(b"".join(parts))
        assert mode <= 0o7777
        assert len(body) <= order.bodies_bytes


# -- what the peer says


def work(files=3, made=3):
    """Return what a peer did that made some of the files."""
    done = AckBuilder(files)
    done.made = made
    return done


@given(st.lists(st.tuples(st.sets(st.sampled_from(["owner", "mode"])), st.booleans()), max_size=20), st.booleans())
def test_what_the_peer_packs_the_leader_reads(per_file, fails):
    done = AckBuilder(len(per_file) + fails)
    for unset, aside in per_file:
        for what in unset:
            done.leave_unset(what)
        if aside:
            done.set_aside(bytes([done.made] * ASIDE_TOKEN_BYTES))
        done.made += 1

    ack = parse_ack(done.pack(OSError(errno.EIO, "text") if fails else None), len(per_file) + fails)

    assert ack.made == len(per_file)
    assert set(ack.unset) == {(number, what) for number, (unset, _) in enumerate(per_file) for what in unset}
    assert ack.asides == [
        (number, b".wh..wh." + b"%02x" % number * ASIDE_TOKEN_BYTES)
        for number, (_, aside) in enumerate(per_file)
        if aside
    ]
    assert (ack.failure is None) is not fails


def test_the_longest_answer_travels():
    done = AckBuilder(BATCH_FILES)
    for number in range(BATCH_FILES):
        done.made = number
        done.leave_unset("owner")
        done.leave_unset("mode")
        done.set_aside(bytes(ASIDE_TOKEN_BYTES))

    data = done.pack(TarError("x" * 5000))
    ack = parse_ack(data, BATCH_FILES)

    assert len(data) == MAX_ACK_BYTES
    assert len(ack.unset) == 2 * BATCH_FILES
    assert len(ack.asides) == BATCH_FILES
    assert str(ack.failure) == "x" * 1000


def test_what_is_set_aside_has_a_name_that_no_entry_can_have():
    assert aside_name(b"\0/.\xff\n  x") == b".wh..wh.002f2eff0a202078"


def test_a_refusal_arrives_as_one():
    failure = parse_ack(work(made=1).pack(TarError("has an öwner\n")), 3).failure

    assert type(failure) is TarError
    assert str(failure) == "has an \\xf6wner\\n"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EACCES, 524])
def test_an_error_of_the_disk_arrives_as_the_class_that_it_was(number):
    failure = parse_ack(work(made=1).pack(OSError(number, "in another language", "file")), 3).failure

    assert type(failure) is type(OSError(number, "text"))
    assert (failure.errno, failure.strerror, failure.filename) == (number, os.strerror(number), None)


def test_an_error_of_the_disk_without_a_number_arrives():
    failure = parse_ack(work(made=0).pack(OSError("text")), 3).failure
    assert isinstance(failure, OSError)
    assert failure.errno == errno.EIO


def an_ack(what=0, made=3, number=0, bits=b"\0\0\0", rest=b""):
    return struct.pack("=BHi", what, made, number) + bits + rest


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "0 bytes for 3 files"),
        (an_ack()[:-1], "9 bytes for 3 files"),
        (an_ack(rest=bytes(MAX_ACK_BYTES)), "bytes for 3 files"),
        (b"cos\nsystem\n(S'id'\ntR.", "answer for"),
        (an_ack(made=2), "for 2 of 3 files"),
        (an_ack(made=4), "an invalid answer for 4 of 3 files"),
        (an_ack(what=1, made=3, rest=b"text"), "for 3 of 3 files"),
        (an_ack(what=2, made=1, number=5, bits=b"\0\0\1"), "for 1 of 3 files"),
        (an_ack(bits=b"\0\x08\0"), "unknown bits, 8"),
        (an_ack(bits=b"\0\xff\0"), "unknown bits, 255"),
        (an_ack(bits=b"\4\0\4", rest=bytes(15)), "cut off"),
        (an_ack(bits=b"\4\0\4", rest=bytes(17)), "an invalid failure: 0, 0"),
        (an_ack(rest=b"text"), "an invalid failure: 0, 0, b'text'"),
        (an_ack(number=5), "an invalid failure: 0, 5"),
        (an_ack(what=3, made=1), "an invalid failure: 3"),
        (an_ack(what=1, made=1), "an invalid failure: 1"),
        (an_ack(what=1, made=1, number=1, rest=b"text"), "an invalid failure: 1, 1"),
        (an_ack(what=1, made=1, rest=b"\x1b]0;title\x07"), "an invalid failure"),
        (an_ack(what=1, made=1, rest=b"\xff"), "an invalid failure"),
        (an_ack(what=1, made=1, rest=b"x" * 1001), "an invalid failure"),
        (an_ack(what=2, made=1), "an invalid failure: 2, 0"),
        (an_ack(what=2, made=1, number=-1), "an invalid failure: 2, -1"),
        (an_ack(what=2, made=1, number=4096), "an invalid failure: 2, 4096"),
        (an_ack(what=2, made=1, number=5, rest=b"x"), "an invalid failure: 2, 5"),
    ],
)
def test_an_answer_that_cannot_be_is_refused(data, match):
    with pytest.raises(MalformedMessageError, match=match):
        parse_ack(data, 3)


@given(st.binary(max_size=80), st.integers(1, 5))
def test_random_bytes_are_an_answer_or_a_clear_error(data, count):
    try:
        ack = parse_ack(data, count)
    except MalformedMessageError:
        return
    assert ack.made == count if ack.failure is None else ack.made < count
    for number, name in ack.asides:
        assert number < count
        assert name.startswith(b".wh..wh.")
        assert len(name) == 24
