"""One layer unpacked by several workers: one reads it, and hands files on to helpers to make.

The worker that unpacks the layer, the leader, alone reads, inflates, hashes and parses it, and alone decides what each
entry means. What takes most of the time, making files, needs no decision once it is clear that nothing stands in the
way: such files, attributes and bodies, it writes into shared memory, piece by piece, and reads on while helpers make
them. A large file it makes itself: to copy its body for somebody else takes about as long as to write it. A file that
was handed on and is not made yet is *pending*; before an entry touches one, the leader waits. So the layer becomes what
it would have become in the hands of one.

A helper has nothing but the memory and the descriptor of the root folder, both passed through a socket in the
layer's staging folder. It ends when the leader closes the socket, or dies. If a helper dies, so does the attempt.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import pickle
import select
import socket
import struct
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from pykka_imagestore.core.tar import FILE, Entry, TarError
from pykka_imagestore.jobs.attributes import Attributes, Outcome, entry_fault
from pykka_imagestore.jobs.replaced import Replaced
from pykka_imagestore.jobs.streams import LayerStream, write_all
from pykka_imagestore.jobs.tree import FOLDER_FLAGS
from pykka_imagestore.jobs.whiteouts import WHITEOUT_META_PREFIX

MAX_HELPERS = 3  # more would wait for the leader, which parses about as fast as four workers make files

_PIECE_BYTES = 256 << 10
_PIECE_FILES = 128
_PIECES = 4  # of memory for each helper: one in work and some in wait
_LARGEST_BODY = 64 << 10
_LONGEST_PARENT = 512  # bytes, so at most half as many folders in one another
_LONGEST_NAME = 255  # bytes; no file system here takes more, and the leader says so
_FILE_BYTES = 128  # of a pickled file at most, beside its folder's path, its name and its body
_MAX_OPEN_FOLDERS = 128
_ACK_BYTES = 64 << 10
_MESSAGE = struct.Struct("=III")  # where in the memory a piece begins, its bytes, and how often folders were forgotten

# Folder, name, mode, uid, gid, time, body.
_File = tuple[bytes, bytes, int, int, int, int, bytes]


class HelperLostError(Exception):
    """A helper died in the middle of its work. What it was to make is missing, and the layer must be begun anew."""


@dataclass(frozen=True, slots=True)
class HelpUnpack:
    """Which layer to help with.

    Attributes:
        address: Where its leader's socket is, or will be.
    """

    address: str


def help_unpack(request: HelpUnpack) -> None:
    """Make files for the leader at an address, as long as it unpacks; nothing if it has not begun or has ended."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        try:
            with _short_path(request.address) as address:
                connection.connect(address)
            _, descriptors, _, _ = socket.recv_fds(connection, 1, 2)
            if len(descriptors) == 2:
                with _Helper(connection, *descriptors) as helper:
                    helper.serve()
        except (FileNotFoundError, ConnectionError):
            return


def wait_for_helpers(root: Path) -> None:
    """Return when nobody is at work in a layer's root folder any more who helped a leader that was killed."""
    try:
        folder = os.open(root, FOLDER_FLAGS)
    except (FileNotFoundError, PermissionError):
        return  # the root gets its mode and its owner when all helpers have done their work
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
    finally:
        os.close(folder)


@dataclass(frozen=True, slots=True)
class _Ack:
    """What a helper says when it is done with a piece; files are numbered from 0 in each.

    Attributes:
        unset: Which of them, and what of it could not be set.
        replaced: Which of them were in the place of something, and the name that this has now in the root folder.
        made: How many it has made.
        failure: What was wrong with the next one, if something was.
    """

    unset: Sequence[tuple[int, str]]
    replaced: Sequence[tuple[int, bytes]]
    made: int
    failure: Exception | None


@dataclass(slots=True)
class _Piece:
    """Files that are handed on together.

    Attributes:
        start: Where in the memory.
        size: Bytes that they take there, at most.
        entries: Of each the path, and the entry's index and name.
    """

    start: int
    size: int = _FILE_BYTES
    files: list[_File] = field(default_factory=list)
    entries: list[tuple[bytes, int, bytes]] = field(default_factory=list)


@dataclass(slots=True)
class _Hand:
    """A helper, as its leader sees it.

    Attributes:
        free: Where in the memory pieces for it may begin.
        sent: Those that it is working on, in their order.
    """

    socket: socket.socket
    free: list[int]
    sent: deque[_Piece] = field(default_factory=deque)


