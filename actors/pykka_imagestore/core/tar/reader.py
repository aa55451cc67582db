"""Reading tar: headers, and the extension headers that belong to them. Pure: bytes come from a ``Source``.

Everything is bytes, since a name in a tar need not be UTF-8.

Spec:
    POSIX.1-2017, pax, "pax Interchange Format" and "ustar Interchange Format"; GNU tar manual, "Basic Tar Format" and
    "Storing Sparse Files".
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

from pykka_imagestore.core.limits import DEFAULT_LIMITS, Limits

BLOCK: Final = 512
MAX_PATH_BYTES: Final = 4096
MAX_SEGMENTS: Final = 100_000

FILE, HARD_LINK, SYMLINK, CHARACTER_DEVICE, BLOCK_DEVICE, DIRECTORY, FIFO = b"0123456"
_PAX, _PAX_GLOBAL, _GNU_LONG_NAME, _GNU_LONG_LINK, _GNU_SPARSE, _GNU_VOLUME = b"xgLKSV"
_LINKS = frozenset((HARD_LINK, SYMLINK))
_DEVICES = frozenset((CHARACTER_DEVICE, BLOCK_DEVICE))
_FILES = frozenset(b"\x0007")
_WITHOUT_BODY = frozenset((HARD_LINK, SYMLINK, CHARACTER_DEVICE, BLOCK_DEVICE, DIRECTORY, FIFO))

_ZERO_BLOCK = bytes(BLOCK)
_PAX_KINDS = frozenset((_PAX, _PAX_GLOBAL))
_EXTENSIONS = frozenset((_PAX, _PAX_GLOBAL, _GNU_LONG_NAME, _GNU_LONG_LINK, _GNU_VOLUME))
_NUMBERS = frozenset((b"size", b"uid", b"gid"))
_KEYS = _NUMBERS | {b"path", b"linkpath", b"mtime"}
_NAMES = frozenset((b"path", b"linkpath", b"uname", b"gname", b"GNU.sparse.name"))
_XATTR = b"SCHILY.xattr."
_FREE_RECORDS = 2_000_000
_SPARSE = b"GNU.sparse."
_SPARSE_MAP = b"GNU.sparse.map"
_SPARSE_KEYS = frozenset(
    _SPARSE + key for key in (b"major", b"minor", b"name", b"realsize", b"size", b"map", b"offset", b"numbytes")
)
_SPARSE_OFFSET, _SPARSE_BYTES = _SPARSE_PAIR = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
_GNU_MAGIC = b"ustar  \0"
_LONGEST_DECIMAL = 19  # digits of what 63 bits hold
_LONGEST_SECONDS = 18  # digits of a time
_SCIENTIFIC = re.compile(rb"(-?)([0-9]++)(?:\.([0-9]*+))?e([-+]?[0-9]{1,19})")
_NO_XATTRS: dict[bytes, bytes] = {}
_NO_RECORDS: dict[bytes, bytes] = {}
_BLANK_CHECKSUM = 8 * ord(" ")
_MAX_REMEMBERED = 20_000
_REMEMBERED: dict[bytes, int] = {}
_SUMS: dict[bytes, int] = {}
_PERMISSIONS: dict[bytes, tuple[int, int, int]] = {}


class TarError(Exception):
    """A tar is malformed, or asks for what is not supported; the argument is the rest of a sentence.

    Attributes:
        where: Index and name of the entry that it is about, if that is not the one at hand.
    """

    where: tuple[int, bytes] | None = None


class OverLimitError(TarError):
    """A tar asks for more than a limit allows.

    Attributes:
        limit: The limit's name in ``Limits``.
    """

    def __init__(self, reason: str, limit: str) -> None:
        super().__init__(reason, limit)
        self.reason, self.limit = reason, limit

    def __str__(self) -> str:
        return self.reason


class Source(Protocol):
    """Bytes, in order."""

    def take(self, size: int) -> bytes:
        """Return the next ``size`` bytes; fewer only at the end."""

    def skip(self, size: int) -> None:
        """Pass over ``size`` bytes; the end is noticed by the next ``take``."""


@dataclass(frozen=True, slots=True)
class SparseMap:
    """Which parts of a file its body holds, one after the other; the rest of the file are holes.

    Attributes:
        size_bytes: Of the file, holes included.
        segments: Offset and size of each part, in order.
    """

    size_bytes: int
    segments: tuple[tuple[int, int], ...]


@dataclass(slots=True)
class Entry:
    """One entry, with all that its extension headers say.

    Attributes:
        index: Position in the archive, from 0; extension headers do not count.
        kind: A type flag: FILE, HARD_LINK, ...
        name: As the archive has it.
        link: Target of a link, as the archive has it.
        mode: Permission bits, with set-user-ID, set-group-ID and sticky.
        size: Bytes of the body that follows.
        mtime_ns: Nanoseconds since the epoch.
        xattrs: Extended attributes.
        sparse: Where the body belongs, if the file has holes.
    """

    index: int
    kind: int
    name: bytes
    link: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    major: int
    minor: int
    xattrs: dict[bytes, bytes]
    sparse: SparseMap | None = None


def read_entries(source: Source, limits: Limits = DEFAULT_LIMITS) -> Iterator[Entry]:
    """Yield the entries of a tar.

    The consumer takes or skips the ``size`` bytes of an entry's body before it asks for the next entry. Ends at the
    first zero block, or where the bytes end between two entries.

    Raises:
        TarError: The archive is malformed there; OverLimitError if it goes past a limit.
    """
    index = padding = 0
    extensions = _Extensions(limits)
    while (block := _next_header(source, padding)) is not None:
        kind = block[156]
        if kind in _EXTENSIONS:
            padding = extensions.read(kind, _number(block[124:136]), source)
            continue
        if index >= limits.entries:
            msg = f"is one more than {limits.entries} entries, the limit"
            raise OverLimitError(msg, "entries")
        entry = _entry(index, kind, block)
        if extensions.present:
            extensions.apply(entry, source)
        if entry.kind != FILE or entry.size < 0 or entry.name[-1:] == b"/":
            _settle(entry, block, source)
            if entry.sparse is not None:
                extensions.count_segments(entry, entry.sparse)
        padding = -entry.size % BLOCK
        yield entry
        index += 1
    extensions.see_that_none_is_left()


def clean_path(name: bytes) -> bytes:
    """Return a name as a path below the root: no leading ``/`` or ``./``, no ``.``, ``..`` or doubled ``/``.

    The root itself is ``b""``.

    Raises:
        EscapeError: It leads above the root.
        TarError: It is longer than any path may be.
    """
    if name[:2] == b"./":
        name = name[2:]
    name = name.rstrip(b"/")
    if len(name) > MAX_PATH_BYTES:
        msg = f"has a path of {len(name)} bytes; the kernel takes {MAX_PATH_BYTES}"
        raise TarError(msg)
    if b"//" in name or b"/." in name or name[:1] in (b"/", b"."):
        return b"/".join(_clean_parts(name))
    return name


class EscapeError(TarError):
    """A name leads out of the root."""


def parse_pax(data: bytes) -> dict[bytes, bytes]:
    """Parse the records of a pax extended header, lines of ``LENGTH KEY=VALUE``.

    Raises:
        TarError: A record's length or shape is wrong, or a name in it has a NUL byte.
    """
    records = {}
    sparse: list[tuple[bytes, bytes]] = []
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 20)
        digits = data[position:space]
        end = position + int(digits) if space > 0 and digits.isdigit() else 0
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        sound = position < space < end <= len(data) and data[end - 1] == ord("\n")
        if not (sound and equals and key and b"\0" not in key):
            msg = "has a malformed pax record"
            raise TarError(msg)
        if b"\0" in value and key in _NAMES:
            msg = f"has a NUL byte in its pax {key.decode()}"
            raise TarError(msg)
        if key in _SPARSE_PAIR:
            sparse.append((key, value))  # the one kind of record that may come many times
        records[key] = value
        position = end
    if sparse:
        records[_SPARSE_MAP] = _join_sparse_pairs(sparse)
    return records


def _next_header(source: Source, padding: int) -> bytes | None:
    """Return the next header, or None at the end; ``padding`` bytes come before it."""
    block = source.take(padding + BLOCK)[padding:]
    if len(block) < BLOCK:
        if not block:
            return None
        msg = "the archive ends inside a header"
        raise TarError(msg)
    if block == _ZERO_BLOCK:
        return None
    # The low half of Adler-32 is one more than the sum, modulo 65521, and far quicker than to sum here. ASCII does not
    # come to more than that.
    if zlib.adler32(block) & 0xFFFF != _SUMS.get(block[148:156]) or not block.isascii():
        _check_sum(block)
    return block


def _check_sum(block: bytes) -> None:
    """Compare the header's sum, in which its own field counts as blanks; some old tars summed signed characters.

    Remembers the low half of Adler-32 that goes with a sum that is right.
    """
    field = block[148:156]
    stated = _number(field)
    blanked = block[:148] + b" " * 8 + block[156:]
    if stated == sum(blanked):
        _SUMS[field] = stated + sum(field) - _BLANK_CHECKSUM + 1
        _keep_small(_SUMS)
    elif stated != sum(struct.unpack("512b", blanked)):
        msg = "the header's checksum is wrong: this is no tar, or it is damaged here"
        raise TarError(msg)


def _entry(index: int, kind: int, block: bytes) -> Entry:
    path = block[: block.find(b"\0", 0, 100)] if block[99] == 0 else block[:100].partition(b"\0")[0]
    if block[345] and block[257:263] == b"ustar\0":
        path = block[345:500].partition(b"\0")[0] + b"/" + path
    entry = Entry(
        index,
        FILE if kind in _FILES else kind,
        path,
        b"",
        *_permissions(block[100:124]),
        _number(block[124:136]),
        _number(block[136:148]) * 1_000_000_000,
        0,
        0,
        _NO_XATTRS,
    )
    if kind in _LINKS:
        entry.link = block[157:257].partition(b"\0")[0]
    elif kind in _DEVICES:
        entry.major, entry.minor = _number(block[329:337]), _number(block[337:345])
    return entry


def _permissions(fields: bytes) -> tuple[int, int, int]:
    """Return mode, uid and gid; few headers differ in them."""
    known = _PERMISSIONS.get(fields)
    if known is None:
        known = _PERMISSIONS[fields] = (
            _number(fields[:8]) & 0o7777,
            _number(fields[8:16]),
            _number(fields[16:]),
        )
        _keep_small(_PERMISSIONS)
    return known


class _Extensions:
    """What extension headers say: of the next entry, or, if they are global, of all that follow.

    Where pax headers and GNU tar's give one entry two names, tools differ. Image tools are written in Go, whose reader
    takes GNU tar's, and the last of several pax headers alone.
    """

    def __init__(self, limits: Limits) -> None:
        self.present = False
        self._limits = limits
        self._bytes = self._records = self._xattr_bytes = self._segments = 0
        self._most_records = _FREE_RECORDS
        self._global: dict[bytes, bytes] = {}
        self._pax: dict[bytes, bytes] = {}
        self._gnu: dict[bytes, bytes] = {}

    def read(self, kind: int, size: int, source: Source) -> int:
        """Take an extension header's body; return how much padding follows it."""
        self._bytes += BLOCK + size
        if size < 0:
            msg = "has an extension header of negative size"
            raise TarError(msg)
        if self._bytes > self._limits.extension_bytes:
            msg = f"has extension headers of {self._bytes} bytes; {self._limits.extension_bytes} is the limit"
            raise OverLimitError(msg, "extension_bytes")
        data = source.take(size)
        if len(data) < size:
            msg = "the archive ends inside an extension header"
            raise TarError(msg)
        self.present = True
        if kind in _PAX_KINDS:
            # Before they are parsed, for which one of six bytes takes as long as a name. Each has a line end at least.
            self._records += data.count(b"\n")
            if self._records > self._most_records:
                raise self._too_many_records()
            if kind == _PAX:
                self._pax = parse_pax(data)
            else:
                self._keep_for_all(parse_pax(data))
        elif kind != _GNU_VOLUME:
            self._gnu[b"path" if kind == _GNU_LONG_NAME else b"linkpath"] = data.partition(b"\0")[0]
        return -size % BLOCK

    def apply(self, entry: Entry, source: Source) -> None:
        """Change an entry as they say; take a sparse file's map from its body."""
        records = self._pax
        if self._global or self._gnu:
            records = {**self._global, **self._pax, **self._gnu}
        self._bytes = 0
        self._pax = _NO_RECORDS
        if self._gnu:
            self._gnu = {}
        self._most_records += self._limits.pax_records
        self.present = bool(self._global)
        is_sparse = _override(entry, records)
        if entry.xattrs:
            self._count_xattrs(entry.xattrs)
        if is_sparse:
            sparse = _read_pax_sparse(entry, records, source)
            self.count_segments(entry, sparse)

    def count_segments(self, entry: Entry, sparse: SparseMap) -> None:
        """Count the segments of a sparse file: one of a byte takes a block on disk, and as many calls as a long one."""
        self._segments += len(sparse.segments)
        if self._segments > self._limits.segments:
            msg = f"brings the layer to {self._segments} segments of sparse files; {self._limits.segments} is the limit"
            error = OverLimitError(msg, "segments")
            error.where = entry.index, entry.name
            raise error

    def _keep_for_all(self, records: dict[bytes, bytes]) -> None:
        """Keep what a global header says of entries: each that follows is changed by all of it."""
        self._global.update((key, value) for key, value in records.items() if _is_of_entries(key))
        kept = sum(map(len, self._global)) + sum(map(len, self._global.values()))
        if kept > self._limits.global_bytes:
            msg = f"has global headers that say {kept} bytes of each entry; {self._limits.global_bytes} is the limit"
            raise OverLimitError(msg, "global_bytes")

    def _too_many_records(self) -> OverLimitError:
        limit = f"{self._limits.pax_records} for each entry that has some is the limit"
        return OverLimitError(f"brings the layer to {self._records} pax records; {limit}", "pax_records")

    def _count_xattrs(self, xattrs: dict[bytes, bytes]) -> None:
        if len(xattrs) > self._limits.xattrs:
            msg = f"has {len(xattrs)} extended attributes; {self._limits.xattrs} is the limit"
            raise OverLimitError(msg, "xattrs")
        self._xattr_bytes += sum(map(len, xattrs)) + sum(map(len, xattrs.values()))
        if self._xattr_bytes > self._limits.xattr_bytes:
            found = f"brings the layer to {self._xattr_bytes} bytes of extended attributes"
            msg = f"{found}; {self._limits.xattr_bytes} is the limit"
            raise OverLimitError(msg, "xattr_bytes")

    def see_that_none_is_left(self) -> None:
        """Refuse an archive that ends here, if an entry was announced."""
        if self._pax or self._gnu:
            msg = "the archive ends after an extension header, before its entry"
            raise TarError(msg)


