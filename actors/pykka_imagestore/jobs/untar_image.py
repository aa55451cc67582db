"""Index an image archive by its headers: no byte of a layer is copied. Runs in a worker process.

Reads every form that ``docker save`` has written, and OCI image layouts, as a tar or as a directory. An archive that is
compressed as a whole is first inflated, once; one that comes through a pipe is first copied, since it cannot be read
twice.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, replace

from pykka_imagestore.core.archive_index import ArchivedImage, ArchiveIndex
from pykka_imagestore.core.byte_source import BLOCK_BYTES, ByteSource
from pykka_imagestore.core.format_error import FormatError, UnsupportedFormatError, about_archive
from pykka_imagestore.core.formats.archive_format import read_archive
from pykka_imagestore.core.identity import FileIdentity
from pykka_imagestore.core.limits import DEFAULT_LIMITS, Limits
from pykka_imagestore.core.platform import Platform, WantedPlatform
from pykka_imagestore.core.tar.format import TarError
from pykka_imagestore.core.totals import Totals
from pykka_imagestore.fs.create import open_own
from pykka_imagestore.fs.write import write_all
from pykka_imagestore.jobs.archive.directory_members import DirectoryMembers
from pykka_imagestore.jobs.archive.file_source import FileSource
from pykka_imagestore.jobs.archive.member_names import tar_fault
from pykka_imagestore.jobs.archive.opening import open_for_reading, require_same
from pykka_imagestore.jobs.archive.pipe import PipeFile
from pykka_imagestore.jobs.archive.tar_members import TarMembers
from pykka_imagestore.jobs.unpack.inflate import (
    MAGIC_BYTES,
    inflate,
    is_compressed,
    read_some,
)
from pykka_imagestore.jobs.unpack.limiter import Limiter, space_for, too_large
from pykka_imagestore.jobs.unpack.sandbox import Sandbox
from pykka_imagestore.runtime.worker import raise_if_discarded


@dataclass(frozen=True, slots=True)
class UntarImage:
    """What to index.

    Attributes:
        archive: A file, perhaps compressed as a whole, a directory, or a pipe.
        inflated: Where to write the copy of an archive that is compressed or comes through a pipe.
        sandbox: Directory for messages; None for nowhere.
        platform: Which images to choose; None prefers those of this machine.
        limits: How much the archive may ask for.
        identity: Which file, directory or pipe it must be; None for any.
        follow_links: Whether symbolic links in an archive that is a directory are followed.
    """

    archive: str
    inflated: str
    sandbox: str | None = None
    platform: Platform | None = None
    limits: Limits = DEFAULT_LIMITS
    identity: FileIdentity | None = None
    follow_links: bool = False


def untar_image(request: UntarImage) -> ArchiveIndex:
    """Return what the archive holds; layers lie in the archive itself, or in its inflated copy.

    Safe to run again, but for a pipe.

    Raises:
        UnsupportedArchiveError: It is no image archive, or of a form that is not supported.
        ArchiveError: It is malformed, or contradicts itself.
        ArchiveChangedError: It is not the one that was asked for, or was written to while it was read.
        DigestMismatchError: A manifest or config is not what its name says.
        OSError: It cannot be read, or the disk failed.
    """
    with Sandbox(request.sandbox) as sandbox, about_archive(request.archive):
        file = open_for_reading(request.archive, _unsupported_kind, stat.S_IFREG, stat.S_IFDIR, stat.S_IFIFO)
        try:
            require_same(request.archive, file, request.identity)
            index = _index_unchanged(request, file)
        finally:
            os.close(file)
        sandbox.say(f"{request.archive}: {len(index.images)} images")
        return index


def _unsupported_kind(found: str) -> UnsupportedFormatError:
    return UnsupportedFormatError(f"is no file, no directory and no pipe, but {found}")


def _index_unchanged(request: UntarImage, file: int) -> ArchiveIndex:
    """Index the archive, and require that it was not written to while it was read.

    A fault that is found in an archive that changed is no fault of the archive; the change is the error then.
    """
    status = os.fstat(file)
    before = FileIdentity.of(status)
    try:
        index = _index(request, file, status.st_mode)
    except FormatError:
        require_same(request.archive, file, before, with_ctime=True)
        raise
    require_same(request.archive, file, before)
    return index


def _index(request: UntarImage, file: int, mode: int) -> ArchiveIndex:
    totals = Totals(request.limits)
    if stat.S_ISDIR(mode):
        members = DirectoryMembers(request.archive, file, totals, follow_links=request.follow_links)
        return _read(request, members, totals)
    if stat.S_ISFIFO(mode):
        return _index_copy(request, *_open_pipe(file), totals)
    whole = FileSource(file, request.archive, 0, os.fstat(file).st_size)
    magic = whole.peek(MAGIC_BYTES)
    if is_compressed(magic):
        return _index_copy(request, whole, magic, totals)
    return _read(request, TarMembers(request.archive, request.archive, file, totals), totals)


def _open_pipe(file: int) -> tuple[PipeFile, bytes]:
    pipe = PipeFile(file)
    magic = pipe.peek(MAGIC_BYTES)
    if not magic:
        msg = "is a pipe through which nothing came; start what writes to it first"
        raise UnsupportedFormatError(msg)
    return pipe, magic


def _index_copy(request: UntarImage, source: ByteSource, magic: bytes, totals: Totals) -> ArchiveIndex:
    _inflate(request, source, magic)
    file = os.open(request.inflated, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _read(request, TarMembers(request.archive, request.inflated, file, totals), totals)
    finally:
        os.close(file)


def _inflate(request: UntarImage, source: ByteSource, magic: bytes) -> None:
    inflated = inflate(source, magic, request.limits)
    directory, size_bytes = os.path.dirname(request.inflated), 0
    guard = Limiter(request.limits, directory)
    with (
        space_for(BLOCK_BYTES, directory, request.inflated),
        open(request.inflated, "wb", buffering=0, opener=open_own) as target,
    ):
        try:
            while block := read_some(inflated, BLOCK_BYTES):
                raise_if_discarded()
                size_bytes += len(block)
                write_all(target.fileno(), block)
                guard.check(source.bytes_read, size_bytes)
        except TarError as error:
            raise tar_fault(error, "it") from error
        except OSError as error:
            refusal = too_large(error, request.archive, "its copy that is a tar", size_bytes)
            if refusal is None:
                raise
            raise refusal from error


def _read(request: UntarImage, members: TarMembers | DirectoryMembers, totals: Totals) -> ArchiveIndex:
    images, refused = read_archive(members, totals, _wanted(request.platform))
    return ArchiveIndex(request.archive, tuple(_with_estimates(members, image) for image in images), refused)


def _wanted(platform: Platform | None) -> WantedPlatform:
    if platform is not None:
        return WantedPlatform(platform, is_asked=True)
    machine = os.uname()
    return WantedPlatform(Platform.of_machine(machine.sysname, machine.machine), is_asked=False)


def _with_estimates(members: TarMembers | DirectoryMembers, image: ArchivedImage) -> ArchivedImage:
    layers = (layer if layer.absence else members.with_estimate(layer) for layer in image.layers)
    return replace(image, layers=tuple(layers))
