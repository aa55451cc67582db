"""Unpack one layer file into a directory of the user's choice, all of it or nothing. Runs in a worker process."""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pykka_imagestore.core.archive import Extent
from pykka_imagestore.core.identity import FileIdentity
from pykka_imagestore.errors import InvalidInputError, NotRemovedError
from pykka_imagestore.fs.remove_tree import empty_folder
from pykka_imagestore.jobs.opening import open_for_reading
from pykka_imagestore.jobs.untar_layer import LayerCounts, unpack


@dataclass(frozen=True, slots=True)
class UnpackInto:
    """What to unpack, and where.

    Attributes:
        layer: The file.
        directory: Absolute, without symlinks. Empty; nobody else may write to it meanwhile.
        before: The mode and owner that it had; None if it was made for this, and goes if this fails.
    """

    layer: Extent
    directory: str
    before: tuple[int, int, int] | None

    @classmethod
    def prepare(cls, layer: str, directory: str) -> Self:
        """Make the directory, or see that it is empty. From here on, ``undo_unpack`` takes back what was done.

        Raises:
            InvalidInputError: The layer is no file, or the directory holds something.
            OSError: One of them cannot be read, or made.
        """
        extent = _whole_file(layer)
        target = os.path.realpath(directory)
        try:
            Path(target).mkdir()
        except FileExistsError:
            if os.listdir(target):
                raise InvalidInputError(
                    f"{directory} is not empty; a layer is unpacked into an empty directory"
                ) from None
            status = Path(target).stat()
            return cls(extent, target, (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid))
        return cls(extent, target, None)


def unpack_into(request: UnpackInto) -> LayerCounts:
    """Unpack the layer; its whiteouts and all. Nothing is synced.

    Reports LayerCounts ten times a second at most.

    Raises:
        LayerError: An entry is malformed, hostile or not supported.
        ArchiveChangedError: The layer is another file than it was, or was written to.
        OSError: The disk failed, or is full.
        In each case the directory is as it was, empty, or gone if it was made for this; save for what could not be
        removed, which ``undo_unpack`` tells.
    """
    try:
        return unpack(request.layer, request.directory, None)
    except BaseException:
        with contextlib.suppress(NotRemovedError):
            undo_unpack(request)
        raise


def undo_unpack(request: UnpackInto) -> None:
    """Take back what ``unpack_into`` did, also if it was killed; safe to run again.

    Raises:
        NotRemovedError: Something is left.
    """
    directory = Path(request.directory)
    with contextlib.suppress(FileNotFoundError):
        empty_folder(request.directory)
        if request.before is None:
            directory.rmdir()
        else:
            mode, *owner = request.before
            with contextlib.suppress(PermissionError):  # a group that this process is not in
                os.chown(directory, *owner)
            with contextlib.suppress(PermissionError):  # another's, and not taken over
                directory.chmod(mode)


def _whole_file(path: str) -> Extent:
    def refusal(found: str) -> InvalidInputError:
        return InvalidInputError(f"{path} is no file, but {found}")

    file = open_for_reading(path, refusal, stat.S_IFREG)
    try:
        identity = FileIdentity.of(os.fstat(file))
        return Extent(str(Path(path).absolute()), 0, identity.size_bytes, Path(path).name, identity=identity)
    finally:
        os.close(file)
