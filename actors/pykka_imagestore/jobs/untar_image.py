"""Find out what an image archive holds, by its headers: no byte of a layer is copied. Runs in a worker process.

Reads what ``docker save`` writes, of every generation, and OCI image layouts, as a tar or as a directory. A file that
is compressed as a whole is inflated first, once; what comes through a pipe is copied first, since it cannot be read
twice.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, replace

from pykka_imagestore.core.archive import ArchivedImage, ArchiveIndex
from pykka_imagestore.core.byte_source import BLOCK_BYTES, ByteSource
from pykka_imagestore.core.formats.archive_format import read_archive
from pykka_imagestore.core.identity import FileIdentity
from pykka_imagestore.core.limits import DEFAULT_LIMITS, Limits
from pykka_imagestore.core.platform import Platform, WantedPlatform
from pykka_imagestore.core.tar.format import OverLimitError, TarError
from pykka_imagestore.core.totals import Totals
from pykka_imagestore.errors import ArchiveError, LimitError, UnsupportedArchiveError
from pykka_imagestore.fs.made import open_own
from pykka_imagestore.jobs.archive.directory_members import DirectoryMembers
from pykka_imagestore.jobs.archive.file_source import FileSource
from pykka_imagestore.jobs.archive.opening import open_for_reading, require_same
from pykka_imagestore.jobs.archive.pipe import PipeFile
from pykka_imagestore.jobs.archive.tar_members import Members
from pykka_imagestore.jobs.unpack.layer_stream import (
    MAGIC_BYTES,
    inflate,
    is_compressed,
    read_some,
)
from pykka_imagestore.jobs.unpack.limiter import Limiter
from pykka_imagestore.jobs.unpack.sandbox import Sandbox
from pykka_imagestore.runtime.worker import raise_if_discarded


@dataclass(frozen=True, slots=True)
class UntarImage:
    """What to index.

    Attributes:
        archive: A file, perhaps compressed as a whole, a directory, or a pipe.
        inflated: Where to put the inflated archive, if it is compressed, or what comes through the pipe.
        sandbox: Directory for what there is to say; None for nowhere.
        platform: Which images to choose; None for those of this machine, or what there is.
        limits: How much it may become, inflated.
        identity: Which file, directory or pipe it must be; None for any.
    """

    archive: str
    inflated: str
    sandbox: str | None = None
    platform: Platform | None = None
    limits: Limits = DEFAULT_LIMITS
    identity: FileIdentity | None = None


def untar_image(request: UntarImage) -> ArchiveIndex:
    """Return what the archive holds; layers lie in the archive itself, or in its inflated copy.

    Safe to run again, but for a pipe.

    Raises:
        UnsupportedArchiveError: It is no image archive, or of a form that is not supported.
        ArchiveError: It is malformed, or contradicts itself.
        ArchiveChangedError: It is not the one that was asked for, or was written to meanwhile.
        DigestMismatchError: A manifest or config is not what its name says.
        OSError: It cannot be read, or the disk failed.
    """
    with Sandbox(request.sandbox) as sandbox:
        file = _open(request.archive)
        try:
            require_same(request.archive, file, request.identity)
            index = _index_unchanged(request, file)
        finally:
            os.close(file)
        sandbox.say(f"{request.archive}: {len(index.images)} images")
        return index


def _open(archive: str) -> int:
    def refusal(found: str) -> ArchiveError:
        return UnsupportedArchiveError(archive, f"is no file, no directory and no pipe, but {found}")

    return open_for_reading(archive, refusal, stat.S_IFREG, stat.S_IFDIR, stat.S_IFIFO)


def _index_unchanged(request: UntarImage, file: int) -> ArchiveIndex:
    """Index the archive; tell if it was written to meanwhile, also if it was refused for what it was in between."""
    status = os.fstat(file)
    before = FileIdentity.of(status)
    try:
        index = _index(request, file, status.st_mode)
    except ArchiveError:
        require_same(request.archive, file, before, with_ctime=True)
        raise
    require_same(request.archive, file, before)
    return index


def _index(request: UntarImage, file: int, mode: int) -> ArchiveIndex:
    if stat.S_ISDIR(mode):
        return _read(request, DirectoryMembers(request.archive, file, _totals(request)))
    if stat.S_ISFIFO(mode):
        return _index_copy(request, *_piped(request.archive, file))
    whole = FileSource(file, request.archive, 0, os.fstat(file).st_size)
    magic = whole.peek(MAGIC_BYTES)
    if is_compressed(magic):
        return _index_copy(request, whole, magic)
    return _read(request, Members(request.archive, request.archive, file, _totals(request)))


def _piped(archive: str, file: int) -> tuple[PipeFile, bytes]:
    pipe = PipeFile(file)
    magic = pipe.peek(MAGIC_BYTES)
    if not magic:
        raise UnsupportedArchiveError(archive, "is a pipe through which nothing came; start what writes to it first")
    return pipe, magic


def _index_copy(request: UntarImage, source: ByteSource, magic: bytes) -> ArchiveIndex:
    _inflate(request, source, magic)
    file = os.open(request.inflated, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _read(request, Members(request.archive, request.inflated, file, _totals(request)))
    finally:
        os.close(file)


def _inflate(request: UntarImage, source: ByteSource, magic: bytes) -> None:
    inflated = inflate(source, magic, request.limits)
    with open(request.inflated, "wb", opener=open_own) as target:
        guard = Limiter(request.limits, os.path.dirname(request.inflated))
        try:
            while block := read_some(inflated, BLOCK_BYTES):
                raise_if_discarded()
                target.write(block)
                guard.check(source.bytes_read, target.tell())
        except OverLimitError as error:
            raise LimitError.of_archive(request.archive, f"it {error}", error.limit) from error
        except TarError as error:
            raise ArchiveError(request.archive, f"it {error}") from error


def _read(request: UntarImage, members: Members | DirectoryMembers) -> ArchiveIndex:
    index = read_archive(members, _wanted(request.platform))
    return replace(index, images=tuple(_with_estimates(members, image) for image in index.images))


def _totals(request: UntarImage) -> Totals:
    return Totals(request.archive, request.limits)


def _wanted(platform: Platform | None) -> WantedPlatform:
    if platform is not None:
        return WantedPlatform(platform, is_asked=True)
    machine = os.uname()
    return WantedPlatform(Platform.of_machine(machine.sysname, machine.machine), is_asked=False)


def _with_estimates(members: Members | DirectoryMembers, image: ArchivedImage) -> ArchivedImage:
    return replace(image, layers=tuple(layer if layer.absence else members.estimated(layer) for layer in image.layers))
