"""Several archives and names at once, and the other names of verbs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from support.images import docker_save, layer
from support.processes import TIMEOUT

BASE = layer({"etc/os-release": b"ID=test\n"})


@pytest.fixture
def archives(tmp_path):
    """Return three archives; the second is none."""
    broken = tmp_path / "b.tar"
    broken.write_bytes(b"no archive")
    named = [docker_save(tmp_path / f"{name}.tar", {f"{name}:1": [BASE]}, author=name) for name in "ac"]
    return [named[0], broken, named[1]]


def listed(imagestore) -> list[str]:
    return [image["name"] for image in json.loads(imagestore("list", "--json").stdout)]


def test_put_of_several_archives_prints_one_list(imagestore, archives):
    done = imagestore("put", "--json", archives[0], archives[2])

    assert (done.returncode, done.stderr) == (0, "")
    assert [image["name"] for image in json.loads(done.stdout)] == ["a:1", "c:1"]


def test_archive_that_is_refused_does_not_keep_the_others_from_being_put(imagestore, archives):
    done = imagestore("put", *archives)

    first, last = done.stderr.splitlines()
    assert done.returncode == 1
    assert str(archives[1]) in first
    assert last == "imagestore: 1 of 3 archives could not be put"
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["NAME", "a:1", "c:1"]
    assert listed(imagestore) == ["a:1", "c:1"]


def test_put_of_several_archives_none_of_which_can_be_put(imagestore, archives):
    text, document = (imagestore("put", *option, archives[1], archives[1]) for option in ([], ["--json"]))

    assert (text.returncode, text.stdout, document.returncode, document.stdout) == (1, "", 1, "[]\n")


def test_remove_of_several_images_goes_on_after_one_that_is_not_there(imagestore, archives):
    imagestore("put", archives[0], archives[2])

    done = imagestore("remove", "a:1", "none", "c:1")

    assert (done.returncode, done.stdout) == (1, "removed a:1\nremoved c:1\n")
    assert done.stderr.splitlines()[1:] == ["imagestore: 1 of 3 images could not be removed"]
    assert list((imagestore.store / "layers").iterdir()) == []


def test_remove_and_inspect_with_json_print_a_line_for_each_name(imagestore, archives):
    imagestore("put", archives[0], archives[2])

    inspected, removed = (imagestore(verb, "--json", "c:1", "a:1") for verb in ("inspect", "remove"))

    assert [json.loads(line)["author"] for line in inspected.stdout.splitlines()] == ["c", "a"]
    assert [json.loads(line)["name"] for line in removed.stdout.splitlines()] == ["c:1", "a:1"]


def test_inspect_of_several_images_shows_those_that_are_there(filled):
    done = filled("inspect", "none", "app:1")

    assert (done.returncode, json.loads(done.stdout)["config"]) == (1, {"Env": ["A=B"]})
    assert done.stderr.splitlines()[1:] == ["imagestore: 1 of 2 images could not be shown"]


def test_other_names_of_verbs(imagestore, archive):
    assert imagestore("load", archive).returncode == 0
    assert imagestore("ls", "--json").stdout == imagestore("list", "--json").stdout != "[]\n"
    assert imagestore("rm", "app:1").stdout == "removed app:1\n"


def test_package_runs_as_a_module(filled):
    command = [sys.executable, "-m", "pykka_imagestore", "list", "--json"]

    done = subprocess.run(command, capture_output=True, text=True, env=filled.environment, timeout=TIMEOUT, check=True)

    assert done.stdout == filled("list", "--json").stdout != "[]\n"
