"""What a check finds of a whole store: its images, configs and journal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.images import diff_id, docker_save, layer
from support.processes import TIMEOUT
from support.stores import opened

from pykka_imagestore import CheckpointError, Finding, ReferenceStore
from pykka_imagestore.core.digest import DiffID, Digest, sha256

BASE, APP, OTHER = layer({"base": b"1"}), layer({"app": b"2"}), layer({"other": b"3"})
IDS = [DiffID(diff_id(data)) for data in (BASE, APP, OTHER)]


@pytest.fixture
def store(tmp_path):
    archive = docker_save(tmp_path / "a.tar", {"app:1": [BASE, APP], "other:1": [OTHER]})
    with opened(tmp_path / "store", durable=False) as store:
        [store.put(name, archive).get(timeout=TIMEOUT) for name in ("app:1", "other:1")]
    return tmp_path / "store"


def check(directory: Path):
    with opened(directory) as store:
        return store.check().get(timeout=TIMEOUT)


def put_reference(directory: Path, name: str, layers, config: Digest | None) -> None:
    with ReferenceStore.start(directory) as references:
        references.put(name, layers, config).get(timeout=TIMEOUT)


def config_of(directory: Path, name: str) -> Digest:
    with opened(directory, durable=False) as store:
        digest = store.get(name).get(timeout=TIMEOUT).config_digest
    assert digest is not None
    return digest


def test_sound_store_has_no_faults(store):
    report = check(store)

    assert (report.images, report.layers, report.configs) == (2, 3, 2)
    assert (report.faults, report.unchecked) == ((), ())


@pytest.mark.parametrize(
    "layers", [IDS[1::-1], IDS[:1], [*IDS[:2], IDS[2]], IDS[2:], [IDS[0], IDS[0], IDS[1]]], ids=str
)
def test_image_with_other_layers_than_its_config_lists_is_found(store, layers):
    config = config_of(store, "app:1")
    put_reference(store, "app:1", layers, config)

    assert check(store).faults == (
        Finding("image", "app:1", f"has other layers than its config {config} lists; put it again"),
    )


def test_image_with_the_config_of_another_is_found_and_the_other_is_not(store):
    config = config_of(store, "other:1")
    put_reference(store, "app:1", IDS[:2], config)

    assert [fault.name for fault in check(store).faults] == ["app:1"]


def test_image_under_another_name_and_one_without_a_config_are_sound(store):
    put_reference(store, "same:1", IDS[:2], config_of(store, "app:1"))
    put_reference(store, "mesos:1", IDS[:1], None)

    assert check(store).faults == ()


@pytest.mark.parametrize("config", [b"{}", b"?", json.dumps({"rootfs": {"diff_ids": ["sha256:1"]}}).encode()])
def test_config_that_lists_no_layers_leaves_its_image_unchecked(store, config):
    (store / "configs" / sha256(config).replace(":", "-")).write_bytes(config)
    put_reference(store, "odd:1", IDS[:1], sha256(config))

    report = check(store)

    assert report.faults == ()
    assert [(finding.kind, finding.name) for finding in report.unchecked] == [("config", sha256(config))]
    assert report.unchecked[0].reason.startswith("does not tell which layers its images have: ")


def test_flipped_bit_of_the_images_is_found_wherever_it_is(store):
    path = store / "storedImages"
    sound = path.read_bytes()
    assert b"app:1" in sound  # and not only in the journal
    for position in range(0, len(sound), 7):
        path.write_bytes(sound[:position] + bytes([sound[position] ^ 1 << position % 8]) + sound[position + 1 :])

        with pytest.raises(CheckpointError, match="storedImages"):
            check(store)


def journal_of(store: Path) -> Path:
    """Return a journal with changes in it, such as a store leaves that is killed."""
    journal = store / "storedImages.journal"
    with ReferenceStore.start(store) as references:
        for number in range(3):
            references.put(f"more:{number}", IDS[:1]).get(timeout=TIMEOUT)
        data = journal.read_bytes()
        images = (store / "storedImages").read_bytes()
    journal.write_bytes(data), (store / "storedImages").write_bytes(images)
    return journal


def test_flipped_bit_of_the_journal_is_found_or_what_follows_is_told_to_be_no_change(store):
    journal = journal_of(store)
    sound = journal.read_bytes()
    assert sound.count(b"more:") == 3
    for position in range(0, len(sound), 5):
        journal.write_bytes(sound[:position] + bytes([sound[position] ^ 1 << position % 8]) + sound[position + 1 :])
        try:
            report = check(store)
        except CheckpointError:
            continue

        (finding,) = report.unchecked
        assert (finding.kind, finding.name) == ("journal", "storedImages.journal")
        assert position >= sound.rindex(b"more:2") - 60
    journal.write_bytes(sound)
    assert check(store).unchecked == ()
