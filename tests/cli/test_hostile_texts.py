"""What archives, configs and files of a store say, on terminals and in what programs read: each byte is looked at."""

from __future__ import annotations

import json
import os
import time
import traceback
from pathlib import Path

import pytest
from support import tars
from support.images import diff_id, docker_save, layer, write_members
from support.layers import unpack_layer
from support.layouts import AMD64, Layout

from pykka_imagestore.cli.output import print_table
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable.leases import take_lease
from pykka_imagestore.errors import LayerError

pytestmark = pytest.mark.combinations

EVIL = "evil\x1b[2J\x1b]0;title\x07\x9b31m\u202e\u2066\u2028\x7f\r\n* * * * * root id\x00\x08"
SURROGATE = "lone\ud800"
MARKS = [
    b"\x1b[2J",
    b"\x1b]0",
    b"\xc2\x9b",
    "\u202e".encode(),
    "\u2066".encode(),
    b"\x7f",
    b"\x07",
    b"\n* * *",
    b"\xed\xa0",
]
TAR_NAME = EVIL.replace("\x00", "").encode()
TEXT = EVIL.replace("\x00", "")  # as a file's name, or an argument, may be
ANY = layer({"file": b"x"})


def is_clean(text: str) -> bool:
    return all(character.isprintable() or character == "\n" for character in text)


def hostile_archive(directory: Path, tar: bytes, *, names: list[str] | None = None, **config: object) -> Path:
    """Write an archive whose every text is hostile: members, names, and what its config says."""
    config = {
        "architecture": EVIL,
        "os": EVIL,
        "author": EVIL,
        "config": {"Labels": {EVIL: EVIL, SURROGATE: SURROGATE}, "Env": [EVIL]},
        "history": [{"created_by": EVIL, "comment": SURROGATE}],
        **config,
        "rootfs": {"type": "layers", "diff_ids": [diff_id(tar)]},
    }
    encoded = json.dumps(config).encode()
    layer_name, config_name = f"l/{TAR_NAME.decode()}", f"c/{TAR_NAME.decode()}"
    entry = {"Config": config_name, "RepoTags": names, "Layers": [layer_name]}
    members = {config_name: encoded, layer_name: tar, "manifest.json": json.dumps([entry]).encode()}
    return write_members(directory / "hostile.tar", members)


LAYERS = {
    "sound": tars.tar(
        tars.file(TAR_NAME, b"x"),
        tars.symlink(b"link" + TAR_NAME, TAR_NAME),
        tars.pax({b"SCHILY.xattr.user." + TAR_NAME.replace(b"\x00", b"")[:100]: b"x"}),
        tars.file(b"attributes", b"x"),
        tars.file(b"\xff\xfe", b"x"),
    ),
    "outside": tars.tar(tars.file(TAR_NAME, b"x"), tars.file(b"../" + TAR_NAME, b"x")),
    "hard link": tars.tar(tars.hard_link(TAR_NAME, TAR_NAME + b"x")),
    "type": tars.tar(tars.header(TAR_NAME, b"\x1b")),
    "time": tars.tar(tars.pax({b"mtime": TAR_NAME}), tars.file(TAR_NAME)),
    "number": tars.tar(tars.header(TAR_NAME, size=b"\x1b[2J\x9b7\n")),
    "sparse": tars.tar(tars.pax({b"GNU.sparse.major": TAR_NAME, b"GNU.sparse.minor": b"0"}), tars.file(TAR_NAME)),
    "long": tars.tar(tars.file(b"/".join([TAR_NAME * 3] * 40), b"x")),
    "end": tars.file(TAR_NAME, b"x" * 600)[:700],
    "no tar": b"\x1b[2J\n" * 200,
}


@pytest.mark.parametrize("kind", LAYERS)
def test_layer_reaches_no_terminal_and_no_sandbox_as_it_is(imagestore, tmp_path, kind):
    archive, sandbox = hostile_archive(tmp_path, LAYERS[kind]), tmp_path / "sandbox"

    run = imagestore("put", "--name", "evil", archive, "--sandbox", sandbox)

    assert is_clean(run.stdout + run.stderr)
    assert (run.returncode, run.stderr.count("\n")) == ((0, 0) if kind == "sound" else (1, 1))
    said = b"".join(path.read_bytes() for path in sorted(sandbox.iterdir())).decode()
    assert (is_clean(said), said.count("\n")) == (True, 2)


