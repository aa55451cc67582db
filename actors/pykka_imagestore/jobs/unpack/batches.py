"""What a leader and its helpers say to each other: numbers and bytes, all of them checked by who reads them.

Each reads a hostile archive, so either may have fallen into somebody else's hands. To read what it says runs nothing,
takes about as much memory as there is to read, and ends in a value or a ``MalformedMessageError``.

    order    leader to helper, through the socket: a piece's number, how many files are in it, the bytes of their paths
             and of their bodies, and how often directories were forgotten
    piece    leader to helper, in memory that both may write: for each file a record (mode, uid, gid, time, bytes of its
             body); the paths, with a NUL byte between two; the bodies
    ack      helper to leader, through the socket: what went wrong (nothing, an entry, or the disk), with which file,
             and the number of the disk's error; a byte of bits for each file (its owner could not be set, its mode
             neither, it took the place of something); for each such something the random part of its name now; and what
             was wrong with the entry, the rest of a sentence

Integers are in the machine's order: both are on one.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from pykka_imagestore.core.tar.format import TarError
from pykka_imagestore.fs.whiteouts import WHITEOUT_META_PREFIX

PIECE_BYTES = 256 << 10
PIECE_FILES = 128
PIECES = 4  # of memory for each helper: one in work and some in wait
LONGEST_PARENT = 512  # bytes, so at most half as many directories in one another
LONGEST_NAME = 255  # bytes; no file system here takes more, and the leader says so

_ORDER = struct.Struct("=IIIIQ")
_RECORD = struct.Struct("=HIIqI")
_ACK = struct.Struct("=BHi")
_NOTHING, _ENTRY, _DISK = range(3)  # what went wrong
_OWNER, _MODE, _ASIDE = 1, 2, 4
_BITS = {"owner": _OWNER, "mode": _MODE}  # what a helper may leave unset: its files have no more
_LONGEST_REASON = 1000
_LARGEST_ERRNO = 4095  # the kernel's; it has more of them than Python has names for
_MODE_BITS = 0o7777
_NO_NAMES = (b"", b".", b"..")

ASIDE_BYTES = 8
ORDER_BYTES = _ORDER.size
RECORD_BYTES = _RECORD.size
ACK_BYTES = _ACK.size + PIECE_FILES * (1 + ASIDE_BYTES) + _LONGEST_REASON  # at most

# Directory, name, mode, uid, gid, time, body.
HandedFile = tuple[bytes, bytes, int, int, int, int, memoryview]


class MalformedMessageError(Exception):
    """Another process says what its program never says: it was taken over, or is of another version."""


@dataclass(frozen=True, slots=True)
class Order:
    """To make the files of a piece.

    Attributes:
        piece: Which place of the memory it has.
        files: How many files are in it.
        paths_bytes: What their paths take.
        bodies_bytes: What their bodies take.
        forgotten: How often the leader had directories opened anew.
    """

    piece: int
    files: int
    paths_bytes: int
    bodies_bytes: int
    forgotten: int

    @property
    def size(self) -> int:
        """Bytes of the piece."""
        return self.files * RECORD_BYTES + self.paths_bytes + self.bodies_bytes

    def pack(self) -> bytes:
        """Return what ``parse`` reads."""
        return _ORDER.pack(self.piece, self.files, self.paths_bytes, self.bodies_bytes, self.forgotten)

    @classmethod
    def parse(cls, data: bytes) -> Order:
        """Read an order.

        Raises:
            MalformedMessageError: It is none, or one of more than a piece can be.
        """
        if len(data) != ORDER_BYTES:
            msg = f"an order of {len(data)} bytes; each has {ORDER_BYTES}"
            raise MalformedMessageError(msg)
        order = cls(*_ORDER.unpack(data))
        if not (order.piece < PIECES and 0 < order.files <= PIECE_FILES and order.size <= PIECE_BYTES):
            msg = f"an order that cannot be: {order}"
            raise MalformedMessageError(msg)
        return order


def pack_record(mode: int, uid: int, gid: int, mtime_ns: int, size: int) -> bytes | None:
    """Return a file's record; None if one of the numbers is so large, or so small, that it has no place in there."""
    try:
        return _RECORD.pack(mode, uid, gid, mtime_ns, size)
    except struct.error:
        return None


def pack_paths(paths: Sequence[bytes]) -> bytes:
    """Return the paths as a piece has them."""
    return b"\0".join(paths)


def parse_piece(order: Order, data: bytes) -> list[HandedFile]:
    """Read a piece that was copied out of the memory, since that may change at any time.

    Returns:
        The files. Their bodies are views of ``data``, not copies.

    Raises:
        MalformedMessageError: It is not what the order says, or a path in it is none below the root.
    """
    records_end = order.files * RECORD_BYTES
    start = records_end + order.paths_bytes
    paths = data[records_end:start].split(b"\0", order.files)
    if len(data) != order.size or len(paths) != order.files:
        msg = f"a piece of {len(data)} bytes and {len(paths)} paths for {order}"
        raise MalformedMessageError(msg)
    files: list[HandedFile] = []
    bodies = memoryview(data)
    known = b""  # the last parent, found to be sound
    for path, record in zip(paths, _RECORD.iter_unpack(bodies[:records_end]), strict=True):
        mode, uid, gid, mtime_ns, size = record
        parent, _, name = path.rpartition(b"/")
        if parent != known:
            _check_parent(parent)
            known = parent
        end = start + size
        if name in _NO_NAMES or len(name) > LONGEST_NAME or mode > _MODE_BITS or end > len(data):
            msg = f"a file that cannot be, at {path[:LONGEST_NAME]!r}, of mode {mode:o} and {size} bytes"
            raise MalformedMessageError(msg)
        files.append((parent, name, mode, uid, gid, mtime_ns, bodies[start:end]))
        start = end
    if start != len(data):
        msg = f"a piece with {len(data) - start} bytes behind its files"
        raise MalformedMessageError(msg)
    return files


