"""One layer unpacked by several workers: the leader reads it, and hands files to peers, which make them.

The leader alone reads, inflates, hashes and parses the layer, and alone decides what each entry means. What takes most
of the time, making files, needs no decision once it is clear that nothing stands in the way: the leader writes such
files, attributes and bodies, into shared memory, a batch at a time, and reads on while a peer makes them. A large file
it makes itself: to copy its body for a peer takes about as long as to write it. A file that was handed over and is not
made yet is *pending*; before an entry touches the path of one, the leader waits. So the layer becomes what it would
have become with one worker.

A peer has nothing but its memory and the descriptor of the root directory, both passed through a socket in the layer's
staging directory. It ends when the leader closes the socket, or dies. If a peer dies, the attempt fails.
Either may be taken over by what it reads, so neither trusts the other: what they send, and which of it is refused, is
in ``batches``.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import socket
from collections import deque
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Self

from pykka_imagestore.core.tar.format import Entry, TarError
from pykka_imagestore.fs.flags import DIRECTORY_FLAGS
from pykka_imagestore.fs.unset_attributes import Unset, UnsetLog
from pykka_imagestore.jobs.unpack.batches import (
    BATCH_BYTES,
    BATCH_FILES,
    BATCH_SLOTS,
    MAX_ACK_BYTES,
    MAX_NAME_BYTES,
    MAX_PARENT_BYTES,
    RECORD_BYTES,
    Ack,
    MalformedMessageError,
    Order,
    pack_paths,
    pack_record,
    parse_ack,
)
from pykka_imagestore.jobs.unpack.layer_stream import LayerStream
from pykka_imagestore.jobs.unpack.replaced import Replaced
from pykka_imagestore.jobs.unpack.socket_path import short_path
from pykka_imagestore.text import shown

MAX_PEERS = 3  # more would wait for the leader, which parses about as fast as four workers make files

_MAX_BODY_BYTES = 64 << 10
_DIED = "a worker that helped with the layer died"


class PeerLostError(Exception):
    """A peer died, or is not to be trusted. Files that it was to make may be missing: the layer must be begun anew."""


def wait_for_peers(root: str) -> None:
    """Return when no peer of a leader that was killed is at work in a layer's root directory any more."""
    try:
        directory = os.open(root, DIRECTORY_FLAGS)
    except (FileNotFoundError, PermissionError):
        return  # the root gets its mode and its owner when all peers have done their work
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
    finally:
        os.close(directory)


@dataclass(slots=True)
class _Batch:
    """Files that are handed over together.

    Attributes:
        slot: Its place in the peer's memory.
        size: Bytes that the files take there.
        entries: Of each file the path, and the entry's index and name.
    """

    slot: int
    size: int = 0
    records: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    entries: list[tuple[bytes, int, bytes]] = field(default_factory=list)


@dataclass(slots=True)
class _PeerLink:
    """The leader's end of the connection to one peer.

    Attributes:
        memory: A descriptor of what they share.
        free: Slots of the memory that hold no batch.
        sent: The batches that the peer has not answered, in their order.
    """

    socket: socket.socket
    memory: int
    free: list[int] = field(default_factory=lambda: [*range(BATCH_SLOTS)])
    sent: deque[_Batch] = field(default_factory=deque)

    def close(self) -> None:
        """Let the peer go."""
        self.socket.close()
        os.close(self.memory)