@pytest.mark.parametrize("kind", [kind for kind in LAYERS if kind != "sound"])
def test_traceback_of_a_refusal_acts_on_no_terminal(tmp_path, kind):
    with pytest.raises(LayerError) as caught:
        unpack_layer(LAYERS[kind], tmp_path)

    assert is_clean("".join(traceback.format_exception(caught.value)))


@pytest.mark.parametrize("option", [["--select", TEXT], ["--name", "a", "--select", TEXT], []])
def test_what_the_user_asks_for_is_shown_escaped(imagestore, tmp_path, option):
    run = imagestore("put", *option, hostile_archive(tmp_path, ANY))

    assert (run.returncode, is_clean(run.stderr), run.stderr.count("\n")) == (1, True, 1)


@pytest.mark.parametrize("verb", [["put"], ["put", "--name", "a"], ["put", "--select", "b"]])
def test_names_of_images_reach_no_terminal_as_they_are(imagestore, tmp_path, verb):
    names = [EVIL, SURROGATE, "x" * 100_000, f"a:{EVIL}"]
    archive = docker_save(tmp_path / "second.tar", {**{name: [ANY] for name in names}, "": [ANY]})

    run = imagestore(*verb, archive)

    assert (run.returncode, is_clean(run.stderr), run.stderr.count("\n")) == (1, True, 1)
    assert len(run.stderr) < 20_000


LAYOUT_FIELDS = ["architecture", "os", "variant", "mediaType", "artifactType", "digest", "ref"]


@pytest.mark.parametrize("field", LAYOUT_FIELDS)
def test_layout_reaches_no_terminal_as_it_is(imagestore, tmp_path, field):
    layout = Layout()
    platform = AMD64 | ({field: EVIL} if field in LAYOUT_FIELDS[:3] else {})
    fields = {field: EVIL} if field in LAYOUT_FIELDS[3:5] else {}
    manifest = layout.manifest(ANY, config=layout.config(ANY, **platform), fields=fields, platform=platform)
    if field == "digest":
        manifest["digest"] = EVIL
    layout.name(manifest, EVIL if field == "ref" else "app:1", **{EVIL: EVIL})
    directory = layout.write_directory(tmp_path / "layout")

    for run in (imagestore("put", directory), imagestore("put", "--name", "a", "--platform", "linux/s390x", directory)):
        assert is_clean(run.stdout + run.stderr)
        assert run.stderr.count("\n") <= 1


def test_verbs_show_nothing_of_a_stored_image_as_it_is(imagestore, tmp_path):
    archive = hostile_archive(tmp_path, LAYERS["sound"])
    assert imagestore("put", "--name", "evil", archive).returncode == 0
    (rootfs,) = imagestore.store.glob("layers/*/rootfs")
    (config,) = (imagestore.store / "configs").iterdir()
    paths = StorePaths(imagestore.store)
    lease = take_lease(paths, [], None, EVIL + SURROGATE.replace("\ud800", ""))

    runs = [
        imagestore(*verb, *json_)
        for verb in (["list"], ["get", "evil"], ["inspect", "evil"], ["du", "--layers"])
        for json_ in ([], ["--json"])
    ]
    (rootfs / os.fsdecode(TAR_NAME)).write_bytes(b"y")
    (rootfs / f"strange{EVIL}".replace("\x00", "")).mkdir()
    runs += [imagestore("check", "--deep"), imagestore("check", "--deep", "--json")]
    config.write_bytes(EVIL.encode())
    runs += [imagestore(verb, *more) for verb in ("check", "repair") for more in ([], ["--deep"], ["--json"])]
    runs += [
        imagestore("inspect", "evil"),
        imagestore("prune", "--keep", TEXT),
        imagestore("remove", "evil"),
    ]
    lease.release()

    assert all(is_clean(run.stdout + run.stderr) for run in runs)
    assert not any("unexpected" in run.stderr or "Traceback" in run.stderr for run in runs)
    assert all(
        json.loads(run.stdout) for run in runs if run.stdout.startswith(("{", "[")) and run.stdout.count("\n") == 1
    )


