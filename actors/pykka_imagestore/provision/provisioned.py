"""A root file system that was provisioned, as its caller has it."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pykka_imagestore.core.container import Container
from pykka_imagestore.core.run_config import RunConfig
from pykka_imagestore.core.uncopyable import Uncopyable
from pykka_imagestore.errors import StateError
from pykka_imagestore.rootfs.backend import Mounted

if TYPE_CHECKING:
    from pykka_imagestore.core.user import User


class Rootfs(Uncopyable):
    """The root file system of a container, and an open descriptor of it.

    It stays until the container is destroyed; its layers stay in the store as long. The descriptor belongs to this
    process and to this object: ``destroy`` closes it, and so do ``close`` and the provisioner's. Where ``path`` is
    None, what is mounted is found by the descriptor only, and is gone once all descriptors of it are closed.

    Attributes:
        container: What is recorded of the container.
        container_id: Which container's it is.
        path: Where it is attached; None if it is not, or only in a namespace of its own.
        backend: What made it: ``overlay``, ``copy``, ``link`` or ``bind``.
        reason: Why that one, and what stood in the way of those that were tried before it.
        config: How the image wants to be run.
        namespace_pid: The process that holds the namespaces in which it is mounted; None if those are this process'.
    """

    instead = "provision another container, or hand its descriptor on"

    def __init__(
        self,
        container: Container,
        mounted: Mounted,
        reason: str,
        config: RunConfig,
    ) -> None:
        self.container = container
        self.container_id = container.container_id
        self.path = mounted.path
        self.backend = container.backend
        self.reason = reason
        self.config = config
        self.namespace_pid = mounted.namespace_pid
        self._fd: int | None = mounted.fd
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        where = "attached nowhere" if self.path is None else f"at {self.path!r}"
        fd = "closed" if self._fd is None else f"fd {self._fd}"
        return f"<Rootfs of {self.container_id!r}: {self.backend} {where}, {fd}>"

    def __del__(self) -> None:
        self.close()

    @property
    def fd(self) -> int:
        """A descriptor of the root directory, to open what is below it, to hand on or to enter; it may be O_PATH only.

        Raises:
            StateError: It was closed.
        """
        fd = self._fd
        if fd is None:
            raise StateError(f"the descriptor of container {self.container_id} was closed, with it or its provisioner")
        return fd

    def open(self, path: str) -> int:
        """Open a file or a directory in it for reading, as if its root were ``/``; the caller closes it.

        No symlink in it leads out of it. Looks at the disk at once, in the caller's thread.

        Raises:
            OSError: Nothing is there, or what is neither: a fifo, a socket or a device is not opened.
            StateError: It was closed.
        """
        from pykka_imagestore.fs.in_root import open_in_root  # noqa: PLC0415 - see find_user

        return open_in_root(self.fd, path)

    def find_user(self, user: str | None = None) -> User:
        """Return whom to run a program as, by the accounts in its own tree.

        Looks at the disk at once, in the caller's thread.

        Args:
            user: ``name``, ``uid``, ``name:group`` or ``uid:gid``; by default the one that the image wants.

        Raises:
            ImageUserError: There is no such user, or the accounts cannot be read.
            StateError: It was closed.
        """
        # Imported here, as what walks a tree: a command that only mounts takes less time than that.
        from pykka_imagestore.rootfs.user import resolve_user  # noqa: PLC0415

        return resolve_user(self.fd, self.config.user if user is None else user)

    def close(self) -> None:
        """Close the descriptor; what is attached stays. Idempotent."""
        with self._lock:
            fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


@dataclass(frozen=True, slots=True)
class ContainerRecovery:
    """What became of the containers of an owner whose process had ended.

    Attributes:
        adopted: Root file systems of known containers that are whole; this process has them now.
        lost: Ids of known containers that are not there any more, or not whole: what was left of them is removed.
        destroyed: Ids of containers that were not known, and are removed.
        left: Ids of known containers that are there, and could not be adopted now, as by a process that may not mount:
            they stay as they are, and the next recovery tries again. A warning says why.
    """

    adopted: tuple[Rootfs, ...] = ()
    lost: tuple[str, ...] = ()
    destroyed: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
