"""Contents are copied by whatever way works, holes and all."""

from __future__ import annotations

import errno
import os
import random
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.quotas import mounted_image

from pykka_imagestore.fs.contents import Contents

PAGE = 4096
PLACES = ("/tmp", "/dev/shm", "/var/tmp")
FAILING = {"copy_file_range": ["copy_file_range"], "both": ["copy_file_range", "sendfile"], "nothing": []}


@contextmanager
def opened(directory, name, flags=os.O_RDWR | os.O_CREAT):
    file = os.open(directory / name, flags)
    try:
        yield file
    finally:
        os.close(file)


def copied(source, target, contents=None):
    """Copy a file into a new one; return what is in that, and how many bytes of it take room."""
    with opened(source.parent, source.name, os.O_RDONLY) as reading, opened(target.parent, target.name) as writing:
        (contents or Contents()).copy(reading, writing, os.fstat(reading))
        return target.read_bytes(), os.fstat(writing).st_blocks * 512


@pytest.mark.parametrize("failing", FAILING.values(), ids=FAILING)
@pytest.mark.parametrize("size", [0, 1, PAGE, 3_000_001])
def test_whatever_works_copies_all(tmp_path, monkeypatch, failing, size):
    data = random.Random(size).randbytes(size)
    (tmp_path / "a").write_bytes(data)
    for name in failing:
        monkeypatch.setattr(os, name, refusing(errno.EXDEV))

    assert copied(tmp_path / "a", tmp_path / "b")[0] == data


@pytest.mark.parametrize("failing", FAILING.values(), ids=FAILING)
def test_holes_are_not_filled(tmp_path, monkeypatch, failing):
    with opened(tmp_path, "a") as file:
        os.pwrite(file, b"x" * PAGE, 5 * PAGE)
        os.pwrite(file, b"y" * PAGE, 50 * PAGE)
        os.truncate(file, 1000 * PAGE)
    for name in failing:
        monkeypatch.setattr(os, name, refusing(errno.EINVAL))

    data, taken = copied(tmp_path / "a", tmp_path / "b")

    assert data == (tmp_path / "a").read_bytes()
    assert taken <= 4 * PAGE


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 5)), max_size=10))
def test_parts_and_holes_in_any_order_are_copied(tmp_path_factory, parts):
    place = tmp_path_factory.mktemp("parts")
    end = 0
    with opened(place, "a") as file:
        for is_data, pages in parts:
            if is_data:
                os.pwrite(file, bytes([65 + pages]) * pages * PAGE, end)
            end += pages * PAGE
        os.truncate(file, end)

    assert copied(place / "a", place / "b")[0] == (place / "a").read_bytes()


def test_another_file_system_is_no_obstacle(tmp_path):
    elsewhere = next((place for place in PLACES if is_other(place, tmp_path)), None)
    if elsewhere is None:
        pytest.skip("there is but one file system here")
    (tmp_path / "a").write_bytes(b"a" * 100_000)
    fd = os.open(elsewhere, os.O_TMPFILE | os.O_RDWR)
    try:
        with opened(tmp_path, "a", os.O_RDONLY) as reading:
            Contents().copy(reading, fd, os.fstat(reading))
        assert os.pread(fd, 200_000, 0) == b"a" * 100_000
    finally:
        os.close(fd)


def is_other(place, directory):
    return os.access(place, os.W_OK) and os.stat(place).st_dev != os.stat(directory).st_dev


@pytest.mark.root
@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_blocks_are_shared_where_the_file_system_can_do_that(tmp_path, kind):
    size = 64 << 20
    with mounted_image(tmp_path, kind) as place:
        (place / "a").write_bytes(b"a" * size)
        os.sync()
        before = free_bytes(place)

        data, _ = copied(place / "a", place / "b")
        os.sync()

        assert data == (place / "a").read_bytes()
        assert before - free_bytes(place) < size // 4


def free_bytes(place):
    found = os.statvfs(place)
    return found.f_bavail * found.f_frsize


def test_what_does_not_work_is_not_tried_again(tmp_path, monkeypatch):
    calls = []

    def refuse(*arguments):
        calls.append(arguments)
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "copy_file_range", refuse)
    contents = Contents()
    for name in "abc":
        (tmp_path / name).write_bytes(b"x")
        copied(tmp_path / name, tmp_path / f"{name}2", contents)

    assert len(calls) == 1


def test_a_full_disk_is_no_reason_to_try_another_way(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"x")
    monkeypatch.setattr(os, "copy_file_range", refusing(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left") as caught:
        copied(tmp_path / "a", tmp_path / "b")

    assert caught.value.errno == errno.ENOSPC


def test_a_file_that_became_shorter_is_an_error(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 100)
    with opened(tmp_path, "a") as reading, opened(tmp_path, "b") as writing:
        status = os.fstat(reading)
        os.truncate(reading, 40)

        with pytest.raises(OSError, match="ends at byte 40 of 100: somebody changed it meanwhile"):
            Contents().copy(reading, writing, status)


def refusing(number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    return refuse