def test_files_that_somebody_put_into_a_store_reach_no_terminal_as_they_are(filled):
    name = TEXT
    for directory in ("layers", "configs", "staging", "gc", "leases"):
        (filled.store / directory / name).mkdir()
        (filled.store / directory / f"sha256-{name}").touch()

    for verb in (["list"], ["check", "--deep"], ["du", "--layers"], ["prune"], ["repair"], ["remove", "app:1"]):
        run = filled(*verb)
        assert is_clean(run.stdout + run.stderr)


@pytest.mark.parametrize("file", ["storedImages", "storedImages.journal"])
def test_damaged_list_of_images_reaches_no_terminal_as_it_is(filled, file):
    (filled.store / file).write_bytes(EVIL.encode() * 10)

    for verb in (["list"], ["get", "app:1"], ["check"], ["du"], ["remove", "app:1"]):
        run = filled(*verb)
        assert (run.returncode, is_clean(run.stdout + run.stderr)) == (1, True)


def test_progress_on_a_terminal_shows_names_escaped(imagestore, tmp_path):
    shown, _ = imagestore.on_terminal("put", "--name", "evil", hostile_archive(tmp_path, LAYERS["sound"]))

    assert "\x1b" in shown  # what draws the bar
    assert not [mark for mark in MARKS if mark in shown.encode()]

    (tmp_path / os.fsdecode(TAR_NAME)).write_bytes(LAYERS["sound"])
    shown, _ = imagestore.on_terminal("unpack", tmp_path / os.fsdecode(TAR_NAME), tmp_path / "rootfs")

    assert not [mark for mark in MARKS if mark in shown.encode()]


def test_wrong_usage_shows_arguments_escaped(imagestore):
    name = TEXT

    for arguments in (
        [name],
        ["list", name],
        ["put", "--format", "{" + name, "a"],
        ["list", "--format", "{" + name + "}"],
        ["--" + name],
        ["put", "--workers", name, "a"],
        ["put", "--name", name, "a"],
        ["put", "--platform", name, "a"],
        ["prune", "--budget", name],
        ["prune", "--keep", name],
        ["get", name],
        ["get", "a", name, name],
    ):
        run = imagestore(*arguments)
        assert (run.returncode, is_clean(run.stderr)) == (2, True)


# -- locales

LOCALES = [
    {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii:strict"},
    {"LC_ALL": "POSIX"},
    {"PYTHONIOENCODING": "ascii"},
]


@pytest.mark.parametrize("locale", LOCALES, ids=[" ".join(locale) for locale in LOCALES])
def test_any_locale_shows_what_it_can(imagestore, tmp_path, locale):
    imagestore.environment |= locale
    archive = hostile_archive(tmp_path, LAYERS["sound"], author="größe \U0001f600 " + EVIL)
    archive = archive.rename(tmp_path / "größe\u202e.tar")
    bad = docker_save(tmp_path / "ü.tar", {"ü\x1b:1": [ANY]})

    put = imagestore("put", "--name", "evil", archive)
    pretty, compact = imagestore("inspect", "evil"), imagestore("inspect", "--json", "evil")
    runs = [put, pretty, compact, imagestore("put", bad), imagestore("put", tmp_path / "ß.tar"), imagestore("check")]

    assert [run.returncode for run in runs] == [0, 0, 0, 1, 1, 0]
    assert all(is_clean(run.stdout + run.stderr) for run in runs)
    assert json.loads(pretty.stdout) == json.loads(compact.stdout)
    assert json.loads(pretty.stdout)["author"] == "größe \U0001f600 " + EVIL


# -- JSON


def refuse(constant: str) -> object:
    raise ValueError(constant)


NUMBERS = ["1e999", "-1E+400", "1" + "0" * 4000, "0.1000000000000000055511151231257827", "-0", "1e-999", "1" * 20]


def test_numbers_are_printed_as_the_config_has_them(imagestore, tmp_path):
    config = b'{"x":[%s],"rootfs":{"diff_ids":["%s"]}}' % (",".join(NUMBERS).encode(), diff_id(ANY).encode())
    manifest = [{"Config": "c", "RepoTags": ["a:1"], "Layers": ["l"]}]
    archive = write_members(tmp_path / "a.tar", {"c": config, "l": ANY, "manifest.json": json.dumps(manifest).encode()})

    assert imagestore("put", archive).returncode == 0
    for form in ([], ["--json"]):
        done = imagestore("inspect", *form, "a:1")
        assert json.loads(done.stdout, parse_constant=refuse, parse_int=str, parse_float=str)["x"] == NUMBERS


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "[NaN]"])
def test_config_that_only_python_takes_for_json_is_refused(imagestore, tmp_path, value):
    config = b'{"x":%s,"rootfs":{"diff_ids":["%s"]}}' % (value.encode(), diff_id(ANY).encode())
    manifest = [{"Config": "c", "RepoTags": ["a:1"], "Layers": ["l"]}]
    archive = write_members(tmp_path / "a.tar", {"c": config, "l": ANY, "manifest.json": json.dumps(manifest).encode()})

    done = imagestore("put", archive)

    assert (done.returncode, done.stdout) == (1, "")
    assert "is no JSON" in done.stderr


