"""Each verb, in a process of its own: what it prints, and its exit status."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from backports import zstd
from support.commands import assert_refused
from support.images import diff_id, docker_save, layer, write_members
from support.tars import file, tar

from pykka_imagestore._proto.journal_pb2 import JournalFrame
from pykka_imagestore.cli.arguments import store_directory
from pykka_imagestore.core.journal import Frame, pack_frame, pack_header
from pykka_imagestore.core.sizes import format_size
from pykka_imagestore.durable.checkpoint import read_checkpoint, to_message
from pykka_imagestore.errors import InvalidInputError

BASE = layer({"etc/os-release": b"ID=test\n"})


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


# -- put


def test_put_prints_a_table_of_the_images(imagestore, archive):
    done = imagestore("put", archive)

    lines = [line.split() for line in done.stdout.splitlines()]
    assert (done.returncode, done.stderr) == (0, "")
    assert lines[0] == ["NAME", "CONFIG", "LAYERS", "STATE"]
    assert [line[0] for line in lines[1:]] == ["app:1"]
    assert lines[1][2:] == ["2", "complete"]


def test_put_without_a_name_puts_every_image_under_every_name(imagestore, tmp_path):
    archive = docker_save(tmp_path / "two.tar", {"a:1,example.com/a:2": [BASE], "b:1": [layer({"b": b""})]})

    done = imagestore("put", "--json", archive)

    assert [image["name"] for image in json.loads(done.stdout)] == ["a:1", "example.com/a:2", "b:1"]


def test_put_with_json_prints_one_list_on_one_line(imagestore, archive):
    done = imagestore("put", archive, "--json")

    (image,) = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    assert set(image) == {"name", "layers", "config_digest"}
    assert [set(item) for item in image["layers"]] == [{"diff_id", "path", "whiteouts"}] * 2
    assert [item["whiteouts"] for item in image["layers"]] == ["none", "none"]
    assert Path(image["layers"][1]["path"], "app/main.py").read_bytes() == b"print('hello')\n"


def test_put_under_a_name_of_ones_own(imagestore, archive):
    imagestore("put", "--name", "example.com/mine", archive)

    assert [image["name"] for image in json.loads(imagestore("list", "--json").stdout)] == ["example.com/mine:latest"]


def test_put_of_a_selected_image(imagestore, tmp_path):
    archive = docker_save(tmp_path / "two.tar", {"a:1": [BASE], "b:1": [layer({"b": b""})]})

    assert_refused(imagestore("put", "--name", "mine", archive), "a:1", "b:1", "--select")
    done = imagestore("put", "--name", "mine", "--select", "a:1", "--json", archive)

    (image,) = json.loads(done.stdout)
    assert [item["diff_id"] for item in image["layers"]] == [diff_id(BASE)]


def test_image_without_a_name_is_named_by_its_config_digest(imagestore, tmp_path):
    archive = docker_save(tmp_path / "unnamed.tar", {"": [BASE]})

    (image,) = json.loads(imagestore("put", "--json", archive).stdout)

    assert image["name"] == image["config_digest"]
    for verb in ("get", "inspect", "remove"):
        assert imagestore(verb, image["name"]).returncode == 0


def test_put_says_in_the_sandbox_what_its_workers_say(imagestore, archive, tmp_path):
    imagestore("put", "--sandbox", tmp_path / "sandbox", archive)

    assert diff_id(BASE) in (tmp_path / "sandbox" / "stdout").read_text()


def test_put_takes_the_number_of_workers_and_whether_to_sync(imagestore, archive):
    assert imagestore("put", "--workers", 1, "--not-durable", archive).returncode == 0


@pytest.mark.parametrize("what", ["nothing", "a directory", "no archive", "a layer that is not the one named"])
def test_put_of_what_cannot_be_put_is_refused(imagestore, archive, tmp_path, what):
    if what == "nothing":
        archive.unlink()
    elif what == "a directory":
        archive = tmp_path
    elif what == "no archive":
        archive.write_bytes(b"no archive")
    else:
        archive.write_bytes(archive.read_bytes().replace(b"hello", b"HELLO"))

    assert_refused(imagestore("put", archive), str(archive))
    assert imagestore("list", "--json").stdout == "[]\n"
    assert names(imagestore.store / "staging") == []


@pytest.mark.root
def test_put_on_a_full_disk_says_so_and_leaves_nothing(imagestore, tmp_path):
    archive = docker_save(tmp_path / "big.tar", {"big:1": [layer({"big": bytes(4 << 20)})]})
    imagestore.store.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "none", imagestore.store], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("this machine does not let us mount a file system")
    try:
        done = imagestore("put", archive)
        left = names(imagestore.store / "staging")
    finally:
        subprocess.run(["umount", imagestore.store], check=True)

    assert_refused(done, "No space left on device")
    assert left == []


# -- get, list, inspect


def test_get_prints_the_paths_of_the_layers(filled):
    done = filled("get", "docker.io/library/app:1")

    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == ["name", "config", "layer", "layer"]
    assert lines[0][1] == "app:1"
    assert Path(lines[2][2], "etc/os-release").read_bytes() == b"ID=test\n"


def test_get_with_json_prints_one_object(imagestore, archive):
    (put,) = json.loads(imagestore("put", "--json", archive).stdout)

    assert json.loads(imagestore("get", "--json", "app:1").stdout) == put


def test_get_of_what_is_not_there_is_refused(filled):
    assert_refused(filled("get", "--json", "app"), "app:latest")


def test_image_with_a_missing_layer_is_marked_and_not_served(filled):
    shutil.rmtree(filled.store / "layers" / diff_id(BASE).replace(":", "-"))

    assert "incomplete (1 missing)" in filled("list").stdout
    (image,) = json.loads(filled("list", "--json").stdout)
    assert image["missing"] == [diff_id(BASE)]
    assert_refused(filled("get", "app:1"), "incomplete", diff_id(BASE))


@pytest.mark.parametrize("arguments", [["list"], ["get", "app:1"], ["inspect", "app:1"], ["du"], ["check"]])
def test_warnings_are_shown_as_those_of_other_verbs_are(filled, arguments):
    filled.store.chmod(0o770)

    done = filled(*arguments)

    assert done.returncode == 0
    assert done.stderr.startswith(f"imagestore: warning: {filled.store} can be written to by group ")
    assert done.stderr.count("\n") == 1


def test_list_is_sorted_by_name(imagestore, tmp_path):
    imagestore("put", docker_save(tmp_path / "three.tar", {"b:1,c:1,a:1": [BASE]}))

    assert [line.split()[0] for line in imagestore("list").stdout.splitlines()] == ["NAME", "a:1", "b:1", "c:1"]


def test_inspect_prints_the_config(filled):
    pretty, compact = filled("inspect", "app:1").stdout, filled("inspect", "--json", "app:1").stdout

    assert json.loads(pretty) == json.loads(compact)
    assert json.loads(compact)["config"] == {"Env": ["A=B"]}
    assert pretty.startswith("{\n  ")
    assert compact.count("\n") == 1


@pytest.mark.parametrize("gone", [[], ["storedImages.journal"], ["storedImages"]])
@pytest.mark.parametrize("verb", ["get", "list", "inspect"])
def test_verbs_that_read_change_nothing(filled, verb, gone):
    if gone == ["storedImages"]:
        image = read_checkpoint(filled.store / "storedImages").images[0]
        frame = JournalFrame(changes=[{"put": to_message(image)}])
        journal = pack_header(0) + pack_frame(Frame(1, 0, frame.SerializeToString()))
        (filled.store / "storedImages.journal").write_bytes(journal)
    for directory in ("staging", "gc", "leases", "locks", "reserve"):
        shutil.rmtree(filled.store / directory)
    for name in gone:
        (filled.store / name).unlink()
    filled.store.chmod(0o500)
    before = state(filled.store)

    assert filled(verb, *(() if verb == "list" else ("app:1",))).returncode == 0
    kept = {"configs", "imagestore", "layers", "storedImages", "storedImages.journal"}.difference(gone)
    assert names(filled.store) == sorted(kept)
    assert state(filled.store) == before


def state(directory: Path) -> dict[Path, tuple[int, int, int]]:
    statuses = {path: path.lstat() for path in [directory, *directory.rglob("*")]}
    last_use = directory / "configs"  # the times of what lies in there, which a get and an inspect set
    return {
        path: (status.st_ino, status.st_size, 0 if path.parent == last_use else status.st_mtime_ns)
        for path, status in statuses.items()
    }


def test_unreadable_checkpoint_is_said_and_kept(filled, archive):
    checkpoint = filled.store / "storedImages"
    checkpoint.write_bytes(b"\xff" * 10)

    for arguments in (["list"], ["get", "app:1"], ["put", archive], ["remove", "app:1"]):
        assert_refused(filled(*arguments), str(checkpoint))
    assert checkpoint.read_bytes() == b"\xff" * 10


@pytest.mark.parametrize("arguments", [["get", "app"], ["list"], ["inspect", "app"], ["remove", "app"]])
def test_where_there_is_no_store_none_is_made(imagestore, arguments):
    assert_refused(imagestore(*arguments), "no image store", str(imagestore.store))
    assert not imagestore.store.exists()


# -- remove


def test_remove_frees_the_disk(filled):
    done = filled("remove", "app:1")

    assert (done.returncode, done.stdout, done.stderr) == (0, "removed app:1\n", "")
    assert [names(filled.store / directory) for directory in ("layers", "configs", "gc")] == [[], [], []]
    assert_refused(filled("remove", "app:1"), "app:1")


def test_remove_with_json_prints_what_get_did(filled):
    got = json.loads(filled("get", "--json", "app:1").stdout)
    for item in got["layers"]:
        del item["whiteouts"]  # which nobody can look at any more

    assert json.loads(filled("--json", "remove", "app:1").stdout) == got


# -- unpack

COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "zstd": zstd.compress,
}


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_unpack_takes_any_compression(imagestore, tmp_path, compression):
    layer_file = tmp_path / "layer"
    layer_file.write_bytes(COMPRESSIONS[compression](BASE))

    done = imagestore("unpack", "--json", layer_file, tmp_path / "rootfs")

    assert json.loads(done.stdout) == {"diff_id": diff_id(BASE), "bytes": len(BASE), "entries": 1}
    assert (tmp_path / "rootfs/etc/os-release").read_bytes() == b"ID=test\n"
    assert not imagestore.store.exists()


def test_unpack_into_an_empty_directory_prints_what_it_was(imagestore, tmp_path):
    layer_file, directory = tmp_path / "layer", tmp_path / "rootfs"
    layer_file.write_bytes(BASE)
    directory.mkdir()

    done = imagestore("unpack", layer_file, directory)

    assert [line.split() for line in done.stdout.splitlines()] == [
        ["diff_id", diff_id(BASE)],
        ["size", *format_size(len(BASE)).split()],
        ["entries", "1"],
    ]
    assert names(directory) == ["etc"]


def test_unpack_into_a_directory_that_holds_something_is_refused(imagestore, tmp_path):
    layer_file = tmp_path / "layer"
    layer_file.write_bytes(BASE)
    (tmp_path / "rootfs").mkdir()
    (tmp_path / "rootfs" / "mine").touch()

    assert_refused(imagestore("unpack", layer_file, tmp_path / "rootfs"), "not empty")
    assert names(tmp_path / "rootfs") == ["mine"]


@pytest.mark.parametrize("existed", [True, False])
def test_unpack_that_is_refused_leaves_nothing(imagestore, tmp_path, existed):
    layer_file, directory = tmp_path / "layer", tmp_path / "rootfs"
    layer_file.write_bytes(tar(file(b"etc/passwd", b"x"), file(b"../outside", b"x")))
    if existed:
        directory.mkdir()

    assert_refused(imagestore("unpack", layer_file, directory), "entry 1", "../outside")
    assert not (tmp_path / "outside").exists()
    assert (names(directory) == []) if existed else not directory.exists()


@pytest.mark.parametrize(("parts", "status"), [([], 0), ([file(b"../outside", b"x")], 1)])
def test_unpack_keeps_a_private_directory_private(imagestore, tmp_path, parts, status):
    layer_file, directory = tmp_path / "layer", tmp_path / "rootfs"
    layer_file.write_bytes(tar(file(b"su", b"x", mode=0o4755), *parts))
    directory.mkdir(mode=0o700)

    assert imagestore("unpack", layer_file, directory).returncode == status
    assert directory.stat().st_mode & 0o7777 == 0o700


@pytest.mark.root
def test_unpack_into_another_users_directory_is_refused(imagestore, tmp_path):
    layer_file, directory = tmp_path / "layer", tmp_path / "rootfs"
    layer_file.write_bytes(BASE)
    directory.mkdir(mode=0o700)
    os.chown(directory, 65534, 65534)

    assert_refused(imagestore("unpack", layer_file, directory), "belongs to user 65534", "unpack into")
    assert (directory.stat().st_uid, directory.stat().st_mode & 0o7777, names(directory)) == (65534, 0o700, [])


def test_unpack_of_an_image_archive_is_refused_and_leaves_nothing(imagestore, archive, tmp_path):
    compressed = tmp_path / "app.tar.gz"
    compressed.write_bytes(gzip.compress(archive.read_bytes()))

    for path in (archive, compressed):
        done = imagestore("unpack", path, tmp_path / "rootfs")

        words = f"{path.name} is no layer, but a whole image archive: it has manifest.json", "imagestore put"
        assert_refused(done, *words)
    assert not (tmp_path / "rootfs").exists()


def test_unpack_of_what_is_no_file_is_refused_at_once(imagestore, tmp_path):
    os.mkfifo(tmp_path / "fifo")

    assert_refused(imagestore("unpack", tmp_path / "fifo", tmp_path / "rootfs"), "fifo")
    assert not (tmp_path / "rootfs").exists()


# -- the command line itself


def test_common_options_stand_before_the_verb_or_after_it(imagestore, archive, tmp_path):
    imagestore("--store", tmp_path / "other", "--json", "put", archive)

    before = imagestore("--json", "--store", tmp_path / "other", "list")
    after = imagestore("list", "--store", tmp_path / "other", "--json")

    assert before.stdout == after.stdout
    assert [image["name"] for image in json.loads(after.stdout)] == ["app:1"]
    assert not imagestore.store.exists()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"IMAGESTORE_DIR": "named", "XDG_DATA_HOME": "/data"}, "named"),
        ({"XDG_DATA_HOME": "data"}, "data/imagestore"),
        ({"IMAGESTORE_DIR": "", "XDG_DATA_HOME": ""}, "home/.local/share/imagestore"),
    ],
)
def test_where_the_store_lies_by_default(imagestore, put_once, tmp_path, variables, expected):
    variables = {name: str(tmp_path / value) if value else "" for name, value in variables.items()}
    del imagestore.environment["IMAGESTORE_DIR"]
    imagestore.environment |= {"HOME": str(tmp_path / "home"), **variables}
    shutil.copytree(put_once.store, tmp_path / expected)

    assert "app:1" in imagestore("list").stdout


def test_user_without_a_home_is_told_to_name_a_store(monkeypatch):
    def fail(_: int) -> None:
        raise KeyError

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", fail)

    with pytest.raises(InvalidInputError, match=r"no home directory.* --store"):
        store_directory(None, {})


@pytest.mark.parametrize("arguments", [["--help"], ["put", "--help"], ["--version"]])
def test_help_and_version(imagestore, arguments):
    done = imagestore(*arguments)

    assert (done.returncode, done.stderr) == (0, "")
    assert "imagestore" in done.stdout


def test_control_characters_of_an_archive_never_reach_the_terminal(imagestore, tmp_path):
    evil = "\x1b[2Jevil\u202e\x9b\r\n"
    archive = docker_save(tmp_path / "evil.tar", {evil: [BASE]}, author=evil)
    hostile = tmp_path / "hostile.tar"
    hostile.write_bytes(tar(file(b"../\x1b[2J\n\xff", b"x")))

    assert imagestore("put", "--name", "evil", archive).stderr == ""
    runs = [
        imagestore("put", archive),
        imagestore("inspect", "evil"),
        imagestore("inspect", "--json", "evil"),
        imagestore("unpack", hostile, tmp_path / "rootfs"),
        imagestore("put", write_members(tmp_path / "a\x1b[2J.tar", {})),
    ]

    for run in runs:
        assert all(character.isprintable() or character == "\n" for character in run.stdout + run.stderr)
    assert "evil\\u202e" in runs[0].stderr
    assert json.loads(runs[1].stdout)["author"] == json.loads(runs[2].stdout)["author"] == evil
