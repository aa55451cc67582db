from __future__ import annotations

import gzip
import os
import socket
from dataclasses import replace

import pytest
from support import seams
from support.images import layer
from support.layouts import Layout

from pykka_imagestore.core.digest import sha256
from pykka_imagestore.core.format_error import FormatError
from pykka_imagestore.core.identity import FileIdentity
from pykka_imagestore.core.layer_blob import DirectoryMember, LayerBlob
from pykka_imagestore.core.limits import DEFAULT_LIMITS
from pykka_imagestore.core.totals import Totals
from pykka_imagestore.errors import ArchiveChangedError
from pykka_imagestore.jobs.archive import estimates
from pykka_imagestore.jobs.archive.directory_members import DirectoryMembers
from pykka_imagestore.jobs.archive.file_source import FileSource
from pykka_imagestore.jobs.archive.json_reader import MAX_JSON_BYTES
from pykka_imagestore.jobs.archive.open_blob import open_blob
from pykka_imagestore.jobs.untar_image import UntarImage, untar_image

BASE = layer({"etc/motd": b"hello"})


@pytest.fixture
def directory(tmp_path):
    """Return the path of a directory, and it as members; a secret lies beside it."""
    (tmp_path / "secret").write_bytes(b"secret")
    path = tmp_path / "layout"
    (path / "blobs").mkdir(parents=True)
    (path / "blobs" / "one").write_bytes(b"hello")
    descriptor = os.open(path, os.O_RDONLY)
    yield path, DirectoryMembers(str(path), descriptor, Totals())
    os.close(descriptor)


def test_layers_of_a_directory_are_found_where_they_lie(tmp_path):
    layout = Layout()
    layout.name(layout.manifest(BASE), "app:1")
    path = layout.write_directory(tmp_path / "layout")

    (image,) = untar_image(UntarImage(str(path), str(tmp_path / "inflated.tar"))).images

    with open_blob(image.layers[0], is_verified=True) as source:
        assert sha256(source.read()) == image.layers[0].digest
    assert not (tmp_path / "inflated.tar").exists()


def test_entries_of_a_layer_in_a_directory_are_estimated(tmp_path):
    small_files = layer({str(number): b"x" for number in range(500)})
    layout = Layout()
    blob = layout.blob(small_files, "application/vnd.oci.image.layer.v1.tar")
    layout.name(layout.manifest(small_files, fields={"layers": [blob]}), "app:1")

    (image,) = untar_image(UntarImage(str(layout.write_directory(tmp_path / "layout")), "inflated")).images

    assert 400 < image.layers[0].estimate.entries < 600


def test_blob_that_is_a_layer_many_times_is_looked_at_once(tmp_path, monkeypatch):
    big = layer({"big": bytes(4 << 20)})
    layout = Layout()
    blob = layout.blob(big, "application/vnd.oci.image.layer.v1.tar")
    manifest = layout.manifest(fields={"layers": [blob] * 200}, config=layout.config(*[big] * 200))
    layout.name(manifest, "app:1")
    looked_at = []
    monkeypatch.setattr(seams.ESTIMATE_ENTRIES, lambda size, samples: len(looked_at.append(size) or samples))

    (image,) = untar_image(UntarImage(str(layout.write_directory(tmp_path / "layout")), "inflated")).images

    assert len(image.layers) == 200
    assert looked_at == [len(big)]


def test_samples_of_very_many_layers_have_a_total(directory, monkeypatch):
    path, members = directory
    (path / "layer").write_bytes(gzip.compress(bytes(4 << 20)))
    layer = members.blob("layer")
    sampled, read_some = [], estimates.read_some
    monkeypatch.setattr(seams.READ_SAMPLE, lambda *args: (sampled.append(args[1]), read_some(*args))[1])
    monkeypatch.setattr(seams.SAMPLES_BYTES, 32 << 20)
    estimator, file = estimates.Estimator(), os.open(path / "layer", os.O_RDONLY)
    others = [replace(layer, location=replace(layer.location, name=f"{number}")) for number in range(2000)]

    found = [estimator.estimate(each, FileSource(file, "layer", 0, layer.size)) for each in others]

    assert found[0].estimate.inflated_bytes == 1 << 19
    assert sum(sampled) < 80 << 20  # whole samples would be four gigabytes
    os.close(file)


