"""Layouts whose files are symbolic links, for a caller who asks for links to be followed."""

from __future__ import annotations

import os

import pytest
from support.images import diff_id, layer
from support.layouts import Layout, path_of
from support.processes import TIMEOUT

from pykka_imagestore import ArchiveChangedError, ArchiveError, DigestMismatchError, LocalStore
from pykka_imagestore.jobs.archive.open_blob import open_blob
from pykka_imagestore.jobs.untar_image import UntarImage, untar_image

LAYER = layer({"etc/motd": b"hello"})


@pytest.fixture
def store(tmp_path):
    with LocalStore.start(tmp_path / "store", workers=1, follow_links=True) as store:
        yield store


def linked_layout(directory):
    """Write a layout each of whose files is a link to a file elsewhere, as Bazel makes them."""
    layout = Layout()
    layout.name(layout.manifest(LAYER), "app:1")
    real = layout.write_directory(directory / "real")
    for path in [path for path in real.rglob("*") if path.is_file()]:
        link = directory / "layout" / path.relative_to(real)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    return directory / "layout"


def blob_of_layer(layout):
    """Return the link that is the layer's blob: the one that is no JSON."""
    (path,) = (path for path in (layout / "blobs/sha256").iterdir() if not path.read_bytes().startswith(b"{"))
    return path


def put(store, layout):
    return store.put("app", layout).get(timeout=TIMEOUT)


def test_layout_of_links_is_put(store, tmp_path):
    assert [each.diff_id for each in put(store, linked_layout(tmp_path)).layers] == [diff_id(LAYER)]


@pytest.mark.parametrize("linked", ["blobs", "blobs/sha256"])
def test_layout_whose_directories_are_links_is_put(store, tmp_path, linked):
    layout = Layout()
    layout.name(layout.manifest(LAYER), "app:1")
    path = layout.write_directory(tmp_path / "layout") / linked
    path.rename(tmp_path / "moved")
    path.symlink_to(tmp_path / "moved")

    assert [each.diff_id for each in put(store, tmp_path / "layout").layers] == [diff_id(LAYER)]


def test_links_are_not_followed_unless_asked_for_and_the_sentence_says_how(tmp_path):
    with LocalStore.start(tmp_path / "store", workers=1) as store, pytest.raises(ArchiveError) as caught:
        put(store, linked_layout(tmp_path))

    assert "is no regular file; symbolic links in a directory are not followed unless" in str(caught.value)
    assert "follow_links, or the command with --follow-links" in str(caught.value)


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (os.mkfifo, "is no regular file, but a fifo"),
        (os.mkdir, "is no regular file, but a directory"),
        (lambda path: os.symlink(path, path), "is no regular file"),
        (lambda path: os.symlink("/dev/zero", path), "is no regular file, but a device"),
    ],
)
@pytest.mark.parametrize("which", ["layer", "index.json"])
def test_link_to_no_regular_file_is_refused_and_not_waited_for(store, tmp_path, make, found, which):
    layout = linked_layout(tmp_path)
    link = blob_of_layer(layout) if which == "layer" else layout / which
    link.unlink()
    make(tmp_path / "target")
    link.symlink_to(tmp_path / "target")

    with pytest.raises(ArchiveError, match=found):
        put(store, layout)


def test_link_that_leads_nowhere_is_a_blob_that_is_missing(store, tmp_path):
    layout = linked_layout(tmp_path)
    blob_of_layer(layout).resolve().unlink()

    with pytest.raises(ArchiveError, match="is missing"):
        put(store, layout)


def test_link_to_other_bytes_is_found_by_their_digest(store, tmp_path):
    layout = linked_layout(tmp_path)
    link = blob_of_layer(layout)
    (tmp_path / "secret").write_bytes(bytes(link.stat().st_size))
    link.unlink()
    link.symlink_to(tmp_path / "secret")

    with pytest.raises(DigestMismatchError):
        put(store, layout)


@pytest.mark.parametrize("name", ["../secret", "blobs/../../secret"])
def test_names_still_lead_nowhere_but_into_the_directory(store, tmp_path, name):
    layout = Layout()
    descriptor = layout.manifest(LAYER)
    layout.name({**descriptor, "digest": f"sha256:{name}"}, "app:1")

    with pytest.raises(ArchiveError, match="digest"):
        put(store, layout.write_directory(tmp_path / "layout"))


def test_link_that_is_turned_elsewhere_after_the_layout_was_indexed_is_noticed(tmp_path):
    layout = linked_layout(tmp_path)
    (image,) = untar_image(UntarImage(str(layout), str(tmp_path / "copy"), follow_links=True)).images
    link = layout / path_of(str(image.layers[0].digest))
    (tmp_path / "other").write_bytes(link.read_bytes())
    link.unlink()
    link.symlink_to(tmp_path / "other")

    with pytest.raises(ArchiveChangedError), open_blob(image.layers[0], is_verified=True):
        pass
