from __future__ import annotations

import errno
import gzip
import os
import pickle
import random
import resource
import socket
import struct
import threading
from contextlib import contextmanager

import pytest
from support import seams, tars
from support.layers import blob_of, unpack_layer, unpack_with_peers, unpack_with_peers_and_look
from support.privileges import as_ordinary_user
from support.processes import TIMEOUT

from pykka_imagestore._proto.layer_pb2 import LayerRecord
from pykka_imagestore.core.digest import DiffID, sha256
from pykka_imagestore.errors import DigestMismatchError, LayerError, NoSpaceError
from pykka_imagestore.jobs.unpack import one_pass
from pykka_imagestore.jobs.unpack.batches import (
    Order,
)
from pykka_imagestore.jobs.unpack.leader import Leader, PeerLostError
from pykka_imagestore.jobs.unpack.replaced import Replaced
from pykka_imagestore.jobs.untar_layer import UntarLayer, untar_layer


def assert_same_as_alone(tmp_path, *parts):
    """Unpack a layer with help and without; compare all but the order in which attributes could not be set."""
    data = tars.tar(tars.directory(b"./"), *parts)
    for name in ("alone", "helped"):
        (tmp_path / name).mkdir()

    alone, helped = unpack_layer(data, tmp_path / "alone"), unpack_with_peers(data, tmp_path / "helped")

    assert helped.nodes == alone.nodes
    assert helped.counts == alone.counts
    assert sorted(helped.unset) == sorted(alone.unset)
    assert helped.record.implicit_directories == alone.record.implicit_directories
    assert helped.record.replaced_lost == alone.record.replaced_lost
    return helped


