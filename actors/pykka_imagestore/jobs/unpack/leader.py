"""One layer unpacked by several workers: one reads it, and hands files on to helpers to make.

The worker that unpacks the layer, the leader, alone reads, inflates, hashes and parses it, and alone decides what each
entry means. What takes most of the time, making files, needs no decision once it is clear that nothing stands in the
way: such files, attributes and bodies, it writes into shared memory, piece by piece, and reads on while helpers make
them. A large file it makes itself: to copy its body for somebody else takes about as long as to write it. A file that
was handed on and is not made yet is *pending*; before an entry touches one, the leader waits. So the layer becomes what
it would have become in the hands of one.

A helper has nothing but its memory and the descriptor of the root directory, both passed through a socket in the
layer's staging directory. It ends when the leader closes the socket, or dies. If a helper dies, so does the attempt.
Either may be taken over by what it reads, so neither believes the other: what they say, and what is refused of it, is
in ``pieces``.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import socket
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

from pykka_imagestore.core.tar.format import FILE, Entry, TarError
from pykka_imagestore.fs.attributes import Attributes, Outcome, entry_fault
from pykka_imagestore.fs.flags import DIRECTORY_FLAGS
from pykka_imagestore.fs.walk import Walk
from pykka_imagestore.jobs.unpack.batches import (
    ACK_BYTES,
    ASIDE_BYTES,
    LONGEST_NAME,
    LONGEST_PARENT,
    ORDER_BYTES,
    PIECE_BYTES,
    PIECE_FILES,
    PIECES,
    RECORD_BYTES,
    Ack,
    MalformedMessageError,
    Order,
    Work,
    name_aside,
    pack_paths,
    pack_record,
    parse_ack,
    parse_piece,
)
from pykka_imagestore.jobs.unpack.layer_stream import LayerStream, write_all
from pykka_imagestore.jobs.unpack.replaced import Replaced

MAX_HELPERS = 3  # more would wait for the leader, which parses about as fast as four workers make files

_LARGEST_BODY = 64 << 10
_DIED = "a worker that helped with the layer died"


class HelperLostError(Exception):
    """A helper died, or is not to be trusted. What it was to make may be missing: the layer must be begun anew."""


@dataclass(frozen=True, slots=True)
class HelpUnpack:
    """Which layer to help with.

    Attributes:
        address: Where its leader's socket is, or will be.
    """

    address: str


def help_unpack(request: HelpUnpack) -> None:
    """Make files for the leader at an address, as long as it unpacks; nothing if it has not begun or has ended.

    Raises:
        MalformedMessageError: The leader says what none does.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        try:
            with _short_path(request.address) as address:
                connection.connect(address)
            _, descriptors, _, _ = socket.recv_fds(connection, 1, 2)
            try:
                if len(descriptors) == 2:
                    with _Helper(connection, *descriptors) as helper:
                        helper.serve()
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
        except (FileNotFoundError, ConnectionError):
            return


def wait_for_helpers(root: str) -> None:
    """Return when nobody is at work in a layer's root directory any more who helped a leader that was killed."""
    try:
        directory = os.open(root, DIRECTORY_FLAGS)
    except (FileNotFoundError, PermissionError):
        return  # the root gets its mode and its owner when all helpers have done their work
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
    finally:
        os.close(directory)


@dataclass(slots=True)
class _Piece:
    """Files that are handed on together.

    Attributes:
        number: Its place in the helper's memory.
        size: Bytes that they take there.
        entries: Of each the path, and the entry's index and name.
    """

    number: int
    size: int = 0
    records: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    entries: list[tuple[bytes, int, bytes]] = field(default_factory=list)


@dataclass(slots=True)
class _Hand:
    """A helper, as its leader sees it.

    Attributes:
        memory: A descriptor of what it shares with the leader.
        free: Numbers of the pieces that it has not in hand.
        sent: Those that it is working on, in their order.
    """

    socket: socket.socket
    memory: int
    free: list[int] = field(default_factory=lambda: [*range(PIECES)])
    sent: deque[_Piece] = field(default_factory=deque)

    def close(self) -> None:
        """Let the helper go."""
        self.socket.close()
        os.close(self.memory)


