"""Layers that speak of those below them: what a put says of them, and what callers are told."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import seams, tars
from support.images import diff_id, docker_save
from support.processes import TIMEOUT

from pykka_imagestore import LocalStore, StackError
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable import layer_record
from pykka_imagestore.durable.layer_facts import LayerFacts

BASE = tars.tar(tars.file(b"f", b"body"), tars.directory(b"d"))
LINKED = tars.tar(tars.hard_link(b"l", b"f"))
DELETING = tars.tar(tars.whiteout(b"f"))


def put(store: LocalStore, directory: Path, *layers: bytes) -> None:
    archive = docker_save(directory / "image.tar", {"a:1": layers})
    store.put("a:1", archive).get(timeout=TIMEOUT)


def test_image_whose_hard_links_lead_to_files_below_is_put(store: LocalStore, tmp_path: Path) -> None:
    put(store, tmp_path, BASE, LINKED)

    assert [image.name for image in store.list().get(timeout=TIMEOUT)] == ["a:1"]


@pytest.mark.parametrize("layers", [[LINKED], [LINKED, BASE], [DELETING, LINKED], [BASE, DELETING, LINKED]])
def test_image_whose_hard_links_lead_nowhere_is_refused_each_time(
    store: LocalStore, tmp_path: Path, layers: list[bytes]
) -> None:
    for _ in range(2):
        with pytest.raises(StackError, match=r"has a hard link 'l' to 'f', which no layer below it has") as refused:
            put(store, tmp_path, *layers)
        assert refused.value.layer == diff_id(LINKED)

    assert store.list().get(timeout=TIMEOUT) == ()
    put(store, tmp_path, BASE, LINKED)


@pytest.mark.root
def test_layers_tell_how_they_keep_deletions(store: LocalStore, tmp_path: Path) -> None:
    archive = docker_save(tmp_path / "image.tar", {"a:1": [BASE, DELETING]})

    image = store.put("a:1", archive).get(timeout=TIMEOUT)

    assert [layer.whiteouts for layer in image.layers] == ["none", "trusted"]
    found = store.get("a:1").get(timeout=TIMEOUT)
    assert [layer.whiteouts for layer in found.layers] == ["none", "trusted"]
    with store.get("a:1", lease=True).get(timeout=TIMEOUT) as leased:
        assert [layer.whiteouts for layer in leased.image.layers] == ["none", "trusted"]
    (listed,) = store.list().get(timeout=TIMEOUT)
    assert [layer.whiteouts for layer in listed.layers] == [None, None]
    assert found == listed == image


def test_record_is_read_once_until_the_layer_is_another(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, tmp_path, BASE)
    paths = StorePaths(tmp_path / "store")
    facts, reads, read = LayerFacts(paths), [], layer_record.read_record
    monkeypatch.setattr(seams.READ_RECORD, lambda directory: reads.append(directory) or read(directory))

    for _ in range(3):
        assert facts.whiteouts(diff_id(BASE)) == "none"
    assert len(reads) == 1
    record = paths.layer(diff_id(BASE)) / "layer.pb"
    record.write_bytes(b"damaged")
    assert facts.whiteouts(diff_id(BASE)) is None
    record.unlink()
    assert facts.whiteouts(diff_id(BASE)) is None
    assert len(reads) == 2
