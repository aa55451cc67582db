"""Layers that ask for too much: each ends in one sentence that names the limit, and leaves nothing."""

from __future__ import annotations

import errno
import gzip
import lzma
import os
import re
import time
import zlib
from dataclasses import replace
from types import SimpleNamespace

import pytest
from support import seams, tars
from support.compressions import COMPRESS
from support.disks import statvfs_of
from support.images import docker_save, layer
from support.layers import blob_of, refusal, unpack_layer
from support.privileges import as_ordinary_user, on_file_system
from support.processes import TIMEOUT

from pykka_imagestore import DigestMismatchError, LimitError, Limits, LocalStore, NoSpaceError
from pykka_imagestore.core.digest import sha256
from pykka_imagestore.jobs.hash_layer import hash_layer
from pykka_imagestore.jobs.unpack import limiter
from pykka_imagestore.jobs.untar_image import UntarImage, untar_image
from pykka_imagestore.jobs.untar_layer import UntarLayer, untar_layer

EXBIBYTE = 1 << 60
MANY = b"".join(tars.file(b"f%d" % number) for number in range(1000))
DEEP = tars.pax({b"path": b"d/" * 300 + b"f"}) + tars.file(b"f")
ATTRIBUTES = {b"SCHILY.xattr.user.a%d" % number: b"x" for number in range(65)}
DIRECTORIES = b"".join(tars.directory(b"d%d" % number) for number in range(1000))
WHITEOUTS = DIRECTORIES + b"".join(tars.whiteout(b"d%d/f" % number) for number in range(1000))
OPAQUE = DIRECTORIES + b"".join(tars.opaque(b"d%d" % number) for number in range(1000))
LOWER_LINKS = b"".join(tars.hard_link(b"l%d" % number, b"nowhere") for number in range(1000))
ATTACKS = {
    "bytes": (tars.file(b"f", bytes(200_000)), Limits(layer_bytes=100_000), "layer_bytes", "100000 is the limit"),
    "holes": (tars.gnu_sparse(b"f", EXBIBYTE, [], b""), Limits(), "layer_bytes", "holes included; 1099511627776 is"),
    "holes of many files": (
        b"".join(tars.gnu_sparse(b"f%d" % number, 1 << 39, [], b"") for number in range(3)),
        Limits(),
        "layer_bytes",
        "entry 1 'f1' brings the layer to",
    ),
    "segments": (
        b"".join(tars.gnu_sparse(b"f%d" % n, 999, [(4 * at, 1) for at in range(40)], b"x" * 40) for n in range(3)),
        Limits(segments=100),
        "segments",
        "entry 2 'f2' brings the layer to 120 segments of sparse files; 100 is the limit",
    ),
    "entries": (MANY, Limits(entries=999), "entries", "entry 999 is one more than 999 entries"),
    "depth": (DEEP, Limits(), "depth", "lies below 300 directories; 256 is the limit"),
    "extension header": (
        tars.pax({b"comment": b"x" * (1 << 20)}) + tars.file(b"f"),
        Limits(),
        "extension_bytes",
        "1048576 is the limit",
    ),
    "attributes": (tars.pax(ATTRIBUTES) + tars.file(b"f"), Limits(), "xattrs", "65 extended attributes; 64 is"),
    "attributes of all": (
        tars.pax(ATTRIBUTES, tars.PAX_GLOBAL) + tars.file(b"f"),
        Limits(),
        "xattrs",
        "65 extended attributes; 64 is",
    ),
    "global header": (
        tars.pax({b"mtime": b"1." + b"0" * 20_000}, tars.PAX_GLOBAL) + tars.file(b"f"),
        Limits(),
        "global_bytes",
        "entry 0 has global headers that say 20007 bytes of each entry; 16384 is the limit",
    ),
    "global headers": (
        b"".join(tars.pax({b"linkpath": b"x" * size}, tars.PAX_GLOBAL) for size in (10, 990))
        + tars.pax({b"mtime": b"1"}, tars.PAX_GLOBAL)
        + tars.file(b"f"),
        Limits(global_bytes=1003),
        "global_bytes",
        "entry 0 has global headers that say 1004 bytes of each entry; 1003 is the limit",
    ),
    "bytes of attributes": (
        tars.pax({b"SCHILY.xattr.user.a": b"x" * 94}, tars.PAX_GLOBAL) + tars.file(b"f") + tars.file(b"g"),
        Limits(xattr_bytes=199),
        "xattr_bytes",
        "entry 1 'g' brings the layer to 200 bytes of extended attributes; 199 is the limit",
    ),
    "directories": (DIRECTORIES, Limits(memory_bytes=50_000), "memory_bytes", "directory too many"),
    "missing parents": (DEEP, Limits(memory_bytes=50_000, depth=1000), "memory_bytes", "directory too many"),
    "whiteouts": (WHITEOUTS, Limits(memory_bytes=400_000), "memory_bytes", "directory with whiteouts too many"),
    "opaque directories": (OPAQUE, Limits(memory_bytes=400_000), "memory_bytes", "directory with whiteouts too many"),
    "links to lower layers": (LOWER_LINKS, Limits(memory_bytes=400_000), "memory_bytes", "to a lower layer too many"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_layer_past_a_limit(tmp_path, attack):
    parts, limits, name, sentence = ATTACKS[attack]

    with pytest.raises(LimitError, match=sentence) as caught:
        unpack_layer(tars.tar(parts), tmp_path, limits=limits)

    assert caught.value.limit == name
    assert str(caught.value).endswith(f"start the store with a larger Limits.{name}")
    assert not (tmp_path / "layer").exists()


@pytest.mark.parametrize("attack", ATTACKS)
def test_layer_past_a_limit_as_an_ordinary_user(users_directory, attack):
    parts, limits, name, _ = ATTACKS[attack]

    sentence = as_ordinary_user(refusal, tars.tar(parts), str(users_directory), limits)

    assert f"a larger Limits.{name}" in sentence
    assert not (users_directory / "layer").exists()


@pytest.mark.parametrize("attack", ATTACKS)
def test_larger_limit_takes_the_layer(tmp_path, attack):
    parts, limits, name, _ = ATTACKS[attack]
    if attack == "holes":
        pytest.skip("file systems differ in how large a file may be")

    unpacked = unpack_layer(tars.tar(parts), tmp_path, limits=replace(limits, **{name: 1 << 42}))

    assert unpacked.counts.entries >= 1


# -- what inflates


def test_bomb_is_refused_by_its_ratio(tmp_path, monkeypatch):
    monkeypatch.setattr(seams.RATIO_COUNTS_FROM, 1 << 20)
    bomb = gzip.compress(tars.tar(tars.file(b"f", bytes(30 << 20))))

    with pytest.raises(LimitError, match=r"entry 0 'f' brings the total to \d+ bytes, inflated from \d+; 200 for each"):
        unpack_layer(bomb, tmp_path)

    assert not (tmp_path / "layer").exists()
    with pytest.raises(LimitError, match=r"200 for each"):
        hash_layer(blob_of(bomb, tmp_path))


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_layer_past_a_limit_whose_blob_has_a_digest(tmp_path, compress):
    data = compress(tars.tar(tars.file(b"f", os.urandom(400_000)), tars.file(b"g", os.urandom(2_000_000))))
    stored, limits = replace(blob_of(data, tmp_path), digest=sha256(data)), Limits(layer_bytes=300_000)

    with pytest.raises(LimitError, match=r"entry 0 'f' brings the total to \d+ bytes; 300000 is the limit"):
        untar_layer(UntarLayer(stored, str(tmp_path / "layer"), limits=limits))

    assert not (tmp_path / "layer").exists()


def test_bomb_whose_blob_has_a_digest(tmp_path, monkeypatch):
    monkeypatch.setattr(seams.RATIO_COUNTS_FROM, 4 << 20)
    bomb = gzip.compress(tars.tar(tars.file(b"f", bytes(5 << 20)), tars.file(b"g", os.urandom(1 << 20))))
    stored = replace(blob_of(bomb, tmp_path), digest=sha256(bomb))

    with pytest.raises(LimitError, match=r"entry 0 'f' brings the total to \d+ bytes, inflated from \d+; 1 for each"):
        untar_layer(UntarLayer(stored, str(tmp_path / "layer"), limits=Limits(inflate_ratio=1)))


@pytest.mark.parametrize("limits", [Limits(entries=1), Limits(entries=1, layer_bytes=700_000)])
def test_layer_past_a_limit_whose_blob_is_another(tmp_path, limits):
    data = tars.tar(tars.file(b"f"), tars.file(b"g", bytes(1_000_000)))
    stored = replace(blob_of(data, tmp_path), digest=sha256(b"others"))
    is_read_to_its_end = limits.layer_bytes > len(data)

    with pytest.raises(DigestMismatchError if is_read_to_its_end else LimitError):
        untar_layer(UntarLayer(stored, str(tmp_path / "layer"), limits=limits))


def test_small_layer_may_inflate_as_it_likes(tmp_path):
    unpacked = unpack_layer(gzip.compress(tars.tar(tars.file(b"f", bytes(30 << 20)))), tmp_path)

    assert unpacked.counts.size_bytes > 300 * unpacked.counts.bytes_read


def test_bomb_behind_the_end_of_the_tar(tmp_path):
    with pytest.raises(LimitError, match=r"layer_bytes"):
        unpack_layer(gzip.compress(tars.END + bytes(10 << 20)), tmp_path, limits=Limits(layer_bytes=5 << 20))


def test_compressed_archive_that_is_a_bomb(tmp_path):
    (tmp_path / "app.tar.gz").write_bytes(gzip.compress(bytes(10 << 20)))
    request = UntarImage(str(tmp_path / "app.tar.gz"), str(tmp_path / "inflated"), limits=Limits(layer_bytes=5 << 20))

    with pytest.raises(LimitError, match=r"app.tar.gz: it brings the total to \d+ bytes; 5242880 is the limit"):
        untar_image(request)


@pytest.mark.parametrize(("dictionary", "taken"), [(64 << 20, True), (128 << 20, True), (256 << 20, False)])
def test_xz_dictionary_that_would_take_all_memory(tmp_path, dictionary, taken):
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 4096}]
    data = bytearray(lzma.compress(tars.tar(tars.file(b"f", b"x")), filters=filters))
    data[12:24] = block_header(dictionary)

    if taken:
        assert unpack_layer(bytes(data), tmp_path).kinds == {b"f": "f"}
        return
    with pytest.raises(LimitError, match=r"asks for more memory to be inflated than 142606336 bytes"):
        unpack_layer(bytes(data), tmp_path)


