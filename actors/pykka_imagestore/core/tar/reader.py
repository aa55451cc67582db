"""Reading a tar: its headers in turn, each with the extension headers that belong to it.

Pure: bytes come from a ``Source``.

Spec:
    POSIX.1-2017, pax, "ustar Interchange Format".
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from pykka_imagestore.core.limits import DEFAULT_LIMITS, Limits
from pykka_imagestore.core.tar.format import (
    BLOCK,
    BLOCK_DEVICE,
    CHARACTER_DEVICE,
    DIRECTORY,
    EXTENSIONS,
    FIFO,
    FILE,
    GNU_SPARSE,
    HARD_LINK,
    NO_XATTRS,
    SYMLINK,
    Entry,
    OverLimitError,
    Source,
    TarError,
    keep_bounded,
    parse_number,
)
from pykka_imagestore.core.tar.pax import Extensions
from pykka_imagestore.core.tar.sparse import read_gnu_map

_LINKS = frozenset((HARD_LINK, SYMLINK))
_DEVICES = frozenset((CHARACTER_DEVICE, BLOCK_DEVICE))
_FILES = frozenset(b"\x0007")
_WITHOUT_BODY = frozenset((HARD_LINK, SYMLINK, CHARACTER_DEVICE, BLOCK_DEVICE, DIRECTORY, FIFO))
_ZERO_BLOCK = bytes(BLOCK)
_BLANK_CHECKSUM = 8 * ord(" ")
_PERMISSIONS_SEEN: dict[bytes, tuple[int, int, int]] = {}


def read_entries(source: Source, limits: Limits = DEFAULT_LIMITS) -> Iterator[Entry]:
    """Yield the entries of a tar.

    The consumer takes or skips the ``size`` bytes of an entry's body before it asks for the next entry. Ends at the
    first zero block, or where the bytes end between two entries.

    Raises:
        TarError: The archive is malformed there; OverLimitError if it goes past a limit.
    """
    index = padding = 0
    extensions = Extensions(limits)
    while (block := _next_header(source, padding)) is not None:
        kind = block[156]
        if kind in EXTENSIONS:
            padding = extensions.read(kind, parse_number(block[124:136], "size"), source)
            continue
        if index >= limits.entries:
            msg = f"is one more than {limits.entries} entries, the limit"
            raise OverLimitError(msg, "entries")
        entry = _entry(index, kind, block)
        try:
            if extensions.present:
                extensions.apply(entry, source)
            if entry.kind != FILE or entry.size < 0 or entry.name[-1:] == b"/":
                _settle(entry, block, source)
                if entry.sparse is not None:
                    extensions.count_segments(entry.sparse)
        except TarError as error:
            raise error.at(entry.index, entry.name) from error
        padding = -entry.size % BLOCK
        yield entry
        index += 1
    extensions.require_none_left()


def _next_header(source: Source, padding: int) -> bytes | None:
    """Return the next header, or None at the end; ``padding`` bytes come before it."""
    block = source.take(padding + BLOCK)[padding:]
    if len(block) < BLOCK:
        if not block:
            return None
        msg = "is cut off: the archive ends inside its header"
        raise TarError(msg)
    if block == _ZERO_BLOCK:
        return None
    # The low half of Adler-32 is one more than the sum, modulo 65521, and far quicker than to sum here. ASCII does not
    # come to more than that.
    field = block[148:156]
    checksum = (zlib.adler32(block) & 0xFFFF) - (zlib.adler32(field) & 0xFFFF) + _BLANK_CHECKSUM
    if field != b"%06o\0 " % checksum or not block.isascii():
        _check_checksum(block)
    return block


def _check_checksum(block: bytes) -> None:
    """Compare the header's checksum, in which its own field counts as blanks.

    Some old tars summed signed characters.
    """
    stated = parse_number(block[148:156], "checksum")
    blanked = block[:148] + b" " * 8 + block[156:]
    if stated not in (sum(blanked), sum(struct.unpack("512b", blanked))):
        msg = "is damaged, or no tar: the header's checksum is wrong"
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
        parse_number(block[124:136], "size"),
        parse_number(block[136:148], "mtime") * 1_000_000_000,
        0,
        0,
        NO_XATTRS,
    )
    if kind in _LINKS:
        entry.link = block[157:257].partition(b"\0")[0]
    elif kind in _DEVICES:
        entry.major, entry.minor = (parse_number(field, "device number") for field in (block[329:337], block[337:345]))
    return entry


def _permissions(fields: bytes) -> tuple[int, int, int]:
    """Return mode, uid and gid; remembered, since few headers differ in them."""
    known = _PERMISSIONS_SEEN.get(fields)
    if known is None:
        known = _PERMISSIONS_SEEN[fields] = (
            parse_number(fields[:8], "mode") & 0o7777,
            parse_number(fields[8:16], "uid"),
            parse_number(fields[16:], "gid"),
        )
        keep_bounded(_PERMISSIONS_SEEN)
    return known


def _settle(entry: Entry, block: bytes, source: Source) -> None:
    """Decide what an entry is that may be no plain file; refuse what is not supported."""
    if entry.kind in _WITHOUT_BODY:
        entry.size = 0
    elif entry.kind == GNU_SPARSE:
        read_gnu_map(entry, block, source)
    elif entry.kind != FILE:
        msg = f"is of type {chr(entry.kind)!r}, which is none that a layer may have"
        raise TarError(msg)
    elif entry.size < 0:
        msg = "has a negative size"
        raise TarError(msg)
    else:
        # A file whose name ends in "/" is a directory: so it was before ustar, and some tools still write it. If such
        # an entry has a size, GNU tar and bsdtar read no body, but Go does, and so do we.
        if block[156]:
            source.skip(entry.size + -entry.size % BLOCK)
        entry.kind, entry.size, entry.sparse = DIRECTORY, 0, None
