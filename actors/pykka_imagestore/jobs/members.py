"""The members of an archive that is a tar: found by its headers, no byte of a layer is read."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from pykka_imagestore.core.archive import Extent
from pykka_imagestore.core.identity import FileIdentity
from pykka_imagestore.core.tar import FILE, HARD_LINK, SYMLINK, TarError, clean_path, read_entries
from pykka_imagestore.errors import ArchiveError, UnsupportedArchiveError, shown
from pykka_imagestore.jobs.estimates import estimated
from pykka_imagestore.jobs.opening import read_at

MAX_MEMBERS = 100_000
MAX_JSON_BYTES = 4 << 20
MAX_ALL_JSON_BYTES = 64 << 20  # a manifest may name one large config a thousand times
_MAX_LINKS = 8


class JsonBudget:
    """How many bytes of JSON an archive may still make us read."""

    def __init__(self, archive: str) -> None:
        self._archive = archive
        self._left = MAX_ALL_JSON_BYTES

    def spend(self, extent: Extent) -> None:
        """Take what a member costs.

        Raises:
            ArchiveError: It is larger than JSON here may be, by itself or with all before.
        """
        if extent.size > MAX_JSON_BYTES:
            reason = f"its member {shown(extent.name)} has {extent.size} bytes; {MAX_JSON_BYTES} is the limit for JSON"
            raise ArchiveError(self._archive, reason)
        self._left -= extent.size
        if self._left < 0:
            raise ArchiveError(self._archive, f"its JSON has more than {MAX_ALL_JSON_BYTES} bytes")


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
        self._identity = FileIdentity.of(os.fstat(file))
        self._members: dict[bytes, _Member] = {}
        self._estimates: dict[tuple[int, int], tuple[int, int]] = {}
        self._budget = JsonBudget(archive)
        try:
            self._read_headers(_Seeker(path, file))
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
                    return Extent(self._path, member.offset, member.size, unsafe_name, identity=self._identity)
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
        self._budget.spend(extent)
        return read_at(self._path, self._file, extent.size, extent.offset)

    def estimated(self, layer: Extent) -> Extent:
        """Return a layer with its estimates; one that has many names is looked at once."""
        key = layer.offset, layer.size
        if key not in self._estimates:
            found = estimated(layer, self._file)
            self._estimates[key] = found.entries_estimate, found.inflated_estimate
        entries, inflated = self._estimates[key]
        return replace(layer, entries_estimate=entries, inflated_estimate=inflated)

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

    def __init__(self, path: str, file: int) -> None:
        self._path, self._file = path, file
        self._size = os.fstat(file).st_size
        self.position = 0

    def take(self, size: int) -> bytes:
        data = read_at(self._path, self._file, size, self.position)
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
