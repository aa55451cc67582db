"""Asks a provisioner for containers, and remembers which of them must be there, and which may be."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gallery import Gallery
from invariants import TIMEOUT, Violation, require_whole
from script import Caller
from support.containers import provisioning
from support.stores import opened

from pykka_imagestore import LocalStore, Provisioner
from pykka_imagestore.core.digest import directory_name
from pykka_imagestore.rootfs.copy import Copy
from pykka_imagestore.runtime import Future


class Boxes(Caller):
    """Containers of one provisioner.

    Attributes:
        there: Those of which the caller was told that they are there: the image of each.
    """

    def __init__(self, store: LocalStore, provisioner: Provisioner) -> None:
        super().__init__()
        self._store, self._provisioner = store, provisioner
        self.there: dict[str, str] = {}

    def provision(self, *boxes: str, image: str = "alpha") -> None:
        """Provision several at once."""
        futures = {box: provision(self._provisioner, box, image) for box in boxes}
        for box, future in futures.items():
            if self.answer(future) is not None:
                self.there[box] = image

    def destroy(self, *boxes: str) -> None:
        """Destroy several at once."""
        for box in boxes:
            self.there.pop(box, None)
        for future in [self._provisioner.destroy(box) for box in boxes]:
            self.answer(future)

    def recover(self, *known: str) -> None:
        """Recover; what was known stays so."""
        recovery = self.answer(self._provisioner.recover(known))
        if recovery is not None:
            assert {rootfs.container_id for rootfs in recovery.adopted} == set(known)

    def forget(self, image: str) -> None:
        """Remove an image, and prune."""
        self.answer(self._store.remove(f"app:{image}"))
        self.answer(self._store.prune())


OPERATIONS: dict[str, Callable[[Boxes], object]] = {
    "provision": lambda boxes: boxes.provision("box-1"),
    "provisions at once": lambda boxes: (boxes.provision("box-1", "box-2", image="beta"), boxes.provision("box-3")),
    "destroy": lambda boxes: (boxes.provision("box-1"), boxes.destroy("box-1")),
    "destroy and provision": lambda boxes: (boxes.recover("kept"), boxes.destroy("kept"), boxes.provision("kept")),
    "recover": lambda boxes: boxes.recover("kept"),
    "recover of nothing known": lambda boxes: (boxes.there.pop("kept"), boxes.recover()),
    "prune beside": lambda boxes: (boxes.provision("box-1", image="beta"), boxes.forget("beta")),
}


def provision(provisioner: Provisioner, box: str, image: str) -> Future[Any]:
    """Provision one that is files and no mount: what a power cut leaves here is a copy of the store's files."""
    return provisioner.provision(box, f"app:{image}", for_runtime=True)


def begin(directory: Path, gallery: Gallery) -> None:
    """Put what the operations find: images, and a container whose process has ended."""
    with opened(directory) as store, provisioning(store, Copy(), durable=True) as provisioner:
        for image in ("alpha", "beta"):
            store.put(f"app:{image}", gallery.archives[image]).get(timeout=TIMEOUT)
        provision(provisioner, "kept", "alpha").get(timeout=TIMEOUT)


def check_boxes(directory: Path, gallery: Gallery, there: dict[str, str]) -> None:
    """Check containers that no process has: those that must be there are, and all others go without a trace.

    Raises:
        Violation: Something does not hold.
    """
    with opened(directory) as store, provisioning(store, Copy(), durable=True) as provisioner:
        recovery = provisioner.recover(there).get(timeout=TIMEOUT)
        adopted = {rootfs.container_id: rootfs for rootfs in recovery.adopted}
        _require(set(adopted) == set(there), f"{set(there)} must be there, and it is {recovery}")
        store.prune().get(timeout=TIMEOUT)
        for box, image in there.items():
            for layer in gallery.layers[image]:
                require_whole(directory / "layers" / directory_name(layer), gallery.trees[layer])
            _require(os.listdir(adopted[box].path or "") != [], f"{box} is empty")
        left = set(os.listdir(directory / "containers")) if (directory / "containers").exists() else set()
        _require(left == set(there), f"{left - set(there)} are left")
        for box in there:
            provisioner.destroy(box).get(timeout=TIMEOUT)
    with opened(directory) as store:
        store.recover().get(timeout=TIMEOUT)
        store.swept().get(timeout=TIMEOUT)


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Violation(otherwise)
