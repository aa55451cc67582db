"""What Python's tarfile says of a tar, as far as it and we are meant to agree."""

from __future__ import annotations

import io
import os
import re
import tarfile
from dataclasses import dataclass

from support.tars import BLOCK

_PLAIN_NUMBER = re.compile(rb" *[0-7]+[ \0]*|\0+")  # tarfile takes signs and underscores, and 0 before a NUL
_NUMBERS = ((100, 108), (108, 116), (116, 124), (124, 136), (136, 148), (148, 156))


@dataclass(frozen=True)
class PlainMember:
    """A file or directory.

    Attributes:
        start: Where its body begins.
        body: None for a directory.
        has_extension: Whether an extended header belongs to it.
    """

    name: bytes
    start: int
    body: bytes | None
    has_extension: bool

    @property
    def end(self) -> int:
        """Where the next header begins."""
        stop = self.start + len(self.body or b"")
        return stop + -stop % BLOCK


def plain_members(tar: bytes) -> list[PlainMember]:
    """Return the members up to the first that is of no plain form, or that tarfile does not read."""
    found: list[PlainMember] = []
    try:
        with tarfile.open(fileobj=io.BytesIO(tar), mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
            end = 0
            for member in archive:
                header = tar[member.offset_data - BLOCK : member.offset_data]
                if member.offset != end or not _is_plain(member, header) or archive.pax_headers:
                    break
                stop = member.offset_data + (member.size if member.isreg() else 0)
                if stop > len(tar):
                    break
                body = tar[member.offset_data : stop] if member.isreg() else None
                found.append(PlainMember(_bytes(member.name), member.offset_data, body, bool(member.pax_headers)))
                end = found[-1].end
    except (tarfile.TarError, ValueError, OverflowError, EOFError, RecursionError, IndexError, TypeError, KeyError):
        pass  # tarfile's own trouble with what is malformed; what came before is what both agree on
    return found


def is_whole(members: list[PlainMember], tar: bytes) -> bool:
    """Tell whether these are all there are: behind them comes a block of zeros, or nothing."""
    end = members[-1].end if members else 0
    return tar[end : end + BLOCK] in (b"", bytes(BLOCK))


def cleaned(name: bytes) -> bytes:
    """Return a name without what makes no difference: ``./``, doubled and leading slashes, ``..`` that stays inside."""
    return os.path.normpath(b"/" + name).lstrip(b"/")


def _is_plain(member: tarfile.TarInfo, header: bytes) -> bool:
    extension = member.offset_data - BLOCK - member.offset
    return (
        member.type in (tarfile.REGTYPE, tarfile.DIRTYPE)
        and header[156:157] == member.type
        and header[257:265] == b"ustar\x0000"
        # A file named like a directory is one to us, as to GNU tar; tarfile drops the slash of a name in pax.
        and (member.isdir() or not member.pax_headers.get("path", member.name).endswith("/"))
        and all(_PLAIN_NUMBER.fullmatch(header[start:end]) for start, end in _NUMBERS)
        # One extended header at most: tarfile lets the first of several win, we the last, as GNU tar does.
        and (not extension or (bool(member.pax_headers) and extension == 2 * BLOCK))
        and not any(key.startswith("GNU.sparse") or not value for key, value in member.pax_headers.items())
        and "hdrcharset" not in member.pax_headers
    )


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape").rstrip(b"/")
