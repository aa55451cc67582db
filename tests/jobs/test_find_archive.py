from __future__ import annotations

import os

import pytest
from support.images import layer
from support.layouts import Layout

from pykka_imagestore.core.image_name import ImageName
from pykka_imagestore.errors import InvalidInputError, NoArchiveError
from pykka_imagestore.jobs.find_archive import find_archive

APP = ImageName.parse("app")


def look_at(path):
    return find_archive(None, str(path), APP)


@pytest.fixture
def layout(tmp_path):
    layout = Layout()
    layout.name(layout.manifest(layer({"f": b"x"})), "app:1")
    return layout.write_directory(tmp_path / "layout")


def test_archive_that_stays_as_it_is_is_found_equal(tmp_path):
    path = tmp_path / "app.tar"
    path.write_bytes(b"x" * 1000)
    (tmp_path / "link").symlink_to(path)

    assert look_at(path) == look_at(path)
    assert look_at(path).identity == look_at(tmp_path / "link").identity


@pytest.mark.parametrize("is_time_set_back", [False, True])
@pytest.mark.parametrize("is_in_place", [False, True])
def test_archive_that_is_replaced_or_written_to_is_another(tmp_path, is_in_place, is_time_set_back):
    path, new = tmp_path / "app.tar", tmp_path / "new.tar"
    path.write_bytes(b"old")
    os.utime(path, (1, 1))
    before = look_at(path)

    (path if is_in_place else new).write_bytes(b"new")
    if not is_in_place:
        new.rename(path)
    if is_time_set_back:
        os.utime(path, (1, 1))

    assert look_at(path) != before


@pytest.mark.parametrize("document", ["index.json", "oci-layout", "manifest.json"])
def test_directory_is_another_when_a_document_in_it_is(layout, document):
    before = look_at(layout)

    (layout / "new").write_bytes(b"{}")
    (layout / "new").rename(layout / document)

    assert look_at(layout).path == before.path
    assert look_at(layout) != before


def test_directory_to_which_blobs_are_added_is_the_same(layout):
    before = look_at(layout)

    (layout / "blobs" / "sha256" / ("a" * 64)).write_bytes(b"")

    assert look_at(layout) == before


def test_pipe_is_the_same_whatever_comes_through_it(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    before = look_at(tmp_path / "pipe")
    pipe = os.open(tmp_path / "pipe", os.O_RDWR)
    os.write(pipe, b"x")

    assert look_at(tmp_path / "pipe") == before
    assert before.is_pipe
    os.close(pipe)


@pytest.mark.parametrize("path", ["gone", "x" * 300, "file/below", "nul\0"])
def test_what_cannot_be_looked_at_is_left_to_whoever_opens_it(tmp_path, path):
    (tmp_path / "file").write_bytes(b"")

    assert look_at(tmp_path / path).identity is None


@pytest.mark.parametrize("kind", ["pipe", "directory", "dangling link", "link to a device", "link to a pipe"])
def test_what_is_no_file_in_the_archive_directory_is_passed_over(tmp_path, kind):
    planted = tmp_path / f"{APP.stored}.tar"
    planted.parent.mkdir(parents=True, exist_ok=True)
    if kind == "pipe":
        os.mkfifo(planted)
    elif kind == "directory":
        planted.mkdir()
    elif kind == "link to a pipe":
        os.mkfifo(tmp_path / "pipe")
        planted.symlink_to(tmp_path / "pipe")
    else:
        planted.symlink_to("/dev/null" if "device" in kind else "nowhere")

    with pytest.raises(NoArchiveError):
        find_archive(str(tmp_path), None, APP)


def test_archive_is_found_by_its_name_through_a_link(tmp_path):
    (tmp_path / "real.tar").write_bytes(b"x")
    planted = tmp_path / f"{APP.stored.removesuffix(':latest')}.tar"
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.symlink_to(tmp_path / "real.tar")

    assert find_archive(str(tmp_path), None, APP).path == str(planted)


@pytest.mark.parametrize("name", [APP, None])
def test_without_an_archive_there_must_be_a_directory_and_a_name(name):
    with pytest.raises(InvalidInputError, match=r"no archive was given.*load\(archive\)"):
        find_archive(None, None, name)
