"""A store that is another user's: what he may do with it, and what he is told."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.images import docker_save, layer
from support.privileges import ORDINARY_USER, as_ordinary_user, with_capabilities
from support.stores import opened

from pykka_imagestore import ForeignStoreError, LocalStore
from pykka_imagestore.cli import main
from pykka_imagestore.core.paths import StorePaths

pytestmark = pytest.mark.root

# Imported before privileges are given up: Python need not be readable for everybody.
for module in (
    "cli.command",
    *(f"cli.verbs.{verb}" for verb in ("du", "get", "inspect", "list", "prune", "put", "remove")),
):
    importlib.import_module(f"pykka_imagestore.{module}")

READING = ["list", "get app:1", "inspect app:1", "du"]
WRITING = ["remove app:1", "prune", "put other.tar", "put --name app:2 app.tar"]
ASKS: dict[str, Callable[[LocalStore], Any]] = {
    "list": lambda store: store.list(),
    "get": lambda store: store.get("app:1"),
    "config": lambda store: store.config("app:1"),
    "usage": lambda store: store.usage(),
    "check": lambda store: store.check(),
    "lease": lambda store: store.get("app:1", lease=True),
    "recover": lambda store: store.recover(),
    "remove": lambda store: store.remove("app:1"),
    "prune": lambda store: store.prune(),
}


@pytest.fixture
def foreign(users_directory):
    """Return root's store, in a directory that the ordinary user may read."""
    os.chown(users_directory, 0, 0)
    users_directory.chmod(0o755)
    app = docker_save(users_directory / "app.tar", {"app:1": [layer({"etc/motd": b"hello"})]})
    docker_save(users_directory / "other.tar", {"other:1": [layer({"etc/motd": b"bye"})]})
    fill(users_directory / "store", app)
    return users_directory / "store"


def fill(store: Path, archive: Path) -> None:
    with opened(store) as local:
        local.load(archive).get(timeout=60)


def share(store: Path) -> None:
    for directory in (store, store / "layers", store / "configs"):
        directory.chmod(0o755)


def answers(store: Path) -> dict[str, str]:
    """Return what each call says, or the kind of what it returns."""
    found = {}
    with opened(store) as local:
        for name, ask in ASKS.items():
            try:
                found[name] = type(ask(local).get(timeout=60)).__name__
            except ForeignStoreError as error:
                found[name] = str(error)
    return found


def says(store: Path, *lines: str) -> dict[str, tuple[int, str]]:
    """Return what each command exits with and says on stderr."""
    found = {}
    os.chdir(store.parent)
    for line in lines:
        errors = io.StringIO()
        output = io.TextIOWrapper(io.BytesIO(), "utf-8")
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(output):
            status = main(["--store", str(store), *line.split()])
        found[line] = status, errors.getvalue()
    return found


def test_store_that_is_not_shared_is_told_as_another_users(foreign):
    said = as_ordinary_user(answers, foreign)

    for sentence in said.values():
        assert sentence.startswith(
            f"the store at {foreign} belongs to user 0, and this is user {ORDINARY_USER}, who may"
        )
        assert sentence.endswith("Nothing was changed; work as user 0, or with a store of your own")


@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_command_line_tells_so_too_in_one_sentence(foreign, mode):
    foreign.chmod(mode)

    for status, errors in as_ordinary_user(says, foreign, *READING, *WRITING).values():
        assert status == 1
        assert errors.startswith(f"imagestore: the store at {foreign} belongs to user 0, and this is user")
        assert errors.count("\n") == 1


@pytest.mark.parametrize("number", [1, 100])
def test_layers_that_may_not_be_looked_at_are_not_missing(foreign, number):
    layers = [layer({f"etc/{n}": b"hello"}) for n in range(number)]
    fill(foreign, docker_save(foreign.parent / "many.tar", {"many:1": layers}))
    foreign.chmod(0o755)

    (said,) = as_ordinary_user(says, foreign, "get many:1").values()

    assert "belongs to user 0" in said[1]
    assert "incomplete" not in said[1]


def test_shared_store_is_read_and_not_changed(foreign):
    share(foreign)
    before = sorted((path, path.lstat().st_mtime_ns) for path in foreign.rglob("*"))

    read = as_ordinary_user(says, foreign, *READING)
    written = as_ordinary_user(says, foreign, *WRITING)
    asked = as_ordinary_user(answers, foreign)

    assert set(read.values()) == {(0, "")}
    for status, errors in written.values():
        assert status == 1
        assert errors.startswith(f"imagestore: the store at {foreign} belongs to user 0, and this is user")
    assert [asked[name] for name in ("list", "get", "config", "usage", "check")] == [
        *("tuple", "ImageInfo", "bytes", "Usage", "CheckReport")
    ]
    for name in ("lease", "recover", "remove", "prune"):
        assert "belongs to user 0" in asked[name]
    assert sorted((path, path.lstat().st_mtime_ns) for path in foreign.rglob("*")) == before


def test_shared_store_goes_on_being_its_owners(foreign):
    share(foreign)

    fill(foreign, foreign.parent / "other.tar")

    assert as_ordinary_user(says, foreign, "get other:1") == {"get other:1": (0, "")}
    assert as_ordinary_user(check_deeply, foreign) == ((), ())


def check_deeply(store: Path) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    with opened(store) as local:
        report = local.check(deep=True).get(timeout=60)
        return report.faults, report.unchecked


def test_root_without_privileges_is_another_user_too(foreign):
    for path in (foreign, *foreign.rglob("*")):
        os.chown(path, ORDINARY_USER, ORDINARY_USER)

    said = with_capabilities("-all", answers, foreign)

    for sentence in said.values():
        assert sentence.startswith(f"the store at {foreign} belongs to user {ORDINARY_USER}, and this is user 0")


def test_files_that_root_left_in_a_users_store_are_told(foreign):
    for path in (foreign, *foreign.rglob("*")):
        os.chown(path, ORDINARY_USER, ORDINARY_USER)
    os.chown(StorePaths(foreign).references_lock, 0, 0)

    (said,) = as_ordinary_user(says, foreign, "remove app:1").values()

    assert said[0] == 1
    assert said[1].startswith(
        f"imagestore: the store at {foreign} has files of user 0, and this is user {ORDINARY_USER}"
    )
    assert said[1].endswith("locks/references. Nothing was changed; have them given to the owner of the store\n")


def test_own_store_without_permissions_is_no_other_users(users_directory):
    store = users_directory / "store"

    assert "Permission denied" in as_ordinary_user(lock_oneself_out, store)


def lock_oneself_out(store: Path) -> str:
    store.mkdir(mode=0)
    try:
        answers(store)
    except PermissionError as error:
        return str(error)
    return ""


def test_directory_where_no_store_can_be_made_is_refused_as_it_was(foreign):
    (said,) = as_ordinary_user(says, foreign.parent / "new", "put app.tar").values()

    assert said == (1, f"imagestore: {foreign.parent / 'new'}: Permission denied\n")
