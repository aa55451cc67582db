"""Peers: what they make, and what they do not for a leader that was taken over."""

from __future__ import annotations

import os
import pickle
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from pykka_imagestore.jobs.help_unpack import HelpUnpack, help_unpack
from pykka_imagestore.jobs.unpack.batches import (
    MAX_ACK_BYTES,
    ORDER_BYTES,
    RECORD_BYTES,
    MalformedMessageError,
    Order,
    pack_paths,
    pack_record,
    parse_ack,
)


def test_help_that_comes_too_early_or_too_late_returns(tmp_path):
    help_unpack(HelpUnpack(str(tmp_path / "nobody")))
    help_unpack(HelpUnpack(str(tmp_path / "no directory" / "nobody")))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as gone:
        gone.bind(str(tmp_path / "gone"))
    help_unpack(HelpUnpack(str(tmp_path / "gone")))


@contextmanager
def leading(directory):
    """Have a peer come to a leader that is yielded: its socket, the memory, and the future of the peer."""
    address = str(directory / "peers")
    memory = os.memfd_create("test")
    (directory / "rootfs").mkdir()
    root = os.open(directory / "rootfs", os.O_RDONLY | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener, ThreadPoolExecutor(1) as thread:
            listener.bind(address)
            listener.listen()
            peer = thread.submit(help_unpack, HelpUnpack(address))
            leader, _ = listener.accept()
            with leader:
                leader.settimeout(20)
                socket.send_fds(leader, [b"\0"], [memory, root])
                yield leader, memory, peer
    finally:
        os.close(memory)
        os.close(root)


class RunsCode:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def put_batch(memory, *files):
    """Write a batch with files of a path and a body; return its order."""
    paths = pack_paths([path for path, _ in files])
    records = [pack_record(0o644, os.geteuid(), os.getegid(), 1, len(body)) or b"" for _, body in files]
    bodies = b"".join(body for _, body in files)
    os.pwrite(memory, b"".join((*records, paths, bodies)), 0)
    return Order(0, len(files), len(paths), len(bodies), 0)


@pytest.mark.parametrize(
    ("path", "match"),
    [
        (b"../outside", "a file in an invalid directory, b'..'"),
        (b"d/../../outside", "a file in an invalid directory"),
        (b"..", "an invalid file"),
        (b"d/", "an invalid file"),
        (b"//outside", "a file in an invalid directory"),
        (b"n\0n", "3 paths for Order"),
    ],
)
def test_peer_makes_nothing_at_a_path_that_is_none(tmp_path, path, match):
    with leading(tmp_path) as (leader, memory, peer):
        leader.send(put_batch(memory, (b"sound", b"1"), (path, b"2")).pack())

        with pytest.raises(MalformedMessageError, match=match):
            peer.result(timeout=20)

    assert sorted(os.listdir(tmp_path)) == ["peers", "rootfs"]
    assert os.listdir(tmp_path / "rootfs") == []


def test_peer_follows_no_symlink_to_a_directory_outside(tmp_path):
    (tmp_path / "outside").mkdir()
    with leading(tmp_path) as (leader, memory, peer):
        (tmp_path / "rootfs" / "s").symlink_to(tmp_path / "outside")
        leader.send(put_batch(memory, (b"s/f", b"1")).pack())
        ack = parse_ack(leader.recv(MAX_ACK_BYTES), 1)
        leader.close()
        peer.result(timeout=20)

    assert "cannot be made" in str(ack.failure)
    assert os.listdir(tmp_path / "outside") == []


@pytest.mark.parametrize(
    ("message", "match"),
    [
        (b"\x80", "an order of 1 bytes"),
        (bytes(ORDER_BYTES + 1), f"an order of {ORDER_BYTES + 1} bytes"),
        (bytes(1000), f"an order of {ORDER_BYTES + 1} bytes"),  # no more of it is read
        (bytes(ORDER_BYTES), "an invalid order"),
        (b"\xff" * ORDER_BYTES, "an invalid order"),
        (Order(4, 1, 1, 0, 0).pack(), "an invalid order"),
        (Order(0, 1, 1, 262_144, 0).pack(), "an invalid order"),
        (Order(3, 1, 1, 0, 0).pack(), "a batch of 0 bytes"),  # which is not in the memory
    ],
)
def test_peer_takes_no_order_that_is_none(tmp_path, message, match):
    with leading(tmp_path) as (leader, memory, peer):
        put_batch(memory, (b"f", b"1"))
        leader.send(message)

        with pytest.raises(MalformedMessageError, match=match):
            peer.result(timeout=20)

    assert os.listdir(tmp_path / "rootfs") == []


def test_peer_runs_nothing_that_is_in_the_memory(tmp_path):
    data = pickle.dumps(RunsCode(str(tmp_path / "ran")))
    with leading(tmp_path) as (leader, memory, peer):
        os.pwrite(memory, data, 0)
        leader.send(Order(0, 1, 10, len(data) - 10 - RECORD_BYTES, 0).pack())

        with pytest.raises(MalformedMessageError):
            peer.result(timeout=20)

    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_peer_keeps_no_descriptor_however_many_it_gets(tmp_path, count):
    address = str(tmp_path / "peers")
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener,
        ThreadPoolExecutor(1) as thread,
        open(os.devnull) as file,
    ):
        listener.bind(address)
        listener.listen()
        before = sorted(os.listdir("/proc/self/fd"))
        peer = thread.submit(help_unpack, HelpUnpack(address))
        leader, _ = listener.accept()
        with leader:
            socket.send_fds(leader, [b"\0"], [file.fileno()] * count)
        peer.result(timeout=20)

        assert sorted(os.listdir("/proc/self/fd")) == before
