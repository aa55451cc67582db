"""Whether other users are mapped: by programs of ours here, where those of the machine may have no effect."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from support.privileges import with_own_mounts
from support.rootfs import request

from pykka_imagestore.errors import RootfsError
from pykka_imagestore.rootfs.namespace import InNamespace, Namespace
from pykka_imagestore.rootfs.overlay import Overlay
from pykka_imagestore.rootfs.subordinates import has_subordinates, map_subordinates

pytestmark = pytest.mark.root
FILES = {"uid": "/etc/subuid", "gid": "/etc/subgid"}
WORKS = '#!/bin/sh\necho "$0 $*" >> "${0%/*}/called"\n'
FAILS = "#!/bin/sh\nexit 1\n"
NO_PROGRAM = "no program"


def give(place: Path, given: dict[str, str], programs: dict[str, str]) -> None:
    for kind, path in FILES.items():
        (place / kind).write_text(given.get(kind, ""))
        subprocess.run(["mount", "--bind", place / kind, path], check=True)
        program = place / f"new{kind}map"
        program.write_text(programs[kind])
        program.chmod(0o700)
    os.environ["PATH"] = str(place)


def mapped(place: Path, given: dict[str, str], programs: dict[str, str]) -> tuple[bool, bool, list[str]]:
    """Return whether a user is told to have others, whether they were mapped, and how the programs were called."""
    give(place, given, programs)
    has, done = has_subordinates(), map_subordinates(7)
    called = place / "called"
    return has, done, called.read_text().replace(f"{place}/", "").splitlines() if called.exists() else []


def unmounted_where(place: Path, read_only: bool) -> bool:
    """Tell whether something is unmounted without a process that holds namespaces."""
    give(place, dict.fromkeys(FILES, "root:100000:10\n"), {"uid": WORKS, "gid": WORKS})
    started: list[str] = []

    def start() -> list[str]:
        started.append("")
        return ["/no/python"]

    with suppress(RootfsError):
        InNamespace(Overlay(), Namespace(start)).unmount(request(place / "box", read_only=read_only))
    return not started


@pytest.fixture
def call(tmp_path):
    if not all(os.path.exists(path) for path in FILES.values()):
        pytest.skip("there is no /etc/subuid")
    return lambda *arguments, function=mapped: with_own_mounts(function, tmp_path, *arguments)


def test_users_and_groups_are_mapped_from_1_on(call):
    given = {"uid": "other:1:1\nbroken\n0:100000:10\nroot:300000:20\n", "gid": "root:500000:30\n"}

    assert call(given, {"uid": WORKS, "gid": WORKS}) == (
        True,
        True,
        ["newuidmap 7 0 0 1 1 100000 10 11 300000 20", "newgidmap 7 0 0 1 1 500000 30"],
    )


@pytest.mark.parametrize("only", ["uid", "gid"])
def test_of_a_user_who_was_given_one_kind_alone_nobody_is_mapped(call, only):
    """Each map is written once: the namespace would be left with one that the process can then not make whole."""
    assert call({only: "root:100000:10\n"}, {"uid": WORKS, "gid": WORKS}) == (False, False, [])


@pytest.mark.parametrize("program", [FAILS, NO_PROGRAM])
def test_a_program_that_cannot_do_it_is_told(call, program):
    given = dict.fromkeys(FILES, "root:100000:10\n")

    assert call(given, {"uid": program, "gid": WORKS}) == (True, False, [])


@pytest.mark.parametrize("read_only", [False, True])
def test_a_process_is_started_to_unmount_only_where_others_may_have_written(call, read_only):
    assert call(read_only, function=unmounted_where) == read_only