def zstd_frame(data, window_log):
    """Return a frame of one block that is not compressed, whose decoder needs such a window."""
    block = (1 | len(data) << 3).to_bytes(3, "little") + data
    return bytes([0x28, 0xB5, 0x2F, 0xFD, 0, (window_log - 10) << 3]) + block


@pytest.mark.parametrize(
    ("log", "limits", "most"),
    [(27, Limits(), None), (28, Limits(), 27), (31, Limits(), 27), (27, Limits(decoder_bytes=80 << 20), 26)],
)
def test_zstd_window_that_would_take_all_memory(tmp_path, log, limits, most):
    data = zstd_frame(tars.tar(tars.file(b"f", b"x")), log)

    if most is None:
        assert unpack_layer(data, tmp_path, limits=limits).kinds == {b"f": "f"}
        return
    for read in (
        lambda: unpack_layer(data, tmp_path, limits=limits),
        lambda: hash_layer(blob_of(data, tmp_path), limits),
    ):
        with pytest.raises(LimitError, match=f"asks for a window of more than {1 << most} bytes") as caught:
            read()
        assert caught.value.limit == "decoder_bytes"


def test_zstd_window_of_a_whole_archive_is_bounded(tmp_path):
    plain = docker_save(tmp_path / "app.tar", {"app": [layer({"f": b"x"})]}).read_bytes()
    (tmp_path / "app.tar.zst").write_bytes(zstd_frame(plain, 27))
    request = UntarImage(str(tmp_path / "app.tar.zst"), str(tmp_path / "inflated"))

    assert len(untar_image(request).images) == 1
    with pytest.raises(LimitError, match="it asks for a window of more than 67108864 bytes"):
        untar_image(replace(request, limits=Limits(decoder_bytes=127 << 20)))