class Helpers:
    """The leader's side: whoever comes to help, and what they have in hand.

    Args:
        address: Where to wait for helpers, a path that is free.
        root: The layer's root directory.
        outcome: Where to record what helpers could not set.
        replaced: Takes what they found in the place of their files.

    Raises:
        OSError: There can be no socket here, or no lock.
    """

    def __init__(self, address: str, root: int, outcome: Outcome, replaced: Replaced) -> None:
        self.pending: set[bytes] = set()
        self._address = address
        self._root = root
        self._outcome = outcome
        self._replaced = replaced
        self._hands: dict[int, _Hand] = {}  # by their sockets' descriptors
        self._acks = select.poll()
        self._hand: _Hand | None = None  # whose piece is being filled
        self._piece = _Piece(0)
        self._parent: bytes | None = None  # the directory of the last file
        self._maker: _Hand | None = None  # of its files; None for the leader
        self._forgotten = 0
        fcntl.flock(root, fcntl.LOCK_EX)  # until the last descriptor of it is closed, the helpers' too
        self._listener = _listen(address)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        _unlink(self._address)
        for hand in self._hands.values():
            hand.close()

    @property
    def have_come(self) -> bool:
        """Whether there is anybody."""
        return bool(self._hands)

    def are_idle(self) -> bool:
        """Tell whether somebody who has come has nothing to do; raises what ``wait`` does, of those who are done."""
        self._collect(block=False)
        return any(not hand.sent for hand in self._hands.values())

    def welcome(self) -> None:
        """Let in whoever has come to help."""
        while len(self._hands) < MAX_HELPERS:
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            connection.setblocking(True)
            try:
                memory = _new_memory()
            except OSError:  # no descriptor is left, or no file may be as large: then it is done without this one
                connection.close()
                return
            self._hands[connection.fileno()] = _Hand(connection, memory)
            self._parent = None
            with contextlib.suppress(ConnectionError):  # gone already, as the next look at acks will tell
                socket.send_fds(connection, [b"\0"], [memory, self._root])
            self._acks.register(connection, select.POLLIN)

    def take(self, entry: Entry, parent: bytes, name: bytes, path: bytes, stream: LayerStream) -> bool:
        """Take a file, and its body from ``stream``; False if the leader should make it itself.

        No directory or whiteout has its path.
        """
        if parent != self._parent:
            self._parent = parent
            self._maker = self._choose_maker()
        hand = self._maker
        if hand is None or len(parent) > LONGEST_PARENT or len(name) > LONGEST_NAME or entry.size > _LARGEST_BODY:
            return False
        record = pack_record(entry.mode, entry.uid, entry.gid, entry.mtime_ns, entry.size)
        if record is None:
            return False
        size = RECORD_BYTES + len(path) + 1 + entry.size
        piece = self._piece
        if hand is not self._hand or piece.size + size > PIECE_BYTES or len(piece.entries) == PIECE_FILES:
            self._send()
            if not self._begin(hand):
                return False
            piece = self._piece
        piece.bodies.append(stream.read_body(entry.size))
        piece.size += size
        piece.records.append(record)
        piece.entries.append((path, entry.index, entry.name))
        self.pending.add(path)
        return True

    def wait(self) -> None:
        """Return when nothing is pending.

        Raises:
            TarError: A file is one that we refuse; ``where`` tells which.
            OSError: The disk failed.
            HelperLostError: A helper died.
        """
        self._send()
        while any(hand.sent for hand in self._hands.values()):
            self._collect(block=True)

    def forget_directories(self) -> None:
        """Have helpers open directories anew: one is about to be replaced. Nothing is pending."""
        self._forgotten += 1

    # -- pieces

    def _choose_maker(self) -> _Hand | None:
        """Return who is to make a directory's files: the helper with the least to do, or the leader if all have enough.

        A directory's files have one maker: two at once wait for each other, since the kernel locks the directory for
        each file. But a directory of very many fills the helper's hands, and then to wait for that would take longer.
        """
        self._collect(block=False)
        hand = min(self._hands.values(), key=lambda hand: len(hand.sent))
        return hand if len(hand.sent) < PIECES - 1 else None

    def _begin(self, hand: _Hand) -> bool:
        if not hand.free:
            self._collect(block=False)
            if not hand.free:
                return False
        self._hand = hand
        self._piece = _Piece(hand.free.pop())
        return True

    def _send(self) -> None:
        """Hand the piece on that is being filled, if there is one."""
        hand, piece, self._hand = self._hand, self._piece, None
        if hand is None:
            return
        if not piece.entries:  # the layer ended within the body that it was begun for
            hand.free.append(piece.number)
            return
        paths = pack_paths([path for path, _, _ in piece.entries])
        bodies_bytes = sum(map(len, piece.bodies))
        order = Order(piece.number, len(piece.entries), len(paths), bodies_bytes, self._forgotten)
        # Written and read, not mapped: whoever shortens the memory then kills nobody.
        if os.pwritev(hand.memory, (*piece.records, paths, *piece.bodies), piece.number * PIECE_BYTES) < order.size:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        piece.records.clear()
        piece.bodies.clear()
        hand.sent.append(piece)
        try:
            hand.socket.send(order.pack())
        except ConnectionError as error:
            raise HelperLostError(_DIED) from error

    def _collect(self, *, block: bool) -> None:
        """Take note of the pieces that are done; wait for one if asked."""
        for descriptor, _ in self._acks.poll(None if block else 0):
            self._take_ack(self._hands[descriptor])

    def _take_ack(self, hand: _Hand) -> None:
        piece, ack = self._receive_ack(hand)
        for number, what in ack.unset:
            self._outcome.leave_unset(piece.entries[number][0], what)
        for number, name in ack.asides:
            self._take_out(piece.entries[number][0], name)
        self.pending.difference_update([path for path, _, _ in piece.entries])
        hand.free.append(piece.number)
        if ack.failure is not None:
            self._lose(hand)
            if isinstance(ack.failure, TarError):
                raise ack.failure.at(*piece.entries[ack.made][1:])
            raise ack.failure

    def _receive_ack(self, hand: _Hand) -> tuple[_Piece, Ack]:
        try:
            data = hand.socket.recv(ACK_BYTES + 1)
        except ConnectionError as error:
            raise HelperLostError(_DIED) from error
        if not data:
            raise HelperLostError(_DIED)
        if not hand.sent:
            raise _distrust("it answers what nobody asked")
        piece = hand.sent.popleft()
        try:
            return piece, parse_ack(data, len(piece.entries))
        except MalformedMessageError as error:
            raise _distrust(f"it sent {error}") from error

    def _take_out(self, path: bytes, name: bytes) -> None:
        try:
            self._replaced.take_out(path, name, self._root)
        except (FileNotFoundError, IsADirectoryError) as error:
            raise _distrust(f"it put no file aside as {name.decode()}") from error

    def _lose(self, hand: _Hand) -> None:
        """Do without a helper that has ended; what it had in hand is not made."""
        self._parent = self._maker = None
        if self._hand is hand:
            self._hand = None
        self._acks.unregister(hand.socket)
        del self._hands[hand.socket.fileno()]
        hand.close()


