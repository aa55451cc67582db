"""``provision``, ``containers``, ``destroy`` and ``doctor``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.rootfs import no_mounts_left, require_mounts

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


def test_doctor_tells_what_works_and_leaves_nothing(filled):
    before = sorted(filled.store.parent.iterdir())

    told = json.loads(filled("doctor", "--json").stdout)
    text = filled("doctor").stdout

    names = {ability["name"] for ability in told["abilities"]}
    assert {"overlays", "overlays in a user namespace", "reflinks", "hard links"} <= names
    assert all(ability["works"] or ability["reason"] for ability in told["abilities"])
    assert all(name in text for name in names)
    assert sorted(filled.store.parent.iterdir()) == before