class Leader:
    """Hands files to the peers that have come, and takes note of what these did.

    It works without peers where there can be none: on a file system without sockets or locks.

    Args:
        address: Where to wait for peers, a path that is free; None to have none.
        root: Descriptor of the layer's root directory.
        replaced: Takes what peers found at the paths of their files.

    Attributes:
        pending: Paths of files that were handed over and are not made yet.
    """

    def __init__(self, address: str | None, root: int, replaced: Replaced) -> None:
        self._pending: set[bytes] = set()
        self._links: dict[int, _PeerLink] = {}  # by their sockets' descriptors
        self.pending: AbstractSet[bytes] = self._pending
        self._root = root
        self._replaced = replaced
        self._unset = UnsetLog()
        self._acks = select.poll()
        self._filling: _PeerLink | None = None  # whose batch is being filled
        self._batch = _Batch(0)
        self._parent: bytes | None = None  # the directory of the last file
        self._maker: _PeerLink | None = None  # of that directory's files; None for the leader
        self._generation = 0
        self._address = address
        self._listener = None if address is None else _listen(address, root)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let all peers go, and no more in."""
        if self._listener is not None and self._address is not None:
            self._listener.close()
            self._listener = None
            _unlink(self._address)
        for link in self._links.values():
            link.close()
        self._links.clear()
        self._acks = select.poll()

    @property
    def has_peers(self) -> bool:
        """Whether peers are connected."""
        return bool(self._links)

    def welcome(self) -> None:
        """Let in peers that have come."""
        while self._listener is not None and len(self._links) < MAX_PEERS:
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
            self._links[connection.fileno()] = _PeerLink(connection, memory)
            self._parent = None
            with contextlib.suppress(ConnectionError):  # gone already, as the next look at acks will tell
                socket.send_fds(connection, [b"\0"], [memory, self._root])
            self._acks.register(connection, select.POLLIN)

    def has_idle_peer(self) -> bool:
        """Tell whether a peer has nothing to do. Raises what ``wait`` does, of batches that are done."""
        if not self._links:
            return False
        self._collect(block=False)
        return any(not link.sent for link in self._links.values())

    def take(self, entry: Entry, parent: bytes, name: bytes, path: bytes, stream: LayerStream) -> bool:
        """Take a file, and its body from ``stream``; False if the leader should make it itself.

        No directory or whiteout has its path.
        """
        if parent != self._parent:
            self._parent = parent
            self._maker = self._choose_maker()
        link = self._maker
        if link is None or len(parent) > MAX_PARENT_BYTES or len(name) > MAX_NAME_BYTES or entry.size > _MAX_BODY_BYTES:
            return False
        record = pack_record(entry.mode, entry.uid, entry.gid, entry.mtime_ns, entry.size)
        if record is None:
            return False
        size = RECORD_BYTES + len(path) + 1 + entry.size
        batch = self._batch
        if link is not self._filling or batch.size + size > BATCH_BYTES or len(batch.entries) == BATCH_FILES:
            self._send()
            if not self._begin(link):
                return False
            batch = self._batch
        batch.bodies.append(stream.read_body(entry.size))
        batch.size += size
        batch.records.append(record)
        batch.entries.append((path, entry.index, entry.name))
        self._pending.add(path)
        return True

    def wait(self) -> None:
        """Return when nothing is pending.

        Raises:
            TarError: A file is one that we refuse; ``where`` tells which.
            OSError: The disk failed.
            PeerLostError: A peer died, or is not to be trusted.
        """
        self._send()
        while any(link.sent for link in self._links.values()):
            self._collect(block=True)

    def forget_directories(self) -> None:
        """Have peers open directories anew: one is about to be replaced. Nothing is pending."""
        self._generation += 1

    def take_unset(self) -> Unset:
        """Return what peers could not set since the last call."""
        return self._unset.take()

    # -- batches

    def _choose_maker(self) -> _PeerLink | None:
        """Return which peer is to make a directory's files: that with the least to do, or none if all have enough.

        A directory's files have one maker: two at once wait for each other, since the kernel locks the directory for
        each file. But a directory of very many fills a peer's memory, and then to wait for that would take longer.
        """
        self._collect(block=False)
        link = min(self._links.values(), key=lambda link: len(link.sent))
        return link if len(link.sent) < BATCH_SLOTS - 1 else None

    def _begin(self, link: _PeerLink) -> bool:
        if not link.free:
            self._collect(block=False)
            if not link.free:
                return False
        self._filling = link
        self._batch = _Batch(link.free.pop())
        return True

    def _send(self) -> None:
        """Hand over the batch that is being filled, if there is one."""
        link, batch, self._filling = self._filling, self._batch, None
        if link is None:
            return
        if not batch.entries:  # the layer ended within the body that it was begun for
            link.free.append(batch.slot)
            return
        paths = pack_paths([path for path, _, _ in batch.entries])
        bodies_bytes = sum(map(len, batch.bodies))
        order = Order(batch.slot, len(batch.entries), len(paths), bodies_bytes, self._generation)
        # Written and read, not mapped: a mapping would kill the leader when a peer shortens the memory.
        if os.pwritev(link.memory, (*batch.records, paths, *batch.bodies), batch.slot * BATCH_BYTES) < order.size:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        batch.records.clear()
        batch.bodies.clear()
        link.sent.append(batch)
        try:
            link.socket.send(order.pack())
        except ConnectionError as error:
            raise PeerLostError(_DIED) from error

    def _collect(self, *, block: bool) -> None:
        """Take note of the batches that are done; wait for one if asked."""
        for descriptor, _ in self._acks.poll(None if block else 0):
            self._take_ack(self._links[descriptor])

    def _take_ack(self, link: _PeerLink) -> None:
        batch, ack = self._receive_ack(link)
        for number, what in ack.unset:
            self._unset.add(batch.entries[number][0], what)
        for number, name in ack.asides:
            self._set_aside(batch.entries[number][0], name)
        self._pending.difference_update([path for path, _, _ in batch.entries])
        link.free.append(batch.slot)
        if ack.failure is not None:
            self._lose(link)
            if isinstance(ack.failure, TarError):
                raise ack.failure.at(*batch.entries[ack.made][1:])
            raise ack.failure

    def _receive_ack(self, link: _PeerLink) -> tuple[_Batch, Ack]:
        try:
            data = link.socket.recv(MAX_ACK_BYTES + 1)
        except ConnectionError as error:
            raise PeerLostError(_DIED) from error
        if not data:
            raise PeerLostError(_DIED)
        if not link.sent:
            raise _distrust("it answered what nobody asked")
        batch = link.sent.popleft()
        try:
            return batch, parse_ack(data, len(batch.entries))
        except MalformedMessageError as error:
            raise _distrust(f"it sent {error}") from error

    def _set_aside(self, path: bytes, name: bytes) -> None:
        try:
            self._replaced.set_aside(path, name, self._root)
        except (FileNotFoundError, IsADirectoryError) as error:
            raise _distrust(f"it set no file aside as {name.decode()} for {shown(path)}") from error

    def _lose(self, link: _PeerLink) -> None:
        """Do without a peer that has ended; the files that it was still to make are not made."""
        self._parent = self._maker = None
        if self._filling is link:
            self._filling = None
        self._acks.unregister(link.socket)
        del self._links[link.socket.fileno()]
        link.close()


def _distrust(what: str) -> PeerLostError:
    return PeerLostError(f"a worker that helped with the layer is not to be trusted: {what}")


def _new_memory() -> int:
    memory = os.memfd_create("imagestore-files", os.MFD_CLOEXEC)
    try:
        os.ftruncate(memory, BATCH_SLOTS * BATCH_BYTES)
    except OSError:
        os.close(memory)
        raise
    return memory


def _listen(address: str, root: int) -> socket.socket | None:
    """Return a socket that waits for peers; None if there can be none here."""
    try:
        fcntl.flock(root, fcntl.LOCK_EX)  # until the last descriptor of it is closed, the peers' too
        _unlink(address)  # that of a leader that was killed
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    except OSError:
        return None
    try:
        with short_path(address) as short:
            listener.bind(short)
        listener.listen(MAX_PEERS)
    except OSError:
        listener.close()
        return None
    return listener


def _unlink(address: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(address)