def block_header(dictionary):
    """Return the header of an xz block whose decoder needs such a dictionary."""
    exponent = dictionary.bit_length() - 1
    header = bytes([2, 0, 0x21, 1, 2 * (exponent - 12), 0, 0, 0])
    return header + zlib.crc32(header).to_bytes(4, "little")


# -- what takes long


def alternating(paths, count):
    return b"".join(tars.header(paths[number % len(paths)]) for number in range(count))


def lookups(error):
    """Return how many directories were opened before a layer was refused."""
    return int(re.findall(r"whose parents took (\d+) directories to find", str(error))[0])


def test_parents_far_apart_end_soon(tmp_path, monkeypatch):
    monkeypatch.setattr(seams.FREE_LOOKUPS, 10_000)
    paths = [bytes([97 + number]) + b"/d" * 48 + b"/f" for number in range(10)]

    with pytest.raises(
        LimitError, match=r"whose parents took \d+ directories to find; 32 for each is the limit"
    ) as caught:
        unpack_layer(tars.tar(alternating(paths, 5000)), tmp_path)

    assert lookups(caught.value) < 40_000


def test_links_in_a_row_that_are_followed_again_and_again_end_soon(tmp_path, monkeypatch):
    monkeypatch.setattr(seams.FREE_LOOKUPS, 10_000)
    links = [tars.symlink(b"s%d" % number, b"./" * 20 + b"s%d" % (number + 1)) for number in range(39)]
    again = [tars.file(b"s0/f") + tars.symlink(b"x", b"y") for _ in range(5000)]  # what replaces a link forgets all

    with pytest.raises(LimitError, match=r"whose parents took") as caught:
        unpack_layer(tars.tar(*links, *again), tmp_path)

    assert lookups(caught.value) < 40_000


