from __future__ import annotations

import io
import tarfile
import time
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support import tars
from support.sources import Bytes

from pykka_imagestore.core.limits import DEFAULT_LIMITS
from pykka_imagestore.core.tar.format import (
    BLOCK_DEVICE,
    CHARACTER_DEVICE,
    DIRECTORY,
    FIFO,
    FILE,
    HARD_LINK,
    SYMLINK,
    EscapeError,
    OverLimitError,
    TarError,
    clean_path,
)
from pykka_imagestore.core.tar.pax import parse_pax, parse_time
from pykka_imagestore.core.tar.reader import read_entries

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
TYPES = {
    FILE: tarfile.REGTYPE,
    HARD_LINK: tarfile.LNKTYPE,
    SYMLINK: tarfile.SYMTYPE,
    CHARACTER_DEVICE: tarfile.CHRTYPE,
    BLOCK_DEVICE: tarfile.BLKTYPE,
    DIRECTORY: tarfile.DIRTYPE,
    FIFO: tarfile.FIFOTYPE,
}


def read(*parts):
    """Return the entries of a tar, their bodies passed over."""
    source = Bytes(b"".join(parts))
    entries = []
    for entry in read_entries(source):
        source.skip(entry.size)
        entries.append(entry)
    return entries


def read_one(*parts):
    (entry,) = read(*parts, tars.END)
    return entry


# -- headers


def test_header_gives_every_field():
    entry = read_one(tars.file(b"etc/motd", b"hello", mode=0o4751, uid=1000, gid=1001, mtime=1234567890))

    assert (entry.index, entry.kind, entry.name, entry.link) == (0, FILE, b"etc/motd", b"")
    assert (entry.mode, entry.uid, entry.gid, entry.size) == (0o4751, 1000, 1001, 5)
    assert entry.mtime_ns == 1234567890 * 10**9
    assert entry.xattrs == {}


@pytest.mark.parametrize("kind", TYPES)
def test_header_of_each_type_is_read(kind):
    entry = read_one(tars.header(b"name", bytes([kind]), link=b"target", major=8, minor=1))

    assert entry.kind == kind
    assert entry.link == (b"target" if kind in (HARD_LINK, SYMLINK) else b"")
    assert (entry.major, entry.minor) == ((8, 1) if kind in (CHARACTER_DEVICE, BLOCK_DEVICE) else (0, 0))


@pytest.mark.parametrize("flag", [b"\0", b"0", b"7"])
def test_flags_of_a_regular_file_are_one_type(flag):
    entry = read_one(tars.header(b"name", flag))

    assert entry.kind == FILE


def test_entries_are_counted_without_their_extension_headers():
    first, second = read(tars.pax({b"path": b"long"}), tars.file(b"a"), tars.long_name(b"b"), tars.file(b"x"), tars.END)

    assert (first.index, first.name) == (0, b"long")
    assert (second.index, second.name) == (1, b"b")


def test_prefix_is_part_of_a_ustar_name():
    entry = read_one(tars.header(b"file", prefix=b"usr/share"))

    assert entry.name == b"usr/share/file"


def test_prefix_field_of_another_format_is_no_part_of_the_name():
    entry = read_one(tars.header(b"file", prefix=b"14142135623", magic=b"ustar  \0"))

    assert entry.name == b"file"


def test_name_and_link_may_fill_their_fields():
    entry = read_one(tars.header(b"n" * 100, tars.SYMLINK, link=b"l" * 100))

    assert entry.name == b"n" * 100
    assert entry.link == b"l" * 100


def test_old_directory_is_a_file_whose_name_ends_in_a_slash():
    entry = read_one(tars.header(b"etc/", b"\0"))

    assert entry.kind == DIRECTORY


def test_size_of_an_entry_that_has_no_body_is_nought():
    link, file = read(tars.hard_link(b"link", b"file", size=1000), tars.file(b"file"), tars.END)

    assert link.size == 0
    assert file.name == b"file"


@pytest.mark.parametrize("kind", [b"S", b"M", b"N", b"D", b"A", b"Z", b"\xff"])
def test_entry_of_another_type_is_refused(kind):
    with pytest.raises(TarError, match=r"is of type|is a sparse file"):
        read_one(tars.header(b"name", kind))