def _is_of_entries(key: bytes) -> bool:
    return key in _KEYS or key in _SPARSE_KEYS or key.startswith(_XATTR)


def _override(entry: Entry, records: dict[bytes, bytes]) -> bool:
    """Change an entry as the records say; return whether they speak of a sparse file."""
    xattrs = {}
    is_sparse = False
    for key, value in records.items():
        if key.startswith(_XATTR):
            xattrs[key[len(_XATTR) :]] = value
        elif not value:
            continue  # takes back what a global header said
        elif key == b"path":
            entry.name = value
        elif key == b"linkpath":
            entry.link = value
        elif key in _NUMBERS:
            setattr(entry, key.decode(), _decimal(value, key.decode()))
        elif key == b"mtime":
            entry.mtime_ns = parse_time(value)
        elif key.startswith(_SPARSE):
            is_sparse = True
    if xattrs:
        entry.xattrs = xattrs
    return is_sparse


def _settle(entry: Entry, block: bytes, source: Source) -> None:
    """Settle what an entry is that may be no plain file; refuse what is not supported."""
    if entry.kind in _WITHOUT_BODY:
        entry.size = 0
    elif entry.kind == _GNU_SPARSE:
        _read_gnu_sparse(entry, block, source)
    elif entry.kind != FILE:
        msg = f"is of type {chr(entry.kind)!r}, which is none that a layer may have"
        raise TarError(msg)
    elif entry.size < 0:
        msg = "has a negative size"
        raise TarError(msg)
    else:
        # A directory, as before ustar, where it has no body, and as some tools still write; GNU tar and bsdtar then see
        # no
        # body, Go sees one, and so do we.
        if block[156]:
            source.skip(entry.size + -entry.size % BLOCK)
        entry.kind, entry.size, entry.sparse = DIRECTORY, 0, None


