"""Find out what an image archive holds, by its headers: no byte of a layer is copied. Runs in a worker process.

Reads what ``docker save`` writes, of every generation: ``manifest.json``, or the older ``repositories`` with a folder
for each layer. A file that is compressed as a whole is inflated first, once.

Spec:
    Docker image spec v1.2, "Combined Image JSON + Filesystem Changeset Format", and v1, "Image JSON Description".
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from pykka_imagestore.core.archive import ArchiveIndex, Extent
from pykka_imagestore.core.limits import DEFAULT_LIMITS, Limits
from pykka_imagestore.core.manifest import MANIFEST, REPOSITORIES, read_images
from pykka_imagestore.core.tar import (
    BLOCK,
    FILE,
    HARD_LINK,
    SYMLINK,
    OverLimitError,
    TarError,
    clean_path,
    read_entries,
)
from pykka_imagestore.errors import ArchiveError, LimitError, UnsupportedArchiveError, shown
from pykka_imagestore.jobs.guard import Guard
from pykka_imagestore.jobs.sandbox import Sandbox
from pykka_imagestore.jobs.streams import BLOCK_BYTES, MAGIC_BYTES, ExtentFile, inflate, is_compressed, read_some
from pykka_imagestore.runtime.worker import raise_if_discarded

MAX_MEMBERS = 100_000
MAX_JSON_BYTES = 4 << 20
MAX_ALL_JSON_BYTES = 64 << 20  # a manifest may name one large config a thousand times
_MAX_LINKS = 8
_MAGIC_OFFSET = 257  # of "ustar" in a header
_SAMPLES, _SAMPLE_BYTES = 64, 16 << 10


@dataclass(frozen=True, slots=True)
class UntarImage:
    """What to index.

    Attributes:
        archive: An archive as ``docker save`` writes it, perhaps compressed as a whole.
        inflated: Where to put the inflated archive, if it is.
        sandbox: Folder for what there is to say; None for nowhere.
        limits: How much it may become, inflated.
    """

    archive: str
    inflated: str
    sandbox: str | None = None
    limits: Limits = DEFAULT_LIMITS


def untar_image(request: UntarImage) -> ArchiveIndex:
    """Return what the archive holds; layers lie in the archive itself, or in its inflated copy.

    Raises:
        UnsupportedArchiveError: It is no image archive, or of a form that is not supported.
        ArchiveError: It is malformed, or contradicts itself.
        DigestMismatchError: A config is not what its name says.
        OSError: It cannot be read, or the disk failed.
    """
    with Sandbox(request.sandbox) as sandbox:
        index = _index(request)
        sandbox.say(f"{request.archive}: {len(index.images)} images")
        return index


def _index(request: UntarImage) -> ArchiveIndex:
    with _opened(request.archive) as (file, magic):
        if not is_compressed(magic):
            return _index_tar(request.archive, request.archive, file)
        _inflate(request, file, magic)
    with _opened(request.inflated) as (file, _):
        return _index_tar(request.archive, request.inflated, file)


@contextmanager
def _opened(path: str) -> Iterator[tuple[int, bytes]]:
    # Not blocking: a fifo would be waited on for ever.
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise UnsupportedArchiveError(path, "is no file; this version takes archives of docker save only")
        yield file, os.pread(file, MAGIC_BYTES, 0)
    finally:
        os.close(file)


def _inflate(request: UntarImage, file: int, magic: bytes) -> None:
    stored = ExtentFile(file, _whole(request.archive, file))
    source = inflate(stored, magic, request.limits.decoder_bytes)
    with Path(request.inflated).open("wb") as target:
        guard = Guard(request.limits, str(Path(request.inflated).parent))
        try:
            while block := read_some(source, BLOCK_BYTES):
                raise_if_discarded()
                target.write(block)
                guard.check(stored.position, target.tell())
        except OverLimitError as error:
            raise LimitError(request.archive, "", None, b"", f"it {error}", error.limit) from error
        except TarError as error:
            raise ArchiveError(request.archive, f"it {error}") from error


def _whole(path: str, file: int) -> Extent:
    return Extent(path, 0, os.fstat(file).st_size, path)


def _index_tar(archive: str, path: str, file: int) -> ArchiveIndex:
    members = Members(archive, path, file)
    if not members.has(MANIFEST) and not members.has(REPOSITORIES) and members.has("index.json"):
        raise UnsupportedArchiveError(archive, "is an OCI archive, which this version does not support")
    estimate = cache(partial(_estimate_entries, file))
    images = [
        replace(
            image,
            layers=tuple(replace(layer, entries_estimate=estimate(layer.offset, layer.size)) for layer in image.layers),
        )
        for image in read_images(members)
    ]
    return ArchiveIndex(archive, tuple(images))


def _estimate_entries(file: int, start: int, size: int) -> int:
    """Estimate a layer's entries by what share of some of its blocks are headers; a compressed one shows none."""
    step = max(_SAMPLE_BYTES, size // _SAMPLES // BLOCK * BLOCK)
    blocks = headers = 0
    for offset in range(0, size, step):
        sample = os.pread(file, min(_SAMPLE_BYTES, size - offset), start + offset)
        magics = [sample[block : block + 5] for block in range(_MAGIC_OFFSET, len(sample), BLOCK)]
        blocks += len(magics)
        headers += magics.count(b"ustar")
    return size // BLOCK * headers // max(1, blocks)


@dataclass(frozen=True, slots=True)
class _Member:
    offset: int
    size: int
    link: bytes | None


class Members:
    """The files in a tar, by name; symbolic and hard links between them are followed, never outside."""

    def __init__(self, archive: str, path: str, file: int) -> None:
        self.archive = archive
        self._path = path
        self._file = file
        self._members: dict[bytes, _Member] = {}
        self._json_bytes = 0
        try:
            self._read_headers(_Seeker(file))
        except TarError as error:
            if not self._members:
                raise UnsupportedArchiveError(archive, "is no image archive: it is no tar") from error
            raise ArchiveError(archive, f"after {len(self._members)} members: {error}") from error

    def names(self) -> list[str]:
        """Return the names of all members, cleaned."""
        return [os.fsdecode(name) for name in self._members]

    def has(self, name: str) -> bool:
        """Tell whether there is a member of that name."""
        return os.fsencode(name) in self._members

    def extent(self, unsafe_name: str) -> Extent:
        """Return where a member's bytes lie.

        Raises:
            ArchiveError: There is no such member, or its links lead nowhere.
        """
        try:
            name = clean_path(unsafe_name.encode("utf-8", "surrogateescape"))
            for _ in range(_MAX_LINKS):
                member = self._members[name]
                if member.link is None:
                    return Extent(self._path, member.offset, member.size, unsafe_name)
                name = member.link
        except KeyError:
            raise ArchiveError(self.archive, f"it has no member {shown(unsafe_name)}") from None
        except TarError as error:
            raise ArchiveError(self.archive, f"it names a member {shown(unsafe_name)} that {error}") from error
        except UnicodeEncodeError as error:
            raise ArchiveError(self.archive, f"it names a member {shown(unsafe_name)} that is no text") from error
        raise ArchiveError(self.archive, f"its member {shown(unsafe_name)} is a link that leads nowhere")

    def read_json(self, unsafe_name: str) -> bytes:
        """Return the bytes of a member that holds JSON, bounded.

        Raises:
            ArchiveError: There is no such member, or it is larger than JSON here may be, by itself or with all before.
        """
        extent = self.extent(unsafe_name)
        if extent.size > MAX_JSON_BYTES:
            reason = f"its member {shown(unsafe_name)} has {extent.size} bytes; {MAX_JSON_BYTES} is the limit for JSON"
            raise ArchiveError(self.archive, reason)
        self._json_bytes += extent.size
        if self._json_bytes > MAX_ALL_JSON_BYTES:
            raise ArchiveError(self.archive, f"its JSON has more than {MAX_ALL_JSON_BYTES} bytes")
        return os.pread(self._file, extent.size, extent.offset)

    def _read_headers(self, source: _Seeker) -> None:
        for entry in read_entries(source):
            name = clean_path(entry.name)
            if entry.sparse is not None:
                msg = f"its member {shown(entry.name)} is sparse, so it has to be packed again, without holes"
                raise TarError(msg)
            if entry.kind == FILE:
                source.require(entry.size)
                self._members[name] = _Member(source.position, entry.size, None)
                source.skip(entry.size)
            elif entry.kind == HARD_LINK:
                self._members[name] = _Member(0, 0, clean_path(entry.link))
            elif entry.kind == SYMLINK:
                self._members[name] = _Member(0, 0, clean_path(_beside(name, entry.link)))
            if entry.index >= MAX_MEMBERS:
                msg = f"it has more than {MAX_MEMBERS} members"
                raise TarError(msg)


class _Seeker:
    """A ``Source`` that passes over bytes without reading them."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._size = os.fstat(file).st_size
        self.position = 0

    def take(self, size: int) -> bytes:
        data = os.pread(self._file, size, self.position)
        self.position += len(data)
        return data

    def skip(self, size: int) -> None:
        self.position = min(self.position + size, self._size)  # no further: an offset has 63 bits, a size may not

    def require(self, size: int) -> None:
        if self.position + size > self._size:
            msg = f"it is cut off: {self.position + size} bytes are needed, {self._size} are there"
            raise TarError(msg)


def _beside(name: bytes, link: bytes) -> bytes:
    """Return a symlink's target as a name in the archive."""
    folder, _, _ = name.rpartition(b"/")
    return link if link.startswith(b"/") else folder + b"/" + link
