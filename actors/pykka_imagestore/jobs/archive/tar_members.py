"""The members of an archive that is a tar, found by its headers: no byte of a layer is read."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from pykka_imagestore.core.format_error import FormatError, UnsupportedFormatError
from pykka_imagestore.core.identity import FileIdentity
from pykka_imagestore.core.layer_blob import Absent, CopyRange, FileRange, LayerBlob
from pykka_imagestore.core.tar.format import BLOCK, FILE, HARD_LINK, SYMLINK, Entry, TarError, clean_path
from pykka_imagestore.core.tar.reader import read_entries
from pykka_imagestore.core.totals import Totals
from pykka_imagestore.jobs.archive.estimates import Estimator
from pykka_imagestore.jobs.archive.file_source import FileSource
from pykka_imagestore.jobs.archive.json_reader import JsonReader
from pykka_imagestore.jobs.archive.member_names import no_member, parse_member_name, tar_fault
from pykka_imagestore.jobs.archive.opening import read_at
from pykka_imagestore.text import shown

_MAX_LINKS = 8
_MAGIC = slice(257, 262)  # of a header; the oldest tars have none


@dataclass(frozen=True, slots=True)
class _Member:
    offset: int
    size: int
    link: bytes | None


class TarMembers:
    """The files in a tar, by name; symbolic and hard links between them are followed, never outside.

    Args:
        archive: Path of the archive.
        path: Path of the tar: the archive itself, or a copy of it.
        file: The open tar. It is the caller's, and stays open as long as members are read.
        totals: Counts what the archive asks for.

    Raises:
        UnsupportedFormatError: It is no tar.
        FormatError: It is damaged, cut off or hostile.
    """

    def __init__(self, archive: str, path: str, file: int, totals: Totals) -> None:
        self._archive, self._path, self._file = archive, path, file
        self._identity = FileIdentity.of(os.fstat(file))
        self._members = _read_headers(_Seeker(path, file, self._identity.size_bytes), totals)
        self._estimator = Estimator()
        self._json = JsonReader(totals)

    def names(self) -> list[str]:
        """Return the names of all members, cleaned."""
        return [os.fsdecode(name) for name in self._members]

    def has(self, name: str) -> bool:
        """Tell whether there is a member of that name."""
        return os.fsencode(name) in self._members

    def blob(self, unsafe_name: str) -> LayerBlob:
        """Return a member as a blob.

        Raises:
            FormatError: There is no such member, or its links lead nowhere.
        """
        member = self._find(unsafe_name)
        return LayerBlob(unsafe_name, member.size, self._locate(member))

    def absent(self, reason: str) -> Absent:
        """Return the location of what the archive names and does not hold."""
        return Absent(self._archive, reason)

    def read_json(self, unsafe_name: str) -> bytes:
        """Return the bytes of a member that holds JSON, bounded.

        Raises:
            FormatError: There is no such member, or it is larger than JSON here may be, by itself or with all before.
        """
        return self._json.read(self.blob(unsafe_name), self._source(unsafe_name))

    def with_estimate(self, layer: LayerBlob) -> LayerBlob:
        """Return a layer with its estimate."""
        return self._estimator.estimate(layer, self._source(layer.name))

    def _locate(self, member: _Member) -> FileRange | CopyRange:
        if self._path == self._archive:
            return FileRange(self._path, member.offset, self._identity)
        return CopyRange(self._archive, self._path, member.offset, self._identity)

    def _source(self, unsafe_name: str) -> FileSource:
        member = self._find(unsafe_name)
        return FileSource(self._file, self._path, member.offset, member.size)

    def _find(self, unsafe_name: str) -> _Member:
        name = parse_member_name(unsafe_name)
        for _ in range(_MAX_LINKS):
            member = self._members.get(name)
            if member is None:
                raise no_member(unsafe_name)
            if member.link is None:
                return member
            name = member.link
        msg = "is a link that leads nowhere"
        raise FormatError(msg, (f"its member {shown(unsafe_name)}",))


def _read_headers(source: _Seeker, totals: Totals) -> dict[bytes, _Member]:
    members: dict[bytes, _Member] = {}
    last: Entry | None = None
    limits = replace(totals.limits, entries=totals.limits.members + 1)  # those of a layer are another matter
    try:
        for entry in read_entries(source, limits):
            last = entry
            name, link = _parse_names(entry)
            totals.add("members", 1, "members")
            totals.add("member_name_bytes", len(name) + len(link or b""), "bytes of members' names")
            if entry.kind == FILE:
                members[name] = _Member(source.position, entry.size, None)
                _skip_body(source, entry)
            elif link is not None:
                members[name] = _Member(0, 0, link)
    except TarError as error:
        if last is None and not source.begins_as_a_tar():
            msg = "is no image archive: it is no tar; save the image with docker save, podman save or skopeo copy"
            raise UnsupportedFormatError(msg) from error
        where = "its first member" if last is None else f"what follows its {_member(last)}"
        raise tar_fault(error, where) from error
    return members


def _parse_names(entry: Entry) -> tuple[bytes, bytes | None]:
    """Return a member's name and, if it is a link, its target; both as names in the archive."""
    try:
        name = clean_path(entry.name)
    except TarError as error:
        raise tar_fault(error, f"its {_member(entry)}") from error
    if entry.sparse is not None:
        msg = "is sparse, so it has to be packed again, without holes"
        raise FormatError(msg, (f"its {_member(entry)}",))
    if entry.kind not in (HARD_LINK, SYMLINK):
        return name, None
    try:
        return name, clean_path(entry.link if entry.kind == HARD_LINK else _beside(name, entry.link))
    except TarError as error:
        raise tar_fault(error, f"its {_member(entry)}", f"a link to {shown(entry.link)}") from error


def _beside(name: bytes, link: bytes) -> bytes:
    """Return a symlink's target as a name in the archive."""
    directory, _, _ = name.rpartition(b"/")
    return link if link.startswith(b"/") else directory + b"/" + link


def _skip_body(source: _Seeker, entry: Entry) -> None:
    end = source.position + entry.size
    if end > source.size_bytes:
        msg = f"is cut off: it ends at byte {end}, and the archive has {source.size_bytes}"
        raise FormatError(msg, (f"its {_member(entry)}",))
    source.skip(entry.size)


def _member(entry: Entry) -> str:
    return f"member {entry.index} {shown(entry.name)}"


class _Seeker:
    """A ``Source`` that skips bytes without reading them."""

    def __init__(self, path: str, file: int, size_bytes: int) -> None:
        self._path, self._file = path, file
        self.size_bytes = size_bytes
        self.position = 0

    def begins_as_a_tar(self) -> bool:
        """Tell whether the first bytes are a tar header, whatever follows them."""
        return read_at(self._path, self._file, BLOCK, 0)[_MAGIC] == b"ustar"

    def take(self, size: int) -> bytes:
        """Return the next ``size`` bytes; fewer only at the end."""
        data = read_at(self._path, self._file, size, self.position)
        self.position += len(data)
        return data

    def skip(self, size: int) -> None:
        """Skip ``size`` bytes, but never past the end: an offset has 63 bits, a size may have more."""
        self.position = min(self.position + size, self.size_bytes)