def test_volume_label_is_passed_over():
    entry = read_one(tars.header(b"label", b"V"), tars.file(b"name"))

    assert entry.name == b"name"


# -- where an archive ends


def test_zero_block_ends_the_archive_whatever_follows():
    entries = read(tars.file(b"a"), bytes(512), b"no header at all".ljust(512, b"!"))

    assert [entry.name for entry in entries] == [b"a"]


def test_archive_may_end_without_a_zero_block():
    entries = read(tars.file(b"a", b"body"))

    assert [entry.name for entry in entries] == [b"a"]


def test_nothing_at_all_is_an_empty_archive():
    assert read(b"") == []


@pytest.mark.parametrize("size", [1, 100, 511])
def test_archive_that_ends_inside_a_header_is_refused(size):
    with pytest.raises(TarError, match="ends inside its header"):
        read(tars.file(b"a"), tars.file(b"b")[:size])


@pytest.mark.parametrize("size", [512, 520])
def test_archive_that_ends_inside_an_extension_header_is_refused(size):
    with pytest.raises(TarError, match="ends inside its extension header"):
        read(tars.pax({b"path": b"name"})[:size])


@pytest.mark.parametrize("extension", [tars.pax({b"path": b"name"}), tars.long_name(b"name")])
def test_archive_that_ends_before_the_entry_of_an_extension_header_is_refused(extension):
    with pytest.raises(TarError, match="ends after its extension header"):
        read(extension, tars.END)


# -- checksums


def test_wrong_checksum_is_refused():
    block = bytearray(tars.file(b"name"))
    block[0] ^= 1

    with pytest.raises(TarError, match="checksum is wrong"):
        read(bytes(block))


@given(st.integers(0, 511), st.integers(1, 255))
def test_a_byte_changed_anywhere_in_a_header_is_noticed(position, change):
    block = bytearray(tars.file(b"name", mtime=123))
    block[position] = (block[position] + change) % 256

    # The checksum's own field may say the same in another way, with a blank for a NUL.
    try:
        entry = read_one(bytes(block))
    except TarError:
        return
    assert 148 <= position < 156
    assert entry == read_one(tars.file(b"name", mtime=123))


def test_checksum_of_signed_characters_is_taken():
    # Some old tars summed them so, and names beyond ASCII tell the difference.
    entry = read_one(tars.with_checksum(tars.file("größe".encode()), signed=True))

    assert entry.name == "größe".encode()


def test_checksum_of_a_header_full_of_large_bytes_is_taken():
    # 130,000 and more: the quick way to compare wraps at 65,521.
    entry = read_one(tars.header(b"\xff" * 100, tars.SYMLINK, link=b"\xff" * 100, prefix=b"\xff" * 155))

    assert entry.link == b"\xff" * 100


@pytest.mark.parametrize("field", [b"%06o\0 ", b"%06o \0", b"%07o\0", b" %06o\0", b"%08o"])
def test_checksum_may_be_written_in_every_way_that_tars_write_it(field):
    block = tars.file(b"name")
    checksum = sum(block[:148]) + sum(block[156:]) + 8 * 32

    entry = read_one(block[:148] + field % checksum + block[156:])

    assert entry.name == b"name"


# -- numbers


@pytest.mark.parametrize(
    "field",
    [b"0001750\0", b"   1750\0", b"  1750 \0", b"1750    ", b"1750\0\0\0\0", b"1750\0xyz", b"01750 \0 ", b"00001750"],
)
def test_number_may_be_padded_in_every_way_that_tars_pad_it(field):
    entry = read_one(tars.header(b"name", uid=field))

    assert entry.uid == 0o1750


@pytest.mark.parametrize("field", [bytes(8), b" " * 8, b"      \0\0"])
def test_blank_number_is_nought(field):
    entry = read_one(tars.header(b"name", uid=field))

    assert entry.uid == 0