def a_tree(files, largest):
    """Return entries of many files, of random sizes up to ``largest``, in directories that an entry names, or none."""
    chance = random.Random(1)
    for number in range(files):
        directory = b"d%d/e%d" % (number // 97, number // 31)
        if number % 300 == 0:
            yield tars.directory(directory, mtime=5, mode=0o750)
        body = chance.randbytes(chance.choice([0, 1, 600, chance.randrange(largest)]))
        yield tars.file(b"%s/f%d" % (directory, number), body, mtime=number, mode=chance.choice([0o644, 0o755, 0o4711]))
        if number % 50 == 0:
            yield tars.hard_link(b"l%d" % number, b"%s/f%d" % (directory, number))


def test_many_small_files(tmp_path):
    assert_same_as_alone(tmp_path, *a_tree(2000, 5000))


def test_many_directories_that_nothing_makes_the_leader_wait_for(tmp_path):
    files = (tars.file(b"d%d/f%d" % (number // 7, number), b"%d" % number * 300) for number in range(3000))

    assert_same_as_alone(tmp_path, *files)


def test_one_directory_of_many_files(tmp_path):
    assert_same_as_alone(tmp_path, *(tars.file(b"d/f%d" % number, b"%d" % number * 300) for number in range(3000)))


def test_files_larger_than_the_memory_that_is_shared(tmp_path):
    assert_same_as_alone(tmp_path, *a_tree(20, 5 << 20))


@pytest.mark.parametrize("size", [262_000, 262_144, 262_145, 300_000, 524_288, 524_289])
def test_files_about_as_large_as_a_batch_of_it(tmp_path, size):
    assert_same_as_alone(tmp_path, *(tars.file(b"f%d" % number, b"x" * size) for number in range(9)))


def test_files_in_place_of_others(tmp_path):
    assert_same_as_alone(
        tmp_path,
        *(tars.file(b"f", b"%d" % number) for number in range(5)),
        tars.symlink(b"s", b"f"),
        tars.file(b"s", b"no link"),
        tars.header(b"p", tars.FIFO),
        tars.file(b"p", b"no fifo"),
        tars.directory(b"d"),
        tars.file(b"d/below", b"gone"),
        tars.file(b"d", b"no directory"),
        tars.directory(b"f"),
        tars.file(b"f/below", b"there"),
    )


def test_files_in_directories_made_anew(tmp_path):
    parts = []
    for number in range(200):
        parts += [
            tars.file(b"d/e/f%d" % number, b"%d" % number),
            tars.file(b"d/e", b"no directory"),
            tars.directory(b"d/e"),
        ]

    assert_same_as_alone(tmp_path, *parts)


def test_files_behind_symlinks(tmp_path):
    assert_same_as_alone(
        tmp_path,
        tars.directory(b"usr/lib"),
        tars.symlink(b"lib", b"usr/lib"),
        tars.file(b"lib/a"),
        tars.file(b"./lib/b/c"),
    )


def test_file_in_place_of_a_symlink_and_then_another_behind_one(tmp_path):
    """Found by fuzzing: whether any was followed before depended on when the peer was done."""
    assert_same_as_alone(
        tmp_path,
        tars.directory(b"usr/lib"),
        tars.symlink(b"lib", b"usr/lib"),
        tars.symlink(b"s", b"elsewhere"),
        tars.file(b"s", b"no link"),
        tars.file(b"lib/a"),
    )


def test_file_in_place_of_a_symlink_that_was_followed(tmp_path):
    data = tars.tar(
        tars.symlink(b"s", b"d"), tars.file(b"s/x/f", b"1"), tars.file(b"s", b"no link"), tars.file(b"s/x/g", b"2")
    )

    for unpack in (unpack_layer, unpack_with_peers):
        with pytest.raises(LayerError, match="entry 3 's/x/g' has a parent 's' that is no directory"):
            unpack(data, tmp_path)


def test_whiteouts_beside_files(tmp_path):
    assert_same_as_alone(
        tmp_path,
        tars.file(b"d/a", b"1"),
        tars.whiteout(b"d/a"),
        tars.opaque(b"d"),
        tars.whiteout(b"b"),
        tars.file(b"b"),
    )


def test_long_names_and_pax_headers_travel(tmp_path):
    name = b"n" * 200
    assert_same_as_alone(
        tmp_path,
        tars.long_name(name + b"/" + name),
        tars.file(b"short", b"1"),
        tars.pax({b"path": b"p/" + name, b"mtime": b"1.5", b"uid": b"70000", b"SCHILY.xattr.user.a": b"b"}),
        tars.file(b"short", b"2"),
        tars.pax({b"mtime": b"-12345678.25"}),
        tars.file(b"other", b"3"),
    )


def test_times_that_no_peer_takes(tmp_path):
    records = [{b"mtime": time} for time in (b"9223372037", b"-9223372037", b"99999999999999.5")]
    parts = [part for number, record in enumerate(records) for part in (tars.pax(record), tars.file(b"%d" % number))]

    assert_same_as_alone(tmp_path, *a_tree(100, 100), *parts)


@pytest.mark.root
def test_files_whose_every_number_and_name_is_as_long_as_can_be_fill_batchs(tmp_path):
    directory = b"/".join([b"d" * 255] * 2)
    records = {b"mtime": b"9223372035.999999999", b"uid": b"4294967294", b"gid": b"4294967294"}
    parts = []
    for number in range(700):
        path = directory + b"/%0255d" % number
        parts += [tars.pax(records | {b"path": path}), tars.file(b"f", b"x" * (number % 5 * 400))]

    helped = assert_same_as_alone(tmp_path, *parts)

    assert helped.counts.entries == 701


@pytest.mark.parametrize("deep", [60, 70, 250])
def test_deep_directories(tmp_path, deep):
    assert_same_as_alone(tmp_path, tars.file(b"d/" * deep + b"a", b"1"), tars.file(b"d/" * deep + b"b", b"2"))


def files_at_fault(*numbers):
    """Return 1500 entries in directories of 50, of which those have an owner that the kernel does not know."""
    for number in range(1500):
        if number in numbers:
            yield tars.pax({b"uid": b"4294967295"})
        yield tars.file(b"d%d/f%d" % (number // 50, number), b"x" * 3000)


@pytest.mark.parametrize("others", [[], [350, 700, 1450]], ids=["alone", "first of several"])
def test_an_entry_that_a_peer_finds_at_fault_is_named(tmp_path, others):
    data = tars.tar(*files_at_fault(300, *others))

    with pytest.raises(LayerError, match=r"entry 300 'd6/f300' has an owner out of range, 4294967295:0"):
        unpack_with_peers(data, tmp_path)

    assert not (tmp_path / "layer").exists()


def test_an_entry_in_other_hands_goes_before_one_that_cannot_be_read(tmp_path):
    data = tars.tar(*files_at_fault(300, 1450), b"no header".ljust(512))

    with pytest.raises(LayerError, match=r"entry 300 'd6/f300' has an owner out of range"):
        unpack_with_peers(data, tmp_path)


def test_bytes_that_are_not_the_publishers_go_before_what_peers_find(tmp_path):
    data = gzip.compress(tars.tar(*files_at_fault(300, 350, 1450), b"no header".ljust(512), bytes(4 << 20)))

    with pytest.raises(DigestMismatchError, match="blob layer"):
        unpack_with_peers(data, tmp_path, digest=sha256(b"others"))


def test_a_name_that_no_peer_takes_is_refused_by_the_leader(tmp_path):
    good = [tars.file(b"g%d" % number, b"x") for number in range(300)]
    data = tars.tar(*good, tars.file(b"n" * 256, b"x"), *good)

    with pytest.raises(LayerError, match=r"entry 300 'nnn.* cannot be made: File name too long"):
        unpack_with_peers(data, tmp_path)

    assert not (tmp_path / "layer").exists()


@pytest.mark.parametrize(
    ("record", "match"),
    [
        ({b"uid": b"4294967296"}, "has an owner out of range, 4294967296:0"),
        ({b"gid": b"9999999999999999999"}, "has an owner out of range, 0:9999999999999999999"),
    ],
)
def test_a_number_that_no_peer_takes_is_refused_by_the_leader(tmp_path, record, match):
    data = tars.tar(*a_tree(300, 100), tars.pax(record), tars.file(b"f", b"x"), *a_tree(300, 100))

    for unpack in (unpack_layer, unpack_with_peers):
        with pytest.raises(LayerError, match=f"entry 307 'f' {match}"):
            unpack(data, tmp_path)


def test_files_of_many_deep_directories_take_few_descriptors(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    parts = [tars.file(b"%d/" % number + b"d/" * 30 + b"f", b"x") for number in range(300)]

    resource.setrlimit(resource.RLIMIT_NOFILE, (900, hard))
    try:
        unpack_with_peers(tars.tar(*parts), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("size", [1_000, 1_000_000])  # of a file that a peer makes, and one that the leader does
def test_layer_that_ends_in_the_middle_of_a_file_is_refused(tmp_path, size):
    data = tars.file(b"f", b"x" * size)[: 512 + size // 2]

    with pytest.raises(LayerError, match="entry 0 'f' is cut off"):
        unpack_with_peers(data, tmp_path)


def test_layer_with_another_diff_id_is_refused(tmp_path):
    layer = blob_of(tars.tar(*a_tree(100, 100)), tmp_path)
    wrong, peers = DiffID("sha256:" + "0" * 64), str(tmp_path / "peers")

    with pytest.raises(DigestMismatchError):
        untar_layer(UntarLayer(layer, str(tmp_path / "layer"), wrong, peers_at=peers))


def test_what_an_ordinary_user_may_not_set_is_recorded(users_directory):
    data = tars.tar(*(tars.file(b"f%d" % number, uid=1, mode=0o4755) for number in range(300)))

    nodes, record = as_ordinary_user(unpack_with_peers_and_look, data, str(users_directory))

    unset = LayerRecord.FromString(record).unset
    assert sorted((one.path, one.what) for one in unset) == sorted(
        (path, what) for path in nodes if path for what in ("owner", "mode")
    )


def test_a_leader_in_a_directory_with_a_long_name(tmp_path):
    directory = tmp_path / ("x" * 200)
    directory.mkdir()

    assert unpack_with_peers(tars.tar(tars.file(b"f", b"1")), directory).nodes[b"f"].kind == "f"


def test_layer_is_unpacked_alone_where_there_can_be_no_socket(tmp_path):
    layer = blob_of(tars.tar(*a_tree(100, 100)), tmp_path)

    counts = untar_layer(UntarLayer(layer, str(tmp_path / "layer"), peers_at=str(tmp_path / ("x" * 255 + "x"))))

    assert counts.entries == 103


def test_leader_whose_peer_is_lost_says_so(tmp_path):
    with pytest.raises(PeerLostError):
        unpack_with_peers(tars.tar(*a_tree(1000, 100)), tmp_path, peers=1, help_=come_and_go)

    assert not (tmp_path / "layer").exists()
    assert not (tmp_path / "peers").exists()


def come_and_go(request, until=None):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(request.address)
        _, descriptors, _, _ = socket.recv_fds(connection, 1, 2)
        for descriptor in descriptors:
            os.close(descriptor)
        assert until is None or until.wait(TIMEOUT)


def test_peer_that_dies_while_the_rest_of_a_refused_layer_is_read_changes_nothing(tmp_path, monkeypatch):
    data = gzip.compress(tars.tar(tars.hard_link(b"l", b"/"), tars.file(b"f", os.urandom(1 << 20))))
    check_blob, is_refused, is_dead = one_pass._check_blob, threading.Event(), threading.Event()

    def die_when_refused(request):
        come_and_go(request, until=is_refused)
        is_dead.set()

    def check_after_the_death(*args):
        is_refused.set()
        assert is_dead.wait(TIMEOUT)
        check_blob(*args)

    monkeypatch.setattr(seams.CHECK_BLOB, check_after_the_death)
    with pytest.raises(LayerError, match="entry 0 'l' is a hard link to '/'"):
        unpack_with_peers(data, tmp_path, peers=1, help_=die_when_refused, digest=sha256(data))


def test_leader_that_may_make_no_file_as_large_as_the_memory_goes_on_alone(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with waiting(tmp_path) as (leader, peer):
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            leader.welcome()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

        assert not leader.has_peers
        assert peer.recv(1) == b""


@contextmanager
def waiting(directory):
    """Yield a leader, and the socket of a peer that has called at it."""
    address = str(directory / "peers")
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with (
            Leader(address, root, Replaced()) as leader,
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer,
        ):
            peer.settimeout(20)
            peer.connect(address)
            yield leader, peer
    finally:
        os.close(root)


# -- a peer that was taken over


def answering(answer):
    """Return a peer that says ``answer``, given the order, to each; ``answer`` may also do something in the root."""

    def help_(request):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.connect(request.address)
            _, (memory, root), _, _ = socket.recv_fds(connection, 1, 2)
            try:
                while order := connection.recv(100):
                    connection.send(answer(Order.parse(order), root))
            except ConnectionError:  # the leader has heard enough
                pass
            finally:
                os.close(memory)
                os.close(root)

    return help_


def all_made(order, bits, rest=b""):
    return struct.pack("=BHi", 0, order.files, 0) + bits * order.files + rest


class RunsCode:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def a_directory_aside(order, root):
    os.mkdir(b".wh..wh." + b"61" * 8, dir_fd=root)
    return all_made(order, b"\4", b"a" * 8 * order.files)


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (lambda *_: b"?", "it sent an answer of 1 bytes"),
        (lambda *_: bytes(65536), "it sent an answer of"),
        (lambda order, _: all_made(order, b"\0")[:-1], "it sent an answer of"),
        (lambda order, _: all_made(order, b"\0", b"more"), "it sent an answer with an invalid failure"),
        (lambda order, _: all_made(order, b"\x09"), "it sent an answer with unknown bits, 9"),
        (lambda order, _: all_made(order, b"\4"), "it sent an answer that is cut off"),
        (lambda order, _: all_made(order, b"\4", b"a" * 8 * order.files), r"it set no file aside as \.wh\.\.wh\.6161"),
        (a_directory_aside, r"it set no file aside as \.wh\.\.wh\.6161616161616161"),
        (lambda order, _: struct.pack("=BHi", 1, order.files, 0) + bytes(order.files), "it sent an invalid answer for"),
        (
            lambda order, _: struct.pack("=BHi", 9, 0, 0) + bytes(order.files),
            "it sent an answer with an invalid failure",
        ),
    ],
)
def test_leader_believes_no_peer_that_says_what_none_does(tmp_path, answer, match):
    (tmp_path / "outside").write_text("untouched")

    with pytest.raises(PeerLostError, match=f"a worker that helped with the layer is not to be trusted: {match}"):
        unpack_with_peers(tars.tar(*a_tree(100, 100)), tmp_path, peers=1, help_=answering(answer))

    assert sorted(os.listdir(tmp_path)) == ["layer.tar", "outside"]
    assert (tmp_path / "outside").read_text() == "untouched"


def test_leader_runs_nothing_that_a_peer_sends(tmp_path):
    data = pickle.dumps(RunsCode(str(tmp_path / "ran")))

    with pytest.raises(PeerLostError):
        unpack_with_peers(tars.tar(*a_tree(100, 100)), tmp_path, peers=1, help_=answering(lambda *_: data))

    assert not (tmp_path / "ran").exists()


def test_leader_believes_no_peer_that_answers_before_it_is_asked(tmp_path):
    with waiting(tmp_path) as (leader, peer):
        leader.welcome()
        peer.send(struct.pack("=BHi", 0, 0, 0))

        with pytest.raises(PeerLostError, match="it answered what nobody asked"):
            leader.has_idle_peer()


def test_error_of_the_disk_that_a_peer_met_is_the_layers(tmp_path):
    def full(order, _):
        return struct.pack("=BHi", 2, 0, errno.EDQUOT) + bytes(order.files)

    with pytest.raises(NoSpaceError):
        unpack_with_peers(tars.tar(*a_tree(100, 100)), tmp_path, peers=1, help_=answering(full))


def test_nothing_stays_open(tmp_path):
    data = tars.tar(*a_tree(200, 1000))
    unpack_with_peers(data, tmp_path)
    before = sorted(os.listdir("/proc/self/fd"))

    unpack_with_peers(data, tmp_path)

    assert sorted(os.listdir("/proc/self/fd")) == before