def _check_parent(parent: bytes) -> None:
    if len(parent) > LONGEST_PARENT or (parent and any(part in _NO_NAMES for part in parent.split(b"/"))):
        msg = f"a file in a directory that cannot be, {parent[:LONGEST_NAME]!r}"
        raise MalformedMessageError(msg)


def name_aside(chance: bytes) -> bytes:
    """Return a name in the root directory that no entry can have, from ``ASIDE_BYTES`` random bytes."""
    return WHITEOUT_META_PREFIX + chance.hex().encode()


class Work:
    """What a helper did with a piece, as it goes along.

    Args:
        files: How many are in it.

    Attributes:
        made: How many are made.
    """

    def __init__(self, files: int) -> None:
        self.made = 0
        self._bits = bytearray(files)
        self._asides: list[bytes] = []

    def leave_unset(self, what: str) -> None:
        """Note what of the file at hand could not be set: its owner, its mode."""
        self._bits[self.made] |= _BITS[what]

    def put_aside(self, chance: bytes) -> None:
        """Note that what the file at hand takes the place of has the name now that goes with some random bytes."""
        self._bits[self.made] |= _ASIDE
        self._asides.append(chance)

    def pack_ack(self, failure: Exception | None = None) -> bytes:
        """Return what ``parse_ack`` reads; a failure is that of the file at hand."""
        what, number, reason = _NOTHING, 0, ""
        if isinstance(failure, OSError):
            what, number = _DISK, failure.errno or errno.EIO
        elif failure is not None:
            what, reason = _ENTRY, str(failure)
        text = reason.encode("unicode_escape")[:_LONGEST_REASON]
        return b"".join((_ACK.pack(what, self.made, number), self._bits, *self._asides, text))


@dataclass(frozen=True, slots=True)
class Ack:
    """What a helper says when it is done with a piece; files are numbered from 0 in each.

    Attributes:
        unset: Which of them, and what of it could not be set.
        asides: Which of them were in the place of something, and the name that this has now in the root directory.
        made: How many it has made.
        failure: What was wrong with the next one, a TarError or an OSError, if something was.
    """

    unset: Sequence[tuple[int, str]]
    asides: Sequence[tuple[int, bytes]]
    made: int
    failure: TarError | OSError | None


def parse_ack(data: bytes, files: int) -> Ack:
    """Read what a helper says of a piece with so many files.

    Raises:
        MalformedMessageError: It is not what a helper says of such a piece.
    """
    bits = data[_ACK.size : _ACK.size + files]
    if len(bits) != files or len(data) > ACK_BYTES:
        msg = f"an answer of {len(data)} bytes for {files} files"
        raise MalformedMessageError(msg)
    what, made, number = _ACK.unpack_from(data)
    is_done = what == _NOTHING
    if (made != files if is_done else made >= files) or bits[made + 1 :].strip(b"\0"):
        msg = f"an answer for {made} of {files} files that cannot be"
        raise MalformedMessageError(msg)
    unset, asides, rest = _parse_bits(bits, data[_ACK.size + files :])
    return Ack(unset, asides, made, _parse_failure(what, number, rest))


def _parse_bits(bits: bytes, rest: bytes) -> tuple[list[tuple[int, str]], list[tuple[int, bytes]], bytes]:
    """Return what could not be set, what was put aside, and what is left of the message."""
    unset: list[tuple[int, str]] = []
    asides: list[tuple[int, bytes]] = []
    if bits.strip(b"\0"):
        if max(bits) > _OWNER | _MODE | _ASIDE:
            msg = f"an answer with bits that have no meaning, {max(bits)}"
            raise MalformedMessageError(msg)
        unset = [(number, what) for number, set_ in enumerate(bits) for what, bit in _BITS.items() if set_ & bit]
        numbers = [number for number, set_ in enumerate(bits) if set_ & _ASIDE]
        if len(rest) < len(numbers) * ASIDE_BYTES:
            msg = "an answer that is cut off"
            raise MalformedMessageError(msg)
        for number in numbers:
            asides.append((number, name_aside(rest[:ASIDE_BYTES])))
            rest = rest[ASIDE_BYTES:]
    return unset, asides, rest


def _parse_failure(what: int, number: int, text: bytes) -> TarError | OSError | None:
    # The text ends up in a sentence for a terminal.
    reason = text.decode("ascii", "replace")
    if what == _NOTHING and not number and not text:
        return None
    if what == _ENTRY and not number and 0 < len(text) <= _LONGEST_REASON and text.isascii() and reason.isprintable():
        return TarError(reason)
    if what == _DISK and 0 < number <= _LARGEST_ERRNO and not text:
        return OSError(number, os.strerror(number))
    msg = f"an answer with a failure that cannot be: {what}, {number}, {text[:_LONGEST_REASON]!r}"
    raise MalformedMessageError(msg)
