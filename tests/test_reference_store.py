from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from support import seams
from support.processes import TIMEOUT

from pykka_imagestore import (
    CheckpointError,
    DiffID,
    Digest,
    DockerImage,
    ImageIncompleteError,
    InvalidNameError,
    MisplacedFileError,
    NotFoundError,
    ReferenceStore,
)
from pykka_imagestore._proto.docker_provisioner_pb2 import DockerProvisionerImages
from pykka_imagestore._proto.journal_pb2 import JournalFrame
from pykka_imagestore.core.journal import HEADER_BYTES, pack_header, parse_frame, parse_header
from pykka_imagestore.durable.checkpoint import read_checkpoint
from pykka_imagestore.durable.disk import Disk
from pykka_imagestore.runtime import collect

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


def test_names_of_one_image_are_one_change_and_a_wrong_one_makes_none(directory: Path) -> None:
    names = [f"image:{number}" for number in range(300)]
    with ReferenceStore.start(directory) as references:
        put = references.put_all(names, [ONE], CONFIG).get(timeout=TIMEOUT)
        with pytest.raises(InvalidNameError):
            references.put_all(["other", "UPPER"], [ONE]).get(timeout=TIMEOUT)

        data = (directory / "storedImages.journal").read_bytes()
        listed = references.list().get(timeout=TIMEOUT)

    frame = parse_frame(data, HEADER_BYTES)
    assert frame is not None
    assert HEADER_BYTES + frame.size_bytes == len(data)
    assert put == tuple(DockerImage(name, (ONE,), CONFIG) for name in names)
    assert set(listed) == set(put)


def test_a_change_is_in_the_journal_before_its_future_is_ready(directory: Path) -> None:
    with ReferenceStore.start(directory) as references:
        references.put("a", [ONE]).get(timeout=TIMEOUT)

        data = (directory / "storedImages.journal").read_bytes()
        assert not (directory / "storedImages").exists()

    frame = parse_frame(data, HEADER_BYTES)
    assert frame is not None
    assert [change.put.name for change in JournalFrame.FromString(frame.payload).changes] == ["a:latest"]
    assert HEADER_BYTES + frame.size_bytes == len(data)


def test_a_store_that_is_closed_leaves_a_checkpoint_and_an_empty_journal(directory: Path) -> None:
    with ReferenceStore.start(directory) as references:
        references.put("a", [ONE]).get(timeout=TIMEOUT)

    data = (directory / "storedImages").read_bytes()
    assert struct.unpack("<I", data[:4])[0] == len(data) - 4
    assert [image.name for image in DockerProvisionerImages.FromString(data[4:]).images] == ["a:latest"]
    assert (directory / "storedImages.journal").read_bytes() == pack_header(1)


def test_a_journal_that_has_grown_is_compacted_while_the_store_is_open(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seams.SMALL_JOURNAL_BYTES, 500)
    with ReferenceStore.start(directory) as references:
        for number in range(30):
            references.put(f"image{number}", [ONE]).get(timeout=TIMEOUT)

        assert len(references.list().get(timeout=TIMEOUT)) == 30
        # The last compaction may be under way.
        assert len(read_checkpoint(directory / "storedImages").images) > 1
        assert (parse_header((directory / "storedImages.journal").read_bytes()) or 0) > 1


