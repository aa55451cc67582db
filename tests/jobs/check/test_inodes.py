from __future__ import annotations

import os
from pathlib import Path

import pytest

from pykka_imagestore.jobs.check import inodes as inodes_module
from pykka_imagestore.jobs.check.inodes import Inodes


def counted(*files: Path, names: int = 0) -> Inodes:
    inodes = Inodes()
    for file in files:
        inodes.add_file(file.stat().st_nlink)
    for _ in range(names):
        inodes.add_name()
    return inodes


@pytest.fixture
def files(tmp_path):
    made = [tmp_path / f"f{number}" for number in range(9)]
    for file in made:
        file.touch()
    return made


def test_files_with_the_names_that_there_are_need_not_be_looked_at(files):
    os.link(files[0], files[0].with_name("link"))

    assert counted(*files, names=1).find_joined(lambda: pytest.fail("why look?")) == 0


@pytest.mark.parametrize("at_once", [200_000, 2])
def test_files_that_were_made_one_are_counted_however_many_there_are(files, monkeypatch, at_once):
    monkeypatch.setattr(inodes_module, "_MAX_NUMBERS", at_once)
    for file in files[1:4]:
        file.unlink()
        os.link(files[0], file)

    assert counted(*files).find_joined(lambda: [file.stat() for file in files]) == 3


@pytest.mark.parametrize("at_once", [200_000, 2])
def test_names_elsewhere_are_none_of_ours(files, tmp_path, monkeypatch, at_once):
    monkeypatch.setattr(inodes_module, "_MAX_NUMBERS", at_once)
    for file in files:
        os.link(file, tmp_path / f"outside-{file.name}")

    assert counted(*files).find_joined(lambda: [file.stat() for file in files]) == 0
