"""Extension headers: what pax records and GNU tar's long names say of the entries behind them.

Spec:
    POSIX.1-2017, pax, "pax Interchange Format"; GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

import re

from pykka_imagestore.core.limits import Limits
from pykka_imagestore.core.tar.format import (
    BLOCK,
    GNU_LONG_NAME,
    GNU_VOLUME,
    PAX,
    PAX_GLOBAL,
    Entry,
    OverLimitError,
    Source,
    SparseMap,
    TarError,
    parse_decimal,
)
from pykka_imagestore.core.tar.sparse import SPARSE_KEYS, SPARSE_MAP, SPARSE_PAIR, join_pairs, read_pax_map

_PAX_KINDS = frozenset((PAX, PAX_GLOBAL))
_NUMBERS = frozenset((b"size", b"uid", b"gid"))
_KEYS = _NUMBERS | {b"path", b"linkpath", b"mtime"}
_NAMES = frozenset((b"path", b"linkpath", b"uname", b"gname", b"GNU.sparse.name"))
_XATTR = b"SCHILY.xattr."
_SPARSE = b"GNU.sparse."
_FREE_RECORDS = 2_000_000
_MAX_SECONDS_DIGITS = 18
_SCIENTIFIC = re.compile(rb"(-?)([0-9]++)(?:\.([0-9]*+))?e([-+]?[0-9]{1,19})")
_NO_RECORDS: dict[bytes, bytes] = {}


class Extensions:
    """What extension headers say of the next entry; a global one, of all entries that follow.

    Where pax headers and GNU tar's give one entry two names, tools differ. Image tools are written in Go, whose reader
    takes GNU tar's, and the last of several pax headers alone.
    """

    def __init__(self, limits: Limits) -> None:
        self.present = False
        self._limits = limits
        self._bytes = self._records = self._xattr_bytes = self._segments = 0
        self._max_records = _FREE_RECORDS
        self._global: dict[bytes, bytes] = {}
        self._pax: dict[bytes, bytes] = {}
        self._gnu: dict[bytes, bytes] = {}

    def read(self, kind: int, size: int, source: Source) -> int:
        """Read an extension header's body; return how much padding follows it."""
        self._bytes += BLOCK + size
        if size < 0:
            msg = "has an extension header of negative size"
            raise TarError(msg)
        if self._bytes > self._limits.extension_bytes:
            msg = f"has extension headers of {self._bytes} bytes; {self._limits.extension_bytes} is the limit"
            raise OverLimitError(msg, "extension_bytes")
        data = source.take(size)
        if len(data) < size:
            msg = "is cut off: the archive ends inside its extension header"
            raise TarError(msg)
        self.present = True
        if kind in _PAX_KINDS:
            # Counted before they are parsed: one of six bytes takes as long as a long one. Each has a line end.
            self._records += data.count(b"\n")
            if self._records > self._max_records:
                raise self._too_many_records()
            if kind == PAX:
                self._pax = parse_pax(data)
            else:
                self._keep_for_all(parse_pax(data))
        elif kind != GNU_VOLUME:
            self._gnu[b"path" if kind == GNU_LONG_NAME else b"linkpath"] = data.partition(b"\0")[0]
        return -size % BLOCK

    def apply(self, entry: Entry, source: Source) -> None:
        """Give an entry what the headers before it say; read a sparse file's map from its body."""
        records = self._pax
        if self._global or self._gnu:
            records = {**self._global, **self._pax, **self._gnu}
        self._bytes = 0
        self._pax = _NO_RECORDS
        if self._gnu:
            self._gnu = {}
        self._max_records += self._limits.pax_records
        self.present = bool(self._global)
        is_sparse = _override(entry, records)
        if entry.xattrs:
            self._count_xattrs(entry.xattrs)
        if is_sparse:
            sparse = read_pax_map(entry, records, source)
            self.count_segments(sparse)

    def count_segments(self, sparse: SparseMap) -> None:
        """Count the segments of a sparse file: one of a byte costs a block on disk, and as many calls as a long one."""
        self._segments += len(sparse.segments)
        if self._segments > self._limits.segments:
            msg = f"brings the layer to {self._segments} segments of sparse files; {self._limits.segments} is the limit"
            raise OverLimitError(msg, "segments")

    def _keep_for_all(self, records: dict[bytes, bytes]) -> None:
        """Keep what a global header says: all of it applies to each entry that follows."""
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

    def require_none_left(self) -> None:
        """Refuse an archive that ends here, if an extension header announced another entry."""
        if self._pax or self._gnu:
            msg = "is cut off: the archive ends after its extension header"
            raise TarError(msg)


def _is_of_entries(key: bytes) -> bool:
    return key in _KEYS or key in SPARSE_KEYS or key.startswith(_XATTR)


def _override(entry: Entry, records: dict[bytes, bytes]) -> bool:
    """Give an entry what the records say; return whether they describe a sparse file."""
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
            setattr(entry, key.decode(), parse_decimal(value, key.decode()))
        elif key == b"mtime":
            entry.mtime_ns = parse_time(value)
        elif key.startswith(_SPARSE):
            is_sparse = True
    if xattrs:
        entry.xattrs = xattrs
    return is_sparse


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
        if key in SPARSE_PAIR:
            sparse.append((key, value))  # the one kind of record that may come many times
        records[key] = value
        position = end
    if sparse:
        records[SPARSE_MAP] = join_pairs(sparse)
    return records


def parse_time(value: bytes) -> int:
    """Return the nanoseconds of a pax time, decimal seconds with any number of digits; TarError if it is none.

    What is less than a nanosecond is cut off. A small or large time may have an exponent: Python's tarfile writes
    ``2e-09``, though POSIX knows no such form.
    """
    whole, _, fraction = value.partition(b".")
    unsigned = whole.removeprefix(b"-")
    digits = unsigned.lstrip(b"0") or b"0"
    if not unsigned.isdigit() or (fraction and not fraction.isdigit()) or len(digits) > _MAX_SECONDS_DIGITS:
        return _parse_scientific(value)
    nanoseconds = int(digits) * 1_000_000_000 + int((fraction + b"000000000")[:9])
    return -nanoseconds if whole.startswith(b"-") else nanoseconds


def _parse_scientific(value: bytes) -> int:
    """Return the nanoseconds of a time like ``-1.5e+05``, computed from no more digits than count."""
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
    if before_point > _MAX_SECONDS_DIGITS:
        msg = f"has a malformed time {value[:40]!r}: it is too large"
        raise TarError(msg)
    nanoseconds = int(digits[:wanted].ljust(wanted, b"0"))
    return -nanoseconds if sign else nanoseconds
