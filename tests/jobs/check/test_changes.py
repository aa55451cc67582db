"""Each kind of change to a stored layer is found, or docs/checking.md says that it is not, and why."""

from __future__ import annotations

import os
import re

import pytest
from support.changes import CHANGES, changed, changed_each
from support.pages import DOCS
from support.privileges import as_ordinary_user

from pykka_imagestore.jobs.check.findings import LayerCheck

SOUND = LayerCheck()
ANYBODYS = [what for what, change in CHANGES.items() if not change.of_root]


def require_found(what: str, quick: LayerCheck, deep: LayerCheck) -> None:
    found = CHANGES[what].found
    if found == "shallow":
        assert quick.faults != ()
    elif found == "deep":
        assert quick == SOUND
        assert deep.faults != ()
    else:
        assert (quick, deep.faults) == (SOUND, ())
        assert (deep.unchecked != ()) == ("the check says" in found)
    assert all(fault.isprintable() for fault in (*quick.faults, *deep.faults))


@pytest.mark.parametrize("what", CHANGES)
def test_change_is_found_or_known_not_to_be(tmp_path, what):
    if CHANGES[what].of_root and os.geteuid() != 0:
        pytest.skip("only root can change that")

    require_found(what, *changed(what, str(tmp_path)))


def test_changes_are_found_by_an_ordinary_user_in_his_own_store(users_directory):
    found = as_ordinary_user(changed_each, ANYBODYS, str(users_directory))

    assert [*found] == ANYBODYS
    for what, (quick, deep) in found.items():
        require_found(what, quick, deep)


def test_documents_list_the_changes_that_are_tried_here():
    page = (DOCS / "checking.md").read_text()
    rows = re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|$", page, flags=re.MULTILINE)
    listed = {what.replace("`", ""): found for what, found in rows if what not in ("change", "---")}

    assert {what: found for what, found in listed.items() if what in CHANGES} == {
        what: change.found for what, change in CHANGES.items()
    }