def test_puts_that_wait_together_share_a_frame_and_a_sync(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs: list[object] = []
    sync_data = Disk.sync_data
    monkeypatch.setattr(Disk, "sync_data", lambda self, file: syncs.append(file) or sync_data(self, file))

    with ReferenceStore.start(directory) as references:
        references.list().get(timeout=TIMEOUT)
        puts = [references.put(f"image{number}", [ONE]) for number in range(200)]
        collect(puts).get(timeout=TIMEOUT)

        assert len(references.list().get(timeout=TIMEOUT)) == 200
    assert len(syncs) < 50


def test_the_same_put_again_writes_nothing(directory: Path) -> None:
    with ReferenceStore.start(directory) as references:
        references.put("a", [ONE]).get(timeout=TIMEOUT)
        before = (directory / "storedImages.journal").read_bytes()

        references.put("docker.io/library/a:latest", [ONE]).get(timeout=TIMEOUT)

        assert (directory / "storedImages.journal").read_bytes() == before
        assert not (directory / "storedImages").exists()


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
    assert f"image partial:latest is incomplete: the store lacks {gone}" in caplog.text


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


@pytest.mark.parametrize("name", ["storedImages", "storedImages.journal"])
def test_a_checkpoint_that_cannot_be_written_costs_nothing(
    directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    with ReferenceStore.start(directory) as references:
        references.put("a", [ONE]).get(timeout=TIMEOUT)
        (directory / f"{name}.new").mkdir()
        monkeypatch.setattr(seams.SMALL_JOURNAL_BYTES, 100)

        references.put("b", [TWO]).get(timeout=TIMEOUT)
        references.list().get(timeout=TIMEOUT)
    with ReferenceStore.start(directory) as references:
        assert [image.name for image in references.list().get(timeout=TIMEOUT)] == ["a:latest", "b:latest"]

        references.put("c", [TWO]).get(timeout=TIMEOUT)
        (directory / f"{name}.new").rmdir()
    with ReferenceStore.start(directory) as references:
        assert len(references.list().get(timeout=TIMEOUT)) == 3
    assert "the journal grows, since no checkpoint could be written" in caplog.text


def test_a_change_that_cannot_be_written_is_an_error_and_not_made(directory: Path) -> None:
    with ReferenceStore.start(directory) as references:
        references.list().get(timeout=TIMEOUT)
        (directory / "storedImages.journal.new").mkdir()

        with pytest.raises(MisplacedFileError, match=r"storedImages\.journal\.new"):
            references.put("b", [TWO]).get(timeout=TIMEOUT)
        with pytest.raises(NotFoundError):
            references.get("b").get(timeout=TIMEOUT)

        (directory / "storedImages.journal.new").rmdir()
        references.put("c", [TWO]).get(timeout=TIMEOUT)
    with ReferenceStore.start(directory) as references:
        assert [image.name for image in references.list().get(timeout=TIMEOUT)] == ["c:latest"]


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


def test_two_stores_that_write_at_once_lose_nothing_and_see_each_others_images(directory: Path) -> None:
    with ReferenceStore.start(directory) as one, ReferenceStore.start(directory) as other:
        stores = {"one": one, "other": other}
        puts = [store.put(f"{name}{number}", [ONE]) for number in range(50) for name, store in stores.items()]

        images = collect(puts).get(timeout=TIMEOUT)

        expected = tuple(sorted(images, key=lambda image: image.name))
        assert one.list().get(timeout=TIMEOUT) == other.list().get(timeout=TIMEOUT) == expected
    with ReferenceStore.start(directory) as references:
        assert references.list().get(timeout=TIMEOUT) == expected


def test_a_store_whose_directories_another_one_fills_serves_that_at_once(directory: Path) -> None:
    with ReferenceStore.start(directory) as one, ReferenceStore.start(directory) as other:
        with pytest.raises(NotFoundError):
            one.get("a").get(timeout=TIMEOUT)

        put = other.put("a", [ONE]).get(timeout=TIMEOUT)

        assert one.get("a").get(timeout=TIMEOUT) == put
        assert one.remove("a").get(timeout=TIMEOUT) == put
        with pytest.raises(NotFoundError):
            other.get("a").get(timeout=TIMEOUT)


def test_get_notes_the_use_and_list_does_not(directory: Path) -> None:
    (directory / "configs").mkdir()
    config = directory / "configs" / CONFIG.replace(":", "-")
    config.touch()
    with ReferenceStore.start(directory) as references:
        references.put("a", [ONE], CONFIG).get(timeout=TIMEOUT)
        os.utime(config, (1, 1))

        references.list().get(timeout=TIMEOUT)
        before = config.stat().st_mtime
        references.get("a").get(timeout=TIMEOUT)

        assert before == 1
        assert config.stat().st_mtime > 1


def test_a_change_whose_sync_fails_is_written_anew_with_all_others(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ReferenceStore.start(directory) as references:
        references.put("a", [ONE]).get(timeout=TIMEOUT)
        with monkeypatch.context() as broken:
            broken.setattr(Disk, "sync_data", _fail)
            broken.setattr(Disk, "sync_directory", _fail)
            with pytest.raises(OSError, match="injected"):
                references.remove("a").get(timeout=TIMEOUT)

        references.put("b", [ONE]).get(timeout=TIMEOUT)

        data = (directory / "storedImages").read_bytes()
        assert [image.name for image in DockerProvisionerImages.FromString(data[4:]).images] == ["b:latest"]


def test_a_name_that_may_not_have_got_through_is_synced_again(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ReferenceStore.start(directory) as references:
        references.list().get(timeout=TIMEOUT)
        with monkeypatch.context() as broken:
            broken.setattr(Disk, "sync_directory", _fail)
            with pytest.raises(OSError, match="injected"):
                references.put("a", [ONE]).get(timeout=TIMEOUT)
        synced: list[Path] = []
        monkeypatch.setattr(Disk, "sync_directory", lambda _, path: synced.append(path))

        references.put("a", [ONE]).get(timeout=TIMEOUT)

        assert synced == [directory]


def _fail(*_: object) -> None:
    raise OSError("injected")
