"""What a leader and its peers send each other: numbers and bytes, all of them checked by the one that reads them.

Each reads a hostile archive, so either may have been taken over. Reading a message runs nothing that is in it, takes
about as much memory as there is to read, and ends in a value or a ``MalformedMessageError``.

    order    leader to peer, through the socket: a batch's slot, how many files are in it, the bytes of their paths and
             of their bodies, and the generation of directories: a new one tells the peer to open them anew
    batch    leader to peer, in a slot of memory that both may write: for each file a record (mode, uid, gid, time,
             bytes of its body); the paths, with a NUL byte between two; the bodies
    ack      peer to leader, through the socket: what went wrong (nothing, an entry, or the disk), with which file, and
             the number of the disk's error; a byte of bits for each file (its owner could not be set, its mode could
             not be set, something was at its path); for each such something the token in its name now; and what was
             wrong with the entry, the rest of a sentence

Integers are in the machine's order: both are on one.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from pykka_imagestore.core.tar.format import TarError
from pykka_imagestore.fs.whiteout_format import WHITEOUT_META_PREFIX

BATCH_BYTES = 256 << 10
BATCH_FILES = 128
BATCH_SLOTS = 4  # in each peer's memory: one batch is being made, and some wait
MAX_PARENT_BYTES = 512  # so at most half as many directories in one another
MAX_NAME_BYTES = 255  # no file system here takes more, and the leader says so

_ORDER = struct.Struct("=IIIIQ")
_RECORD = struct.Struct("=HIIqI")
_ACK = struct.Struct("=BHi")
_NOTHING, _ENTRY, _DISK = range(3)  # what went wrong
_OWNER, _MODE, _ASIDE = 1, 2, 4
_BITS = {"owner": _OWNER, "mode": _MODE}  # what a peer may leave unset: its files have no more
_MAX_REASON_BYTES = 1000
_MAX_ERRNO = 4095  # the kernel's; it has more of them than Python has names for
_MODE_BITS = 0o7777
_NO_NAMES = (b"", b".", b"..")

ASIDE_TOKEN_BYTES = 8
ORDER_BYTES = _ORDER.size
RECORD_BYTES = _RECORD.size
MAX_ACK_BYTES = _ACK.size + BATCH_FILES * (1 + ASIDE_TOKEN_BYTES) + _MAX_REASON_BYTES

# Directory, name, mode, uid, gid, time, body.
BatchFile = tuple[bytes, bytes, int, int, int, int, memoryview]


class MalformedMessageError(Exception):
    """Another process sent what its program never sends: it was taken over, or is of another version."""


@dataclass(frozen=True, slots=True)
class Order:
    """Tells a peer to make the files of a batch.

    Attributes:
        slot: Which slot of the memory it is in.
        files: How many files are in it.
        paths_bytes: What their paths take.
        bodies_bytes: What their bodies take.
        generation: How often the leader replaced a directory; a new number tells the peer to open all anew.
    """

    slot: int
    files: int
    paths_bytes: int
    bodies_bytes: int
    generation: int

    @property
    def size(self) -> int:
        """Bytes of the batch."""
        return self.files * RECORD_BYTES + self.paths_bytes + self.bodies_bytes

    def pack(self) -> bytes:
        """Return what ``parse`` reads."""
        return _ORDER.pack(self.slot, self.files, self.paths_bytes, self.bodies_bytes, self.generation)

    @classmethod
    def parse(cls, data: bytes) -> Order:
        """Read an order.

        Raises:
            MalformedMessageError: It is no order, or one for more than a batch can hold.
        """
        if len(data) != ORDER_BYTES:
            msg = f"an order of {len(data)} bytes; each has {ORDER_BYTES}"
            raise MalformedMessageError(msg)
        order = cls(*_ORDER.unpack(data))
        if not (order.slot < BATCH_SLOTS and 0 < order.files <= BATCH_FILES and order.size <= BATCH_BYTES):
            msg = f"an invalid order: {order}"
            raise MalformedMessageError(msg)
        return order


def pack_record(mode: int, uid: int, gid: int, mtime_ns: int, size: int) -> bytes | None:
    """Return a file's record; None if one of the numbers is out of its range."""
    try:
        return _RECORD.pack(mode, uid, gid, mtime_ns, size)
    except struct.error:
        return None


def pack_paths(paths: Sequence[bytes]) -> bytes:
    """Return paths as they are written in a batch."""
    return b"\0".join(paths)


def parse_batch(order: Order, data: bytes) -> list[BatchFile]:
    """Read a batch that was copied out of the memory, since that may change at any time.

    Returns:
        The files. Their bodies are views of ``data``, not copies.

    Raises:
        MalformedMessageError: The batch is not what the order says, or a path in it is none below the root.
    """
    records_end = order.files * RECORD_BYTES
    start = records_end + order.paths_bytes
    paths = data[records_end:start].split(b"\0", order.files)
    if len(data) != order.size or len(paths) != order.files:
        msg = f"a batch of {len(data)} bytes and {len(paths)} paths for {order}"
        raise MalformedMessageError(msg)
    files: list[BatchFile] = []
    bodies = memoryview(data)
    known = b""  # the last parent, found to be sound
    for path, record in zip(paths, _RECORD.iter_unpack(bodies[:records_end]), strict=True):
        mode, uid, gid, mtime_ns, size = record
        parent, _, name = path.rpartition(b"/")
        if parent != known:
            _check_parent(parent)
            known = parent
        end = start + size
        if name in _NO_NAMES or len(name) > MAX_NAME_BYTES or mode > _MODE_BITS or end > len(data):
            msg = f"an invalid file, at {path[:MAX_NAME_BYTES]!r}, of mode {mode:o} and {size} bytes"
            raise MalformedMessageError(msg)
        files.append((parent, name, mode, uid, gid, mtime_ns, bodies[start:end]))
        start = end
    if start != len(data):
        msg = f"a batch with {len(data) - start} bytes behind its files"
        raise MalformedMessageError(msg)
    return files


