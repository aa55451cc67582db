"""Hostile images, provisioned beside what they must not reach."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support import tars
from support.images import docker_save
from support.processes import TIMEOUT
from support.stores import opened
from support.trees import Node, describe

from pykka_imagestore import CheckReport, LocalStore
from pykka_imagestore.provision.provisioned import ContainerRecovery, Rootfs
from pykka_imagestore.provisioner import Provisioner

BACKENDS = ("overlay", "bind", "link", "copy")


class Guests:
    """Provisions images whose layers are made by hand.

    Attributes:
        outside: A directory that no image may reach: what is in it is compared at the end.
        store: Where the store is.
    """

    def __init__(self, directory: Path, store: LocalStore, provisioner: Provisioner) -> None:
        self.outside = directory / "outside"
        self.store = directory / "store"
        self._archives = directory / "archives"
        self._store = store
        self._provisioner = provisioner
        self._numbers = iter(range(1 << 30))

    def put(self, *layers: Sequence[bytes], **config: Any) -> str:
        """Put an image of layers, each some entries of a tar, the root layer first; return its name."""
        name = f"guest-{next(self._numbers)}"
        self._archives.mkdir(exist_ok=True)
        images = {name: [tars.tar(*entries) for entries in layers]}
        self._store.put(name, docker_save(self._archives / f"{name}.tar", images, **config)).get(timeout=TIMEOUT)
        return name

    def provision(self, *layers: Sequence[bytes], config: dict[str, Any] | None = None, **options: Any) -> Rootfs:
        """Put an image of layers and provision it."""
        return self.provision_image(self.put(*layers, config=config or {}), **options)

    def provision_image(self, name: str, **options: Any) -> Rootfs:
        container_id = f"container-{next(self._numbers)}"
        return self._provisioner.provision(container_id, name, **options).get(timeout=TIMEOUT)

    def destroy(self, rootfs: Rootfs) -> None:
        self._provisioner.destroy(rootfs.container_id).get(timeout=TIMEOUT)

    def recover(self, *known: str) -> ContainerRecovery:
        return self._provisioner.recover(known).get(timeout=TIMEOUT)

    def check(self, **options: Any) -> CheckReport:
        return self._store.check(**options).get(timeout=TIMEOUT)

    def repair(self, **options: Any) -> CheckReport:
        return self._store.repair(**options).get(timeout=TIMEOUT)

    def containers(self) -> list[str]:
        return [info.container_id for info in self._provisioner.list().get(timeout=TIMEOUT)]


@contextmanager
def guests_in(directory: Path) -> Iterator[Guests]:
    """Lend an empty store and a provisioner; see in the end that nothing outside of it changed."""
    outside = directory / "outside"
    (outside / "inner").mkdir(parents=True)
    (outside / "secret").write_text("outside")
    (outside / "passwd").write_text("app:x:666:666::/outside:\n")
    os.mkfifo(outside / "fifo")
    before = describe(outside)
    with opened(directory / "store", durable=False) as store, Provisioner.start(store, durable=False) as provisioner:
        guests = Guests(directory, store, provisioner)
        yield guests
        for container_id in guests.containers():
            provisioner.destroy(container_id).get(timeout=TIMEOUT)
    assert describe(outside) == before


def nodes_in(rootfs: Rootfs) -> dict[bytes, Node]:
    """Return what is in a root file system, by path; follows no symlink."""
    return describe(f"/proc/self/fd/{rootfs.fd}/.")


def kind_in(rootfs: Rootfs, path: str) -> tuple[str, str]:
    """Return what is there, never through a symlink: its type, and a symlink's target."""
    status = os.lstat(f"/proc/self/fd/{rootfs.fd}/{path}")
    target = os.readlink(f"/proc/self/fd/{rootfs.fd}/{path}") if stat.S_ISLNK(status.st_mode) else ""
    return stat.filemode(status.st_mode)[0], target