@pytest.mark.parametrize("field", [b"8", b"12x", b"-1", b"0x10", b"1_0", b"1 2", b"\t\n", b"+7"])
@pytest.mark.parametrize("name", ["mode", "uid", "gid", "size", "mtime"])
def test_malformed_number_is_refused(name, field):
    block = tars.header(b"name", **{name: field})

    if field.strip():  # blanks of any kind are nought, or refused
        with pytest.raises(TarError, match=f"has a malformed {name}"):
            read_one(block)
    else:
        read_or_refuse(block)


def test_number_too_large_for_octal_digits_is_read():
    entry = read_one(
        tars.header(
            b"name", uid=tars.base_256(2**32 - 2, 8), gid=tars.base_256(2**31, 8), mtime=tars.base_256(2**40, 12)
        )
    )

    assert (entry.uid, entry.gid) == (2**32 - 2, 2**31)
    assert entry.mtime_ns == 2**40 * 10**9


def test_size_too_large_for_octal_digits_is_read():
    source = Bytes(tars.header(b"name", size=tars.base_256(2**40, 12)))

    entry = next(read_entries(source))

    assert entry.size == 2**40


def test_time_before_1970_is_negative():
    entry = read_one(tars.header(b"name", mtime=tars.base_256(-86400, 12)))

    assert entry.mtime_ns == -86400 * 10**9


def test_negative_size_is_refused():
    with pytest.raises(TarError, match="negative size"):
        read_one(tars.header(b"name", size=tars.base_256(-512, 12)))


@pytest.mark.parametrize("field", [b"\x80\xff" + b"\xff" * 10, b"\xff\x00" + bytes(10)])
def test_number_that_no_machine_holds_is_refused(field):
    with pytest.raises(TarError, match="has a size that is too large"):
        read_one(tars.header(b"name", size=field))


@pytest.mark.parametrize(
    "fault",
    [
        tars.pax({b"uid": b"x"}) + tars.header(b"bad"),
        tars.header(b"bad", size=tars.base_256(-512, 12)),
        tars.header(b"bad", b"Z"),
    ],
)
def test_fault_of_an_entry_says_which_one_it_is(fault):
    with pytest.raises(TarError) as caught:
        list(read_entries(Bytes(tars.header(b"good") + fault)))

    assert caught.value.where == (1, b"bad")


def test_fault_is_said_of_an_entry_and_stays_what_it_was():
    said = OverLimitError("is one too many", "entries").at(3, b"name")

    assert (type(said), str(said), said.limit, said.where) == (
        OverLimitError,
        "is one too many",
        "entries",
        (3, b"name"),
    )


def test_more_different_numbers_than_are_remembered_are_read_right():
    count = 9000

    entries = read(*(tars.header(b"name", uid=number, mtime=number) for number in range(count)))

    assert [(entry.uid, entry.mtime_ns) for entry in entries] == [(n, n * 10**9) for n in range(count)]


@given(st.integers(-(2**62), 2**62))
def test_base_256_round_trip(number):
    entry = read_one(tars.header(b"name", mtime=tars.base_256(number, 12)))

    assert entry.mtime_ns == number * 10**9


# -- pax


def test_pax_overrides_the_header():
    records = {b"path": b"p" * 300, b"size": b"3", b"uid": b"70000", b"gid": b"80000", b"mtime": b"1.5"}

    entry = read_one(tars.pax(records), tars.header(b"short", size=9), tars.padded(b"abc"))

    assert (entry.name, entry.size) == (b"p" * 300, 3)
    assert (entry.uid, entry.gid, entry.mtime_ns) == (70000, 80000, 1_500_000_000)


def test_pax_gives_a_links_target():
    entry = read_one(tars.pax({b"linkpath": b"t" * 300}), tars.symlink(b"link", b"short"))

    assert entry.link == b"t" * 300


def test_pax_gives_extended_attributes_byte_for_byte():
    value = bytes(range(256))

    entry = read_one(tars.pax({b"SCHILY.xattr.user.\xff=": b"", b"SCHILY.xattr.user.a": value}), tars.file(b"name"))

    assert entry.xattrs[b"user.a"] == value


def test_pax_records_that_mean_nothing_to_us_are_passed_over():
    entry = read_one(tars.pax({b"comment": b"hi", b"atime": b"never", b"LIBARCHIVE.x": b"\0"}), tars.file(b"name"))

    assert entry == read_one(tars.file(b"name"))