def test_pax_records_of_nothing_end_soon(tmp_path, monkeypatch):
    monkeypatch.setattr(seams.FREE_PAX_RECORDS, 10_000)
    records = tars.raw_pax(b"".join(tars.pax_record(b"%x" % number, b"") for number in range(1000)))
    layer = tars.tar(*(records + tars.file(b"f%d" % number) for number in range(50)))

    with pytest.raises(
        LimitError, match=r"entry 10 brings the layer to 11000 pax records; 32 for each entry"
    ) as caught:
        unpack_layer(layer, tmp_path)

    assert caught.value.limit == "pax_records"
    assert unpack_layer(layer, tmp_path, limits=Limits(pax_records=1000)).counts.entries == 50


def test_segments_of_entries_that_make_no_file_are_counted_too(tmp_path):
    sparse = tars.gnu_sparse(b".wh..wh.plnk/f", 100, [(2 * at, 1) for at in range(40)], b"x" * 40)

    with pytest.raises(LimitError, match=r"entry 2 '.wh..wh.plnk/f' brings the layer to 120 segments"):
        unpack_layer(tars.tar(sparse * 3), tmp_path, limits=Limits(segments=100))


@pytest.mark.parametrize("compression", ["zstd", "xz"])
def test_frames_of_nothing_end_soon(tmp_path, compression):
    compress = COMPRESS[compression]
    frames = compress(tars.tar(tars.file(b"f", b"x"))) + compress(b"") * 2000

    with pytest.raises(
        LimitError, match=r"is one of 1009 frames that become 2048 bytes; 1000 and one for each 256"
    ) as caught:
        unpack_layer(frames, tmp_path, limits=Limits(frames=1000))

    assert caught.value.limit == "frames"
    with pytest.raises(LimitError, match=r"is one of 1009 frames"):
        hash_layer(blob_of(frames, tmp_path), Limits(frames=1000))
    assert unpack_layer(frames, tmp_path, limits=Limits(frames=2000)).kinds == {b"f": "f"}


@pytest.mark.parametrize("compression", COMPRESS)
def test_a_frame_for_each_entry_is_taken(tmp_path, compression):
    parts = [tars.file(b"f%d" % number) for number in range(300)] + [tars.END]

    unpacked = unpack_layer(b"".join(map(COMPRESS[compression], parts)), tmp_path, limits=Limits(frames=0))

    assert unpacked.counts.entries == 300


