"""Write the merged tree of some layers as a tar. Runs in a worker process, or in a thread that has a descriptor."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass

from pykka_imagestore.core.rootfs import StackLayer
from pykka_imagestore.fs.create import FILE_MODE
from pykka_imagestore.fs.flags import CREATE_FLAGS
from pykka_imagestore.jobs.unpack.ticker import Ticker
from pykka_imagestore.rootfs.tar_export import TarExport


@dataclass(frozen=True, slots=True)
class ExportTar:
    """What to write, and where.

    Attributes:
        layers: The lowest first; of a container, its upper directory is the last.
        target: A file to make; or the descriptor of an open file, pipe or socket, for a task that runs in this process.
        may_change: Whether somebody may write to the topmost layer meanwhile, as to a container's upper directory.
    """

    layers: tuple[StackLayer, ...]
    target: str | int
    may_change: bool = False


@dataclass(frozen=True, slots=True)
class ExportCounts:
    """How far an export has come.

    Attributes:
        written_bytes: Of the tar.
    """

    written_bytes: int


@dataclass(frozen=True, slots=True)
class ExportedTar:
    """What was written.

    Attributes:
        entries: How many the tar has.
        size_bytes: Of the tar.
        left_out: What is not in it as it was, and why, the first 1000: a ``socket``; an ``xattr`` and its name;
            ``changed meanwhile``: it was gone, or its end is zeros; ``in use``: somebody has a lease of it. Of what a
            container wrote also ``a whiteout's name``, ``too long a path``, with all that is below, ``too many holes``,
            and a ``hard link`` that is a file of its own.
        left_out_count: How much that is in all.
    """

    entries: int
    size_bytes: int
    left_out: tuple[tuple[bytes, str], ...]
    left_out_count: int


def export_tar(request: ExportTar) -> ExportedTar:
    """Write a tar of all that is visible, with no whiteout.

    Each directory comes before what is in it, names in the order of their bytes, files before directories. The same
    layers on the same file system give the same bytes: a sparse file is written as one, and how large its holes are is
    the file system's to say.

    Reports ExportCounts ten times a second at most. Nothing is synced.

    Raises:
        FileExistsError: There is something at ``target``.
        OSError: A layer cannot be read, or what is written to failed, or is full, or was closed.
        In each case a file that was made is gone.
    """
    if isinstance(request.target, int):
        return _export(request, request.target)
    target = os.open(request.target, CREATE_FLAGS, FILE_MODE)
    try:
        return _export(request, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(request.target)
        raise
    finally:
        os.close(target)


def _export(request: ExportTar, target: int) -> ExportedTar:
    export = TarExport(request.layers, target, Ticker(ExportCounts).tick, may_change=request.may_change)
    export.write()
    left_out = export.left_out.take()
    return ExportedTar(export.entries, export.written, left_out.listed, left_out.count)
