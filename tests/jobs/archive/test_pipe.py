from __future__ import annotations

import os
import random
import threading
from contextlib import contextmanager

import pytest
from support.compressions import COMPRESS
from support.hosts import Host
from support.images import docker_save, layer

from pykka_imagestore.errors import ArchiveError, UnsupportedArchiveError
from pykka_imagestore.jobs.archive.pipe import PipeFile
from pykka_imagestore.jobs.unpack.inflate import read_some
from pykka_imagestore.jobs.untar_image import UntarImage, untar_image
from pykka_imagestore.runtime import DiscardedError
from pykka_imagestore.runtime.worker import run_hosted

BASE = layer({"etc/motd": b"hello" * 50_000})


@contextmanager
def writing(*pieces: bytes):
    """Write pieces into a pipe from a thread; yield the path of its other end."""
    ours, theirs = os.pipe()

    def write():
        with os.fdopen(theirs, "wb", buffering=0) as target:
            for piece in pieces:
                target.write(piece)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield f"/proc/self/fd/{ours}"
    finally:
        os.close(ours)
        thread.join()


def index(path, tmp_path):
    return untar_image(UntarImage(path, str(tmp_path / "copy.tar")))


@pytest.fixture
def archive(tmp_path):
    return docker_save(tmp_path / "image.tar", {"app:1": [BASE]}).read_bytes()


@pytest.mark.parametrize("compression", ["none", *COMPRESS])
def test_archive_through_a_pipe_is_copied_and_read_there(tmp_path, archive, compression):
    data = COMPRESS.get(compression, bytes)(archive)

    with writing(data[:1], data[1:7], data[7:]) as path:
        (image,) = index(path, tmp_path).images

    assert image.unsafe_names == ("app:1",)
    assert image.layers[0].location.path == str(tmp_path / "copy.tar")
    assert image.layers[0].origin == path
    assert (tmp_path / "copy.tar").read_bytes() == archive


def test_pieces_of_any_size_are_the_whole(archive):
    draw = random.Random(1)
    cuts = sorted(draw.sample(range(len(archive)), 20))
    pieces = [archive[start:end] for start, end in zip([0, *cuts], [*cuts, None], strict=True)]

    with writing(*pieces) as path:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        pipe = PipeFile(file)
        head = pipe.peek(10)
        whole = b"".join(iter(lambda: read_some(pipe, draw.choice([1, 5, 1000, 100_000])), b""))
        os.close(file)

    assert head == archive[:10]
    assert whole == archive


def test_pipe_that_nobody_writes_to_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fifo")

    with pytest.raises(UnsupportedArchiveError, match=r"is a pipe through which nothing came"):
        index(str(tmp_path / "fifo"), tmp_path)


@pytest.mark.parametrize("data", [b"?", b"?" * 1000])
def test_what_is_no_archive_through_a_pipe(tmp_path, data):
    with writing(data) as path, pytest.raises(UnsupportedArchiveError, match=r"is no image archive: it is no tar"):
        index(path, tmp_path)


@pytest.mark.parametrize("compression", COMPRESS)
def test_pipe_that_ends_early(tmp_path, archive, compression):
    with writing(COMPRESS[compression](archive)[:-20]) as path, pytest.raises(ArchiveError, match=r"it cannot be infl"):
        index(path, tmp_path)


def test_discard_is_noticed_while_nothing_comes(tmp_path):
    ours, theirs = os.pipe()

    with pytest.raises(DiscardedError):
        run_hosted(Host(looks_before_discard=1), lambda path: index(path, tmp_path), f"/proc/self/fd/{ours}")

    os.close(ours)
    os.close(theirs)
