from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from support.privileges import as_ordinary_user

from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable.reserve import PIECE_BYTES, PIECES, in_reserve, make_reserve


def pieces(paths: StorePaths) -> list[int]:
    """Return the bytes on disk of each piece."""
    return [path.stat().st_blocks * 512 for path in paths.reserve.iterdir()]


class FullDisk:
    """Something that needs so many pieces' room."""

    def __init__(self, paths: StorePaths, needed: int, error: int = errno.ENOSPC) -> None:
        self._paths, self._needed, self._error = paths, needed, error
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if len(os.listdir(self._paths.reserve)) > PIECES - self._needed:
            raise OSError(self._error, os.strerror(self._error))
        return "done"


def test_a_new_store_has_a_reserve_that_takes_blocks_and_inodes(paths: StorePaths) -> None:
    assert len(pieces(paths)) == PIECES
    assert all(PIECE_BYTES <= piece < 2 * PIECE_BYTES for piece in pieces(paths))


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("needed", [0, 1, 5, PIECES])
def test_the_reserve_is_given_up_piece_by_piece_and_no_more_than_needed(
    paths: StorePaths, needed: int, error: int
) -> None:
    act = FullDisk(paths, needed, error)

    assert in_reserve(paths, act) == "done"

    assert (act.calls, len(pieces(paths))) == (needed + 1, PIECES - needed)


def test_what_the_reserve_does_not_suffice_for_fails_as_it_did(paths: StorePaths) -> None:
    act = FullDisk(paths, PIECES + 1)

    with pytest.raises(OSError, match="No space left on device"):
        in_reserve(paths, act)

    assert pieces(paths) == []


def test_another_error_costs_nothing_of_the_reserve(paths: StorePaths) -> None:
    act = FullDisk(paths, 1, errno.EIO)

    with pytest.raises(OSError, match="Input/output error"):
        in_reserve(paths, act)

    assert (act.calls, len(pieces(paths))) == (1, PIECES)


def test_what_is_missing_is_made_again_and_what_is_there_is_left(paths: StorePaths) -> None:
    kept = (paths.reserve / "5").stat()
    (paths.reserve / "0").unlink()
    os.truncate(paths.reserve / "1", 0)
    os.truncate(paths.reserve / "2", 0)
    os.truncate(paths.reserve / "2", PIECE_BYTES)  # as a copy that is sparse

    make_reserve(paths)

    assert len(pieces(paths)) == PIECES
    assert all(piece >= PIECE_BYTES for piece in pieces(paths))
    assert (paths.reserve / "5").stat() == kept


def test_what_was_put_in_the_place_of_a_piece_is_not_written_to(paths: StorePaths, tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    witness.write_bytes(b"as it was")
    for piece in paths.reserve.iterdir():
        piece.unlink()
    (paths.reserve / "0").symlink_to(witness)

    make_reserve(paths)
    in_reserve(paths, FullDisk(paths, PIECES - 1))

    assert witness.read_bytes() == b"as it was"
    assert os.listdir(paths.reserve) == ["0"]


@pytest.mark.parametrize("kind", ["file", "large file", "hard link", "fifo", "directory"])
def test_what_no_store_made_is_neither_given_up_nor_changed(paths: StorePaths, tmp_path: Path, kind: str) -> None:
    own = paths.reserve / "3"
    own.unlink()
    if kind == "directory":
        own.mkdir()
    elif kind == "fifo":
        os.mkfifo(own)
    elif kind == "hard link":
        (tmp_path / "witness").touch()
        os.link(tmp_path / "witness", own)
    else:
        own.write_bytes(b"mine" * (1 if kind == "file" else 100_000))
    before = own.lstat()

    make_reserve(paths)
    in_reserve(paths, FullDisk(paths, PIECES - 1))

    assert own.lstat() == before
    assert os.listdir(paths.reserve) == ["3"]


def test_a_store_that_may_only_be_read_needs_no_reserve(users_directory: Path) -> None:
    (users_directory / "store").mkdir(mode=0o555)

    as_ordinary_user(make_reserve, StorePaths(users_directory / "store"))

    if os.geteuid() != 0:
        (users_directory / "store").chmod(0o755)
    assert os.listdir(users_directory / "store") == []
