"""Writing to whoever reads: all of it, in order, and never with a wait that cannot be ended."""

from __future__ import annotations

import errno
import os
import socket
import threading

import pytest
from support.processes import TIMEOUT

from pykka_imagestore.fs.write import write_as_read

DATA = os.urandom(1_000_000)


class StoppedError(Exception):
    pass


def stop():
    raise StoppedError


@pytest.fixture(params=["pipe", "non-blocking pipe", "socket", "pipe of an old kernel", "socket of an old kernel"])
def ends(request, monkeypatch):
    """What to read from, and the descriptor to write to."""
    if "old kernel" in request.param:

        def refuse(*_):
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

        monkeypatch.setattr(os, "pwritev", refuse)
    if "socket" in request.param:
        reading, writing = (end.detach() for end in socket.socketpair())
    else:
        reading, writing = os.pipe()
    os.set_blocking(writing, "non-blocking" not in request.param)
    with open(reading, "rb") as pipe, open(writing, "wb", buffering=0):
        yield pipe, writing


def test_a_reader_gets_all_of_it(ends):
    pipe, writing = ends
    got = []
    reader = threading.Thread(target=lambda: got.append(pipe.read(len(DATA))))
    reader.start()

    write_as_read(writing, memoryview(DATA), lambda: None)

    reader.join(TIMEOUT)
    assert got == [DATA]


def test_what_waits_for_a_reader_can_be_stopped_and_leaves_the_descriptor_as_it_is(ends):
    _, writing = ends
    blocks = os.get_blocking(writing)

    with pytest.raises(StoppedError):
        write_as_read(writing, memoryview(DATA), stop)

    assert os.get_blocking(writing) == blocks


def test_a_reader_that_is_gone_is_an_error(ends):
    pipe, writing = ends
    pipe.close()

    with pytest.raises(BrokenPipeError):
        write_as_read(writing, memoryview(DATA), stop)


def test_a_file_gets_all_of_it(tmp_path):
    with (tmp_path / "file").open("wb") as file:
        write_as_read(file.fileno(), memoryview(DATA), stop)

    assert (tmp_path / "file").read_bytes() == DATA