def test_pax_speaks_of_the_next_entry_alone():
    first, second = read(tars.pax({b"uid": b"5"}), tars.file(b"a"), tars.file(b"b"), tars.END)

    assert (first.uid, second.uid) == (5, 0)


def test_last_of_two_pax_records_wins():
    entry = read_one(tars.raw_pax(tars.pax_record(b"path", b"a") + tars.pax_record(b"path", b"b")), tars.file(b"x"))

    assert entry.name == b"b"


def test_global_header_speaks_of_all_entries_that_follow():
    entries = read(
        tars.file(b"a"),
        tars.pax({b"uid": b"7"}, tars.PAX_GLOBAL),
        tars.file(b"b"),
        tars.pax({b"gid": b"8"}, tars.PAX_GLOBAL),
        tars.file(b"c"),
        tars.END,
    )

    assert [(entry.uid, entry.gid) for entry in entries] == [(0, 0), (7, 0), (7, 8)]


def test_extended_header_overrides_a_global_one():
    entries = read(
        tars.pax({b"uid": b"7"}, tars.PAX_GLOBAL), tars.pax({b"uid": b"9"}), tars.file(b"a"), tars.file(b"b"), tars.END
    )

    assert [entry.uid for entry in entries] == [9, 7]


@pytest.mark.parametrize("key", [b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime"])
def test_pax_record_without_a_value_leaves_the_header_as_it_is(key):
    # POSIX: a value of no length deletes the field of that name that was given before.
    entry = read_one(
        tars.pax({b"uid": b"7", b"mtime": b"8"}, tars.PAX_GLOBAL),
        tars.pax({key: b""}),
        tars.hard_link(b"name", b"link", uid=1, mtime=2),
    )

    assert (entry.name, entry.link, entry.size) == (b"name", b"link", 0)
    assert entry.uid == (1 if key == b"uid" else 7)
    assert entry.mtime_ns == (2 if key == b"mtime" else 8) * 10**9


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"10 path=a",
        b"8 path=a\n",
        b"11 path=a\n",
        b"99 path=a\n",
        b"0 path=a\n",
        b"-1 path=a\n",
        b" path=a\n",
        b"path=a\n",
        b"10  ath=a\n\n",
        b"9 patha\n",
        b"6 =a\n\n",
        b"3 \n",
        b"2 ",
        b"010path=a\n",
        b"1e1 path=a\n",
        b"99999999999999999999999 path=a\n",
        b"10 path=a\n\0\0",
        b"12 pa\0th=ab\n",
        b"\xb2\xb2 path=a\n",
    ],
)
def test_malformed_pax_record_is_refused(data):
    with pytest.raises(TarError, match="malformed pax record"):
        parse_pax(data)


@pytest.mark.parametrize("key", [b"path", b"linkpath", b"uname", b"gname", b"GNU.sparse.name"])
def test_nul_byte_in_a_pax_name_is_refused(key):
    with pytest.raises(TarError, match=f"NUL byte in its pax {key.decode()}"):
        parse_pax(tars.pax_record(key, b"a\0b"))


@pytest.mark.parametrize("key", [b"size", b"uid", b"gid"])
@pytest.mark.parametrize("value", [b"x", b"-1", b"1.5", b"1_0", b" 1", b"9" * 20, "٣".encode()])
def test_malformed_pax_number_is_refused(key, value):
    with pytest.raises(TarError, match=f"malformed {key.decode()}"):
        read_one(tars.pax({key: value}), tars.file(b"name"))


@pytest.mark.parametrize("zeros", [1, 23, 5000])
def test_zeros_may_lead_a_pax_number(zeros):
    records = {key: b"0" * zeros + value for key, value in {b"size": b"5", b"uid": b"70000", b"gid": b""}.items()}

    entry = read_one(tars.pax(records), tars.file(b"name", b"hello", size=0), tars.padded(b""))

    assert (entry.size, entry.uid, entry.gid) == (5, 70000, 0)


