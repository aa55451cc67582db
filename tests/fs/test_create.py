"""A directory is made that its owner can use, and nobody else gets into another that was put in its place."""

from __future__ import annotations

import os
import stat

import pytest
from support.privileges import with_umask

from pykka_imagestore.durable import files
from pykka_imagestore.fs import create

MAKE = {"by a name": lambda path, mode: create.make_directory(str(path), mode), "by a path": files.make_directory}


def modes_made(path, mode):
    """Make a directory in each way, and return their modes."""
    directories = [path.with_name(f"{path.name} {number}") for number in range(len(MAKE))]
    for directory, make in zip(directories, MAKE.values(), strict=True):
        make(directory, mode)
    return {stat.S_IMODE(directory.stat().st_mode) for directory in directories}


@pytest.mark.parametrize(
    ("umask", "mode", "has"),
    [(0, 0o755, 0o755), (0o027, 0o755, 0o750), (0o077, 0o755, 0o700), (0o777, 0o755, 0o700), (0o777, 0o500, 0o500)],
)
def test_umask_takes_from_others_alone(tmp_path, umask, mode, has):
    assert with_umask(umask, modes_made, tmp_path / "made", mode) == {has}


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_private_directory_that_somebody_puts_in_the_place_stays_private(tmp_path, monkeypatch, make):
    private, path = tmp_path / "private", tmp_path / "made"
    private.mkdir(0o700)
    (private / "secret").touch()
    mkdir = os.mkdir

    def mkdir_and_swap(*arguments, **named):
        mkdir(*arguments, **named)
        path.rmdir()
        private.rename(path)

    monkeypatch.setattr(os, "mkdir", mkdir_and_swap)

    make(path, 0o755)

    assert (path / "secret").exists()
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