def _read_gnu_sparse(entry: Entry, block: bytes, source: Source) -> None:
    """Read the map of GNU tar's own format: four segments in the header, and more in the blocks behind it."""
    if block[257:265] != _GNU_MAGIC:
        msg = "is a sparse file in a header that is not GNU tar's"
        raise TarError(msg)
    numbers = _gnu_segments(block[386:482])
    more = block[482]
    while more:
        extension = source.take(BLOCK)
        if len(extension) < BLOCK:
            msg = "the archive ends inside a sparse file's map"
            raise TarError(msg)
        numbers += _gnu_segments(extension[:504])
        more = extension[504]
        _check_segments(len(numbers) // 2)
    entry.kind = FILE
    entry.sparse = _sparse_map(_number(block[483:495]), numbers, entry.size)


def _gnu_segments(fields: bytes) -> list[int]:
    """Return offset and size of each segment in turn; an empty field ends them."""
    numbers = []
    for start in range(0, len(fields), 24):
        if not (fields[start] and fields[start + 12]):
            break
        numbers += [_number(fields[start : start + 12]), _number(fields[start + 12 : start + 24])]
    return numbers


def _read_pax_sparse(entry: Entry, records: dict[bytes, bytes], source: Source) -> SparseMap:
    """Return the map of GNU tar's pax formats: 0.0 and 0.1 have it in records, 1.0 at the beginning of the body."""
    version = records.get(b"GNU.sparse.major", b"0"), records.get(b"GNU.sparse.minor", b"")
    if entry.kind != FILE:
        msg = "has the map of a sparse file, and is no file"
        raise TarError(msg)
    if version == (b"1", b"0"):
        numbers = _take_map(entry, source)
    elif version in ((b"0", b""), (b"0", b"0"), (b"0", b"1")):
        numbers = _parse_map(records.get(_SPARSE_MAP, b""))
    else:
        msg = f"is a sparse file of an unknown version, {b'.'.join(version)[:40]!r}"
        raise TarError(msg)
    entry.name = records.get(b"GNU.sparse.name") or entry.name
    size = records.get(b"GNU.sparse.realsize") or records.get(b"GNU.sparse.size") or b"%d" % entry.size
    sparse = entry.sparse = _sparse_map(_decimal(size, "sparse size"), numbers, entry.size)
    return sparse


def _take_map(entry: Entry, source: Source) -> list[int]:
    """Take the map from a body: the number of segments, then offset and size of each, a line each, padded."""
    lines: list[bytes] = []
    wanted, rest = 1, b""
    while len(lines) < wanted:
        block = source.take(BLOCK)
        entry.size -= BLOCK
        if len(block) < BLOCK or entry.size < 0:
            msg = "has a sparse map that does not end"
            raise TarError(msg)
        *whole, rest = (rest + block).split(b"\n")
        lines += whole
        if wanted == 1 and lines:
            wanted += 2 * _check_segments(_decimal(lines[0], "sparse map"))
        if len(lines) < wanted and len(rest) > _LONGEST_DECIMAL:
            msg = f"has a malformed sparse map {rest[:40]!r}"
            raise TarError(msg)
    return [_decimal(line, "sparse map") for line in lines[1:wanted]]


def _parse_map(value: bytes) -> list[int]:
    """Parse the map of format 0.1: offset and size of each segment in turn, between commas."""
    _check_segments(value.count(b",") // 2)
    return [_decimal(number, "sparse map") for number in value.split(b",")] if value else []


def _join_sparse_pairs(pairs: list[tuple[bytes, bytes]]) -> bytes:
    """Return the map of format 0.0, a pair of records for each segment, as 0.1 has it."""
    if any(key != _SPARSE_PAIR[number % 2] for number, (key, _) in enumerate(pairs)):
        msg = "has a malformed sparse map: offsets and sizes do not take turns"
        raise TarError(msg)
    return b",".join(value for _, value in pairs)


def _check_segments(count: int) -> int:
    if count > MAX_SEGMENTS:
        msg = f"is a sparse file of {count} segments or more; {MAX_SEGMENTS} is the limit"
        raise TarError(msg)
    return count


def _sparse_map(size: int, numbers: list[int], body: int) -> SparseMap:
    segments = tuple(zip(numbers[::2], numbers[1::2], strict=False))
    end = held = 0
    for offset, length in segments:
        if offset < end or length < 0:
            msg = f"has a sparse map whose segments overlap or run backwards at {offset}"
            raise TarError(msg)
        end = offset + length
        held += length
    if end > size or len(numbers) % 2:
        msg = f"has a sparse map that does not fit its size of {size} bytes"
        raise TarError(msg)
    if held != body:
        msg = f"has a sparse map of {held} bytes and a body of {body}"
        raise TarError(msg)
    return SparseMap(size, segments)


def parse_time(value: bytes) -> int:
    """Return the nanoseconds of a pax time, decimal seconds with any number of digits; TarError if it is none.

    What is less than a nanosecond is cut off. A small or large time may have an exponent: Python's tarfile writes
    ``2e-09``, though POSIX knows no such form.
    """
    whole, _, fraction = value.partition(b".")
    digits = whole.removeprefix(b"-")
    if not digits.isdigit() or (fraction and not fraction.isdigit()) or len(digits) > _LONGEST_SECONDS:
        return _parse_scientific(value)
    nanoseconds = int(digits) * 1_000_000_000 + int((fraction + b"000000000")[:9])
    return -nanoseconds if whole.startswith(b"-") else nanoseconds


def _parse_scientific(value: bytes) -> int:
    """Return the nanoseconds of a time like ``-1.5e+05``, by no more of its digits than count."""
    found = _SCIENTIFIC.fullmatch(value)
    if found is None:
        msg = f"has a malformed time {value[:40]!r}"
        raise TarError(msg)
    sign, whole, fraction, exponent = found.groups(b"")
    digits = (whole + fraction).lstrip(b"0")
    before_point = len(digits) - len(fraction) + int(exponent)
    wanted = before_point + 9
    if not digits or wanted <= 0:
        return 0
    if before_point > _LONGEST_SECONDS:
        msg = f"has a malformed time {value[:40]!r}: it is too large"
        raise TarError(msg)
    nanoseconds = int(digits[:wanted].ljust(wanted, b"0"))
    return -nanoseconds if sign else nanoseconds


def _number(field: bytes) -> int:
    """Return a header's number: octal, or base-256 for what octal cannot hold.

    Most fields of most headers are ones seen before, so they are remembered.
    """
    value = _REMEMBERED.get(field)
    if value is None:
        value = _REMEMBERED[field] = _base_256(field) if field[0] & 0x80 else _octal(field)
        _keep_small(_REMEMBERED)
    return value


def _keep_small(memory: dict[bytes, Any]) -> None:
    if len(memory) > _MAX_REMEMBERED:
        memory.clear()


def _octal(field: bytes) -> int:
    digits = field.strip(b" \0").partition(b"\0")[0].rstrip()  # some tools leave garbage behind the NUL
    if digits.translate(None, b"01234567"):
        msg = f"has a malformed number {field!r}"
        raise TarError(msg)
    return int(digits or b"0", 8)


def _base_256(field: bytes) -> int:
    bits = 8 * len(field) - 1
    value = int.from_bytes(field, "big") & ((1 << bits) - 1)
    if field[0] & 0x40:
        value -= 1 << bits
    if abs(value) >= 1 << 63:
        msg = f"has a number that is too large, {field!r}"
        raise TarError(msg)
    return value


def _decimal(value: bytes, what: str) -> int:
    if not value.isdigit() or len(value) > _LONGEST_DECIMAL:
        msg = f"has a malformed {what} {value[:40]!r}"
        raise TarError(msg)
    return int(value)


def _clean_parts(name: bytes) -> list[bytes]:
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not parts:
                msg = "points outside the root file system"
                raise EscapeError(msg)
            parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return parts