class Helpers:
    """The leader's side: whoever comes to help, and what they have in hand.

    Args:
        address: Where to wait for helpers, a path that is free.
        root: The layer's root folder.
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
        self._parent: bytes | None = None  # the folder of the last file
        self._maker: _Hand | None = None  # of its files; None for the leader
        self._forgotten = 0
        fcntl.flock(root, fcntl.LOCK_EX)  # until the last descriptor of it is closed, the helpers' too
        self._listener = _listen(address)
        self._descriptor = os.memfd_create("imagestore-files", os.MFD_CLOEXEC)
        os.ftruncate(self._descriptor, MAX_HELPERS * _PIECES * _PIECE_BYTES)
        self._memory = mmap.mmap(self._descriptor, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        Path(self._address).unlink(missing_ok=True)
        for hand in self._hands.values():
            hand.socket.close()
        os.close(self._descriptor)
        self._memory.close()

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
            with contextlib.suppress(ConnectionError):  # gone already, as the next look at acks will tell
                socket.send_fds(connection, [b"\0"], [self._descriptor, self._root])
            first = len(self._hands) * _PIECES
            self._parent = None
            self._hands[connection.fileno()] = _Hand(
                connection, [(first + piece) * _PIECE_BYTES for piece in range(_PIECES)]
            )
            self._acks.register(connection, select.POLLIN)

    def take(self, entry: Entry, parent: bytes, name: bytes, path: bytes, stream: LayerStream) -> bool:
        """Take a file, and its body from ``stream``; False if the leader should make it itself.

        No folder or whiteout has its path.
        """
        if parent != self._parent:
            self._parent = parent
            self._maker = self._choose_maker()
        hand = self._maker
        if hand is None or len(parent) > _LONGEST_PARENT or len(name) > _LONGEST_NAME or entry.size > _LARGEST_BODY:
            return False
        size = _FILE_BYTES + len(parent) + len(name) + entry.size
        piece = self._piece
        if hand is not self._hand or piece.size + size > _PIECE_BYTES or len(piece.files) == _PIECE_FILES:
            self._send()
            if not self._begin(hand):
                return False
            piece = self._piece
        body = stream.read_body(entry.size)
        piece.size += size
        piece.files.append((parent, name, entry.mode, entry.uid, entry.gid, entry.mtime_ns, body))
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

    def forget_folders(self) -> None:
        """Have helpers open folders anew: one is about to be replaced. Nothing is pending."""
        self._forgotten += 1

    # -- pieces

    def _choose_maker(self) -> _Hand | None:
        """Return who is to make a folder's files: the helper with the least to do, or the leader if all have enough.

        A folder's files have one maker: two at once wait for each other, since the kernel locks the folder for each
        file. But a folder of very many fills the helper's hands, and then to wait for that would take longer.
        """
        self._collect(block=False)
        hand = min(self._hands.values(), key=lambda hand: len(hand.sent))
        return hand if len(hand.sent) < _PIECES - 1 else None

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
        data = pickle.dumps(piece.files)
        piece.files.clear()
        with memoryview(self._memory) as memory, memory[piece.start : piece.start + _PIECE_BYTES] as room:
            room[: len(data)] = data
        hand.sent.append(piece)
        try:
            hand.socket.send(_MESSAGE.pack(piece.start, len(data), self._forgotten))
        except ConnectionError as error:
            raise HelperLostError from error

    def _collect(self, *, block: bool) -> None:
        """Take note of the pieces that are done; wait for one if asked."""
        for descriptor, _ in self._acks.poll(None if block else 0):
            self._take_ack(self._hands[descriptor])

    def _take_ack(self, hand: _Hand) -> None:
        try:
            data = hand.socket.recv(_ACK_BYTES)
        except ConnectionError as error:
            raise HelperLostError from error
        if not data:
            raise HelperLostError
        ack: _Ack = pickle.loads(data)  # noqa: S301 - from our own worker
        piece = hand.sent.popleft()
        for number, what in ack.unset:
            self._outcome.leave_unset(piece.entries[number][0], what)
        for number, name in ack.replaced:
            self._replaced.take_out(piece.entries[number][0], name, self._root)
        self.pending.difference_update(path for path, _, _ in piece.entries)
        hand.free.append(piece.start)
        if ack.failure is not None:
            self._lose(hand)
            if isinstance(ack.failure, TarError):
                ack.failure.where = piece.entries[ack.made][1:]
            raise ack.failure

    def _lose(self, hand: _Hand) -> None:
        """Do without a helper that has ended; what it had in hand is not made."""
        self._parent = self._maker = None
        if self._hand is hand:
            self._hand = None
        self._acks.unregister(hand.socket)
        del self._hands[hand.socket.fileno()]
        hand.socket.close()


class _Helper:
    """The helper's side: makes the files in the pieces that the leader sends."""

    def __init__(self, connection: socket.socket, memory: int, root: int) -> None:
        self._connection = connection
        self._root = root
        try:
            self._memory = mmap.mmap(memory, 0, prot=mmap.PROT_READ)
        except BaseException:
            os.close(root)
            raise
        finally:
            os.close(memory)
        self._outcome = Outcome()
        self._attributes = Attributes(self._outcome)
        self._made = 0
        self._unset: list[tuple[int, str]] = []
        self._replaced: list[tuple[int, bytes]] = []
        self._folders: dict[bytes, int] = {b"": root}
        self._forgotten = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._forget_folders()
        os.close(self._root)
        self._memory.close()

    def serve(self) -> None:
        """Make files until the leader has no more."""
        try:
            while message := self._connection.recv(_MESSAGE.size):
                self._make_piece(*_MESSAGE.unpack(message))
                self._acknowledge(None)
        except ConnectionError:
            raise
        except (OSError, OverflowError, ValueError, TarError) as error:
            refusal = error if isinstance(error, TarError) else entry_fault(error)
            self._acknowledge(refusal or error)
            while self._connection.recv(_MESSAGE.size):  # to close before the leader has would take the answer back
                pass

    def _acknowledge(self, failure: Exception | None) -> None:
        self._connection.send(pickle.dumps(_Ack(self._unset, self._replaced, self._made, failure)))

    def _make_piece(self, start: int, size: int, forgotten: int) -> None:
        self._made, self._unset, self._replaced = 0, [], []
        if forgotten != self._forgotten:
            self._forget_folders()
            self._forgotten = forgotten
        files: list[_File] = pickle.loads(self._memory[start : start + size])  # noqa: S301 - from our own worker
        for file in files:
            self._make_file(*file)
            self._made += 1

    def _make_file(self, parent: bytes, name: bytes, mode: int, uid: int, gid: int, mtime_ns: int, body: bytes) -> None:
        entry = Entry(0, FILE, name, b"", mode, uid, gid, len(body), mtime_ns, 0, 0, {})
        if len(self._folders) > _MAX_OPEN_FOLDERS:
            self._forget_folders()
        folder = self._folder(parent)
        try:
            file = self._attributes.create_file(entry, folder, name)
        except FileExistsError:  # an earlier entry's, that is no folder
            self._put_aside(folder, name)
            file = self._attributes.create_file(entry, folder, name)
        try:
            if body:
                write_all(file, body)
            self._attributes.finish_file(entry, parent, name, file)
        finally:
            os.close(file)
        if self._outcome.unset:
            self._unset += [(self._made, what) for _, what in self._outcome.unset]
            self._outcome.unset.clear()

    def _put_aside(self, folder: int, name: bytes) -> None:
        aside = WHITEOUT_META_PREFIX + os.urandom(8).hex().encode()  # which no entry can have
        os.rename(name, aside, src_dir_fd=folder, dst_dir_fd=self._root)
        self._replaced.append((self._made, aside))

    def _folder(self, path: bytes) -> int:
        folder = self._folders.get(path)
        if folder is None:
            above, _, name = path.rpartition(b"/")
            folder = self._folders[path] = os.open(name, FOLDER_FLAGS, dir_fd=self._folder(above))
        return folder

    def _forget_folders(self) -> None:
        for path, folder in self._folders.items():
            if path:
                os.close(folder)
        self._folders = {b"": self._root}


def _listen(address: str) -> socket.socket:
    Path(address).unlink(missing_ok=True)  # a leader's that was killed
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    try:
        with _short_path(address) as short:
            listener.bind(short)
        listener.listen(MAX_HELPERS)
    except OSError:
        listener.close()
        raise
    return listener


@contextlib.contextmanager
def _short_path(path: str) -> Iterator[str]:
    """Lend a short name for a path: a socket's has 107 bytes at most."""
    folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)  # noqa: PTH120
    try:
        yield f"/proc/self/fd/{folder}/{os.path.basename(path)}"  # noqa: PTH119
    finally:
        os.close(folder)