def test_directory_may_be_reached_by_a_symbolic_link(tmp_path):
    layout = Layout()
    layout.name(layout.manifest(BASE), "app:1")
    layout.write_directory(tmp_path / "layout")
    (tmp_path / "link").symlink_to("layout")

    assert len(untar_image(UntarImage(str(tmp_path / "link"), "inflated")).images) == 1


def test_member_is_found_however_it_is_spelled(directory):
    _, members = directory

    for name in ("blobs/one", "./blobs//one", "/blobs/one", "x/../blobs/one"):
        assert members.has(name)
        assert members.read_json(name) == b"hello"


@pytest.mark.parametrize("name", ["gone", "blobs/gone", "gone/one", "x" * 300])
def test_member_that_is_not_there(directory, name):
    _, members = directory

    assert not members.has(name)
    with pytest.raises(FormatError, match=r"it has no member '"):
        members.blob(name)


@pytest.mark.parametrize("name", ["..", "../secret", "blobs/../../secret", "", ".", "\0", "\ud800", "a/" * 5000])
def test_name_that_leads_out_or_is_none(directory, name):
    _, members = directory

    with pytest.raises(FormatError, match=r"it names a member '.*' that (is no|points outside|has a path of)"):
        members.read_json(name)


@pytest.mark.parametrize("target", ["../secret", "blobs/one", "/etc/passwd", "nowhere", "link"])
def test_member_that_is_a_symbolic_link(directory, target):
    path, members = directory
    (path / "link").symlink_to(target)

    assert members.has("link")
    for read in (members.blob, members.read_json):
        with pytest.raises(
            FormatError, match=r"'link' is no regular file; symbolic links in a directory are not followed"
        ):
            read("link")
    linked = LayerBlob("link", 5, DirectoryMember(str(path), "link", FileIdentity(1, 1)))
    with pytest.raises(ArchiveChangedError, match=r"is no regular file"), open_blob(linked, is_verified=True):
        pass


@pytest.mark.parametrize("target", ["..", "blobs", "/etc"])
def test_member_behind_a_symbolic_link(directory, target):
    path, members = directory
    (path / "link").symlink_to(target)

    for name in ("link/one", "link/secret", "link/passwd"):
        with pytest.raises(FormatError, match=r"is no regular file"):
            members.read_json(name)


@pytest.mark.parametrize("kind", ["fifo", "socket", "directory"])
def test_member_that_is_no_file(directory, monkeypatch, kind):
    path, members = directory
    monkeypatch.chdir(path)
    if kind == "fifo":
        os.mkfifo("odd")
    elif kind == "directory":
        os.mkdir("odd")
    else:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("odd")

    with pytest.raises(FormatError, match=r"'odd' is no regular file"):
        members.read_json("odd")


@pytest.mark.root
def test_member_that_is_a_device_is_not_even_opened(directory):
    path, members = directory
    os.mknod(path / "odd", 0o20600, os.makedev(10, 130))  # opening the watchdog starts it

    with pytest.raises(FormatError, match=r"'odd' is no regular file"):
        members.blob("odd")


def test_json_is_bounded_by_itself_and_all_together(directory):
    path, members = directory
    os.truncate(path / "blobs" / "one", MAX_JSON_BYTES + 1)
    with pytest.raises(FormatError, match=rf"has {MAX_JSON_BYTES + 1} bytes; {MAX_JSON_BYTES} is the limit for JSON"):
        members.read_json("blobs/one")

    os.truncate(path / "blobs" / "one", MAX_JSON_BYTES)
    for _ in range(DEFAULT_LIMITS.json_bytes // MAX_JSON_BYTES):
        members.read_json("blobs/one")
    with pytest.raises(FormatError, match=r"bytes of JSON; 67108864 is the limit"):
        members.read_json("blobs/one")


def test_no_descriptor_is_left_open(directory):
    path, members = directory
    (path / "link").symlink_to("blobs")
    before = os.listdir("/proc/self/fd")

    members.read_json("blobs/one")
    members.has("gone/x")
    for name in ("link/one", "blobs", "blobs/gone"):
        with pytest.raises(FormatError):
            members.blob(name)

    assert os.listdir("/proc/self/fd") == before
