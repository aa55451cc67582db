"""docs/reference/command.md has every verb, and of its JSON document every field that is printed, and no other."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.images import docker_save, layer
from support.layer_samples import UNCHECKABLE
from support.pages import DOCS, sections
from support.processes import TIMEOUT

from pykka_imagestore import LocalStore
from pykka_imagestore.cli.arguments import make_parser

SECTIONS = sections(DOCS / "reference" / "command.md")


def shown_fields(section: str) -> set[str]:
    """Return the fields in the first cells of a table's rows; a row may be about several."""
    cells = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    return {field for cell in cells for field in re.findall(r"`([^`]+)`", cell)}


def printed_fields(value: object, path: str = "") -> Iterator[str]:
    """Return the path of each field; ``[]`` stands for each element of an array, of an empty one too."""
    if isinstance(value, list):
        path = f"{path}[]"
        for each in value:
            yield from printed_fields(each, path)
    if isinstance(value, dict):
        for name, each in value.items():
            yield from printed_fields(each, f"{path}.{name}".lstrip("."))
    if path:
        yield path


@pytest.fixture
def printed(imagestore, tmp_path: Path) -> dict[str, set[str]]:
    """Return the fields of each verb's documents, those of a damaged store too."""
    fields: dict[str, set[str]] = {}

    def say(verb: str, *arguments: object) -> None:
        done = imagestore("--json", verb, *arguments)
        fields.setdefault(verb, set()).update(printed_fields(json.loads(done.stdout)))

    base = layer({"etc/os-release": b"ID=test\n"})
    for name, upper in {"a": layer({"a": b"x"}), "b": UNCHECKABLE}.items():
        say("put", docker_save(tmp_path / f"{name}.tar", {f"{name}:1": [base, upper]}))
    say("get", "a:1")
    say("list", "--long")
    say("provision", "box", "a:1", "--backend", "copy")
    say("containers")
    say("export", "a:1", "--output", tmp_path / "exported.tar")
    say("doctor")
    with LocalStore.start(imagestore.store) as store, store.get("a:1", lease=True).get(timeout=TIMEOUT) as leased:
        say("du")
        say("destroy", "box")
        for part in ("rootfs/a", "tar-split.zst"):
            (leased.image.layers[1].path.parent / part).unlink()
        (leased.image.layers[0].path / "etc/os-release").unlink()
    say("prune", "--budget", "0", "--keep", "b:1", "--dry-run")
    say("check", "--deep")
    say("repair", "--deep")
    say("list")
    say("remove", "a:1")
    (tmp_path / "layer.tar").write_bytes(base)
    say("unpack", tmp_path / "layer.tar", tmp_path / "unpacked")
    return fields


def test_each_verb_has_a_section_with_its_help() -> None:
    names = next(action.choices for action in make_parser()._actions if action.dest == "verb")
    verbs = dict.fromkeys(parser.get_default("verb") for parser in dict(names or ()).values())

    assert list(SECTIONS) == list(verbs)
    assert all(f"```{{command-help}} {verb}\n```" in section for verb, section in SECTIONS.items())


def test_the_fields_that_the_page_shows_are_those_that_are_printed(printed) -> None:
    shown = {
        verb: shown_fields(section)
        for verb, section in SECTIONS.items()
        if verb not in ("inspect", "completion", "help")
    }

    assert shown.keys() == printed.keys()
    for verb, fields in shown.items():
        assert fields == printed[verb], verb
