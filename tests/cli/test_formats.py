"""What ``list`` shows, ``--format``, ``--quiet`` and ``--verbose``, and how times are written."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from support.images import docker_save, layer
from support.processes import TIMEOUT

from pykka_imagestore.cli.template import Template
from pykka_imagestore.cli.times import format_age, format_time
from pykka_imagestore.errors import InvalidInputError

DOCUMENT = {
    "name": "app:1",
    "layers": [{"path": "/a"}, {"path": "/b"}],
    "count": 3,
    "nothing": None,
    "evil": "\x1b[2J\n",
}


@pytest.mark.parametrize(
    ("template", "line"),
    [
        ("{name}", "app:1"),
        ("{name}\\t{count}\\n", "app:1\t3\n"),
        ("{name}\t{count}", "app:1\t3"),
        ("{layers.1.path}{layers.2.path}{layers.x}{name.x}", "/b"),
        ("{layers}", '[{"path":"/a"},{"path":"/b"}]'),
        ("{nothing}{none}", ""),
        ("{{{name}}} \\\\ \\x", "{app:1} \\ \\x"),
        ("{evil}\x1b", "\\x1b[2J\\n\\x1b"),
    ],
)
def test_template(template, line):
    assert Template.parse(template).render(DOCUMENT) == line


@pytest.mark.parametrize("template", ["{", "}", "{}", "a{b{c}", "{name}}"])
def test_template_with_a_brace_alone_is_refused(template):
    with pytest.raises(InvalidInputError, match="brace"):
        Template.parse(template)


@pytest.mark.parametrize(
    ("seconds", "age"),
    [(-5, "0s"), (59.9, "59s"), (60, "1m"), (7199, "1h"), (86_400, "1d"), (13 * 86_400, "13d"), (15 * 86_400, "2w")],
)
def test_age_is_a_duration_as_prune_takes_it(seconds, age):
    assert format_age(seconds) == age


@pytest.mark.parametrize(
    ("seconds", "time"),
    [
        (0, None),
        (1_000_000_000.9, "2001-09-09T01:46:40Z"),
        (-1e12, "0001-01-01T00:00:00Z"),
        (1e12, "9999-12-31T23:59:59Z"),
    ],
)
def test_times_are_those_of_rfc_3339(seconds, time):
    assert format_time(seconds) == time


def test_list_tells_how_long_ago_an_image_was_used(filled):
    (config,) = (filled.store / "configs").iterdir()
    os.utime(config, (1_000_000_000, 1_000_000_000))

    table, document = filled("list").stdout.splitlines(), json.loads(filled("list", "--json").stdout)

    assert table[0].split() == ["NAME", "CONFIG", "LAYERS", "USED", "STATE"]
    assert table[1].split()[3][-1] == "w"
    assert document[0]["last_used"] == "2001-09-09T01:46:40Z"
    assert "bytes" not in document[0]


def test_long_list_has_the_sizes_that_du_has(filled):
    table, document = filled("ls", "-l").stdout.splitlines(), json.loads(filled("ls", "-l", "--json").stdout)

    (usage,) = json.loads(filled("du", "--json").stdout)["images"]
    assert document[0]["bytes"] == usage["bytes"]
    assert int(filled("ls", "--format", "{bytes}").stdout) == usage["bytes"]
    assert table[0].split() == ["NAME", "CONFIG", "LAYERS", "SIZE", "USED", "STATE"]
    assert "KiB" in table[1]


def test_list_of_an_image_whose_config_is_gone_tells_no_time(filled):
    (config,) = (filled.store / "configs").iterdir()
    config.unlink()

    assert filled("list").stdout.splitlines()[1].split()[3] == "-"
    assert json.loads(filled("list", "--json").stdout)[0]["last_used"] is None


def test_format_of_each_verb_that_has_one(imagestore, archive):
    put = imagestore("put", "--format", "{name} {config_digest}", archive)
    got = imagestore("get", "--format", "{layers.1.path}", "app:1")
    inspected = imagestore("inspect", "--format", "{os}: {config.Env}", "app:1", "app:1")

    assert put.stdout == imagestore("ls", "--format", "{name} {config_digest}").stdout != ""
    assert got.stdout == json.loads(imagestore("get", "--json", "app:1").stdout)["layers"][1]["path"] + "\n"
    assert inspected.stdout == 'linux: ["A=B"]\n' * 2


@pytest.mark.parametrize("template", ["json", "table", "{{.Names}}", ""])
def test_format_without_a_field_is_wrong_usage(imagestore, template):
    done = imagestore("list", "--format", template)

    assert (done.returncode, done.stdout) == (2, "")
    assert "has no field" in done.stderr


def test_format_of_a_hostile_config_is_escaped(imagestore, tmp_path):
    archive = docker_save(
        tmp_path / "evil.tar", {"evil:1": [layer({"a": b""})]}, author="\x1b[2J", evil={"\x1b": "\x9b"}
    )
    imagestore("put", archive)

    done = imagestore("inspect", "--format", "{author}\\t{evil}", "evil:1")

    assert done.stdout == '\\x1b[2J\t{"\\u001b":"\\u009b"}\n'


def test_quiet_verbs_print_only_names(imagestore, archive, tmp_path):
    layer_file = tmp_path / "layer.tar"
    layer_file.write_bytes(layer({"a": b""}))

    assert imagestore("put", "-q", archive).stdout == imagestore("list", "-q").stdout == "app:1\n"
    layers = json.loads(imagestore("get", "--json", "app:1").stdout)["layers"]
    assert imagestore("get", "-q", "app:1").stdout.splitlines() == [layer["path"] for layer in layers]
    assert imagestore("check", "-q").stdout == ""
    assert imagestore("prune", "-q", "--budget", "0", "--dry-run").stdout == "app:1\n"
    assert imagestore("remove", "-q", "app:1").stdout == "app:1\n"
    assert imagestore("unpack", "-q", layer_file, tmp_path / "rootfs").stdout.startswith("sha256:")
    assert imagestore("list", "-q").stdout == ""


def test_quiet_put_shows_no_progress(imagestore, archive):
    shown, output = imagestore.on_terminal("put", "--quiet", archive)

    assert (shown, output) == ("", b"app:1\n")


@pytest.mark.parametrize("verbose", [False, True])
def test_verbose_says_what_is_logged(verbose):
    program = f"""
import logging
from pykka_imagestore.cli.log import show_log
show_log(verbose={verbose})
for name in ("pykka_imagestore.collector", "another"):
    logging.getLogger(name).info("swept")
    logging.getLogger(name).warning("oh")
"""

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=TIMEOUT, check=True)

    assert done.stderr.count("imagestore: warning: oh\n") == 2
    assert done.stderr.count("imagestore: swept\n") == verbose


def test_verbose_stands_before_the_verb_or_after_it(filled):
    formatted = ("list", "--format", "{name}")  # the table has ages, which grow

    assert filled("-v", *formatted).stdout == filled(*formatted, "-v").stdout == filled(*formatted).stdout