def test_global_header_of_many_records_is_not_gone_through_for_each_entry(tmp_path):
    records = b"".join(tars.pax_record(b"comment%d" % number, b"x") for number in range(40_000))
    header = tars.raw_pax(records, tars.PAX_GLOBAL)

    def seconds(*parts):
        started = time.thread_time()
        unpack_layer(tars.tar(*parts), tmp_path)
        return time.thread_time() - started

    apart = seconds(header, tars.file(b"f")) + seconds(MANY)

    assert seconds(header, MANY) < 5 * apart  # it would be hundreds


# -- the disk


@pytest.mark.parametrize(
    ("user", "uid_map", "free"),
    [
        (0, "         0          0 4294967295\n", 900),
        (0, "         0       1000          1\n         1     100000      65536\n", 800),
        (0, None, 800),
        (1000, "         0          0 4294967295\n", 800),
    ],
)
def test_what_a_disk_keeps_for_root_counts_for_the_root_of_the_machine_alone(
    tmp_path, monkeypatch, user, uid_map, free
):
    if uid_map is not None:
        (tmp_path / "uid_map").write_text(uid_map)
    monkeypatch.setattr(seams.UID_MAP, tmp_path / "uid_map")
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bfree=9, f_bavail=8, f_blocks=10, f_frsize=100))

    assert limiter.free_bytes("/") == free


def test_layer_that_cannot_fit_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "statvfs", statvfs_of(free=1000))

    with pytest.raises(NoSpaceError, match=r"1000 bytes are left, and at least 3072 are needed") as caught:
        unpack_layer(tars.tar(tars.file(b"f", bytes(1500))), tmp_path)

    assert (caught.value.errno, caught.value.needed_bytes, caught.value.free_bytes) == (errno.ENOSPC, 3072, 1000)
    assert not (tmp_path / "layer").exists()


@pytest.mark.root
def test_disk_that_fills_up_meanwhile_is_one_sentence(tmp_path):
    disk, archive = tmp_path / "disk", tmp_path / "archive"
    disk.mkdir()
    archive.mkdir()
    stored = blob_of(gzip.compress(tars.tar(tars.file(b"f", bytes(4 << 20)))), archive)

    with pytest.raises(NoSpaceError, match=r"No space left on device: .*/target/rootfs: \d+ bytes are left") as caught:
        on_file_system("tmpfs", "size=1m", str(disk), untar_layer, UntarLayer(stored, str(disk / "target")))

    assert caught.value.errno == errno.ENOSPC


@pytest.mark.root
def test_disk_without_inodes_is_called_so(tmp_path):
    disk, archive = tmp_path / "disk", tmp_path / "archive"
    disk.mkdir()
    archive.mkdir()
    stored = blob_of(tars.tar(*(tars.file(b"f%d" % number) for number in range(40))), archive)

    with pytest.raises(
        NoSpaceError, match=r"/rootfs: \d+ bytes are left, but no inodes: the file system holds no"
    ) as caught:
        on_file_system(
            "tmpfs", "size=64m,nr_inodes=20", str(disk), untar_layer, UntarLayer(stored, str(disk / "target"))
        )

    assert (caught.value.errno, caught.value.free_inodes) == (errno.ENOSPC, 0)


@pytest.mark.root
def test_disk_that_is_nearly_full_is_noticed_before_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(seams.LOOK_EVERY, 1 << 20)
    monkeypatch.setattr(os, "statvfs", statvfs_of(free=10 << 20))

    with pytest.raises(NoSpaceError, match=r"at least 16777216 are needed"):
        unpack_layer(gzip.compress(tars.tar(tars.file(b"f", bytes(4 << 20)))), tmp_path)


# -- through the store


def test_store_has_the_limits_that_it_was_started_with(tmp_path):
    archive = docker_save(tmp_path / "app.tar", {"app": [layer({"a": b"x", "b": b"y"})]})

    with LocalStore.start(tmp_path / "store", limits=Limits(entries=1)) as store:
        with pytest.raises(LimitError, match=r"entry 1 is one more than 1 entries"):
            store.put("app", archive).get(timeout=TIMEOUT)
        assert store.list().get(timeout=TIMEOUT) == ()
