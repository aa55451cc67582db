"""``provision``, ``containers``, ``destroy``, ``export`` and ``doctor``."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from support.rootfs import no_mounts_left, points_below, require_mounts

MAIN = "app/main.py"


def test_a_copy_is_there_until_it_is_destroyed(filled):
    made = filled("provision", "box", "app:1", "--backend", "copy", "--json")
    listed = filled("containers", "--json")

    rootfs, (container,) = json.loads(made.stdout), json.loads(listed.stdout)
    assert (rootfs["id"], rootfs["backend"], rootfs["config"]["environment"]) == ("box", "copy", {"A": "B"})
    assert Path(rootfs["path"], MAIN).read_text() == "print('hello')\n"
    assert container["path"] == rootfs["path"]
    assert (container["image"], container["owner"], container["is_held"]) == ("app:1", "imagestore", False)
    assert filled("destroy", "box").stdout == "destroyed box\n"
    assert not Path(rootfs["path"]).exists()
    assert json.loads(filled("containers", "--json").stdout) == []


def test_what_is_printed_for_people_and_scripts(filled):
    filled("provision", "box", "app:1", "--backend", "copy")

    quiet, formatted, table = (
        filled("containers", *options).stdout for options in (["-q"], ["--format", "{id}: {backend}"], [])
    )

    assert (quiet, formatted) == ("box\n", "box: copy\n")
    assert table.splitlines()[0].split() == ["ID", "IMAGE", "BACKEND", "OWNER", "MADE", "PATH"]
    assert table.splitlines()[1].split()[:5] == ["box", "app:1", "copy", "imagestore", "(ended)"]
    filled("destroy", "box")


def test_an_overlay_is_mounted_and_gone_again(filled, tmp_path):
    require_mounts()
    target = tmp_path / "target"
    target.mkdir()

    with no_mounts_left(tmp_path):
        made = filled("provision", "box", "app:1", "--target", target, "--quiet")
        (target / MAIN).write_text("changed")
        removed = filled("remove", "app:1")
        destroyed = filled("destroy", "box", "--quiet")

    assert made.stdout == f"{target}\n"
    assert removed.returncode == 0
    assert destroyed.stdout == "box\n"
    assert list(target.iterdir()) == []


@pytest.fixture
def powerless(filled):
    """Return the command, run by whoever may mount in a user namespace only."""
    if os.geteuid() == 0:
        without = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]
        if shutil.which("setpriv") is None:
            pytest.skip("setpriv is not installed")
        filled.command = [*without, *filled.command]
    if subprocess.run(["unshare", "-Urm", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine lets nobody make a user namespace")
    return filled


def test_who_may_mount_in_a_namespace_only_that_ends_with_the_command_gets_a_copy_and_is_told(powerless):
    made = json.loads(powerless("provision", "box", "app:1", "--json").stdout)

    assert made["backend"] == "copy"
    assert made["reason"] == "this user's overlay would be mounted in a namespace that ends with this command"
    assert Path(made["path"], MAIN).exists()
    powerless("destroy", "box")


@pytest.mark.parametrize("options", [["--backend", "overlay"], ["--read-only"]])
def test_what_would_end_with_the_command_is_refused_and_nothing_is_left(powerless, options):
    made = powerless("provision", "box", "app:1", *options)

    assert made.returncode == 1
    assert "this user's overlay would be mounted in a namespace that ends with this command" in made.stderr
    assert made.stderr.endswith(f"; without {options[0]} it is a copy, which stays\n")
    assert powerless("containers", "--quiet").stdout == ""


@pytest.mark.root
@pytest.mark.parametrize(("options", "mounts"), [([], 1), (["--for-runtime"], 0)])
def test_a_copy_is_a_mount_unless_a_runtime_guards_it(filled, tmp_path, options, mounts):
    require_mounts()

    with no_mounts_left(tmp_path):
        filled("provision", "box", "app:1", "--backend", "copy", *options)
        found = points_below(tmp_path)
        destroyed = filled("destroy", "box", "--quiet")

    assert len(found) == mounts
    assert destroyed.stdout == "box\n"


def test_an_id_that_is_taken_is_refused(filled):
    filled("provision", "box", "app:1", "--backend", "copy")

    again = filled("provision", "box", "app:1", "--backend", "copy")

    assert again.returncode == 1
    assert "a container box is in" in again.stderr
    filled("destroy", "box")


def test_one_that_is_not_there_keeps_no_other_from_being_destroyed(filled):
    filled("provision", "box", "app:1", "--backend", "copy")

    destroyed = filled("destroy", "nothing", "box")

    assert destroyed.returncode == 1
    assert destroyed.stdout == "destroyed box\n"
    assert "no container nothing is in" in destroyed.stderr


def test_an_image_that_is_not_there_leaves_nothing(filled):
    made = filled("provision", "box", "app:2", "--backend", "copy")

    assert made.returncode == 1
    assert made.stderr == "imagestore: no image app:2 is in the store; there is app:1\n"
    assert filled("containers", "--quiet").stdout == ""


@pytest.mark.parametrize("arguments", [("../x", "app:1"), ("box", "app:1", "--backend", "aufs"), ("box",)])
def test_wrong_usage_makes_nothing(filled, arguments):
    made = filled("provision", *arguments)

    assert made.returncode == 2
    assert made.stderr.startswith("usage: imagestore provision")


def test_an_image_is_exported_to_standard_output(filled):
    exported = filled("export", "app:1", text=False)

    assert exported.returncode == 0
    with tarfile.open(fileobj=io.BytesIO(exported.stdout)) as tar:
        assert set(tar.getnames()) >= {"app/main.py", "etc/os-release"}
        main = tar.extractfile(MAIN)
        assert main is not None
        assert main.read() == b"print('hello')\n"


def test_what_is_neither_an_image_nor_a_container_is_not_exported(filled):
    filled("provision", "box", "app:1", "--backend", "copy")

    assert filled("export", "nobox").stderr == "imagestore: no image or container nobox is in the store\n"
    assert filled("export", "app").stderr == "imagestore: no image or container app is in the store; there is app:1\n"
    filled("destroy", "box")


@pytest.mark.parametrize("backend", ["copy", "overlay"])
def test_a_container_is_exported_with_what_was_written_to_it(filled, tmp_path, backend):
    if backend == "overlay":
        require_mounts()
    with no_mounts_left(tmp_path):
        rootfs = Path(filled("provision", "Box", "app:1", "--backend", backend, "--quiet").stdout.strip())
        (rootfs / MAIN).unlink()
        (rootfs / "new").write_text("new")
        exported = filled("export", "Box", "--output", tmp_path / "box.tar", "--json")
        filled("destroy", "Box")

    with tarfile.open(tmp_path / "box.tar") as tar:
        names = set(tar.getnames())
    document = json.loads(exported.stdout)
    assert MAIN not in names
    assert names >= {"new", "etc/os-release"}
    assert document["path"] == str(tmp_path / "box.tar")
    assert document["bytes"] == (tmp_path / "box.tar").stat().st_size


def test_an_export_replaces_no_file(filled, tmp_path):
    (tmp_path / "there").write_text("precious")

    exported = filled("export", "app:1", "-o", tmp_path / "there")

    assert exported.returncode == 1
    assert "exists" in exported.stderr
    assert (tmp_path / "there").read_text() == "precious"


def test_a_full_disk_ends_an_export_with_a_sentence(filled):
    with open("/dev/full", "wb") as full:
        exported = filled("export", "app:1", capture_output=False, stdout=full, stderr=subprocess.PIPE)

    assert exported.returncode == 1
    assert "No space left on device" in exported.stderr


def test_doctor_tells_what_works_and_leaves_nothing(filled):
    before = sorted(filled.store.parent.iterdir())

    told = json.loads(filled("doctor", "--json").stdout)
    text = filled("doctor").stdout

    names = {ability["name"] for ability in told["abilities"]}
    assert {"overlays", "overlays in a user namespace", "reflinks", "hard links"} <= names
    assert all(ability["works"] or ability["reason"] for ability in told["abilities"])
    assert all(name in text for name in names)
    assert sorted(filled.store.parent.iterdir()) == before