@pytest.mark.parametrize(
    ("value", "nanoseconds"),
    [
        (b"0", 0),
        (b"0" * 30, 0),
        (b"0" * 5000 + b"1.5", 1_500_000_000),
        (b"-" + b"0" * 30 + b"1.5", -1_500_000_000),
        (b"1", 10**9),
        (b"1.", 10**9),
        (b"1.5", 1_500_000_000),
        (b"1.000000001", 1_000_000_001),
        (b"1.0000000019", 1_000_000_001),
        (b"-1", -(10**9)),
        (b"-0.5", -500_000_000),
        (b"-1.5", -1_500_000_000),
        (b"2e-09", 2),
        (b"-1e-07", -100),
        (b"1.5e+17", 15 * 10**25),
        (b"1.0000000019e9", 1_000_000_001_900_000_000),
        (b"2.e1", 20 * 10**9),
        (b"0." + b"0" * 1000 + b"15e1001", 1_500_000_000),
        (b"0e999999999999", 0),
        (b"1e-999999999999", 0),
    ],
)
def test_pax_time_is_exact(value, nanoseconds):
    assert parse_time(value) == nanoseconds


@given(st.floats(-1e17, 1e17))
def test_pax_time_as_python_writes_it_is_exact(seconds):
    nanoseconds = int(Decimal(str(seconds)).scaleb(9))

    assert parse_time(str(seconds).encode()) == nanoseconds


MALFORMED_TIMES = (
    ". - 1.5.5 1,5 1.-5 --1 +1 nan inf -inf 1_0 0x1 1e e5 .5e1 1e1.5 1e+ 1e--1 1E5 1e5x 1e999999 1e18 1e-" + "9" * 20
).split()


@pytest.mark.parametrize(
    "value", [*MALFORMED_TIMES, "9" * 19, "9" * 19 + "e0", " 1", "1 ", "1e5 ", "1\n", "1e5\n", "1e٣"]
)
def test_malformed_pax_time_is_refused(value):
    with pytest.raises(TarError, match="malformed time"):
        parse_time(value.encode())


@pytest.mark.parametrize(
    "value", [b"1" * 2**20, b"1" * 2**20 + b"e5", b"1." + b"1" * 2**20 + b"e", b"1e" + b"1" * 2**20]
)
def test_pax_time_takes_no_longer_than_its_length(value):
    start = time.process_time()

    with pytest.raises(TarError, match="malformed time"):
        parse_time(value)

    assert time.process_time() - start < 5  # what looked at each digit once for each other would take hours


def test_layer_of_pythons_tarfile_keeps_its_times():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as writer:
        for name, seconds in {"small": 2e-09, "large": 1.5e17}.items():
            info = tarfile.TarInfo(name)
            info.mtime = seconds
            writer.addfile(info)

    entries = list(read_entries(Bytes(file.getvalue())))

    assert [entry.mtime_ns for entry in entries] == [2, 15 * 10**25]


@pytest.mark.parametrize("kind", [tars.PAX, tars.PAX_GLOBAL, tars.GNU_LONG_NAME, tars.GNU_LONG_LINK, b"V"])
@pytest.mark.parametrize("size", [DEFAULT_LIMITS.extension_bytes + 1, 2**40, -1])
def test_extension_header_is_bounded_before_it_is_read(kind, size):
    block = tars.header(b"name", kind, size=tars.base_256(size, 12))

    with pytest.raises(TarError, match=r"extension headers? of"):
        read(block, tars.END)


@given(st.dictionaries(st.binary(min_size=1).filter(lambda key: not {0, 61} & set(key)), st.binary(), max_size=5))
def test_pax_round_trip(records):
    special = (b"path", b"linkpath", b"uname", b"gname", b"GNU.sparse.offset", b"GNU.sparse.numbytes")
    records = {key: value for key, value in records.items() if key not in special}

    data = b"".join(tars.pax_record(key, value) for key, value in records.items())

    assert parse_pax(data) == records


# -- GNU's long names


@pytest.mark.parametrize("first", [tars.long_name(b"gnu"), tars.pax({b"path": b"pax"})])
@pytest.mark.parametrize("second", [tars.long_name(b"gnu"), tars.pax({b"path": b"pax"})])
def test_gnu_long_name_wins_over_pax_in_any_order(first, second):
    entry = read_one(first, second, tars.file(b"header"))

    assert entry.name == (b"gnu" if tars.long_name(b"gnu") in (first, second) else b"pax")


