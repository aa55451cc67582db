"""The verbs that look after a store: prune, du, check and repair."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from support.images import diff_id, docker_save, layer
from support.processes import TIMEOUT

from pykka_imagestore import LocalStore

BASE, APP, OTHER = (layer({f"{name}/file": name.encode().ljust(30_000, b".")}) for name in ("base", "app", "other"))


@pytest.fixture(scope="session")
def put_two_once(tmp_path_factory):
    directory = tmp_path_factory.mktemp("two")
    with LocalStore.start(directory / "store", durable=False) as store:
        for name, layers in {"old:1": [BASE, APP], "new:1": [BASE, OTHER]}.items():
            archive = docker_save(directory / "archive.tar", {name: layers}, config={"Env": [f"N={name}"]})
            store.put(name, archive).get(timeout=TIMEOUT)
    return directory / "store"


@pytest.fixture
def stored(imagestore, put_two_once):
    """Return a command line whose store has two images that share a layer; the first was used long ago."""
    shutil.copytree(put_two_once, imagestore.store, symlinks=True)
    for config in (imagestore.store / "configs").iterdir():
        if b"old:1" in config.read_bytes():
            os.utime(config, (1_000_000_000, 1_000_000_000))
    return imagestore


def layer_directory(store: Path, tar: bytes) -> Path:
    return store / "layers" / diff_id(tar).replace(":", "-")


def damage(store: Path, tar: bytes) -> None:
    (file,) = [path for path in (layer_directory(store, tar) / "rootfs").rglob("*") if path.is_file()]
    with file.open("r+b") as opened:
        opened.write(b"X")


OWN, KEPT = 58_634, 112_718  # bytes of one image alone, and of both that it has


def listed(imagestore) -> list[str]:
    return [image["name"] for image in json.loads(imagestore("list", "--json").stdout)]


# -- prune


def test_prune_alone_removes_no_image(stored):
    done = stored("prune")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "freed 0 B in 0 layers; 167 KiB are left\n"
    assert listed(stored) == ["new:1", "old:1"]


def test_prune_removes_what_was_not_used_and_its_layers(stored):
    done = stored("prune", "--unused-for", "7d")

    assert done.stdout == "removed old:1\nfreed 57.3 KiB in 1 layer; 110 KiB are left\n"
    assert listed(stored) == ["new:1"]
    assert not layer_directory(stored.store, APP).exists()
    assert layer_directory(stored.store, BASE).is_dir()
    assert list((stored.store / "gc").iterdir()) == []


def test_prune_to_a_budget_begins_with_the_least_recently_used(stored):
    done = stored("prune", "--budget", "120K", "--json")

    pruned = json.loads(done.stdout)
    assert (pruned["images"], pruned["layers"], pruned["out_of_reach"]) == (["old:1"], [diff_id(APP)], False)
    assert (pruned["freed_bytes"], pruned["kept_bytes"]) == (OWN, KEPT)
    assert pruned["least_bytes"] == pruned["least_inodes"] == 0
    assert (pruned["freed_inodes"], pruned["kept_inodes"]) == (7, 13)


def test_prune_says_that_a_budget_cannot_be_kept_and_removes_nothing_for_it(stored):
    with LocalStore.start(stored.store) as store, store.get("old:1", lease=True).get(timeout=TIMEOUT):
        done = stored("prune", "--budget", "50K")

    assert "cannot be kept: 110 KiB and 13 inodes are leased, being put, to be kept, or needed by con" in done.stdout
    assert listed(stored) == ["new:1", "old:1"]


def test_prune_to_a_budget_of_inodes(stored):
    assert stored("prune", "--budget-inodes", "15").stdout.startswith("removed old:1\n")
    assert listed(stored) == ["new:1"]


def test_dry_run_tells_what_would_go_and_changes_nothing(stored):
    done = stored("prune", "--budget", "120K", "--dry-run")

    assert done.stdout == "would remove old:1\nwould free 57.3 KiB in 1 layer; 110 KiB are left\n"
    assert listed(stored) == ["new:1", "old:1"]
    assert layer_directory(stored.store, APP).is_dir()


def test_prune_keeps_what_it_is_told_to(stored):
    done = stored("prune", "--budget", "0", "--keep", "docker.io/library/old:1")

    assert done.stdout.startswith("removed new:1\n")
    assert listed(stored) == ["old:1"]


@pytest.mark.parametrize("verb", ["prune", "du", "check", "repair"])
def test_verb_without_a_store_says_so_and_makes_none(imagestore, verb):
    done = imagestore(verb)

    assert (done.returncode, done.stdout) == (1, "")
    assert "there is no image store" in done.stderr
    assert not imagestore.store.exists()


# -- du


def test_du_tells_what_is_shared_and_what_is_not(stored):
    lines = [line.split() for line in stored("du").stdout.splitlines()]

    assert lines[0] == ["IMAGE", "SIZE", "OWN", "INODES", "LAST", "USED"]
    assert lines[1][:6] == ["new:1", "110", "KiB", "57.3", "KiB", "13"]
    assert lines[2] == ["old:1", "110", "KiB", "57.3", "KiB", "13", "2001-09-09T01:46:40Z"]
    assert lines[3] == ["all", "of", "the", "store", "167", "KiB", "20"]


def test_du_with_layers_tells_whose_they_are(stored):
    lines = stored("du", "--layers").stdout.splitlines()

    assert [diff_id(BASE), "52.8", "KiB", "6", "new:1,", "old:1"] in [line.split() for line in lines]


def test_du_with_json_has_numbers(stored):
    usage = json.loads(stored("du", "--json").stdout)

    (base,) = (layer for layer in usage["layers"] if layer["diff_id"] == diff_id(BASE))
    assert (base["inodes"], base["images"]) == (6, ["new:1", "old:1"])
    assert (usage["bytes"], usage["unused_bytes"], usage["inodes"]) == (OWN + KEPT, 0, 20)
    assert usage["images"][1] == {
        "name": "old:1",
        "bytes": OWN + base["bytes"],
        "own_bytes": OWN,
        "inodes": 13,
        "last_used": "2001-09-09T01:46:40Z",
    }


def test_get_makes_an_image_used(stored):
    stored("get", "old:1")

    assert "2001" not in stored("du").stdout


def test_du_tells_who_has_leases(stored):
    with LocalStore.start(stored.store) as store, store.get("old:1", lease=True).get(timeout=TIMEOUT):
        lines = [line.split() for line in stored("du").stdout.splitlines()]
        document = json.loads(stored("du", "--json").stdout)

    assert lines[-2:] == [["LEASE", "PROCESS", "LAYERS"], ["lease", "of", "old:1", str(os.getpid()), "2"]]
    (lease,) = document["leases"]
    assert (lease["process"], set(lease["layers"])) == (os.getpid(), {diff_id(BASE), diff_id(APP)})
    assert "LEASE" not in stored("du").stdout


# -- check and repair


def test_damage_that_somebody_needs_is_left_in_and_said(stored):
    damage(stored.store, APP)
    with LocalStore.start(stored.store) as store, store.get("old:1", lease=True).get(timeout=TIMEOUT):
        repaired = stored("repair", "--deep")

    again = "run imagestore repair --deep again"
    assert f"left {diff_id(APP)} in: somebody needs it now; {again} later\n" in repaired.stdout
    assert repaired.stderr.endswith(f"; {again} when nobody needs what was left in\n")
    assert layer_directory(stored.store, APP).is_dir()


@pytest.mark.parametrize("options", [(), ("--deep",)])
def test_check_of_a_sound_store_finds_nothing_and_changes_nothing(stored, options):
    before = sorted(str(path) for path in stored.store.rglob("*"))

    done = stored("check", *options)

    assert (done.returncode, done.stderr) == (0, "")
    read = r"; 93 KiB read in \d+\.\d s" if options else ""
    assert re.fullmatch(f"2 images, 3 layers, 2 configs: 0 faults{read}\n", done.stdout)
    assert sorted(str(path) for path in stored.store.rglob("*")) == before


def test_quick_check_does_not_see_a_changed_byte_and_the_deep_one_does(stored):
    damage(stored.store, APP)

    quick, deep = stored("check"), stored("check", "--deep", "--json")

    report = json.loads(deep.stdout)
    assert (quick.returncode, deep.returncode) == (0, 1)
    assert {(fault["kind"], fault["name"]) for fault in report["faults"]} == {
        ("layer", diff_id(APP)),
        ("image", "old:1"),
    }
    assert report["taken_out"] == []


@pytest.mark.parametrize("options", [(), ("--deep",)])
def test_check_says_which_repair_takes_out_what_it_found(stored, options):
    if options:
        damage(stored.store, APP)
    else:
        (layer_directory(stored.store, APP) / "layer.pb").write_bytes(b"damaged")

    checked = stored("check", *options)
    repaired = stored("repair", *options)

    repair = " ".join(("repair", *options))
    assert checked.stderr.endswith(f"; run imagestore {repair}, then put the faulty images again\n")
    assert f"took out {diff_id(APP)}\n" in repaired.stdout
    assert repaired.stderr.endswith(f" in {stored.store}; put the faulty images again\n")


def test_check_asks_for_no_repair_where_layers_are_missing(stored):
    layer_directory(stored.store, OTHER).rename(stored.store.parent / "moved")

    for verb in ("check", "repair"):
        done = stored(verb)
        assert done.stderr == f"imagestore: found 1 fault in {stored.store}; put the faulty images again\n"


def test_repair_of_what_no_image_has_leaves_nothing_to_do(stored):
    (stored.store / "configs" / f"sha256-{'0' * 64}").write_bytes(b"{}")

    checked, repaired = stored("check"), stored("repair")

    assert checked.stderr.endswith("; run imagestore repair\n")
    assert repaired.stderr.endswith("; what was damaged is taken out, and no image needs it\n")
    assert stored("check").returncode == 0


def test_repair_takes_out_what_is_damaged_and_a_put_brings_it_back(stored, tmp_path):
    damage(stored.store, APP)

    repaired = stored("repair", "--deep")

    assert repaired.returncode == 1
    assert f"took out {diff_id(APP)}\n" in repaired.stdout
    assert not layer_directory(stored.store, APP).exists()
    assert layer_directory(stored.store, BASE).is_dir()
    assert stored("get", "old:1").returncode == 1
    archive = docker_save(tmp_path / "again.tar", {"old:1": [BASE, APP]}, config={"Env": ["N=old:1"]})
    assert stored("put", archive).returncode == 0
    assert stored("check", "--deep").returncode == 0


def test_damaged_config_is_found_and_repaired(stored, tmp_path):
    config = next(path for path in (stored.store / "configs").iterdir() if b"old:1" in path.read_bytes())
    config.write_bytes(b"{}")

    repaired = stored("repair", "--json")

    digest = config.name.replace("-", ":")
    assert digest in json.loads(repaired.stdout)["taken_out"]
    assert not config.exists()
    assert "lacks its config" in stored("check").stdout
    archive = docker_save(tmp_path / "again.tar", {"old:1": [BASE, APP]}, config={"Env": ["N=old:1"]})
    assert stored("put", archive).returncode == 0
    assert stored("check").returncode == 0


def test_image_without_a_layer_is_a_fault_of_the_image(stored):
    layer_directory(stored.store, OTHER).rename(stored.store.parent / "moved")

    done = stored("check")

    assert done.stdout.startswith(f"image new:1 lacks layer {diff_id(OTHER)}; put it again\n")
