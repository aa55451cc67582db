"""A worker that helps another one, the leader, to unpack a layer: makes the files of the batches that it is sent."""

from __future__ import annotations

import os
import socket
from typing import Self

from pykka_imagestore.core.tar.format import FILE, Entry, TarError
from pykka_imagestore.fs.attributes import Attributes, entry_fault
from pykka_imagestore.fs.walk import Walk
from pykka_imagestore.fs.write import write_all
from pykka_imagestore.jobs.unpack.batches import (
    ASIDE_TOKEN_BYTES,
    BATCH_BYTES,
    ORDER_BYTES,
    AckBuilder,
    BatchFile,
    Order,
    aside_name,
    parse_batch,
)


class Peer:
    """Makes files below a layer's root directory, in the order in which the leader sends them.

    Args:
        connection: The socket to the leader.
        memory: Descriptor of the memory that holds the batches.
        root: Descriptor of the layer's root directory.
    """

    def __init__(self, connection: socket.socket, memory: int, root: int) -> None:
        self._connection = connection
        self._memory = memory
        self._root = root
        self._attributes = Attributes()
        self._walk = Walk(root, follows=False)
        self._generation = 0
        self._ack = AckBuilder(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._walk.forget()

    def serve(self) -> None:
        """Make files until the leader has no more.

        Raises:
            MalformedMessageError: The leader sent something else than batches.
            ConnectionError: The leader died.
        """
        try:
            while data := self._connection.recv(ORDER_BYTES + 1):
                self._make_batch(Order.parse(data))
                self._connection.send(self._ack.pack())
        except ConnectionError:
            raise
        except (OSError, OverflowError, ValueError, TarError) as error:
            refusal = error if isinstance(error, TarError) else entry_fault(error)
            self._connection.send(self._ack.pack(refusal or error))
            while self._connection.recv(ORDER_BYTES):  # to close before the leader has would take the answer back
                pass

    def _make_batch(self, order: Order) -> None:
        self._ack = AckBuilder(order.files)
        if order.generation != self._generation:
            self._walk.forget()
            self._generation = order.generation
        for file in parse_batch(order, os.pread(self._memory, order.size, order.slot * BATCH_BYTES)):
            self._make_file(file)
            self._ack.made += 1

    def _make_file(self, batch_file: BatchFile) -> None:
        parent, name, mode, uid, gid, mtime_ns, body = batch_file
        entry = Entry(0, FILE, name, b"", mode, uid, gid, len(body), mtime_ns, 0, 0, {})
        directory = self._walk.open(parent)
        try:
            file = self._attributes.create_file(entry, directory, name)
        except FileExistsError:  # an earlier entry's, that is no directory
            self._set_aside(directory, name)
            file = self._attributes.create_file(entry, directory, name)
        try:
            if body:
                write_all(file, body)
            self._attributes.finish_file(entry, parent, name, file)
        finally:
            os.close(file)
        for _, what in self._attributes.take_unset().listed:
            self._ack.leave_unset(what)

    def _set_aside(self, directory: int, name: bytes) -> None:
        token = os.urandom(ASIDE_TOKEN_BYTES)
        os.rename(name, aside_name(token), src_dir_fd=directory, dst_dir_fd=self._root)
        self._ack.set_aside(token)