def test_last_of_two_pax_headers_wins_alone():
    entry = read_one(tars.pax({b"path": b"first", b"mtime": b"5"}), tars.pax({b"mtime": b"6"}), tars.file(b"header"))

    assert (entry.name, entry.mtime_ns) == (b"header", 6 * 10**9)


def test_directory_from_before_ustar_has_no_body():
    entries = read(tars.header(b"d/", b"\0", size=512, magic=bytes(8)), tars.file(b"f"), tars.END)

    assert [(entry.kind, entry.name) for entry in entries] == [(DIRECTORY, b"d/"), (FILE, b"f")]


def test_gnu_long_name_overrides_the_header():
    entry = read_one(tars.long_name(b"n" * 300), tars.file(b"n" * 100, magic=b"ustar  \0"))

    assert entry.name == b"n" * 300


def test_gnu_long_link_overrides_the_header():
    link = tars.long_name(b"l" * 300, tars.GNU_LONG_LINK)

    entry = read_one(link, tars.long_name(b"n" * 300), tars.symlink(b"name", b"link"))

    assert (entry.name, entry.link) == (b"n" * 300, b"l" * 300)


# -- paths


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (b"a", b"a"),
        (b"./a", b"a"),
        (b"/a", b"a"),
        (b"//a", b"a"),
        (b"a/", b"a"),
        (b"a//", b"a"),
        (b"a/b", b"a/b"),
        (b"a//b", b"a/b"),
        (b"a/./b", b"a/b"),
        (b"././a", b"a"),
        (b".//a", b"a"),
        (b"a/.", b"a"),
        (b"a/../b", b"b"),
        (b"a/b/..", b"a"),
        (b"a/..", b""),
        (b"", b""),
        (b".", b""),
        (b"./", b""),
        (b"/", b""),
        (b"/.", b""),
        (b".a", b".a"),
        (b"..a", b"..a"),
        (b"a..", b"a.."),
        (b"a/...", b"a/..."),
        (b"./.a", b".a"),
        (b"\xff/\n", b"\xff/\n"),
    ],
)
def test_path_is_clean(name, path):
    assert clean_path(name) == path


@pytest.mark.parametrize(
    "name",
    [b"..", b"../a", b"/..", b"/../a", b"./..", b"a/../..", b"a/../../b", b"./../a", b".//..", b"a/b/../../../c"],
)
def test_path_that_leads_out_is_refused(name):
    with pytest.raises(EscapeError, match="outside the root"):
        clean_path(name)


def test_path_longer_than_the_kernel_takes_is_refused():
    with pytest.raises(TarError, match="has a path of 5000 bytes"):
        clean_path(b"a" * 5000)


@given(st.lists(st.sampled_from([b"a", b"..", b".", b"", b"b", b"..."])).map(b"/".join))
@example(b"/" * 5000)
def test_clean_path_stays_below_the_root_and_is_clean_already(name):
    try:
        path = clean_path(name)
    except TarError:
        return

    assert clean_path(path) == path
    assert not {b"", b".", b".."} & set(path.split(b"/")) or path == b""


# -- archives that others wrote, and what nobody would

owners = st.integers(0, 2**21 - 1)
texts = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=60)
words = texts.map(lambda text: text.strip("/")).filter(bool)
longer_texts = st.lists(words, min_size=1, max_size=6).map("/".join)


@st.composite
def members(draw, archive_format):
    """Draw what one entry of an archive says, within what its format can say."""
    plain = archive_format == tarfile.USTAR_FORMAT
    text = st.text("abc./", min_size=1, max_size=90).filter(lambda name: name.strip("/")) if plain else longer_texts
    info = tarfile.TarInfo(draw(text))
    info.type = draw(st.sampled_from(list(TYPES.values())))
    if info.islnk() or info.issym():
        info.linkname = draw(text)
    if info.isreg():
        info.name = info.name.rstrip("/")
    if info.isdev():
        info.devmajor, info.devminor = draw(owners), draw(owners)
    info.mode = draw(st.integers(0, 0o7777))
    info.uid, info.gid = draw(owners), draw(owners)
    info.mtime = draw(st.integers(0, 2**33 - 1))
    info.size = draw(st.integers(0, 1200)) if info.isreg() else 0
    return info


