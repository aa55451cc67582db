from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from pykka_imagestore import (
    CheckpointError,
    DiffID,
    Digest,
    DockerImage,
    ImageIncompleteError,
    InvalidNameError,
    NotFoundError,
    ReferenceStore,
)
from pykka_imagestore._proto.docker_provisioner_pb2 import DockerProvisionerImages
from pykka_imagestore.durable.disk import Disk
from pykka_imagestore.runtime import collect

TIMEOUT = 30
ONE, TWO = DiffID(f"sha256:{'1' * 64}"), DiffID(f"sha256:{'2' * 64}")
CONFIG = Digest(f"sha256:{'c' * 64}")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for layer in (ONE, TWO):
        (tmp_path / "layers" / layer.replace(":", "-")).mkdir(parents=True)
    return tmp_path


def test_a_put_image_is_there_again_after_a_restart(directory: Path) -> None:
    with ReferenceStore.start(directory) as references:
        put = references.put("ubuntu", [ONE, TWO], CONFIG).get(timeout=TIMEOUT)

    with ReferenceStore.start(directory) as references:
        assert references.recover().get(timeout=TIMEOUT) == (put,)
        assert references.get("docker.io/library/ubuntu:latest").get(timeout=TIMEOUT) == put
    assert put == DockerImage("ubuntu:latest", (ONE, TWO), CONFIG)


def test_the_checkpoint_is_written_before_the_future_is_ready(directory: Path) -> None:
    with ReferenceStore.start(directory) as references:
        references.put("a", [ONE]).get(timeout=TIMEOUT)

        data = (directory / "storedImages").read_bytes()

    assert struct.unpack("<I", data[:4])[0] == len(data) - 4
    assert [image.name for image in DockerProvisionerImages.FromString(data[4:]).images] == ["a:latest"]


