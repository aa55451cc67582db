"""Provisioners whose backends are made for a test, and what is left of containers."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from support.processes import TIMEOUT

from pykka_imagestore import LocalStore, Provisioner
from pykka_imagestore.core.rootfs import FillPart, Reads, RootfsRequest
from pykka_imagestore.errors import RootfsError
from pykka_imagestore.provision.backends import Backends
from pykka_imagestore.provisioner import start_with
from pykka_imagestore.rootfs.backend import Backend, Mounted


@dataclass
class Plain:
    """A backend that makes an empty directory, and takes its presence for a mount.

    Attributes:
        refuses: What it says to each request.
        fails: What it raises once it has made the directory.
        begun: Set when a mount begins.
        goes_on: A mount waits for it.
        requests: What it was asked to mount.
    """

    name: str = "copy"
    reads: Reads = Reads.ANY
    refuses: str | None = None
    fails: Exception | None = None
    begun: threading.Event = field(default_factory=threading.Event)
    goes_on: threading.Event = field(default_factory=threading.Event)
    requests: list[RootfsRequest] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.goes_on.set()

    def refusal(self, _request: RootfsRequest) -> str | None:
        return self.refuses

    def parts(self, _request: RootfsRequest, _workers: int) -> tuple[FillPart, ...]:
        return ()

    def mount(self, request: RootfsRequest) -> Mounted:
        self.requests.append(request)
        place = self._place(request)
        place.mkdir()
        self.begun.set()
        assert self.goes_on.wait(TIMEOUT)
        if self.fails is not None:
            raise self.fails
        return Mounted(os.open(place, os.O_PATH | os.O_DIRECTORY), str(place) if request.attach else None)

    def unmount(self, request: RootfsRequest) -> None:
        with suppress(FileNotFoundError):
            self._place(request).rmdir()

    def is_attached(self, request: RootfsRequest) -> bool:
        return self._place(request).is_dir()

    def _place(self, request: RootfsRequest) -> Path:
        return Path(request.target or f"{request.directory}/rootfs")


def refused(container_id: str, backend: str, why: str) -> RootfsError:
    return RootfsError(container_id, ((backend, why),))


@contextmanager
def provisioning(
    store: LocalStore, *backends: Backend, owner: str = "default", durable: bool = False
) -> Iterator[Provisioner]:
    """Lend a provisioner with these backends, or a plain one."""
    with start_with(store.parts, Backends(backends or [Plain()]), owner, durable=durable) as provisioner:
        yield provisioner
