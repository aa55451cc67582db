from __future__ import annotations

import os
from pathlib import Path

import pytest

from pykka_imagestore.jobs.check.inodes import Inodes


def counted(*files: Path, names: int = 0, max_numbers: int = 200_000) -> Inodes:
    inodes = Inodes(max_numbers)
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


@pytest.mark.parametrize("max_numbers", [200_000, 2])
def test_files_that_were_made_one_are_counted_however_many_there_are(files, max_numbers):
    for file in files[1:4]:
        file.unlink()
        os.link(files[0], file)

    assert counted(*files, max_numbers=max_numbers).find_joined(lambda: [file.stat() for file in files]) == 3


@pytest.mark.parametrize("max_numbers", [200_000, 2])
def test_names_elsewhere_are_none_of_ours(files, tmp_path, max_numbers):
    for file in files:
        os.link(file, tmp_path / f"outside-{file.name}")

    assert counted(*files, max_numbers=max_numbers).find_joined(lambda: [file.stat() for file in files]) == 0