@pytest.mark.parametrize("archive_format", FORMATS)
@given(data=st.data())
def test_archive_that_tarfile_wrote_is_read_as_it_was_meant(archive_format, data):
    infos = data.draw(st.lists(members(archive_format), max_size=4))
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=archive_format) as archive:
        for info in infos:
            archive.addfile(info, io.BytesIO(b"x" * info.size))

    entries = read(written.getvalue())

    assert len(entries) == len(infos)
    for entry, info in zip(entries, infos, strict=True):
        assert TYPES[entry.kind] == info.type
        assert entry.name.rstrip(b"/") == info.name.encode().rstrip(b"/")
        assert entry.link == info.linkname.encode()
        assert (entry.mode, entry.uid, entry.gid) == (info.mode, info.uid, info.gid)
        assert (entry.size, entry.mtime_ns) == (info.size, info.mtime * 10**9)
        if info.isdev() and not info.isfifo():
            assert (entry.major, entry.minor) == (info.devmajor, info.devminor)


@given(
    uid=st.integers(0, 2**32 - 1),
    size=st.integers(0, 2**62),
    mtime=st.integers(-(2**58), 2**58),
    archive_format=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_large_numbers_that_tarfile_wrote_are_read_as_they_were_meant(uid, size, mtime, archive_format):
    info = tarfile.TarInfo("name")
    info.uid, info.size, info.mtime = uid, size, mtime

    entry = next(read_entries(Bytes(info.tobuf(archive_format))))

    assert (entry.uid, entry.size, entry.mtime_ns) == (uid, size, mtime * 10**9)


def read_or_refuse(data):
    try:
        return read(data)
    except TarError:
        return []


@given(st.binary(max_size=2000))
def test_bytes_at_random_are_read_or_refused(data):
    read_or_refuse(data)


header_fields = st.fixed_dictionaries(
    {},
    optional={
        "mode": st.binary(max_size=8),
        "uid": st.binary(max_size=8),
        "gid": st.binary(max_size=8),
        "size": st.binary(max_size=12),
        "mtime": st.binary(max_size=12),
        "major": st.binary(max_size=8),
        "minor": st.binary(max_size=8),
        "link": st.binary(max_size=100),
        "prefix": st.binary(max_size=155),
        "magic": st.sampled_from([b"ustar\x0000", b"ustar  \0", bytes(8)]),
    },
)


def test_checksum_that_differs_by_what_a_quick_sum_forgets_is_wrong_whatever_was_read_before():
    # Adler-32 counts modulo 65521: a header whose bytes add up to that much more looked sound beside a sound one.
    low = tars.header(b"f", prefix=b"\0" * 155, magic=bytes(8))
    high = bytearray(low)
    missing = 65521
    for position in [*range(1, 100), *range(157, 345), *range(345, 512)]:
        step = min(255 - high[position], missing)
        high[position] += step
        missing -= step
    assert missing == 0

    assert read_one(low).name == b"f"
    with pytest.raises(TarError, match=r"checksum is wrong"):
        read_one(bytes(high))


@given(st.binary(max_size=100), st.binary(min_size=1, max_size=1), header_fields, st.binary(max_size=1024))
def test_sound_header_with_fields_at_random_is_read_or_refused(name, kind, fields, rest):
    read_or_refuse(tars.header(name, kind, **fields) + rest)


@given(
    st.sampled_from([tars.PAX, tars.PAX_GLOBAL]),
    st.lists(
        st.tuples(
            st.sampled_from([b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime", b"SCHILY.xattr.user.x", b"a"]),
            st.binary(max_size=20) | st.from_regex(rb"-?[0-9]{1,20}(\.[0-9]{0,12})?", fullmatch=True),
        ),
        max_size=4,
    ),
)
def test_pax_records_at_random_are_read_or_refused(kind, records):
    data = b"".join(tars.pax_record(key, value) for key, value in records)

    read_or_refuse(tars.raw_pax(data, kind) + tars.file(b"name") + tars.END)