class _Helper:
    """The helper's side: makes the files in the pieces that the leader sends."""

    def __init__(self, connection: socket.socket, memory: int, root: int) -> None:
        self._connection = connection
        self._memory = memory
        self._root = root
        self._outcome = Outcome()
        self._attributes = Attributes(self._outcome)
        self._work = Work(0)
        self._walk = Walk(root, follows=False)
        self._forgotten = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._walk.forget()

    def serve(self) -> None:
        """Make files until the leader has no more."""
        try:
            while data := self._connection.recv(ORDER_BYTES + 1):
                self._make_piece(Order.parse(data))
                self._connection.send(self._work.pack_ack())
        except ConnectionError:
            raise
        except (OSError, OverflowError, ValueError, TarError) as error:
            refusal = error if isinstance(error, TarError) else entry_fault(error)
            self._connection.send(self._work.pack_ack(refusal or error))
            while self._connection.recv(ORDER_BYTES):  # to close before the leader has would take the answer back
                pass

    def _make_piece(self, order: Order) -> None:
        self._work = Work(order.files)
        if order.forgotten != self._forgotten:
            self._walk.forget()
            self._forgotten = order.forgotten
        for file in parse_piece(order, os.pread(self._memory, order.size, order.piece * PIECE_BYTES)):
            self._make_file(*file)
            self._work.made += 1

    def _make_file(
        self, parent: bytes, name: bytes, mode: int, uid: int, gid: int, mtime_ns: int, body: memoryview
    ) -> None:
        entry = Entry(0, FILE, name, b"", mode, uid, gid, len(body), mtime_ns, 0, 0, {})
        self._walk.make_room()
        directory = self._walk.directory(parent).directory
        try:
            file = self._attributes.create_file(entry, directory, name)
        except FileExistsError:  # an earlier entry's, that is no directory
            self._put_aside(directory, name)
            file = self._attributes.create_file(entry, directory, name)
        try:
            if body:
                write_all(file, body)
            self._attributes.finish_file(entry, parent, name, file)
        finally:
            os.close(file)
        for _, what in self._outcome.take_unset():
            self._work.leave_unset(what)

    def _put_aside(self, directory: int, name: bytes) -> None:
        chance = os.urandom(ASIDE_BYTES)
        os.rename(name, name_aside(chance), src_dir_fd=directory, dst_dir_fd=self._root)
        self._work.put_aside(chance)


def _distrust(what: str) -> HelperLostError:
    return HelperLostError(f"a worker that helped with the layer is not to be trusted: {what}")


def _new_memory() -> int:
    memory = os.memfd_create("imagestore-files", os.MFD_CLOEXEC)
    try:
        os.ftruncate(memory, PIECES * PIECE_BYTES)
    except OSError:
        os.close(memory)
        raise
    return memory


def _listen(address: str) -> socket.socket:
    _unlink(address)  # a leader's that was killed
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    try:
        with _short_path(address) as short:
            listener.bind(short)
        listener.listen(MAX_HELPERS)
    except OSError:
        listener.close()
        raise
    return listener


def _unlink(address: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(address)


@contextlib.contextmanager
def _short_path(path: str) -> Iterator[str]:
    """Lend a short name for a path: a socket's has 107 bytes at most."""
    directory = os.open(os.path.dirname(path), DIRECTORY_FLAGS | os.O_PATH)
    try:
        yield f"/proc/self/fd/{directory}/{os.path.basename(path)}"
    finally:
        os.close(directory)