def test_puts_that_wait_together_share_a_checkpoint(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    renames: list[object] = []
    rename = Path.rename
    monkeypatch.setattr(Path, "rename", lambda self, target: renames.append(target) or rename(self, target))

    with ReferenceStore.start(directory) as references:
        references.list().get(timeout=TIMEOUT)
        puts = [references.put(f"image{number}", [ONE]) for number in range(200)]
        collect(puts).get(timeout=TIMEOUT)

        assert len(references.list().get(timeout=TIMEOUT)) == 200
    assert len(renames) < 50


def test_the_same_put_again_writes_nothing(directory: Path) -> None:
    with ReferenceStore.start(directory) as references:
        references.put("a", [ONE]).get(timeout=TIMEOUT)
        before = os.stat(directory / "storedImages").st_ino

        references.put("docker.io/library/a:latest", [ONE]).get(timeout=TIMEOUT)

        assert os.stat(directory / "storedImages").st_ino == before


def test_an_image_put_again_is_replaced(directory: Path) -> None:
    with ReferenceStore.start(directory) as references:
        references.put("a", [ONE]).get(timeout=TIMEOUT)
        references.put("a", [TWO]).get(timeout=TIMEOUT)

        assert references.get("a").get(timeout=TIMEOUT).layer_ids == (TWO,)
        assert len(references.list().get(timeout=TIMEOUT)) == 1


def test_images_with_missing_layers_are_logged_listed_and_not_served(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gone = DiffID(f"sha256:{'9' * 64}")
    with ReferenceStore.start(directory) as references:
        references.put("whole", [ONE]).get(timeout=TIMEOUT)
        references.put("partial", [ONE, gone]).get(timeout=TIMEOUT)

    with ReferenceStore.start(directory) as references:
        images = references.recover().get(timeout=TIMEOUT)

        assert [(image.name, image.missing) for image in images] == [("partial:latest", (gone,)), ("whole:latest", ())]
        with pytest.raises(ImageIncompleteError, match=gone):
            references.get("partial").get(timeout=TIMEOUT)
    assert f"image partial:latest is incomplete: {gone}" in caplog.text


def test_a_checkpoint_that_mesos_wrote_is_read(directory: Path) -> None:
    message = DockerProvisionerImages()
    message.images.add(name="busybox", layer_ids=["123", "../../456"])
    data = message.SerializeToString()
    (directory / "storedImages").write_bytes(struct.pack("<I", len(data)) + data)

    with ReferenceStore.start(directory) as references:
        (image,) = references.list().get(timeout=TIMEOUT)

    assert (image.name, image.layer_ids, image.missing) == (
        "busybox:latest",
        ("123", "../../456"),
        ("123", "../../456"),
    )


@pytest.mark.parametrize("data", [b"\x01", b"\x05\x00\x00\x00\x0a", b"\x02\x00\x00\x00\xff\xff", b"\x00\x00\x00\x00x"])
def test_an_unreadable_checkpoint_is_an_error_and_is_never_overwritten(directory: Path, data: bytes) -> None:
    (directory / "storedImages").write_bytes(data)

    with ReferenceStore.start(directory) as references:
        for future in (references.recover(), references.list(), references.put("a", [ONE]), references.remove("a")):
            with pytest.raises(CheckpointError, match=r"storedImages: .* It was left as it is"):
                future.get(timeout=TIMEOUT)

    assert (directory / "storedImages").read_bytes() == data


def test_a_checkpoint_put_right_is_read_by_the_next_call(directory: Path) -> None:
    (directory / "storedImages").write_bytes(b"\x01")
    with ReferenceStore.start(directory) as references:
        with pytest.raises(CheckpointError):
            references.recover().get(timeout=TIMEOUT)

        (directory / "storedImages").unlink()

        assert references.recover().get(timeout=TIMEOUT) == ()


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(directory: Path) -> None:
    with ReferenceStore.start(directory) as references:
        references.put("a", [ONE]).get(timeout=TIMEOUT)
        (directory / "storedImages.new").mkdir()

        with pytest.raises(OSError, match=r"storedImages\.new"):
            references.put("b", [TWO]).get(timeout=TIMEOUT)
        with pytest.raises(NotFoundError):
            references.get("b").get(timeout=TIMEOUT)

        (directory / "storedImages.new").rmdir()
        references.put("c", [TWO]).get(timeout=TIMEOUT)
    with ReferenceStore.start(directory) as references:
        assert [image.name for image in references.list().get(timeout=TIMEOUT)] == ["a:latest", "c:latest"]


def test_remove_forgets_an_image_for_good(directory: Path) -> None:
    with ReferenceStore.start(directory) as references:
        put = references.put("a", [ONE]).get(timeout=TIMEOUT)

        assert references.remove("a").get(timeout=TIMEOUT) == put
        with pytest.raises(NotFoundError, match="no image a:latest is in the store"):
            references.get("a").get(timeout=TIMEOUT)
    with ReferenceStore.start(directory) as references:
        assert references.list().get(timeout=TIMEOUT) == ()


def test_what_is_no_name_is_refused(directory: Path) -> None:
    with ReferenceStore.start(directory) as references:
        for future in (references.put("A", [ONE]), references.get("a b"), references.remove("")):
            with pytest.raises(InvalidNameError):
                future.get(timeout=TIMEOUT)


def test_close_makes_the_changes_asked_for_and_is_idempotent(directory: Path) -> None:
    references = ReferenceStore.start(directory)
    puts = [references.put(f"image{number}", [ONE]) for number in range(20)]

    references.close()
    references.close()

    assert all(put.get(timeout=TIMEOUT) for put in puts)
    with ReferenceStore.start(directory) as reopened:
        assert len(reopened.list().get(timeout=TIMEOUT)) == 20


def test_two_stores_that_write_at_once_never_tear_the_checkpoint(directory: Path) -> None:
    with ReferenceStore.start(directory) as one, ReferenceStore.start(directory) as other:
        puts = [references.put(f"image{number}", [ONE]) for number in range(50) for references in (one, other)]

        collect(puts).get(timeout=TIMEOUT)

    with ReferenceStore.start(directory) as references:
        assert references.list().get(timeout=TIMEOUT)


def test_a_checkpoint_that_may_have_got_through_is_written_again(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ReferenceStore.start(directory) as references:
        references.put("a", [ONE]).get(timeout=TIMEOUT)
        with monkeypatch.context() as broken:
            broken.setattr(Disk, "sync_folder", _fail)
            with pytest.raises(OSError, match="injected"):
                references.remove("a").get(timeout=TIMEOUT)

        references.put("a", [ONE]).get(timeout=TIMEOUT)

    with ReferenceStore.start(directory) as references:
        assert references.get("a").get(timeout=TIMEOUT).name == "a:latest"


def _fail(*_: object) -> None:
    raise OSError("injected")
