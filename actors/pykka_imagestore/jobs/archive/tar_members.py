"""The members of an archive that is a tar: found by its headers, no byte of a layer is read."""

from __future__ import annotations

import itertools
import os
import re
from dataclasses import dataclass, replace

from pykka_imagestore.core.byte_source import ByteSource
from pykka_imagestore.core.identity import FileIdentity
from pykka_imagestore.core.layer_blob import FileRange, LayerBlob
from pykka_imagestore.core.tar.format import FILE, HARD_LINK, SYMLINK, OverLimitError, TarError, clean_path
from pykka_imagestore.core.tar.reader import read_entries
from pykka_imagestore.core.totals import Totals
from pykka_imagestore.errors import ArchiveError, LimitError, UnsupportedArchiveError
from pykka_imagestore.jobs.archive.estimates import Estimator
from pykka_imagestore.jobs.archive.file_source import FileSource
from pykka_imagestore.jobs.archive.opening import read_at
from pykka_imagestore.text import shown

MAX_JSON_BYTES = 4 << 20
_MAX_LINKS = 8
_JSON_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|([,:\[{])', re.DOTALL)  # a text, or what stands before a value


class JsonReader:
    """Reads an archive's JSON, no more than may be: small text becomes large objects, and any text may be named again.

    Args:
        totals: Counts what is read.
    """

    def __init__(self, archive: str, totals: Totals) -> None:
        self._archive = archive
        self._totals = totals

    def read(self, blob: LayerBlob, source: ByteSource) -> bytes:
        """Return the bytes of a member.

        Args:
            source: What they are read from.

        Raises:
            ArchiveError: It is larger than JSON here may be.
            LimitError: All JSON together is, or there are too many values in it.
        """
        if blob.size > MAX_JSON_BYTES:
            reason = f"its member {shown(blob.name)} has {blob.size} bytes; {MAX_JSON_BYTES} is the limit for JSON"
            raise ArchiveError(self._archive, reason)
        self._totals.add("json_bytes", blob.size, "bytes of JSON")
        data = source.read(blob.size)
        most = self._totals.limits.json_values
        if sum(map(data.count, (b",", b":", b"[", b"{"))) > most:  # perhaps in texts
            values = itertools.islice((token for token in _JSON_TOKEN.finditer(data) if token[1]), most + 1)
            count = sum(1 for _ in values)
            self._totals.check("json_values", count, f"its member {shown(blob.name)} has more values of JSON")
        return data


@dataclass(frozen=True, slots=True)
class _Member:
    offset: int
    size: int
    link: bytes | None


class Members:
    """The files in a tar, by name; symbolic and hard links between them are followed, never outside."""

    def __init__(self, archive: str, path: str, file: int, totals: Totals) -> None:
        self.archive = archive
        self.totals = totals
        self._path = path
        self._file = file
        self._identity = FileIdentity.of(os.fstat(file))
        self._members: dict[bytes, _Member] = {}
        self._estimator = Estimator()
        self._json = JsonReader(archive, totals)
        try:
            self._read_headers(_Seeker(path, file, self._identity.size_bytes))
        except OverLimitError as error:
            reason = f"after {len(self._members)} members: {error}"
            raise LimitError.of_archive(archive, reason, error.limit) from error
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

    def blob(self, unsafe_name: str) -> LayerBlob:
        """Return a member as a blob.

        Raises:
            ArchiveError: There is no such member, or its links lead nowhere.
        """
        member = self._find(unsafe_name)
        return LayerBlob(unsafe_name, member.size, FileRange(self._path, member.offset, self._identity))

    def read_json(self, unsafe_name: str) -> bytes:
        """Return the bytes of a member that holds JSON, bounded.

        Raises:
            ArchiveError: There is no such member, or it is larger than JSON here may be, by itself or with all before.
        """
        return self._json.read(self.blob(unsafe_name), self._source(unsafe_name))

    def estimated(self, layer: LayerBlob) -> LayerBlob:
        """Return a layer with its estimate."""
        return self._estimator.estimate(layer, self._source(layer.name))

    def _source(self, unsafe_name: str) -> FileSource:
        member = self._find(unsafe_name)
        return FileSource(self._file, self._path, member.offset, member.size)

    def _find(self, unsafe_name: str) -> _Member:
        try:
            name = clean_path(unsafe_name.encode("utf-8", "surrogateescape"))
            for _ in range(_MAX_LINKS):
                member = self._members[name]
                if member.link is None:
                    return member
                name = member.link
        except KeyError:
            raise ArchiveError(self.archive, f"it has no member {shown(unsafe_name)}") from None
        except TarError as error:
            raise ArchiveError(self.archive, f"it names a member {shown(unsafe_name)} that {error}") from error
        except UnicodeEncodeError as error:
            raise ArchiveError(self.archive, f"it names a member {shown(unsafe_name)} that is no text") from error
        raise ArchiveError(self.archive, f"its member {shown(unsafe_name)} is a link that leads nowhere")

    def _read_headers(self, source: _Seeker) -> None:
        limits = self.totals.limits
        for entry in read_entries(source, replace(limits, entries=limits.members + 1)):  # which are no layer's
            name, link = clean_path(entry.name), None
            if entry.sparse is not None:
                msg = f"its member {shown(entry.name)} is sparse, so it has to be packed again, without holes"
                raise TarError(msg)
            if entry.kind == HARD_LINK:
                link = clean_path(entry.link)
            elif entry.kind == SYMLINK:
                link = clean_path(_beside(name, entry.link))
            self.totals.add("members", 1, "members")
            self.totals.add("member_name_bytes", len(name) + len(link or b""), "bytes of members' names")
            if entry.kind == FILE:
                source.require(entry.size)
                self._members[name] = _Member(source.position, entry.size, None)
                source.skip(entry.size)
            elif link is not None:
                self._members[name] = _Member(0, 0, link)


class _Seeker:
    """A ``Source`` that passes over bytes without reading them."""

    def __init__(self, path: str, file: int, size_bytes: int) -> None:
        self._path, self._file, self._size = path, file, size_bytes
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
    directory, _, _ = name.rpartition(b"/")
    return link if link.startswith(b"/") else directory + b"/" + link