def _check_parent(parent: bytes) -> None:
    if len(parent) > MAX_PARENT_BYTES or (parent and any(part in _NO_NAMES for part in parent.split(b"/"))):
        msg = f"a file in an invalid directory, {parent[:MAX_NAME_BYTES]!r}"
        raise MalformedMessageError(msg)


def aside_name(token: bytes) -> bytes:
    """Return a name in the root directory that no entry can have, from ``ASIDE_TOKEN_BYTES`` random bytes."""
    return WHITEOUT_META_PREFIX + token.hex().encode()


class AckBuilder:
    """Notes, file by file, what a peer does with a batch, and makes an ack of it.

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

    def set_aside(self, token: bytes) -> None:
        """Note that something was at the path of the file at hand, and that its name is made of this token now."""
        self._bits[self.made] |= _ASIDE
        self._asides.append(token)

    def pack(self, failure: Exception | None = None) -> bytes:
        """Return what ``parse_ack`` reads; a failure is that of the file at hand."""
        what, number, reason = _NOTHING, 0, ""
        if isinstance(failure, OSError):
            what, number = _DISK, failure.errno or errno.EIO
        elif failure is not None:
            what, reason = _ENTRY, str(failure)
        text = reason.encode("unicode_escape")[:_MAX_REASON_BYTES]
        return b"".join((_ACK.pack(what, self.made, number), self._bits, *self._asides, text))


@dataclass(frozen=True, slots=True)
class Ack:
    """What a peer did with a batch; files are numbered from 0 in each.

    Attributes:
        unset: Numbers of files, and which attribute of each could not be set.
        asides: Numbers of files at whose path something was, and the name that this has now in the root directory.
        made: How many files are made.
        failure: What was wrong with the next one, a TarError or an OSError; None if all are made.
    """

    unset: Sequence[tuple[int, str]]
    asides: Sequence[tuple[int, bytes]]
    made: int
    failure: TarError | OSError | None


def parse_ack(data: bytes, files: int) -> Ack:
    """Read a peer's answer for a batch with so many files.

    Raises:
        MalformedMessageError: No peer answers so for such a batch.
    """
    bits = data[_ACK.size : _ACK.size + files]
    if len(bits) != files or len(data) > MAX_ACK_BYTES:
        msg = f"an answer of {len(data)} bytes for {files} files"
        raise MalformedMessageError(msg)
    what, made, number = _ACK.unpack_from(data)
    is_done = what == _NOTHING
    if (made != files if is_done else made >= files) or bits[made + 1 :].strip(b"\0"):
        msg = f"an invalid answer for {made} of {files} files"
        raise MalformedMessageError(msg)
    unset, asides, rest = _parse_bits(bits, data[_ACK.size + files :])
    return Ack(unset, asides, made, _parse_failure(what, number, rest))


def _parse_bits(bits: bytes, rest: bytes) -> tuple[list[tuple[int, str]], list[tuple[int, bytes]], bytes]:
    """Return what could not be set, what was set aside, and what is left of the message."""
    unset: list[tuple[int, str]] = []
    asides: list[tuple[int, bytes]] = []
    if bits.strip(b"\0"):
        if max(bits) > _OWNER | _MODE | _ASIDE:
            msg = f"an answer with unknown bits, {max(bits)}"
            raise MalformedMessageError(msg)
        unset = [(number, what) for number, set_ in enumerate(bits) for what, bit in _BITS.items() if set_ & bit]
        numbers = [number for number, set_ in enumerate(bits) if set_ & _ASIDE]
        if len(rest) < len(numbers) * ASIDE_TOKEN_BYTES:
            msg = "an answer that is cut off"
            raise MalformedMessageError(msg)
        for number in numbers:
            asides.append((number, aside_name(rest[:ASIDE_TOKEN_BYTES])))
            rest = rest[ASIDE_TOKEN_BYTES:]
    return unset, asides, rest


def _parse_failure(what: int, number: int, text: bytes) -> TarError | OSError | None:
    # The text ends up in a sentence that is printed to a terminal.
    reason = text.decode("ascii", "replace")
    if what == _NOTHING and not number and not text:
        return None
    if what == _ENTRY and not number and 0 < len(text) <= _MAX_REASON_BYTES and text.isascii() and reason.isprintable():
        return TarError(reason)
    if what == _DISK and 0 < number <= _MAX_ERRNO and not text:
        return OSError(number, os.strerror(number))
    msg = f"an answer with an invalid failure: {what}, {number}, {text[:_MAX_REASON_BYTES]!r}"
    raise MalformedMessageError(msg)