@pytest.mark.parametrize("body", ['"a":1,"a":[2]', '"a":' + "[" * 90 + "]" * 90, '"":{"":{}},"b":[],"c":"\\ud800"'])
def test_config_is_printed_as_json_whatever_it_holds(imagestore, tmp_path, body):
    config = f'{{{body},"rootfs":{{"diff_ids":["{diff_id(ANY)}"]}}}}'.encode()
    manifest = [{"Config": "c", "RepoTags": ["a:1"], "Layers": ["l"]}]
    archive = write_members(tmp_path / "a.tar", {"c": config, "l": ANY, "manifest.json": json.dumps(manifest).encode()})
    assert imagestore("put", archive).returncode == 0

    for form in ([], ["--json"]):
        assert json.loads(imagestore("inspect", *form, "a:1").stdout, parse_constant=refuse) == json.loads(config)


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"a":' * 5000 + b"1" + b"}" * 5000, b"NaN", b"\xff", b""])
def test_config_that_is_no_json_by_now_is_one_sentence(filled, text):
    (config,) = (filled.store / "configs").iterdir()
    config.write_bytes(text)

    done = filled("inspect", "app:1")

    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "unexpected" not in done.stderr


# -- times


@pytest.mark.parametrize("seconds", [1 << 40, -(1 << 40), (1 << 63) // 10**9 - 1])
def test_no_time_breaks_anything(filled, seconds):
    (config,) = (filled.store / "configs").iterdir()
    os.utime(config, times=(seconds, seconds))

    for verb in (
        ["du", "--layers"],
        ["du", "--json"],
        ["prune", "--unused-for", "900000w", "--dry-run"],
        ["prune", "--budget", "0", "--dry-run"],
        ["check", "--deep"],
        ["get", "app:1"],
        ["remove", "app:1"],
    ):
        done = filled(*verb)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("seconds", [b"1e17", b"-1e17", b"2e-09"])
def test_layer_from_another_age_is_put_checked_and_removed(imagestore, tmp_path, seconds):
    parts = [
        tars.pax({b"mtime": seconds}) + part
        for part in (tars.directory(b"./"), tars.directory(b"d"), tars.file(b"d/f", b"x"))
    ]
    archive = docker_save(tmp_path / "a.tar", {"a:1": [tars.tar(*parts)]}, created="99999-13-45T99:99:99Z")

    for verb in (["put", archive], ["check", "--deep"], ["du"], ["remove", "a:1"]):
        done = imagestore(*verb)
        assert (done.returncode, done.stderr) == (0, "")


def test_one_long_cell_at_the_end_makes_no_other_line_take_longer(capsys):
    rows = [("layer", "x" * 1_000_000), *(("layer", "x") for _ in range(20_000))]
    before = time.process_time()

    print_table(rows)

    assert time.process_time() - before < 3
    assert capsys.readouterr().out == "".join(f"layer  {cell}\n" for _, cell in rows)
