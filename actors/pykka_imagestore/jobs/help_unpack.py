"""Help another worker to unpack a layer. Runs in a worker process."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

from pykka_imagestore.jobs.unpack.peer import Peer
from pykka_imagestore.jobs.unpack.socket_path import short_path


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
        MalformedMessageError: The leader sent something else than batches.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        try:
            with short_path(request.address) as address:
                connection.connect(address)
            _, descriptors, _, _ = socket.recv_fds(connection, 1, 2)
            try:
                if len(descriptors) == 2:
                    with Peer(connection, *descriptors) as peer:
                        peer.serve()
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
        except (FileNotFoundError, ConnectionError):
            return
